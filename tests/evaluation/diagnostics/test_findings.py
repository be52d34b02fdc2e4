"""Each finding fires on a run made for it, and is silent on a healthy one and on one it knows nothing of."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass, replace
from typing import Any

import pytest

from softprompt.evaluation.diagnostics import FINDINGS, Finding, Run, examine
from softprompt.evaluation.diagnostics.baselines import tfidf_baseline
from softprompt.evaluation.diagnostics.held_out import repeated_inputs
from softprompt.evaluation.diagnostics.overlap import jaccard, near_duplicates, shingles
from softprompt.evaluation.diagnostics.shift import separability
from softprompt.evaluation.diagnostics.template import frame


@dataclass(frozen=True)
class Text:
    input: str
    target: str
    prompt: str | None = None


@dataclass(frozen=True)
class Encoded:
    rendered: Text
    target_ids: tuple[int, ...] = (1,)
    truncated: int = 0


@dataclass(frozen=True)
class Answer:
    prediction: str
    references: tuple[str, ...]


WORDS = (
    "river stone cloud paper green tower music seven candle orbit velvet harbor winter lemon copper".split()
)


def examples(n: int, seed: int, words: list[str] = WORDS, tokens: int = 3) -> list[Encoded]:
    """Make inputs of random words in a template; the label does not depend on them."""
    draw = random.Random(seed)
    return [
        Encoded(
            Text(f"Review: {' '.join(draw.choices(words, k=12))}\nSentiment:", ("good", "bad")[i % 2]),
            tuple(range(tokens)),
        )
        for i in range(n)
    ]


def manifest(**training: Any) -> dict[str, Any]:
    history = [
        {"step": 20 * i, "loss": loss, "accuracy": 0.8}
        for i, loss in enumerate([2, 1, 0.5, 0.4, 0.4, 0.4], 1)
    ]
    return {
        "recipe": {
            "template": {"input": "Review: {{ input }}\nSentiment:"},
            "task": {"kind": "classification", "max_new_tokens": 64},
            "data": {"max_target_tokens": None},
            "train": {"lr": 1e-2},
        },
        "training": {"stopped": "finished", "steps": 120, "best_step": 80, "moved": 0.7, "history": history}
        | training,
        "dev": {
            "metrics": {"accuracy": 0.85, "macro_f1": 0.85},
            "intervals": {"accuracy": [0.8, 0.9], "macro_f1": [0.8, 0.9]},
            "n": 60,
        },
        "plain": {"metrics": {"accuracy": 0.6, "macro_f1": 0.6}},
    }


def answers(right: float, n: int = 60) -> list[Answer]:
    labels = [("good", "bad")[i % 2] for i in range(n)]
    wrong = {"good": "bad", "bad": "good"}
    return [Answer(label if i < right * n else wrong[label], (label,)) for i, label in enumerate(labels)]


HEALTHY = Run(
    manifest(),
    train=examples(120, 1),
    dev=examples(60, 2),
    test=examples(60, 3),
    records=answers(0.85),
    used=[e.rendered.input for e in examples(5, 4)],
    scores=[1.0] * 51 + [0.0] * 9,
    baselines={"TF-IDF": [1.0] * 30 + [0.0] * 30},
    searched=[(1e-3, 0.7), (1e-2, 0.85), (3e-2, 0.8)],
    seeds={"prefix": [0.90, 0.91, 0.92], "prompt": [0.80, 0.81, 0.79]},
    test_scores={"metrics": {"accuracy": 0.84}, "intervals": {"accuracy": [0.79, 0.89]}, "n": 60},
)


def changed(**parts: Any) -> Run:
    """Return the healthy run with other parts; `training` and `recipe` change the manifest."""
    about = manifest(**parts.pop("training", {}))
    for section, settings in parts.pop("recipe", {}).items():
        about["recipe"][section] = about["recipe"].get(section, {}) | settings
    about |= parts.pop("about", {})
    return replace(HEALTHY, manifest=about, **parts)


CONSTANT = {"accuracy": 0.5, "macro_f1": 1 / 3}
NEAR = [
    replace(
        HEALTHY.test[0], rendered=Text(HEALTHY.train[7].rendered.input.replace("stone", "stones"), "good")
    )
]


def output(row: Encoded, target: str) -> Encoded:
    return replace(row, rendered=replace(row.rendered, target=target))


OTHER = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()
LONG = {"kind": "generation", "max_new_tokens": 64}

#: Finding: runs on which it fires, with a word of its evidence.
SICK: dict[str, list[tuple[Run, str]]] = {
    "pinned at the majority class": [
        (
            changed(records=[Answer("good", a.references) for a in answers(1.0)]),
            "60 of 60 answers are 'good'",
        ),
        (changed(records=(), about={"dev": manifest()["dev"] | {"metrics": CONSTANT}}), "always"),
    ],
    "barely moved": [(changed(training={"moved": 0.004}), "0.4 %")],
    "still falling": [
        (
            changed(
                training={
                    "best_step": 120,
                    "history": [{"loss": loss} for loss in (2.0, 1.8, 1.6, 1.4, 1.2, 1.0)],
                }
            ),
            "1.5, then 1.1",
        )
    ],
    "rate at the edge": [
        (changed(searched=[(1e-3, 0.7), (1e-2, 0.8), (3e-2, 0.9)]), "largest, 0.03"),
        (changed(searched=[(1e-3, 0.9), (1e-2, 0.8), (3e-2, 0.7)]), "smallest, 0.001"),
    ],
    "template mismatch": [
        (changed(used=["a fine film", *HEALTHY.used]), "1 of 6"),
        (changed(used=["Review: Review: a fine film\nSentiment:\nSentiment:"]), "twice"),
    ],
    "baseline better": [
        (changed(baselines={"TF-IDF": [1.0] * 55 + [0.0] * 5}), "TF-IDF 0.917, tuned 0.850"),
        (changed(about={"plain": {"metrics": {"accuracy": 0.9}}}), "0.9 plain, 0.85 tuned"),
    ],
    "within seed noise": [
        (changed(seeds={"prefix": [0.80, 0.91, 0.84], "prompt": [0.86, 0.79, 0.82]}), "p = "),
        (changed(seeds={"a": [0.8, 0.8], "b": [0.8, 0.8]}), "p = 1"),
    ],
    "train and test overlap": [
        (changed(test=[*NEAR, *HEALTHY.test]), "test row 1, training row 8"),
        (changed(test=(), dev=[HEALTHY.train[0], *HEALTHY.dev]), "dev row 1, training row 1 (100 %)"),
    ],
    "targets truncated": [
        (
            changed(
                recipe={"task": LONG, "data": {"max_target_tokens": 3}},
                train=[replace(e, truncated=2) for e in HEALTHY.train],
            ),
            "max_target_tokens=3",
        ),
        (
            changed(recipe={"task": LONG}, dev=examples(60, 2, tokens=80)),
            "max_new_tokens=64; the longest: 80",
        ),
    ],
    "dev and test apart": [
        (
            changed(
                test_scores={"metrics": {"accuracy": 0.6}, "intervals": {"accuracy": [0.5, 0.7]}, "n": 60}
            ),
            "0.85 [0.8, 0.9] on 60 dev rows, 0.6",
        ),
        (changed(test=examples(60, 3, OTHER)), "area under the curve"),
    ],
    "one answer to all": [
        (changed(unseen=[output(e, "good") for e in examples(40, 5)]), "40 of 40 unseen rows ask for 'good'"),
        (
            changed(unseen=[output(e, "good" if i else "bad") for i, e in enumerate(examples(40, 5))]),
            "39 of 40 unseen",
        ),
    ],
    "unseen and train overlap": [
        (changed(unseen=[*NEAR, *examples(40, 5)]), "1 of 41 unseen inputs"),
        (changed(unseen=HEALTHY.train[:20]), "20 of 20 unseen inputs"),
    ],
    "the same inputs again": [
        (changed(unseen=[examples(5, 5)[i % 5] for i in range(30)]), "30 unseen rows have 5 different inputs")
    ],
}


def test_every_finding_has_a_sick_run():
    assert list(SICK) == list(FINDINGS)


@pytest.mark.parametrize(
    ("name", "run", "evidence"), [(name, run, output) for name, runs in SICK.items() for run, output in runs]
)
def test_it_fires_and_says_why_and_what_mends_it(name, run, evidence):
    finding = FINDINGS[name](run)
    assert isinstance(finding, Finding) and finding in examine(run)
    assert evidence in finding.evidence and finding.summary and "softprompt " in finding.command
    assert all(part in str(finding) for part in (finding.summary, finding.evidence, finding.command))


@pytest.mark.parametrize("name", FINDINGS)
def test_it_is_silent_on_a_healthy_run(name):
    assert FINDINGS[name](HEALTHY) is None


@pytest.mark.parametrize("name", FINDINGS)
def test_it_is_silent_where_it_knows_nothing(name):
    assert FINDINGS[name](Run()) is None


def test_warnings_come_first():
    run = changed(training={"moved": 0.0}, seeds={"a": [0.8, 0.9], "b": [0.82, 0.88]})
    levels = [finding.level for finding in examine(run)]
    assert set(levels) == {"warning", "note"} and levels == sorted(levels, reverse=True)


@pytest.mark.parametrize(
    "run",
    [
        changed(records=[Answer("good", ("good",))] * 59 + answers(1.0)[1:2]),  # nearly all rows are 'good'
        changed(training={"best_step": 100, "history": [{"loss": x} for x in (6, 5, 4, 3, 2, 1)]}),
        changed(
            training={
                "stopped": "early",
                "best_step": 120,
                "history": [{"loss": x} for x in (6, 5, 4, 3, 2, 1)],
            }
        ),
        changed(searched=[(1e-2, 0.9)]),
        changed(searched=[(1e-3, 0.9), (1e-2, 0.9), (3e-2, 0.7)]),  # the inner one is as good
        changed(searched=[(1e-3, 0.8), (1e-2, 0.9), (3e-2, -math.inf)]),  # a larger one lay behind
        changed(test=examples(20, 3, OTHER)),  # too few to tell
        changed(recipe={"template": {"input": "{{ input }}"}}, used=["anything"]),
    ],
)
def test_near_misses_are_no_findings(run):
    assert examine(run) == []


def test_near_duplicates_are_those_of_every_pair_compared():
    """Against the naive way, on texts made to lie on both sides of the threshold."""
    draw = random.Random(0)
    train = [" ".join(draw.choices(WORDS, k=draw.randint(2, 30))) for _ in range(60)]
    held = []
    for text in train:
        words = text.split()
        for _ in range(draw.randint(0, 3)):
            words[draw.randrange(len(words))] = draw.choice(WORDS)
        held.append(" ".join(words))
    expected = {}
    for j, b in enumerate(held):
        best = max(jaccard(shingles(a), shingles(b)) for a in train)
        if best >= 0.8:
            expected[j] = best
    found = near_duplicates([f"Q: {t} A:" for t in train], [f"Q: {t} A:" for t in held])
    assert 5 < len(expected) < 55
    assert {j: similarity for _, j, similarity in found} == pytest.approx(expected)
    assert all(
        jaccard(shingles(train[i]), shingles(held[j])) == pytest.approx(similarity)
        for i, j, similarity in found
    )


def test_shingles_ignore_case_punctuation_and_spaces():
    assert (
        shingles("A  fine, FILM!") == shingles("a fine film")
        and shingles("") == shingles("?!") == frozenset()
    )
    assert near_duplicates(["", "?"], [""]) == []


def test_tfidf_learns_words_and_falls_back_on_the_only_label():
    train = [Encoded(Text(text, label)) for text, label in (("so good", "yes"), ("so bad", "no")) * 5]
    found = tfidf_baseline(train, [Encoded(Text("good it is", "yes")), Encoded(Text("bad", "yes"))])
    assert [r.prediction for r in found.records] == ["yes", "no"]
    assert found.accuracy == 0.5 and found.scores == [1.0, 0.0]
    assert tfidf_baseline(train[:1], train).accuracy == 0.5


def test_alike_texts_are_not_separability():
    alike = separability(*([e.rendered.input for e in examples(100, seed)] for seed in (1, 2)))
    unlike = separability(*([e.rendered.input for e in examples(100, 1, words)] for words in (WORDS, OTHER)))
    assert alike < 0.65 and unlike > 0.99


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("Review: {{ input }}\nSentiment:", ("Review: ", "\nSentiment:")),
        ("{% if a %}A{% endif %} {{ b }}", ("", "")),
        ("{{ input }}", ("", "")),
        ("no field", ("", "")),
    ],
)
def test_frame(template, parts):
    assert frame(template) == parts


def test_only_rows_that_are_mostly_near_training_rows_cannot_measure():
    def splits(unseen):
        finding = FINDINGS["unseen and train overlap"](changed(unseen=unseen))
        assert finding is not None
        return finding.splits

    assert splits([*NEAR, *examples(40, 5)]) == () and splits(HEALTHY.train[:20]) == ("unseen",)
    finding = FINDINGS["one answer to all"](changed(unseen=[output(e, "good") for e in examples(40, 5)]))
    assert finding is not None and finding.splits == ("unseen",)
    assert "softprompt compare RECIPE compare.unseen=FILE" in finding.command
    assert FINDINGS["one answer to all"](changed(unseen=examples(40, 5))) is None
    few = [output(e, "good" if i > 2 else "bad") for i, e in enumerate(examples(40, 5))]
    assert FINDINGS["one answer to all"](changed(unseen=few)) is None  # 37 of 40


@pytest.mark.parametrize("name", ["pinned at the majority class", "baseline better", "barely moved"])
@pytest.mark.parametrize(
    "searched",
    [
        (),
        [(1e-3, 0.5)],
        [(1e-3, 0.5), (3e-3, 0.7), (1e-2, 0.6), (3e-2, 0.5)],  # the best is inside
        [(1e-3, 0.5), (3e-3, 0.6), (1e-2, 0.7), (3e-2, 0.8)],
        [(1e-3, 0.9), (3e-3, 0.6), (1e-2, 0.7), (3e-1, 0.5)],
        [(1e-3, 0.5), (3e-3, 0.5)],  # no difference between them
    ],
)
def test_a_fix_proposes_no_rate_that_was_searched(name, searched):
    bad = {
        "pinned at the majority class": {"records": [Answer("good", a.references) for a in answers(1.0)]},
        "baseline better": {"baselines": {"TF-IDF": [1.0] * 60}},
        "barely moved": {"training": {"moved": 0.001}},
    }
    finding = FINDINGS[name](changed(searched=searched, **bad[name]))
    assert finding is not None
    more = "train.steps=240" in finding.command  # a longer run at the best rate
    words = re.findall(r"(?:--over lr|train.lr)=(\S+)", finding.command)
    rates = [float(rate) for word in words for rate in word.split(",")]
    tried = {1e-2, *(lr for lr, _ in searched)}  # 0.01 is the run's own
    best = max(searched, key=lambda pair: (pair[1], pair[0]), default=(None, 0))[0]
    assert rates == [best] if more else rates and not tried & set(rates)
    if len(searched) == 4 and best in (1e-3, 3e-2):
        assert not more and (max(rates) < best or min(rates) > best)


def test_the_same_inputs_under_several_prompts_are_no_repetition():
    texts = [f"where is parcel number {i} of mine" for i in range(4)]
    voices = [Encoded(Text(text, voice, voice)) for text in texts for voice in ("calm", "brisk", "merry")]
    assert repeated_inputs(Run(manifest(), test=voices)) is None
    alike = [Encoded(Text(text, "calm")) for text in texts * 3]
    found = repeated_inputs(Run(manifest(), test=alike))
    assert found is not None and "12 test rows have 4 different inputs" in found.evidence
