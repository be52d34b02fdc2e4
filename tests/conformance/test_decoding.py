"""Every way of decoding: sampling, beams, guessing, streams, criteria, processors and the output object.

References are written out here over `lm.logits` of a row alone, which other tests hold to other references.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)
from transformers.generation.streamers import BaseStreamer

from softprompt.data.collate import batch_of_ids
from softprompt.injection import Injection
from softprompt.lm import families
from softprompt.lm.generation import GUESSING

EXACT = ("llama", "mistral", "gemma3_text", "gpt_oss", "qwen3_next", "deepseek_v3", "t5", "bart")
FEW = ("llama", "mistral", "t5")
NEW = 6


def logits_alone(lm, single, injection, tokens):
    """Logits [T, V] that predict `tokens` after the row."""
    with torch.no_grad():
        return lm.logits(single.with_targets([tokens]), injection)[0]


def input_of(lm, single) -> list[int]:
    """What a processor of repeated tokens counts: a decoder-only model's input, a decoder's start."""
    return single.input_ids[0].tolist() if lm.spec.kind == "decoder" else [lm._start]


def naive(lm, single, injection, change, count=NEW) -> list[int]:
    """Greedy, computed anew for every token; `change(logits [V], ids so far)` is the processors."""
    made: list[int] = []
    for _ in range(count):
        scores = change(logits_alone(lm, single, injection, [*made, 0])[-1], [*input_of(lm, single), *made])
        made.append(int(scores.argmax()))
    return made


# --- sampling ---


@pytest.mark.parametrize("family", EXACT)
def test_sampled_tokens_are_drawn_from_the_rows_own_logits(lm, family, mixed, close):
    returns, temperature, top_k = 2, 0.7, 20
    torch.manual_seed(3)
    out = lm.generate(
        mixed.batch,
        mixed.injection,
        max_new_tokens=NEW,
        do_sample=True,
        temperature=temperature,
        top_k=top_k,
        top_p=1.0,
        num_return_sequences=returns,
        return_dict_in_generate=True,
        output_logits=True,
        output_scores=True,
    )
    assert out.sequences.shape == (returns * mixed.batch.size, NEW)
    alone = torch.stack(
        [
            logits_alone(lm, *mixed.rows[i // returns], tokens)
            for i, tokens in enumerate(out.sequences.tolist())
        ]
    )
    close(torch.stack(out.logits, dim=1), alone)
    scores = alone / temperature
    scores = scores.masked_fill(scores < scores.topk(top_k).values[..., -1:], float("-inf"))
    torch.manual_seed(3)
    for step in range(NEW):
        drawn = torch.multinomial(scores[:, step].softmax(-1), 1)[:, 0]
        assert drawn.tolist() == out.sequences[:, step].tolist()
    assert len({tuple(row) for row in out.sequences.tolist()}) > mixed.batch.size  # returns of a row differ


# --- beams ---


@pytest.mark.parametrize("family", EXACT)
def test_scores_of_beams_are_the_rows_own(lm, family, mixed, close):
    beams = 3
    out = lm.generate(
        mixed.batch,
        mixed.injection,
        max_new_tokens=NEW,
        do_sample=False,
        num_beams=beams,
        num_return_sequences=beams,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert out.sequences.shape == (beams * mixed.batch.size, NEW)
    for i, tokens in enumerate(out.sequences.tolist()):
        chosen = logits_alone(lm, *mixed.rows[i // beams], tokens).log_softmax(-1)
        output = chosen.gather(1, torch.tensor(tokens)[:, None]).mean()  # length_penalty 1: the mean
        close(out.sequences_scores[i], output, 2e-5)
    ranked = out.sequences_scores.reshape(-1, beams)
    assert (ranked[:, :-1] >= ranked[:, 1:]).all()
    parts = lm.model.compute_transition_scores(out.sequences, out.scores, out.beam_indices)
    close(parts.mean(1), out.sequences_scores, 2e-5)  # transformers' own reading of the cut output


@pytest.mark.parametrize("family", ["llama"])
@pytest.mark.parametrize(
    "how",
    [
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"dola_layers": "high"},
    ],
    ids=["diverse beams", "contrastive", "DoLa"],
)
def test_what_transformers_moved_out_is_refused_by_it(lm, family, how, mixed):
    """They live in repositories of code now, which nobody fetches and runs without asking for it."""
    with pytest.raises(ValueError, match="trust_remote_code"):
        lm.generate(mixed.batch, mixed.injection, max_new_tokens=2, **how)


# --- guessed tokens ---


def guesses(lm, family) -> dict[str, dict]:
    stateful = lm.model._is_stateful
    if stateful:
        return {}
    known = {
        "prompt lookup": {"prompt_lookup_num_tokens": 3},
        "an assistant": {"assistant_model": families.tiny(family, seed=3)},
        "the same model without the prefix": {"assistant_model": families.tiny(family)},
    }
    if family in ("llama", "mistral", "deepseek_v3"):  # transformers' is made for a list of layers it cuts
        known["an early exit"] = {"assistant_early_exit": 2}
    return known


@pytest.mark.slow
@pytest.mark.parametrize("family", EXACT)
def test_assisted_decoding_equals_greedy(lm, family, mixed):
    """Under a prefix (before, after) and an adapter; guesses change how soon, never what."""
    if lm.model._is_stateful:
        single, injection = mixed.rows[0]
        with pytest.raises(ValueError, match="stateful"):
            lm.generate(single, injection, max_new_tokens=2, prompt_lookup_num_tokens=3)
        return
    calls = []
    handle = lm.model.register_forward_hook(lambda *_: calls.append(1))
    saved = 0
    try:
        for kind, (single, injection) in zip(mixed.kinds, mixed.rows, strict=True):
            if lm.spec.kind == "decoder" and {"before", "after"} & set(injection.channels()):
                continue  # refused: see below
            how = {"max_new_tokens": 12, "do_sample": False}
            made = lm.generate(single, injection, **how)
            for name, guess in guesses(lm, family).items():
                calls.clear()
                assert torch.equal(lm.generate(single, injection, **how, **guess), made), (kind, name)
                saved += name != "an early exit" and len(calls) < made.shape[1]
    finally:
        handle.remove()
    assert saved  # some guesses were taken, or nothing was tested


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("option", GUESSING)
def test_guessing_is_refused_with_soft_tokens(lm, family, option, mixed, refused):
    value = {"assistant_model": families.tiny("llama"), "use_mtp": True}.get(option, 2)
    for kind, (single, injection) in zip(mixed.kinds, mixed.rows, strict=True):
        if kind.startswith("prompt-tuning"):
            refused(lambda s=single, i=injection: lm.generate(s, i, **{option: value}), option, "prefix")
            config = GenerationConfig(max_new_tokens=2)
            setattr(config, option, value)
            if option != "assistant_model":  # it is no part of a config
                refused(
                    lambda s=single, i=injection, c=config: lm.generate(s, i, generation_config=c), option
                )


@pytest.mark.parametrize("family", ["llama"])
def test_what_would_answer_something_else_is_refused(lm, family, mixed, refused, new_lm):
    def run(i=0, **options):
        return lambda: lm.generate(*mixed.rows[i], max_new_tokens=2, **options)

    for i in range(len(mixed.rows) - 1):
        refused(run(i, guidance_scale=1.5), "guidance_scale", "logits_processor")
        refused(run(i, cache_implementation="paged"), "paged", "static")
        refused(run(i, token_healing=True), "token_healing")
    refused(run(assistant_model=new_lm("llama").model), "assistant", "AutoModelForCausalLM")
    attended = {"output_attentions": True, "return_dict_in_generate": True}
    refused(run(**attended), "output_attentions", "attention=eager")


# --- streams ---


class Recorder(BaseStreamer):
    def __init__(self) -> None:
        self.pieces: list[list[int]] = []
        self.ended = False

    def put(self, value) -> None:
        self.pieces.append(value.reshape(-1).tolist())

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize("family", EXACT)
def test_streams_get_the_prompt_and_then_each_token(lm, family, mixed):
    for single, injection in mixed.rows:
        made = lm.generate(single, injection, max_new_tokens=NEW, do_sample=False)[0].tolist()
        stream = Recorder()
        lm.generate(single, injection, max_new_tokens=NEW, do_sample=False, streamer=stream)
        assert stream.pieces == [input_of(lm, single), *([token] for token in made)] and stream.ended


@pytest.mark.parametrize("family", ["llama"])
@pytest.mark.parametrize("skip", [True, False])
def test_text_streams(lm, family, mixed, skip, capsys):
    for single, injection in mixed.rows:
        made = lm.generate(single, injection, max_new_tokens=NEW, do_sample=False)[0].tolist()
        streamer = TextStreamer(lm.tokenizer, skip_prompt=skip)
        lm.generate(single, injection, max_new_tokens=NEW, do_sample=False, streamer=streamer)
        shown = made if skip else single.input_ids[0].tolist() + made
        assert capsys.readouterr().out == lm.tokenizer.decode(shown) + "\n"


# --- when to stop ---


class Stop(StoppingCriteria):
    """Each row at its own token."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = torch.tensor(tokens)

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] == self.tokens


@pytest.mark.parametrize("family", EXACT)
def test_an_end_token_stops_each_row_in_its_own_time(lm, family, mixed):
    plain = lm.generate(mixed.batch, mixed.injection, max_new_tokens=NEW, do_sample=False)
    end = int(plain[0, 2])
    how = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": end, "pad_token_id": 99}
    made = lm.generate(mixed.batch, mixed.injection, **how)
    config = GenerationConfig(**how)
    assert torch.equal(lm.generate(mixed.batch, mixed.injection, generation_config=config), made)
    for row, (whole, single) in enumerate(zip(plain.tolist(), mixed.rows, strict=True)):
        stop = whole.index(end) + 1 if end in whole else NEW
        assert made[row].tolist() == (whole[:stop] + [99] * NEW)[: made.shape[1]]
        assert lm.generate(*single, **how)[0].tolist() == whole[:stop]


@pytest.mark.parametrize("family", FEW)
def test_stopping_criteria(lm, family, mixed):
    plain = lm.generate(mixed.batch, mixed.injection, max_new_tokens=NEW, do_sample=False)
    for row, (whole, single) in enumerate(zip(plain.tolist(), mixed.rows, strict=True)):
        wanted = whole[row % NEW]
        stop = StoppingCriteriaList([Stop([wanted])])
        made = lm.generate(*single, max_new_tokens=NEW, do_sample=False, stopping_criteria=stop)
        assert made[0].tolist() == whole[: whole.index(wanted) + 1]
    if lm.spec.kind == "decoder":
        text = lm.tokenizer.decode([plain[-1, 1]])
        if text.strip():
            how = {"max_new_tokens": NEW, "do_sample": False, "stop_strings": [text]}
            made = lm.generate(*mixed.rows[-1], **how, tokenizer=lm.tokenizer)[0].tolist()
            assert made == plain[-1].tolist()[: len(made)] and text in lm.tokenizer.decode(made)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_max_length_counts_what_stands_in_the_input(lm, family, mixed):
    for single, injection in mixed.rows:
        soft = sum(p.mask.shape[1] for n, p in injection.channels().items() if n in ("before", "after"))
        width = single.input_ids.shape[1] + soft
        assert lm.generate(single, injection, max_length=width + 3, do_sample=False).shape == (1, 3)


# --- processors ---


def penalised(penalty):
    def change(scores, ids):
        scores = scores.clone()
        for token in set(ids):
            scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
        return scores

    return change


def no_repeated(size):
    def change(scores, ids):
        scores = scores.clone()
        for i in range(len(ids) - size + 1):
            if ids[i : i + size - 1] == ids[len(ids) - size + 1 :]:
                scores[ids[i + size - 1]] = float("-inf")
        return scores

    return change


def without(token):
    def change(scores, ids):
        scores = scores.clone()
        scores[token] = float("-inf")
        return scores

    return change


class Forbid(LogitsProcessor):
    """A token is forbidden by a user's processor, which looks at nothing but the new tokens."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        scores[:, self.token] = float("-inf")
        return scores


@pytest.mark.parametrize("family", EXACT)
@pytest.mark.parametrize("kind", ["penalty", "no token twice", "bigrams", "own"])
def test_processors_see_each_rows_own_tokens(lm, family, kind, mixed):
    """In a mixed batch as in the row alone: padding and soft tokens count as no token."""
    plain = lm.generate(mixed.batch, mixed.injection, max_new_tokens=NEW, do_sample=False)
    token = int(plain[0, 0])
    options, change = {
        "penalty": ({"repetition_penalty": 1.7}, penalised(1.7)),
        "bigrams": ({"no_repeat_ngram_size": 2}, no_repeated(2)),
        "no token twice": ({"no_repeat_ngram_size": 1}, no_repeated(1)),
        "own": ({"logits_processor": [Forbid(token)]}, without(token)),
    }[kind]
    how = {"max_new_tokens": NEW, "do_sample": False, **options}
    made = lm.generate(mixed.batch, mixed.injection, **how)
    expected = [naive(lm, *one, change) for one in mixed.rows]
    assert made.tolist() == expected
    for ids, one in zip(expected, mixed.rows, strict=True):
        assert lm.generate(*one, **how)[0].tolist() == ids
    if kind != "bigrams":  # see below
        assert not torch.equal(made, plain)  # else nothing was processed
    beams = lm.generate(mixed.batch, mixed.injection, num_beams=2, **how)
    for ids, one in zip(beams.tolist(), mixed.rows, strict=True):
        assert lm.generate(*one, num_beams=2, **how)[0].tolist() == ids


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "qwen3_next"])
def test_columns_without_a_token_make_no_pair(lm, family, mixed):
    """Each row begins with the favoured token, which may stand beside itself once; padding is no pair."""
    favoured = 5
    batch = batch_of_ids([[favoured, *ids] for ids in ([17, 80], [], [60, 61, 7, 12, 90], [8], [9, 9], [])])

    def favour(scores, ids):
        scores = scores.clone()
        scores[..., favoured] += 1000
        return no_repeated(2)(scores, ids)

    how = {"max_new_tokens": NEW, "do_sample": False, "no_repeat_ngram_size": 2}
    how["sequence_bias"] = {(favoured,): 1000.0}
    made = lm.generate(batch, mixed.injection, **how).tolist()
    for i, (ids, (_, injection)) in enumerate(zip(made, mixed.rows, strict=True)):
        single = batch_of_ids([batch.input_ids[i][batch.input_mask[i]].tolist()], [[]])
        assert ids == naive(lm, single, injection, favour)
        assert ids[:2] == [favoured, favoured] or single.input_ids.shape[1] == 1


def favoured(single, ids_so_far, scores):
    """Words of the input at 2.5 times their score."""
    shown = set(single.input_ids[0].tolist())
    return torch.stack([s * (0.4 if s < 0 else 2.5) if i in shown else s for i, s in enumerate(scores)])


def no_pair_of_the_input(single, ids_so_far, scores):
    """No two tokens in a row that stand so in the input."""
    scores, words = scores.clone(), single.input_ids[0].tolist()
    for first, second in pairwise(words):
        if first == ids_so_far[-1]:
            scores[second] = float("-inf")
    return scores


@pytest.mark.parametrize("family", ["llama", "mistral", "t5", "bart"])
@pytest.mark.parametrize(
    ("option", "change"),
    [
        ({"encoder_repetition_penalty": 2.5}, favoured),
        ({"encoder_no_repeat_ngram_size": 2}, no_pair_of_the_input),
    ],
    ids=["penalty", "pairs"],
)
def test_processors_of_the_input(lm, family, option, change, mixed):
    """Each row's own input is theirs, although the encoder is run by us, and embeddings stand for tokens."""
    how = {"max_new_tokens": 4, "do_sample": False, **option}
    if change is no_pair_of_the_input:  # so that there are pairs to be seen
        how["sequence_bias"] = {(5,): 20.0, (5, 17): 60.0}
    made = lm.generate(mixed.batch, mixed.injection, **how)
    beams = lm.generate(mixed.batch, mixed.injection, **how, num_beams=2)
    for i, (single, injection) in enumerate(mixed.rows):

        def changed(scores, ids, single=single):
            for (*ahead, token), bias in how.get("sequence_bias", {}).items():
                if ids[len(ids) - len(ahead) :] == ahead:
                    scores = scores.clone()
                    scores[token] += bias
            return change(single, ids, scores)

        assert made[i].tolist() == naive(lm, single, injection, changed, 4)
        assert lm.generate(single, injection, **how, num_beams=2)[0].tolist() == beams[i].tolist()
    assert not torch.equal(
        made, lm.generate(mixed.batch, mixed.injection, **{**how, **dict.fromkeys(option)})
    )


# --- the output object ---


@pytest.mark.parametrize("family", EXACT)
def test_output_object_of_the_plain_model_is_transformers_own(lm, family, batch, close):
    how = {
        "max_new_tokens": NEW,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_logits": True,
        "output_hidden_states": True,
        "pad_token_id": 0,
    }
    out = lm.generate(batch, None, **how)
    model = copy.deepcopy(lm.model)
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    ids, mask = batch.input_ids, batch.input_mask
    if lm.spec.kind == "encoder-decoder":  # these read from the left
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        ids, mask = ids.gather(1, order), mask.gather(1, order)
    own = model.generate(input_ids=ids, attention_mask=mask.long(), **how)
    assert type(out) is type(own) and out.keys() == own.keys()
    assert torch.equal(out.sequences, own.sequences[:, -NEW:]) and out["sequences"] is out.sequences
    for a, b in zip(out.logits, own.logits, strict=True):
        close(a, b)
    states = "hidden_states" if lm.spec.kind == "decoder" else "decoder_hidden_states"
    for step in range(1, NEW):
        for a, b in zip(out[states][step], own[states][step], strict=True):
            close(a, b)


@pytest.mark.parametrize("family", EXACT)
def test_output_object_under_an_injection(lm, family, mixed, close):
    how = {"max_new_tokens": NEW, "do_sample": False}
    tokens = lm.generate(mixed.batch, mixed.injection, **how)
    config = GenerationConfig(**how, return_dict_in_generate=True, output_scores=True)
    out = lm.generate(mixed.batch, mixed.injection, generation_config=config)
    assert torch.equal(out.sequences, tokens)
    assert len(out.scores) == NEW and out.past_key_values is not None
    for row, one in enumerate(mixed.rows):
        alone = logits_alone(lm, *one, tokens[row].tolist())
        close(torch.stack([scores[row] for scores in out.scores]), alone)


@pytest.mark.parametrize("family", ["llama"])
def test_a_callers_config_is_not_changed(lm, family, mixed):
    config = GenerationConfig(max_new_tokens=2, no_repeat_ngram_size=2, pad_token_id=7)
    before = config.to_dict()
    lm.generate(mixed.batch, mixed.injection, generation_config=config)
    assert config.to_dict() == before and isinstance(mixed.injection, Injection)
