"""A checkpoint's own generation settings: neutral unless asked for, but for tokens and beginnings."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import tiny_model, tiny_tokenizer
from transformers import GenerationConfig

from softprompt.data.encode import Encoder
from softprompt.data.task import ModelSide
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError
from softprompt.evaluation.answering import checked
from softprompt.lm import families
from softprompt.lm.causal import CausalLM
from softprompt.lm.generation import answering
from softprompt.lm.seq2seq import Seq2SeqLM
from softprompt.lm.settings import notes
from softprompt.serve.engine import Engine
from softprompt.serve.registry import Registry
from softprompt.serve.request import Request, Sampling, Token

ROWS = [[5, 6, 7, 8, 5, 6], [9, 4], [30, 31, 32]]
SETTINGS = {
    "repetition_penalty": 5.0,
    "encoder_repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(0, 90)),
    "begin_suppress_tokens": list(range(0, 90)),
    "bad_words_ids": [[i] for i in range(80)],
    "sequence_bias": [[[3], 100.0]],
    "exponential_decay_length_penalty": [1, 50.0],
    "forced_eos_token_id": 96,
    "min_length": 30,
    "min_new_tokens": 5,
    "max_length": 3,
    "max_time": 0.0,
    "stop_strings": ["a", "b"],
    "num_beams": 3,
    "length_penalty": 3.0,
    "early_stopping": True,
    "do_sample": True,
    "temperature": 50.0,
    "top_k": 3,
    "min_p": 0.1,
    "guidance_scale": 3.0,
    "num_return_sequences": 2,
    "token_healing": True,
    "prefill_chunk_size": 2,
    "cache_implementation": "quantized",
    "renormalize_logits": True,
    "watermarking_config": {"greenlist_ratio": 0.25, "bias": 50.0},
}
NEW = 6


def wrapped(family, settings=None, **more):
    """A tiny model that ships these settings, as our wrapper takes it."""
    if family == "llama":
        model = tiny_model("llama", eos_token_id=96)
    else:
        model = families.tiny(family, eos_token_id=96)
        model.generation_config.decoder_start_token_id = 1
    model.generation_config.eos_token_id = 96
    for name, value in {**(settings or {}), **more}.items():
        setattr(model.generation_config, name, value)
    return (CausalLM if family == "llama" else Seq2SeqLM)(model, tiny_tokenizer(), f"tiny-{family}")


@pytest.fixture(scope="module", params=["llama", "bart", "t5"])
def pair(request):
    """A model without settings, and the same with all of them."""
    return wrapped(request.param), wrapped(request.param, SETTINGS)


def test_what_a_checkpoint_ships_does_not_rule_answers(pair, rows_to_batch):
    plain, other = pair
    batch = rows_to_batch(ROWS)
    expected = plain.generate(batch, **answering(plain, NEW))
    assert torch.equal(other.generate(batch, **answering(other, NEW)), expected)
    assert other.inherited.keys() == SETTINGS.keys() and not plain.inherited


@pytest.mark.parametrize(
    "name", ["repetition_penalty", "no_repeat_ngram_size", "suppress_tokens", "num_beams"]
)
def test_a_setting_counts_for_whoever_asks(name, rows_to_batch):
    plain, other = wrapped("llama"), wrapped("llama", SETTINGS)
    value = {name: SETTINGS[name]}
    for row in ROWS:
        theirs = plain.model.generate(
            torch.tensor([row]), attention_mask=torch.ones(1, len(row)), max_new_tokens=NEW, **value
        )[:, len(row) :]
        batch = rows_to_batch([row])
        how = answering(other, NEW)
        asked = {name: other.inherited[name]}
        assert torch.equal(other.generate(batch, **how, **asked), theirs)
        given = answering(other, NEW, generation_config=GenerationConfig(**value))
        assert torch.equal(other.generate(batch, **given), theirs)


def test_a_wrapped_model_may_be_wrapped_again(rows_to_batch):
    first = wrapped("bart", SETTINGS, forced_bos_token_id=7)
    again = Seq2SeqLM(first.model, first.tokenizer, "again")
    assert again.inherited == first.inherited and again.forced == first.forced == (7,)


# --- what a decoder begins with ---


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_forced_token_stands_ahead_of_every_target(family, rows_to_batch, close):
    """Training's logits are the model's own behind [start, forced]; generation continues from there."""
    lm = wrapped(family, forced_bos_token_id=7)
    targets = [[11, 12, 13], [14], [15, 16]]
    logits = lm.logits(rows_to_batch(ROWS, targets))
    for row, target, found in zip(ROWS, targets, logits, strict=True):
        with torch.no_grad():
            own = lm.model(
                input_ids=torch.tensor([row]), decoder_input_ids=torch.tensor([[1, 7, *target[:-1]]])
            ).logits[0, 1:]
        close(found[-len(target) :], own)
    made = lm.generate(rows_to_batch(ROWS), **answering(lm, NEW))
    assert made.shape[1] <= NEW
    for row, tokens in zip(ROWS, made.tolist(), strict=True):
        written = tokens[: tokens.index(96) + 1] if 96 in tokens else tokens
        own = lm.logits(rows_to_batch([row], [written]))[0]
        assert own.argmax(-1).tolist() == written


def test_generation_is_transformers_own_with_the_forced_token(rows_to_batch):
    """As an exported prompt runs elsewhere: transformers forces the token itself."""
    lm = wrapped("bart", forced_bos_token_id=7)
    ours = lm.generate(rows_to_batch([ROWS[0]]), **answering(lm, NEW))[0].tolist()
    theirs = lm.model.generate(
        torch.tensor([ROWS[0]]), forced_bos_token_id=7, decoder_start_token_id=1, max_new_tokens=NEW + 1
    )[0].tolist()
    assert theirs[:2] == [1, 7] and theirs[2:] == ours


def test_the_language_that_the_tokenizer_writes_stands_ahead_of_every_target():
    class Speaks:
        """As NLLB's: the language's code ahead of a target."""

        tgt_lang, eos_token_id = "fra", 96

        def __call__(self, text="", text_target=None, add_special_tokens=True):
            return {"input_ids": [50, 3, 96] if text_target else [3]}

    class Silent(Speaks):
        tgt_lang = None

    model = families.tiny("bart", eos_token_id=96)
    model.generation_config.decoder_start_token_id = 96
    assert Seq2SeqLM(model, Speaks(), "nllb").forced == (50,)  # type: ignore[arg-type]
    assert Seq2SeqLM(model, Silent(), "nllb").forced == ()  # type: ignore[arg-type]
    assert "tgt_lang" in notes({}, [], Silent())[0]


# --- ends ---


def test_every_end_token_ends_an_answer():
    lm = wrapped("llama", eos_token_id=[95, 40])
    assert lm.ends == {95, 40, 96}
    encoder = Encoder(lm.tokenizer, Template(), model=ModelSide(ends=lm.ends))
    assert encoder.decode([3, 4, 40, 0, 0]) == encoder.decode([3, 4, 96]) == encoder.decode([3, 4])


def test_generation_ends_at_the_tokens_that_training_appends(rows_to_batch):
    lm = wrapped("llama", eos_token_id=[95])
    written = lm.generate(rows_to_batch([ROWS[0]]), max_new_tokens=3, eos_token_id=0)[0].tolist()
    lm.tokenizer.eos_token = lm.tokenizer.convert_ids_to_tokens(written[2])
    made = lm.generate(rows_to_batch([ROWS[0]]), **answering(lm, NEW))[0].tolist()
    assert made == written[: written.index(written[2]) + 1]


# --- lengths are a row's own ---


@pytest.mark.parametrize(
    "length", [{"min_length": 9}, {"max_length": 10}, {"min_length": 9, "max_length": 11}]
)
def test_lengths_do_not_depend_on_neighbours(length, rows_to_batch):
    lm = wrapped("llama")
    ends = [int(lm.generate(rows_to_batch([row]), max_new_tokens=3, eos_token_id=0)[0, 2]) for row in ROWS]
    how = {"do_sample": False, "eos_token_id": ends, "pad_token_id": 96, **length}
    if "max_length" not in length:
        how["max_new_tokens"] = 9

    def cut(tokens):
        return tokens[: tokens.index(96)] if 96 in tokens else tokens

    together = [cut(row) for row in lm.generate(rows_to_batch(ROWS), **how).tolist()]
    alone = [cut(lm.generate(rows_to_batch([row]), **how)[0].tolist()) for row in ROWS]
    assert together == alone
    for row, new in zip(ROWS, alone, strict=True):
        theirs = lm.model.generate(torch.tensor([row]), attention_mask=torch.ones(1, len(row)), **how)[0]
        assert new == cut(theirs[len(row) :].tolist())


def test_a_length_without_room_for_an_answer_is_refused(rows_to_batch):
    with pytest.raises(SoftPromptError, match="max_length=6 leaves no room"):
        wrapped("llama").generate(rows_to_batch(ROWS), max_length=6)


# --- the same wherever it is run ---


def test_a_server_answers_as_generate_does(rows_to_batch, tmp_path):
    lm = wrapped("llama", SETTINGS)
    engine = Engine(lm, Registry(tmp_path, lm), max_tokens=2**10)
    engine.start()
    try:
        for penalty in (1.0, 5.0):
            how = answering(lm, NEW, repetition_penalty=penalty)
            expected = [lm.generate(rows_to_batch([row]), **how)[0].tolist() for row in ROWS]
            sampling = Sampling(max_tokens=NEW, repetition_penalty=penalty)
            answers = [engine.submit(Request(None, tuple(row), sampling)) for row in ROWS]
            assert [[t.id for t in answer if isinstance(t, Token)] for answer in answers] == expected
    finally:
        engine.stop()


def test_options_are_known_or_refused():
    assert checked({"temperature": 0, "top_p": 0.5}, "generation")["do_sample"] is False
    assert checked({"top_p": 0.5}, "generation")["do_sample"] is True
    with pytest.raises(SoftPromptError, match="did you mean 'max_new_tokens'"):
        checked({"max_new_token": 3}, "generation")
    with pytest.raises(SoftPromptError, match="takes no generation options: max_token"):
        checked({"max_token": 3}, "classification")
    with pytest.raises(SoftPromptError, match="output_scores"):
        checked({"output_scores": True}, "generation")
