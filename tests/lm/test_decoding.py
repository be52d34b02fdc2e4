"""Continuous batching gives each row the tokens that transformers' greedy `generate` gives it alone."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import tiny_model
from transformers import GenerationConfig

from softprompt.data.collate import batch_of_ids
from softprompt.injection import Injection
from softprompt.lm import decoding, families
from softprompt.lm.causal import CausalLM
from softprompt.lm.generation import answering
from softprompt.testing.material import tiny_tokenizer

NEW = 9


def rows_of_lengths(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 90, (n,), generator=generator).tolist() for n in lengths]


def alone(lm, ids, new=NEW):
    """Let transformers answer one row, without padding, up to and with an end token."""
    with torch.no_grad():
        out = lm.model.generate(
            input_ids=torch.tensor([ids]), max_new_tokens=new, do_sample=False, pad_token_id=0,
            eos_token_id=sorted(lm.ends) or None,
        )  # fmt: skip
    return out[0, len(ids) :].tolist()


def decoded(lm, rows, new=NEW, **options):
    joining = ((i, decoding.joining(lm, ids, Injection(), new)) for i, ids in enumerate(rows))
    answers = dict(decoding.decode(lm, joining, **options))
    return [answers[i] for i in range(len(rows))]


@pytest.fixture(scope="module")
def ending(llama):
    """Return a model with end tokens that cut its answers at many lengths, and rows for it."""
    rows = rows_of_lengths([*range(1, 24), 70, 3, 41])
    lm = CausalLM(tiny_model("llama"), tiny_tokenizer(), "ending")
    counts = torch.bincount(torch.tensor([t for ids in rows for t in alone(lm, ids)]))
    lm.model.generation_config.eos_token_id = counts.argsort(descending=True)[:3].tolist()
    return lm, rows


@pytest.mark.parametrize("lines", [1, 3, 64])
def test_rows_of_many_lengths_get_their_own_tokens(ending, lines):
    lm, rows = ending
    expected = [alone(lm, ids) for ids in rows]
    assert len({len(answer) for answer in expected}) > 3  # they end at different steps
    assert decoded(lm, rows, lines=lines) == expected


def test_rows_are_taken_when_there_is_room(ending):
    lm, rows = ending
    taken = []

    def rows_as_taken():
        for i, ids in enumerate(rows):
            taken.append(i)
            yield i, decoding.joining(lm, ids, Injection(), NEW)

    answers = decoding.decode(lm, rows_as_taken(), lines=2)
    next(answers)
    assert len(taken) <= 4  # two lines, what replaced them, and one that is looked at
    assert len(list(answers)) == len(rows) - 1


def test_little_memory_runs_fewer_rows(ending, monkeypatch):
    lm, rows = ending
    monkeypatch.setattr(decoding, "free_memory", lambda device: 0)
    assert decoded(lm, rows[:6]) == [alone(lm, ids) for ids in rows[:6]]


def test_a_beginning_is_run_once(ending):
    lm, rows = ending
    begin, rests = rows[-3][:40], rows_of_lengths([1, 5, 12])
    known = decoding.beginning(lm, begin, Injection())
    joining = [
        (i, decoding.joining(lm, [*begin, *ids], Injection(), NEW, known)) for i, ids in enumerate(rests)
    ]
    assert [len(row.vectors) for _, row in joining] == [1, 5, 12]
    answers = dict(decoding.decode(lm, joining))
    assert [answers[i] for i in range(3)] == [alone(lm, [*begin, *ids]) for ids in rests]


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "gemma2", "mixtral", "bloom"])
def test_a_family_that_suits_gets_the_same_tokens(family):
    model = tiny_model(family) if family in ("gpt2", "qwen3") else families.tiny(family, 0)
    lm = CausalLM(model, tiny_tokenizer(), family)
    if not decoding.suits(lm, answering(lm, NEW)):
        assert lm.decoding.get(decoding.KIND) or "cache" in lm.spec.limits
        return
    rows = rows_of_lengths([2, 17, 9, 30, 1])
    outputs = lm.generate(batch_of_ids(rows), **answering(lm, NEW)).tolist()
    assert decoded(lm, rows) == [cut(lm, ids) for ids in outputs]


def cut(lm, ids):
    return ids[: next((n for n, token in enumerate(ids, 1) if token in lm.ends), len(ids))]


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True},
        {"num_beams": 2},
        {"repetition_penalty": 1.3},
        {"min_new_tokens": 2},
        {"eos_token_id": 5},
        {"max_length": 40},
        {"generation_config": GenerationConfig(no_repeat_ngram_size=2)},
        {"streamer": object()},
        {"use_cache": False},
    ],
)
def test_other_options_are_left_to_transformers(ending, options):
    lm, _ = ending
    assert decoding.suits(lm, answering(lm, NEW))
    assert not decoding.suits(lm, answering(lm, NEW, **options))


def test_settings_of_the_users_model_are_left_to_transformers():
    lm = CausalLM(tiny_model("llama"), tiny_tokenizer(), "penalty")
    lm.model.generation_config.repetition_penalty = 1.5
    assert not decoding.suits(lm, answering(lm, NEW))


def test_a_model_that_decodes_otherwise_is_left_to_transformers(monkeypatch):
    lm = CausalLM(tiny_model("llama"), tiny_tokenizer(), "other")
    step = decoding.Running.step
    monkeypatch.setattr(decoding.Running, "step", lambda self, ids: step(self, ids).roll(1, -1))
    assert not decoding.suits(lm, answering(lm, NEW))
