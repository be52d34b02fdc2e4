"""What depends on how long a row is, is found on load: rows end there, or the answer stays exact."""

from __future__ import annotations

import pytest
import torch

from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, Prefix, SoftTokens
from softprompt.lm import packed
from softprompt.lm.causal import CausalLM
from softprompt.lm.families import tiny
from softprompt.lm.joining import Joined, Joining
from softprompt.lm.kv_store import Running

ROPES = ("phi3 (longrope)", "llama (dynamic rope)")
BORDER = 64


def row(count: int) -> list[int]:
    return torch.randint(3, 95, (count,), generator=torch.Generator().manual_seed(count)).tolist()


@pytest.fixture(scope="module", params=ROPES)
def lm(request):
    return CausalLM(tiny(request.param), None, request.param)


def test_the_border_is_measured(lm):
    assert lm.spec.context == BORDER and "longest row" in lm.spec.limits["length"]


@torch.no_grad()
def test_rows_up_to_the_border_are_exact(lm):
    ids, targets = [row(BORDER - 4), row(3)], [row(5), [4, 8]]  # the last target is not fed
    batch = batch_of_ids(ids, targets)
    logits = lm.logits(batch)
    plain = tiny(lm.name)
    for found, own, target in zip(logits, ids, targets, strict=True):
        alone = plain(input_ids=torch.tensor([own + target[:-1]])).logits[0, len(own) - 1 :]
        torch.testing.assert_close(found[-len(target) :], alone, rtol=0, atol=1e-5 * alone.abs().max().item())
    cached = lm.logits(batch, None, lm.prefill(batch))
    torch.testing.assert_close(cached[batch.target_mask], logits[batch.target_mask], rtol=0, atol=1e-4)
    made = lm.generate(batch_of_ids(ids), max_new_tokens=5, do_sample=False).tolist()
    assert made == lm.logits(batch_of_ids(ids).with_targets(made)).argmax(-1).tolist()


def soft(lm, count: int) -> SoftTokens:
    return SoftTokens(lm.embed(torch.tensor([row(count)])), torch.ones(1, count, dtype=torch.bool))


@torch.no_grad()
@pytest.mark.parametrize(
    "attempt",
    [
        lambda lm: lm.logits(batch_of_ids([row(BORDER), [5]], [[1, 2], [3]])),
        lambda lm: lm.logits(batch_of_ids([row(BORDER - 3), [5]]), Injection(before=soft(lm, 4))),
        lambda lm: lm.logits(batch_of_ids([row(BORDER - 3), [5]]), Injection(after=soft(lm, 4))),
        lambda lm: lm.prefill(batch_of_ids([row(BORDER + 2)])),
        lambda lm: lm.generate(batch_of_ids([row(BORDER - 4), [5]]), max_new_tokens=6),
        lambda lm: lm.generate(batch_of_ids([row(BORDER - 4)]), max_length=BORDER + 9, eos_token_id=[]),
        lambda lm: lm.kv_of(row(BORDER + 1)),
        lambda lm: lm.hidden(
            torch.tensor([row(BORDER + 1)]), torch.ones(1, BORDER + 1, dtype=torch.bool), layer=1
        ),
        lambda lm: joined(lm, BORDER + 1).run(lm),
        lambda lm: Joined.run_packed(lm, [joined(lm, BORDER + 1), joined(lm, 2)]),
        lambda lm: steps(lm, BORDER - 2, 4),
    ],
    ids=["input", "soft", "after", "prefill", "new", "length", "kv_of", "hidden", "join", "packed", "steps"],
)
def test_longer_rows_are_refused(lm, attempt):
    assert packed.suits(lm)
    with pytest.raises(SoftPromptError, match="too long for this model") as caught:
        attempt(lm)
    assert "longest row" in caught.value.why and f"has {BORDER} positions" in caught.value.fix


def joined(lm, count: int) -> Joined:
    return Joined(lm, [Joining(lm.embed(torch.tensor(row(count))), 0, Injection())])


def steps(lm, count: int, new: int) -> None:
    running = Running(lm)
    running.join(joined(lm, count).run(lm), [0])
    for _ in range(new):
        running.step([7])


def test_a_prefix_takes_no_positions(lm):
    prefix = Prefix(lm.kv_of(row(9)), torch.ones(1, 9, dtype=torch.bool))
    assert lm.logits(batch_of_ids([row(BORDER)]), Injection(kv_before=prefix)).isfinite().all()


@pytest.mark.parametrize(
    ("family", "changes", "context", "limits"),
    [
        ("llama4_text", {"attention_chunk_size": 64}, 256, {}),
        ("llama4_text", {"floor_scale": 32}, 32, {"length": "floor_scale of 32"}),
        ("mistral", {"sliding_window": 64}, 256, {}),
        ("gemma3_text", {"sliding_window": 64}, 256, {}),
        ("deepseek_v32", {"index_topk": 64}, 256, {"cache": "index_topk of 64"}),
        ("deepseek_v32", {"index_topk": 512}, 256, {}),  # no row is that long
        ("llama", {}, 256, {}),
    ],
)
def test_settings_beyond_the_rows_of_the_probe(family, changes, context, limits):
    lm = CausalLM(tiny(family, **changes), None, family)
    assert lm.spec.context == context and set(lm.spec.limits) == set(limits)
    assert all(words in lm.spec.limits[what] for what, words in limits.items())
    config = lm.model.config
    assert all(getattr(config, name) == value for name, value in changes.items())  # as it was


def test_a_choice_of_keys_that_depends_on_the_length():
    """Two heads of an index score many keys 0: which of them it takes depends on how many there are."""
    lm = CausalLM(tiny("deepseek_v32", index_n_heads=2), None, "deepseek_v32")
    assert lm.logits(batch_of_ids([row(9)], [[4, 7]])).isfinite().all()
    with pytest.raises(SoftPromptError, match="cannot write text") as caught:
        lm.generate(batch_of_ids([row(9)]), max_new_tokens=2)
    assert "how many follow" in caught.value.why


def test_attention_that_only_transformers_own_functions_know(monkeypatch):
    """A stand-in: a layer that looks at the name of its attention, as some sparse ones do."""
    from transformers.models.deepseek_v32 import modeling_deepseek_v32 as code

    whole = code.DeepseekV32Indexer.forward

    def nameless(self, *args, **named):
        chosen = whole(self, *args, **named)
        ours = "softprompt" in self.config_name()
        return (
            torch.arange(args[0].shape[1], dtype=torch.int32).expand(*chosen.shape[:2], -1)
            if ours
            else chosen
        )

    model = tiny("deepseek_v32")
    monkeypatch.setattr(code.DeepseekV32Indexer, "forward", nameless)
    name = lambda self: model.config._attn_implementation  # noqa: E731
    monkeypatch.setattr(code.DeepseekV32Indexer, "config_name", name, raising=False)
    with pytest.raises(SoftPromptError, match="cannot take injected vectors"):
        CausalLM(model, None, "stand-in")
