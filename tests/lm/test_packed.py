"""Rows of unlike lengths in one pass of the model get what each gets alone."""

from __future__ import annotations

import pytest
import torch

from softprompt.injection import Injection, Prefix
from softprompt.lm import packed
from softprompt.lm.families import DECODERS
from softprompt.lm.joining import Joined, Joining

#: Their attention is not ours to take apart: no fused one, scores changed on the way, or states beside it.
NOT_PACKED = {"gemma2", "gptj", "gpt_neo", "gpt_oss"} | {
    *("qwen3_next", "jamba", "granitemoehybrid", "bamba", "falcon_h1"),
    *("mamba", "mamba2", "bloom", "falcon", "mpt"),
}
PACKED = [family for family in DECODERS if family not in NOT_PACKED]
LENGTHS = ((6, 6), (9, 8), (1,), (3, 3, 3))  # of the rows of each batch; one has padding


def rows_of(lm) -> list[list[Joining]]:
    """Plain rows, rows under prefixes of unlike lengths before and behind the input, and with a context."""
    draw = torch.Generator().manual_seed(1)

    def ids(count: int) -> torch.Tensor:
        return torch.randint(3, 90, (count,), generator=draw)

    def prefix(count: int) -> Prefix:
        return Prefix(lm.kv_of(ids(count).tolist()), torch.ones(1, count, dtype=torch.bool))

    def row(length: int, kind: int) -> Joining:
        vectors, injection, after = lm.token_inputs(ids(length)).detach(), Injection(), 0
        if kind == 1:
            injection = Injection(kv_before=prefix(3))
        elif kind == 2 and length > 1:
            injection, after = Injection(kv_before=prefix(2), kv_after=prefix(5)), 1
        elif kind == 3:
            before = Joined(lm, [Joining(lm.token_inputs(ids(7)).detach(), 0, Injection())]).run(lm)
            return Joining(vectors, 0, injection, before.context(0, 0, 7))
        return Joining(vectors, after, injection)

    kinds = iter((0, 0, 2, 1, 3, 1, 0, 2))
    return [[row(length, next(kinds)) for length in lengths] for lengths in LENGTHS]


@pytest.mark.parametrize("family", DECODERS)
def test_who_is_packed(family, lms):
    assert packed.suits(lms(family)) is (family not in NOT_PACKED)


@torch.no_grad()
@pytest.mark.parametrize("family", PACKED)
def test_each_row_gets_what_it_gets_alone(family, lms, close):
    lm = lms(family)
    batches = rows_of(lm)
    together = [Joined(lm, batch) for batch in batches]
    Joined.run_packed(lm, together)
    for batch, made in zip(batches, together, strict=True):
        for i, row in enumerate(batch):
            alone = Joined(lm, [row]).run(lm)
            close(made.logits[i], alone.logits[0])
            width = len(row.vectors)
            for ours, theirs in zip(made.recorded, alone.recorded, strict=True):
                close(ours.key[i, :, -width:], theirs.key[0])
                close(ours.value[i, :, -width:], theirs.value[0])


def test_a_model_that_mixes_positions_is_found_out(new_lm):
    lm = new_lm("llama")
    assert packed.suits(lm)
    lm.model.model.layers[1].mlp.register_forward_hook(lambda module, given, out: out.cumsum(1))
    assert not packed.suits(lm)


def test_a_model_that_wants_whole_rows_is_found_out(new_lm):
    lm = new_lm("llama")

    def refuse(module, given):
        if len(given[0]) == 1 and given[0].shape[1] == sum(packed.TRIED):
            raise ValueError("rows of this length are not taken")

    lm.model.model.layers[0].mlp.register_forward_pre_hook(refuse)
    assert not packed.suits(lm)
