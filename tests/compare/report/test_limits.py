"""Findings that are alike are shown once, and rows that cannot measure are named wherever they are shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from softprompt.compare import report
from softprompt.compare.report.limits import merged, unmeasurable
from softprompt.compare.report.read import comparison
from softprompt.compare.report.schema import Finding

pytestmark = pytest.mark.whole

NAMES = ["prompt-tuning/after", "prefix-tuning/after", "lora"]


def test_findings_of_the_same_words_are_one_that_lists_whom_it_is_about():
    edge = [
        Finding("warning", "the rate is at the edge", name, f"the best is {rate}", f"search {name}")
        for name, rate in zip(NAMES, ("0.1", "0.1", "0.03"), strict=True)
    ]
    note = Finding("note", "rows overlap", None, "two rows")
    other = Finding("note", "the rate is at the edge", "p-tuning/after", "0.2")
    first, *rest = merged([note, edge[0], other, *edge[1:]])
    assert first.contestant == "prompt-tuning/after, prefix-tuning/after and lora"
    assert first.evidence == (
        "prompt-tuning/after and prefix-tuning/after: the best is 0.1; lora: the best is 0.03"
    )
    assert first.command == "search prompt-tuning/after\nsearch prefix-tuning/after\nsearch lora"
    assert rest == [note, other]
    same = merged([Finding("note", "alike", name, "one thing", "do it") for name in NAMES])
    assert [(one.evidence, one.command) for one in same] == [("one thing", "do it")]


def changed(folder: Path, change) -> Path:
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    lines = [line for line in map(change, lines) if line]
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def texts(folder: Path) -> list[str]:
    report.write(folder)
    return [(folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")]


@pytest.mark.parametrize("share", [0.0, 0.96, 0.9])
def test_labels_of_files_written_before_tell_too(build, share):
    """Their findings do not name the rows that cannot measure."""

    def one_label(line):
        if line["kind"] == "example" and line["split"] == "unseen":
            line["target"] = int(line["row"] >= 60 * (1 - share)) if share else 1
        return line

    folder = changed(build(), one_label)
    blind = share != 0.9
    assert bool(unmeasurable(comparison(folder), "unseen")) == blind
    assert unmeasurable(comparison(folder), "test") is None
    for text in texts(folder):
        assert ("The unseen rows cannot measure quality" in text) == blind
        assert ("unseen (cannot measure)" in text) == blind


def test_a_finding_names_the_rows(build):
    why = "9 of 9 unseen inputs are training inputs"

    def with_finding(line):
        if line["kind"] == "finding":
            line |= {"what": "unseen rows are nearly training rows", "evidence": why, "splits": ["unseen"]}
        return line

    folder = changed(build(task="generation"), with_finding)
    assert unmeasurable(comparison(folder), "unseen") == why
    assert all("The unseen rows cannot measure quality" in text for text in texts(folder))


@pytest.mark.parametrize(("metric", "most"), [("accuracy", 1), ("chrf", 100), ("perplexity", None)])
def test_a_figure_that_cannot_be_is_not_shown(build, metric, most):
    """Neither by new files, which say `shows_any`, nor by old ones, which hold the figure."""

    def loud(line):
        if line["kind"] == "test":
            line |= {"detectable": 1.504 if most == 1 else 150.4, "significant": False, "rows_needed": None}
            line |= {"low": -2 * (most or 1000), "high": 2 * (most or 1000), "p_adjusted": 0.5}
        return line

    folder = changed(build(metric=metric, task=None if most == 1 else "generation"), loud)
    page, messages = texts(folder)
    # a page has numbers of its drawings too
    assert "| 150 |" in messages if most is None else "150.4" not in messages
    assert "200.0" not in messages and "−200" not in messages
    for text in (page, messages):
        assert ("these rows cannot show any" in text) == (most is not None)

    def output(line):
        return line | {"shows_any": False, "detectable": None} if line["kind"] == "test" else line

    assert all("these rows cannot show any" in text for text in texts(changed(folder, output)))


def test_only_intervals_of_files_written_before_are_called_uncorrected(build):
    old = "95 % interval of the pair alone, not corrected"
    folder = build()
    assert all(old in text for text in texts(folder))
    new = changed(folder, lambda line: line | {"level": 0.999} if line["kind"] == "test" else line)
    assert not any(old in text or "for this pair alone" in text for text in texts(new))
