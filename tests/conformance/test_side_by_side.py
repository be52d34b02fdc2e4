"""Rows decoded side by side get the tokens of padded batches, under every method and on every family."""

from __future__ import annotations

import pytest
import torch

from softprompt import methods
from softprompt.data.example import Example
from softprompt.data.template import Rendered
from softprompt.evaluation import writing
from softprompt.evaluation.writing import written
from softprompt.lm import decoding, held_weights
from softprompt.lm.generation import answering

NEW = 6
LENGTHS = (1, 12, 3, 25, 7, 2, 12, 31, 5, 18)
BEGINNING = tuple(range(40, 62))  # of some rows of each prompt
ENDS = list(range(3, 90, 6))  # tokens that end an answer


@pytest.fixture
def examples():
    """Return rows of two prompts in turn; those of the second all begin with the same tokens."""
    generator = torch.Generator().manual_seed(5)
    rows = []
    for number, length in enumerate(LENGTHS):
        own = tuple(torch.randint(3, 90, (length,), generator=generator).tolist())
        ids = (*BEGINNING, *own) if number % 2 else own
        text = Rendered(" ".join(f"w{i}" for i in ids), "", None, None, (), {})
        rows.append(Example(ids, (), number % 2, text, None))
    return rows


def both(lm, method, examples, monkeypatch):
    """Return the answers in padded batches and side by side, each up to and with its end token."""
    batches = [[0, 3, 5, 9], [1, 2, 4], [6, 7, 8]]
    options = answering(lm, NEW)
    answers = []
    for suits in (lambda *_: False, decoding.suits):
        monkeypatch.setattr(writing.decoding, "suits", suits)
        tokens = {}
        for numbers, output in written(lm, method, examples, batches, options):
            tokens.update(zip(numbers, output, strict=True))
        answers.append([_cut(tokens[i], lm.ends) for i in range(len(examples))])
    return answers


def _cut(ids, ends):
    return ids[: next((n for n, token in enumerate(ids, 1) if token in ends), len(ids))]


@pytest.fixture
def with_ends(monkeypatch):
    """Give a model end tokens for a moment, which end rows at different steps."""

    def change(lm):
        monkeypatch.setattr(lm.model.generation_config, "eos_token_id", ENDS)

    return change


def test_every_method(lm, case, method, examples, with_ends, monkeypatch):
    with_ends(lm)
    assert decoding.suits(lm, answering(lm, NEW))
    padded, side_by_side = both(lm, method, examples, monkeypatch)
    assert side_by_side == padded
    assert len({len(answer) for answer in padded}) > 1  # rows end at different steps


@pytest.mark.parametrize("held", [False, True])
def test_every_family(lm, family, held, examples, setting, with_ends, monkeypatch):
    if lm.spec.kind != "decoder":
        assert not decoding.suits(lm, answering(lm, NEW))
        return
    with_ends(lm)
    if held:  # weights in the form that decoding holds of large models
        monkeypatch.setattr(held_weights, "LEAST", 0)
        monkeypatch.setattr(decoding, "HELD", 1)
        monkeypatch.setattr(lm, "is_loaded_here", True)
    padded, side_by_side = both(lm, methods.build("none", setting(lm)), examples, monkeypatch)
    assert side_by_side == padded
    if not {"cache", "prefix", "generate"} & set(lm.spec.limits):
        assert lm.decoding[decoding.KIND] == ""
