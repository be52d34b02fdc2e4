"""`Tuned.generate` takes what people hand to it, and refuses the rest with the reason."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import softprompt
from softprompt.errors import SoftPromptError

ROWS = [{"input": f"row {i}", "target": ("good", "bad")[i % 2]} for i in range(8)]
TEXTS = ["sun", "rain and wind", "b"]


@pytest.fixture(scope="module")
def tuned(llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "out"
    how = {"options": {"length": 2}, "steps": 1, "batch_size": 4}
    task = {"kind": "generation", "max_new_tokens": 5}
    return softprompt.tune(llama, "prompt-tuning", ROWS, output=str(out), task=task, **how)


@pytest.fixture(scope="module")
def labelled(llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("labelled") / "out"
    how = {"options": {"length": 2}, "steps": 1, "batch_size": 4}
    return softprompt.tune(llama, "prompt-tuning", ROWS, output=str(out), task="classification", **how)


@pytest.fixture(scope="module")
def answers(tuned):
    return [tuned.generate(text) for text in TEXTS]


@pytest.mark.parametrize(
    "as_given",
    [
        list,
        tuple,
        np.array,
        pd.Series,
        iter,
        lambda texts: (text for text in texts),
        lambda texts: dict.fromkeys(texts).keys(),
        lambda texts: [{"input": text} for text in texts],
        lambda texts: pd.DataFrame({"input": texts}),
        lambda texts: np.array(texts, dtype=object),
    ],
)
def test_any_iterable_gives_a_list(as_given, tuned, answers):
    assert tuned.generate(as_given(TEXTS)) == answers


@pytest.mark.parametrize(
    "nothing", [[], (), iter(()), np.array([]), pd.Series([], dtype=object), pd.DataFrame()]
)
def test_nothing_gives_nothing(nothing, tuned, labelled):
    assert tuned.generate(nothing) == [] and labelled.generate(nothing) == []


@pytest.mark.parametrize(
    ("odd", "printed"),
    [
        (None, "NoneType"),
        (3, "int"),
        (b"text", "bytes"),
        ({"a", "b"}, "no order"),
        (["a", None], "input 1 .*None"),
        ([1.5], "input 0"),
        (np.array("text"), "ndarray"),
        ([["a"]], "input 0"),
    ],
)
def test_what_is_no_input_is_named(odd, printed, tuned):
    with pytest.raises(SoftPromptError, match=printed):
        tuned.generate(odd)


def test_several_returns_are_lists(tuned):
    how = {"do_sample": True, "num_return_sequences": 3}
    assert [len(texts) for texts in tuned.generate(TEXTS, **how)] == [3, 3, 3]
    one = tuned.generate("sun", num_beams=2, num_return_sequences=2)
    assert isinstance(one, list) and len(one) == 2
    assert tuned.generate("sun", num_return_sequences=1) == [tuned.generate("sun")]


def test_a_long_list_goes_in_parts(tuned, monkeypatch):
    seen = []
    whole = type(tuned.lm).generate
    monkeypatch.setattr(
        type(tuned.lm),
        "generate",
        lambda lm, batch, *a, **k: seen.append(batch.size) or whole(lm, batch, *a, **k),
    )
    texts = [f"text {i}" for i in range(35)]
    made = tuned.generate(texts, min_new_tokens=2)  # which transformers decodes, in padded batches
    assert seen == [16, 16, 3]
    assert made[20] == tuned.generate(texts[20], min_new_tokens=2)


def test_plain_answers_are_decoded_side_by_side(tuned, monkeypatch):
    texts = [f"text {i * 3}" for i in range(35)]
    alone = [tuned.generate(text, use_cache=False) for text in texts]  # by transformers, one at a time
    monkeypatch.setattr(type(tuned.lm), "generate", None)
    assert tuned.generate(texts) == alone


def test_stop_strings_need_no_tokenizer(tuned, answers):
    long = next(i for i, answer in enumerate(answers) if len(answer) > 1)
    mark = answers[long][0]
    assert tuned.generate(TEXTS[long], stop_strings=[mark]) == mark


def test_options_that_do_nothing_are_refused(tuned, labelled):
    with pytest.raises(SoftPromptError, match="did you mean 'max_new_tokens'"):
        tuned.generate("sun", max_new_token=3)
    with pytest.raises(SoftPromptError, match="takes no generation options"):
        labelled.generate("sun", max_new_tokens=3)
    with pytest.raises(SoftPromptError, match="these options"):
        tuned.generate("sun", num_return_sequences=2)  # greedy has one answer
    with pytest.raises(SoftPromptError, match="streamer takes one input"):
        tuned.generate(TEXTS, streamer=object())


def test_the_longest_answer_is_the_callers(tuned, answers):
    short = tuned.generate(TEXTS, max_new_tokens=1)
    assert all(len(text) <= 1 and whole.startswith(text) for text, whole in zip(short, answers, strict=True))


def test_a_length_in_all_takes_the_place_of_the_recipes(tuned, recwarn):
    assert len(tuned.generate("sun", max_length=2 + 3 + 1)) <= 1
    assert not [w for w in recwarn if "max_length" in str(w.message)]
