"""Contracts 1 and 2: a row's result does not depend on the other rows of its batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from softprompt import methods
from softprompt.evaluation.likelihood import target_nll
from softprompt.evaluation.row_answers import score_candidates
from softprompt.injection import Injection, injection_rows
from softprompt.lm import causal
from softprompt.lm.apply import injection_for
from softprompt.methods.materialised import materialise
from softprompt.testing import checks

NEW = 5  # tokens generated


def test_every_method_has_a_case(request):
    """The suite covers the registry: the cases come from it, and this counts them."""
    cases = request.getfixturevalue("all_cases")
    assert {case.method for case in cases} == set(methods.METHODS) - {"none"}
    assert len(cases) == len({case.id for case in cases}) >= 2 * (len(methods.METHODS) - 1) - 1


def test_batch_invariance(family, subject):
    checks.row_alone(subject)


def test_order_of_rows_does_not_matter(lm, case, method, batch, close):
    turned = batch.select(torch.tensor([2, 0, 3, 1]))
    a = lm.logits(batch, injection_for(lm, method, batch))[[2, 0, 3, 1]]
    b = lm.logits(turned, injection_for(lm, method, turned))
    close(a[turned.target_mask], b[turned.target_mask])


def test_mixed_batch_logits(
    lm, family, case, method, batch, companions, rows_to_batch, row, unpadded, close, plain_differs
):
    """The case's four rows beside rows of other methods, kinds and lengths, and a plain one."""
    own = injection_for(lm, method, batch)
    mixed, injection = _mixed(batch, own, companions, rows_to_batch)
    logits = lm.logits(mixed, injection)
    for i in range(mixed.size):

        def alone(i=i):
            return lm.logits(row(mixed, i), _solo(own, companions, batch.size, i))[0]

        close(unpadded(logits, mixed, i), _once(alone, "logits", family, i, batch.size))
    close(unpadded(logits, mixed, mixed.size - 1), lm.logits(row(mixed, mixed.size - 1))[0])


def test_candidates(lm, family, case, method, batch, row):
    """What a row's candidates share is run once, and each scores as in a pass of its own."""
    if lm.answers != "next":
        return
    injection = injection_for(lm, method, batch)
    candidates = [[[20], [21, 22 + i], [7, 8, 9]][: 2 + i % 2] for i in range(batch.size)]
    found = score_candidates(lm, batch, injection, lm.context(batch, injection), candidates)
    for i, scores in enumerate(found):
        alone = [row(batch, i).with_targets([ids]) for ids in candidates[i]]
        own = injection.select(torch.tensor([i]))
        wanted = [-target_nll(lm.logits(one, own), one).item() for one in alone]
        assert scores == pytest.approx(wanted, rel=2e-4, abs=2e-4)


def test_mixed_batch_generate(lm, family, case, method, batch, companions, rows_to_batch, row, generates):
    own = injection_for(lm, method, batch)
    if not generates(own) or not generates(companions):
        return
    mixed, injection = _mixed(batch, own, companions, rows_to_batch)
    how = {"max_new_tokens": NEW, "do_sample": False}
    made = lm.generate(mixed, injection, **how)
    assert made.shape == (mixed.size, NEW)
    for i in range(mixed.size):

        def alone(i=i):
            return lm.generate(row(mixed, i), _solo(own, companions, batch.size, i), **how)[0].tolist()

        assert made[i].tolist() == _once(alone, "tokens", family, i, batch.size)

    def plain():
        return lm.generate(row(mixed, mixed.size - 1), **how)[0].tolist()

    assert made[-1].tolist() == _once(plain, "plain tokens", family, mixed.size, batch.size)


_found: dict[tuple, Any] = {}


def _once(compute: Callable[[], Any], what: str, family: str, index: int, own: int) -> Any:
    """A row alone; the companions (from row `own` on) are the same beside every case of a family."""
    if index < own:
        return compute()
    key = (what, family, index)
    if key not in _found:
        with torch.no_grad():
            _found[key] = compute()
    return _found[key]


WAYS = {
    "dynamic cache": {},
    "static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
    "beams": {"num_beams": 2},
    "beams, static cache": {"num_beams": 2, "cache_implementation": "static"},
}


@pytest.mark.parametrize("way", WAYS)
def test_all_methods_in_one_batch(lm, family, way, family_cases, build, batch, rows_to_batch, row, generates):
    """A row of every case, and a plain one, in every way of decoding that transformers has for the family."""
    supported(lm, batch, WAYS[way])
    injections, inputs, prompts = [], [], []
    for i, case in enumerate(family_cases):
        single = row(batch, i % batch.size)
        injection = injection_for(lm, build(lm, case, seed=i), single)
        if not generates(injection):
            continue
        injections.append(injection)
        inputs.append(single.input_ids[0].tolist())
        prompts.append(int(single.prompt_ids[0]))
    injections.append(Injection())
    kinds = [[*injection.channels()] for injection in injections]
    mixed = rows_to_batch([*inputs, [3, 4, 5]], None, [*prompts, 0])
    options = {"max_new_tokens": NEW, "do_sample": False}
    made = lm.generate(mixed, Injection.cat(injections), **options, **WAYS[way])
    plain = lm.generate(mixed, **options, **WAYS[way])
    assert made.shape == (mixed.size, NEW)
    # not every random prompt changes a greedy token (a recurrent state forgets its beginning), but many do
    assert (made != plain).any(1).float().mean() > 1 / 3
    assert made[-1].tolist() == plain[-1].tolist()
    beams = WAYS[way].get("num_beams", 1)
    for i, injection in enumerate(injections):

        def alone(i=i, injection=injection):
            return lm.generate(row(mixed, i), injection, **options, num_beams=beams)[0].tolist()

        assert made[i].tolist() == _once(alone, f"{beams} beams", family, i, 0), f"row {i}: {kinds[i]}"


def supported(lm, batch, how) -> None:
    """Skips what transformers itself cannot do with the plain model."""
    try:
        lm.model.generate(
            input_ids=batch.input_ids, attention_mask=batch.input_mask.long(), max_new_tokens=2, **how
        )
    except (ValueError, TypeError, AttributeError, NotImplementedError, RuntimeError) as error:
        pytest.skip(f"the plain model cannot: {type(error).__name__}: {str(error)[:80]}")


def test_sampling_several_returns(lm, family, case, method, batch, generates):
    torch.manual_seed(0)
    injection = injection_for(lm, method, batch)
    if not generates(injection):
        return
    made = lm.generate(batch, injection, max_new_tokens=NEW, do_sample=True, num_return_sequences=3)
    assert made.shape == (3 * batch.size, NEW)
    assert made.min() >= 0 and made.max() < lm.spec.vocab_size


def test_one_row_serves_a_batch(lm, family, case, method, rows_to_batch, close, generates):
    """A materialised prompt gives one row for a batch of one prompt id; it is the same as its copies."""
    static = materialise(method)
    if static is None:
        assert method.reads is not None  # made from the input: nothing to share
        return
    batch = rows_to_batch([[5, 6, 7], [9], [11, 12]], [[1], [2, 3], [4]], [1, 1, 1])
    single = static(batch.prompt_ids)
    assert injection_rows(single) == 1
    close(lm.logits(batch, single), lm.logits(batch, Injection.cat([single] * 3)))
    if not generates(single):
        return
    a = lm.generate(batch, single, max_new_tokens=3, do_sample=False)
    assert torch.equal(a, lm.generate(batch, single.repeat_rows(3), max_new_tokens=3, do_sample=False))


def _mixed(batch, own, companions, rows_to_batch):
    def unpad(ids, mask):
        return [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]

    others = [[31, 32, 33, 34, 35, 36], [77], [50, 51], [15, 14, 13], [40, 41, 42, 43]]
    mixed = rows_to_batch(
        [*unpad(batch.input_ids, batch.input_mask), *others],
        [*unpad(batch.target_ids, batch.target_mask), [1, 2], [3], [4, 5, 6], [7], [8, 9]],
    )
    return mixed, Injection.cat([own, companions])


def _solo(own, companions, count, index):
    source, place = (own, index) if index < count else (companions, index - count)
    return source.select(torch.tensor([place]))


def test_one_prompt_serves_all_rows_as_a_copy_for_each(
    lm, family, case, method, batch, rows_to_batch, close, monkeypatch
):
    """What does not depend on the row, the prompt and what all inputs begin with, is run once."""
    monkeypatch.setattr(causal, "WORTH_A_PASS", 1)
    if method.reads is not None:
        return
    one = method(batch.prompt_ids[:1])
    copies = one.fit(batch.size).map_rows(lambda tensor: tensor.clone())
    inputs = [[5, 6, 7, 8, 9], [5, 6, 7, 9], [5, 6, 7, 30, 31, 32], [5, 6, 7, 8]]
    begun = rows_to_batch(inputs, [[1, 2], [3], [4, 5, 6], [7]])
    for rows in (batch, begun):
        with torch.no_grad():
            wanted = lm.logits(rows, copies)[rows.target_mask]
            close(lm.logits(rows, one)[rows.target_mask], wanted)
            context = lm.context(rows, one)
            close(lm.logits(rows, one, context)[rows.target_mask], wanted)
