"""Rows longer than a model's chunk, window or choice of keys: what holds for short rows holds for them."""

from __future__ import annotations

import pytest
import torch

from softprompt.data.collate import batch_of_ids
from softprompt.injection import Injection, Prefix, SoftTokens
from softprompt.lm.causal import CausalLM
from softprompt.lm.families import LENGTHS, tiny
from softprompt.lm.joining import Joined, Joining
from softprompt.lm.kv_store import Running

GENERATOR = torch.Generator().manual_seed(3)
ROWS = [torch.randint(3, 95, (n,), generator=GENERATOR).tolist() for n in (23, 2, 11)]
TARGETS = [torch.randint(3, 95, (n,), generator=GENERATOR).tolist() for n in (9, 1, 4)]
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=LENGTHS)
def lm(request):
    return CausalLM(tiny(request.param), None, request.param)


@pytest.fixture(params=["none", "soft before", "soft after", "prefix before", "prefix after"])
def injection(request, lm):
    real = torch.ones(1, 3, dtype=torch.bool)
    soft = SoftTokens(1.5 * lm.embed(torch.tensor([[9, 10, 11]])), real)
    prefix = Prefix(lm.kv_of([9, 10, 11]), real)
    return {
        "none": Injection(),
        "soft before": Injection(before=soft),
        "soft after": Injection(after=soft),
        "prefix before": Injection(kv_before=prefix),
        "prefix after": Injection(kv_after=prefix),
    }[request.param]


def near(found, expected) -> None:
    assert (found - expected).abs().max() < TOLERANCE * expected.abs().max()


@torch.no_grad()
def test_plain_rows_are_those_of_transformers(lm):
    logits = lm.logits(batch_of_ids(ROWS, TARGETS))
    model = tiny(lm.name)
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    for found, row, target in zip(logits, ROWS, TARGETS, strict=True):
        alone = model(input_ids=torch.tensor([row + target]), use_cache=False).logits[0]
        near(found[-len(target) :], alone[len(row) - 1 : -1])


@torch.no_grad()
def test_a_row_alone_cached_and_decoded(lm, injection):
    batch = batch_of_ids(ROWS, TARGETS)
    logits = lm.logits(batch, injection)
    for found, row, target in zip(logits, ROWS, TARGETS, strict=True):
        near(found[-len(target) :], lm.logits(batch_of_ids([row], [target]), injection)[0])
    if "cache" not in lm.spec.limits:
        cached = lm.logits(batch, injection, lm.prefill(batch, injection))
        near(cached[batch.target_mask], logits[batch.target_mask])
    made = lm.generate(batch, injection, max_new_tokens=8, do_sample=False).tolist()
    again = lm.logits(batch.with_targets(made), injection).argmax(-1).tolist()
    assert made == again


@torch.no_grad()
def test_rows_held_from_step_to_step(lm, injection):
    """A server decodes a token a step, with all earlier tokens in one store."""
    if "cache" in lm.spec.limits:
        pytest.skip(lm.spec.limits["cache"])
    rows = []
    for row in ROWS:
        parts = [lm.embed(torch.tensor(row))]
        if injection.before is not None:
            parts.insert(0, injection.before.vectors[0])
        if injection.after is not None:
            parts.append(injection.after.vectors[0])
        after = 0 if injection.after is None else 3
        rest = Injection(kv_before=injection.kv_before, kv_after=injection.kv_after)
        rows.append(Joining(torch.cat(parts), after, rest))
    joined, running = Joined(lm, rows).run(lm), Running(lm)
    running.join(joined, range(len(rows)))
    ids = [[int(i)] for i in joined.logits[:, -1].argmax(-1)]
    for _ in range(8):
        logits = running.step([row[-1] for row in ids])
        expected = lm.logits(batch_of_ids(ROWS).with_targets([[*row, 0] for row in ids]), injection)[:, -1]
        near(logits, expected)
        for row, best in zip(ids, logits.argmax(-1).tolist(), strict=True):
            row.append(best)


@torch.no_grad()
def test_a_prefix_of_a_text_stands_for_it(lm):
    """Where nothing limits what is seen: a prefix is seen at any distance, a text is not."""
    whole = lm.logits(batch_of_ids([ROWS[1] + ROWS[2][:2]], [[5, 6]]))
    prefix = Prefix(lm.kv_of(ROWS[1]), torch.ones(1, 2, dtype=torch.bool))
    near(lm.logits(batch_of_ids([ROWS[2][:2]], [[5, 6]]), Injection(kv_before=prefix)), whole)
