"""Several turns on one cache equal the conversation computed anew, or are refused."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, LogitsProcessor, StaticCache

from softprompt.injection import Injection, Prefix, SoftTokens
from softprompt.lm.families import DECODERS, ENCODER_DECODERS

FIRST, THEN = [[5, 17, 80, 33, 9], [60, 61]], [[[7, 8, 44], [12, 90, 33]], [[21], [70]]]
HOW = {"max_new_tokens": 4, "do_sample": False}
NO_PREFIX = ("mamba", "mamba2", "bloom", "falcon", "mpt")
# what transformers itself cannot do: keep one cache (mamba), continue from it by many tokens (jamba), start
# a cache of one's own (mpt), generate from soft tokens (bamba, falcon_h1)
NO_TURNS = ("mamba", "mamba2", "jamba", "mpt")
NO_SOFT = ("bamba", "falcon_h1")


class Scores(LogitsProcessor):
    """Changes nothing and keeps every step's logits."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids, scores):
        self.steps.append(scores.clone())
        return scores


@pytest.fixture
def injections(setting, perturb):
    """`injections(lm)`: by name, everything that may precede the input on this model."""

    def make(lm):
        mask = torch.ones(1, 3, dtype=torch.bool)
        made = {"none": Injection()}
        if lm.spec.family not in NO_SOFT:
            vectors = lm.embed(torch.tensor([[9, 10, 11]])) * 1.5
            made["before"] = Injection(before=SoftTokens(vectors, mask))
        if lm.spec.family not in NO_PREFIX:
            from softprompt import methods

            made["kv_before"] = Injection(kv_before=Prefix(lm.kv_of([9, 10, 11]), mask))
            adapter = perturb(methods.build("llama-adapter", setting(lm), {"length": 3, "top_layers": 2}))
            made["adapter"] = adapter(torch.tensor([0]))
        return made

    return make


def empty_cache(lm, kind):
    if kind == "static":
        return StaticCache(config=lm.model.config, max_cache_len=64)
    return DynamicCache(config=lm.model.config)


def assert_turns_equal_anew(lm, injection, cache, rows_to_batch, close):
    rows = FIRST
    for output in [None, *THEN]:
        if output is not None:
            rows = [row + more for row, more in zip(rows, output, strict=True)]
        anew, kept = Scores(), Scores()
        made = lm.generate(rows_to_batch(rows), injection, logits_processor=[anew], **HOW)
        again = lm.generate(
            rows_to_batch(rows), injection, past_key_values=cache, logits_processor=[kept], **HOW
        )
        assert torch.equal(made, again)
        for a, b in zip(kept.steps, anew.steps, strict=True):
            close(a, b)
        rows = [row + new for row, new in zip(rows, made.tolist(), strict=True)]
    assert cache.get_seq_length() > len(FIRST[0]) + 3 * 4  # the conversation continued on it


@pytest.mark.parametrize("family", [f for f in DECODERS if f not in NO_TURNS])
def test_turns_on_one_cache_equal_the_conversation_computed_anew(
    family, lms, injections, rows_to_batch, close
):
    lm = lms(family)
    for injection in injections(lm).values():
        assert_turns_equal_anew(lm, injection, empty_cache(lm, "dynamic"), rows_to_batch, close)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_turns_on_a_static_cache(family, lms, injections, rows_to_batch, close):
    lm = lms(family)
    for injection in injections(lm).values():
        assert_turns_equal_anew(lm, injection, empty_cache(lm, "static"), rows_to_batch, close)


def test_what_would_not_be_the_conversation_is_refused(llama, injections, rows_to_batch, refused):
    injection = injections(llama)["before"]
    cache = empty_cache(llama, "dynamic")
    made = llama.generate(rows_to_batch(FIRST), injection, past_key_values=cache, **HOW).tolist()
    messages = [row + new for row, new in zip(FIRST, made, strict=True)]

    def turn(rows, injection=injection, cache=cache):
        refused(lambda: llama.generate(rows_to_batch(rows), injection, past_key_values=cache, **HOW), word)

    word = "another text"
    turn([[*messages[0], 7], [*messages[1][:-3], 99, *messages[1][-2:], 7]])
    turn([[*row, 7] for row in FIRST])
    word = "its rows are aligned"
    turn([[*messages[0], 7], [*messages[1], 7, 8]])
    turn([row[:-1] for row in messages])
    word = "another prompt"
    turn([[*row, 7] for row in messages], Injection())
    other = SoftTokens(injection.before.vectors * 2, injection.before.mask)
    turn([[*row, 7] for row in messages], Injection(before=other))
    made = injections(llama)
    turn([[*row, 7] for row in messages], made["kv_before"])
    prefixed = empty_cache(llama, "dynamic")
    new = llama.generate(rows_to_batch(FIRST), made["kv_before"], past_key_values=prefixed, **HOW).tolist()
    rows = [[*row, *more, 7] for row, more in zip(FIRST, new, strict=True)]
    layers = made["kv_before"].kv_before.layers
    louder = tuple(layer.map(lambda t: t * 2) for layer in layers)
    turn(rows, Injection(kv_before=Prefix(louder, made["kv_before"].kv_before.mask)), prefixed)
    turn(rows, made["adapter"], prefixed)
    word = "after the input"
    turn([[*row, 7] for row in messages], Injection(after=injection.before))
    turn([[*row, 7] for row in messages], Injection(kv_after=injections(llama)["kv_before"].kv_before))
    word = "not known what this cache holds"
    turn([messages[0] + [7]])
    theirs = llama.model(input_ids=torch.tensor([FIRST[0]]), use_cache=True).past_key_values
    turn([FIRST[0] + [7]], cache=theirs)
    beams = empty_cache(llama, "dynamic")
    llama.generate(rows_to_batch(FIRST), injection, past_key_values=beams, num_beams=2, **HOW)
    turn([[*row, 7] for row in messages], cache=beams)


def test_a_row_that_ended_early_is_refused(llama, rows_to_batch, refused):
    """Its cache holds the padding that was written behind its end."""
    plain = llama.generate(rows_to_batch(FIRST), **HOW).tolist()
    end = next(token for token in plain[0] if token not in plain[1])
    cache = empty_cache(llama, "dynamic")
    made = llama.generate(
        rows_to_batch(FIRST), past_key_values=cache, eos_token_id=end, pad_token_id=96, **HOW
    ).tolist()
    assert made[1] == plain[1] and made[0][-1] == 96
    ended = made[0][: made[0].index(end) + 1]
    rows = [[*FIRST[0], *ended, 7, 8, 44], [*FIRST[1], *made[1], 7]]
    refused(lambda: llama.generate(rows_to_batch(rows), past_key_values=cache, **HOW), "another text")


def test_models_that_do_not_go_on_are_refused(lms, rows_to_batch, refused):
    lm = lms("jamba")
    cache = empty_cache(lm, "dynamic")
    made = lm.generate(rows_to_batch(FIRST), past_key_values=cache, **HOW).tolist()
    rows = [[*row, *new, 7, 8] for row, new in zip(FIRST, made, strict=True)]
    refused(
        lambda: lm.generate(rows_to_batch(rows), past_key_values=cache, **HOW),
        "jamba",
        "start from the beginning",
    )


@pytest.mark.parametrize("family", list(ENCODER_DECODERS))
def test_encoder_decoders_have_no_second_turn(family, lms, rows_to_batch, refused):
    from transformers import EncoderDecoderCache

    lm = lms(family)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    lm.generate(rows_to_batch(FIRST), past_key_values=cache, **HOW)
    refused(lambda: lm.generate(rows_to_batch(FIRST), past_key_values=cache, **HOW), "turn's input")
