"""Contracts 1 to 3 on batches that nobody thought of: drawn shapes, paddings, and prompts of all kinds.

A drawn row has its tokens anywhere among its columns (padding left, right, and holes between them), and no
injection, or one or two of them. Drawn once and for all (derandomize): a failure is the same for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softprompt.data.collate import Batch, batch_of_ids, pad_left
from softprompt.injection import Injection, LayerKV, Prefix, SoftTokens

pytestmark = pytest.mark.slow

DECODERS = ("llama", "gpt2", "mistral")
NEW = 4
VOCABULARY = 97
few = settings(max_examples=40, derandomize=True, deadline=None, database=None)

ids = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=9)
KINDS = ("before", "after", "kv_before", "kv_after", "adapter")


@dataclass(frozen=True)
class Row:
    input: list[int]
    target: list[int]
    gaps: list[int]  # columns without a token ahead of each token, and behind the last
    channels: dict[str, list[int]]  # of each kind of injection, the words that it is made of


@st.composite
def rows(draw) -> list[Row]:
    def row() -> Row:
        own = draw(ids)
        gaps = draw(st.lists(st.integers(0, 2), min_size=len(own) + 1, max_size=len(own) + 1))
        channels = draw(st.dictionaries(st.sampled_from(KINDS), ids, max_size=2))
        return Row(own, draw(st.lists(st.integers(1, 90), min_size=1, max_size=3)), gaps, channels)

    return [row() for _ in range(draw(st.integers(1, 4)))]


def batch_of(drawn: list[Row]) -> Batch:
    """The rows with their gaps; only targets stand at the right."""
    width = max(len(row.input) + sum(row.gaps) for row in drawn)
    tokens = torch.full((len(drawn), width), 50)  # padding that would matter if it were seen
    mask = torch.zeros(len(drawn), width, dtype=torch.bool)
    for i, row in enumerate(drawn):
        column = -1
        for token, gap in zip(row.input, row.gaps, strict=False):
            column += gap + 1
            tokens[i, column], mask[i, column] = token, True
    targets, target_mask = pad_left([row.target for row in drawn])
    return Batch(tokens, mask, targets, target_mask, torch.zeros(len(drawn), dtype=torch.long))


def injection_of(lm, row: Row) -> Injection:
    parts = {}
    for kind, words in row.channels.items():
        mask = torch.ones(1, len(words), dtype=torch.bool)
        if kind in ("before", "after"):
            parts[kind] = SoftTokens(1.3 * lm.embed(torch.tensor([words])).detach(), mask)
            continue
        layers = list(lm.kv_of(words))
        if kind == "adapter":
            layers = [gated(layer, spec) for layer, spec in zip(layers, lm.spec.layers, strict=True)]
        elif kind == "kv_after" and lm.spec.kind == "encoder-decoder":  # the encoder does not see it
            found = zip(layers, lm.spec.layers, strict=True)
            layers = [kv if spec.stack != "encoder" else None for kv, spec in found]
        parts[kind] = Prefix(tuple(layers), mask)
    return Injection(**parts)


def gated(layer: LayerKV, spec) -> LayerKV:
    return LayerKV(layer.key, layer.value, torch.linspace(-0.5, 0.9, spec.heads)[None])


def alone(row: Row) -> Batch:
    return batch_of_ids([row.input], [row.target])


@pytest.mark.parametrize("family", [*DECODERS, "t5"])
@given(drawn=rows())
@few
def test_a_row_has_the_logits_it_has_alone(lms, close, family, drawn):
    lm = lms(family)
    injections = [injection_of(lm, row) for row in drawn]
    with torch.no_grad():
        together = lm.logits(batch_of(drawn), Injection.cat(injections))
        for i, (row, injection) in enumerate(zip(drawn, injections, strict=True)):
            close(together[i, -len(row.target) :], lm.logits(alone(row), injection)[0])


@pytest.mark.parametrize("family", [*DECODERS, "t5"])
@given(drawn=rows())
@few
def test_a_row_has_the_text_it_has_alone(lms, family, drawn):
    lm = lms(family)
    injections = [injection_of(lm, row) for row in drawn]
    made = lm.generate(batch_of(drawn), Injection.cat(injections), max_new_tokens=NEW, do_sample=False)
    with torch.no_grad():
        for ids, row, injection in zip(made.tolist(), drawn, injections, strict=True):
            # greedy: each token is the likeliest after those before it
            logits = lm.logits(alone(replace(row, target=ids)), injection)[0]
            assert ids == logits.argmax(-1).tolist()


@pytest.mark.parametrize("family", DECODERS)
@given(drawn=rows())
@few
def test_cached_equals_full(lms, close, family, drawn):
    lm = lms(family)
    injection = Injection.cat([injection_of(lm, row) for row in drawn])
    batch = batch_of(drawn)
    with torch.no_grad():
        full = lm.logits(batch, injection)
        cached = lm.logits(batch, injection, lm.prefill(batch, injection))
    close(cached[batch.target_mask], full[batch.target_mask])


@pytest.mark.parametrize("head", [None, "sequence", "tokens"])
@given(drawn=rows())
@few
def test_an_encoders_row_has_the_logits_it_has_alone(encoders, close, head, drawn):
    lm = encoders("bert", head)
    injections = [injection_of(lm, row) for row in drawn]
    places = [[t % len(row.input) for t in row.target] for row in drawn]
    together = replace(batch_of(drawn), places=pad_left(places)[0])
    with torch.no_grad():
        logits = lm.logits(together, Injection.cat(injections))
        for i, (row, injection) in enumerate(zip(drawn, injections, strict=True)):
            single = replace(alone(row), places=torch.tensor([places[i]]))
            own = lm.logits(single, injection)[0]
            close(logits[i, -own.shape[0] :], own)
