"""The page of a distillation has the figures of its file, and the ways to answer are what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from softprompt.cli import main
from softprompt.distillation import intervals, report, report_blocks
from softprompt.errors import SoftPromptError
from softprompt.evaluation.records import Record


def _records(divergences, answers):
    return [
        Record("", text, ("the same",), 0, 0.0, 4, divergence=float(d), agreed=2.0)
        for d, text in zip(divergences, answers, strict=True)
    ]


@pytest.fixture
def ways():
    drawn = np.random.default_rng(0)
    none = drawn.uniform(1, 2, 12)
    texts = ["the same", "another"] * 6
    seeds = [_records(none * share, texts) for share in (0.2, 0.3, 0.4)]
    return {"vectors": seeds, "no text": [_records(none, texts[::-1])]}


def test_means_over_seeds(ways):
    table = intervals.table(ways, ("kl", "exact_match"))
    none = sum(r.divergence for r in ways["no text"][0]) / 48
    assert table["vectors"]["metrics"]["kl"] == pytest.approx(0.3 * none)
    assert [one["kl"] for one in table["vectors"]["seeds"]] == pytest.approx(
        [0.2 * none, 0.3 * none, 0.4 * none]
    )
    low, high = table["vectors"]["intervals"]["kl"]
    assert low < 0.3 * none < high
    share, low, high = intervals.share_kept(ways["vectors"], ways["no text"][0])
    assert share == pytest.approx(0.7) and low < 0.7 < high
    # one seed that takes the same share of every request leaves nothing to chance
    assert intervals.share_kept(ways["vectors"][:1], ways["no text"][0]) == pytest.approx((0.8, 0.8, 0.8))


def test_the_drawing_describes_strokes_where_there_are_some(ways):
    for seeds, strokes in ((3, True), (1, False)):
        shown = {"vectors": ways["vectors"][:seeds], "no text": ways["no text"]}
        figure = report_blocks.ways_figure(intervals.table(shown, ("kl", "exact_match")))
        drawings = [text for panel in figure.panels for text in (panel.wide, panel.narrow)]
        for text in (figure.caption, *drawings):
            assert ("strokes" in text) == strokes


def test_tests(ways):
    kl, exact = intervals.tests(ways, "vectors", ("kl", "exact_match"))
    assert (kl["a"], kl["b"], kl["n_seeds"], kl["n_rows"]) == ("vectors", "no text", 3, 12)
    assert kl["difference"] < 0 and kl["significant"]
    assert exact["difference"] == pytest.approx(0) and not exact["significant"]
    json.dumps(kl, allow_nan=False)


def facts(ways):
    first = {"text": 0.04, "vectors": 0.02, "no text": 0.015}
    return {
        "artifact": "runs/sea",
        "model": "a model",
        "method": "prefix-tuning",
        "vectors": 4,
        "ways": intervals.table(ways, ("kl", "agreement", "chrf", "exact_match")),
        "share": [0.7, 0.6, 0.8],
        "tests": intervals.tests(ways, "vectors", ("kl", "chrf")),
        "parts": {"prose": intervals.table(ways, ("kl",))},
        "references": intervals.table(ways, ("exact_match",)),
        "seeds": [1, 0, 2],
        "text_tokens": 135,
        "soft_tokens": 4,
        "texts": {"summary in as many tokens": "be <b>short</b>"},
        "first_token": first,
        "million_requests": {k: {"seconds": 1e6 * v, "price": 1e6 * v / 3600 * 2} for k, v in first.items()},
        "seconds": 100.0,
        "price": 100 / 1800,
        "price_hour": 2.0,
        "paid_after_requests": 5000.0,
        "answered": [19, 20],
        "samples": [{"request": "a question", "text": "one", "vectors": "two", "no text": ""}],
        "history": {"0": [{"step": 4, "loss": 0.5, "kl": 0.3}, {"step": 8, "loss": 0.4, "kl": 0.2}]},
        "leakage": {
            "before": {"value": 0.2, "low": 0.1, "high": 0.3, "n": 9},
            "after": {"value": 0.1, "low": 0.0, "high": 0.2, "n": 9},
        },
    }


def test_page(ways, tmp_path, capsys):
    folder = tmp_path / "sea-distill"
    folder.mkdir()
    (folder / "distill.json").write_text(json.dumps(facts(ways)))
    assert main(["report", str(tmp_path / "sea")]) == 0
    assert str(folder / "report.html") in capsys.readouterr().out
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    for words in (
        "70 %",
        "(60 … 80)",
        "5,000 requests",
        "135",
        "22.22",
        "prose",
        "a question",
        "0.2",
        "seed 0",
    ):
        assert words in page and words in text, words
    assert "be <b>short</b>" not in page and "be &lt;b&gt;short" in page
    assert report.folder_of(tmp_path / "other") is None


def test_a_text_that_is_shorter_than_the_usual_system_text_saves_no_tokens(ways, tmp_path):
    """The template's usual system text comes back where the text was: a number below zero says nothing."""
    (tmp_path / "distill.json").write_text(json.dumps(facts(ways) | {"text_tokens": -16}))
    text = report.write(tmp_path).with_name("report.md").read_text()
    assert text.count("none: the text takes the place of the chat template's usual system text") == 2
    assert "16 tokens more" in text and "-16" not in text and "−16" not in text


def test_page_of_several_texts(ways, tmp_path, capsys):
    folder = tmp_path / "docs-distill"
    folder.mkdir()
    table = intervals.table(ways, ("kl", "agreement", "chrf", "exact_match"))
    about = {
        "artifacts": ["runs/docs"],
        "method": "prefix-tuning",
        "vectors": 4,
        "together": True,
        "measured_requests": 24,
        "texts": {"a": [0.71, 0.61, 0.81], "<b>": [0.52, 0.42, 0.62]},
        "at_once": {"1": [0.6, 0.5, 0.7], "2": [0.45, 0.4, 0.5]},
        "ways": table,
        "by_text": {"a": table, "<b>": table},
        "tests": intervals.tests(ways, "vectors", ("kl", "chrf")),
        "history": {"all texts": [{"step": 4, "loss": 0.5, "kl": 0.3}]},
        "samples": [{"request": "a question (a)", "text": "one", "vectors": "two", "no text": ""}],
    }
    (folder / "distill.json").write_text(json.dumps(about))
    assert main(["report", str(tmp_path / "docs")]) == 0
    assert str(folder / "report.html") in capsys.readouterr().out
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    chrf = f"{table['vectors']['metrics']['chrf']:.1f}"
    for words in ("60 % (50 … 70)", "71 % (61 … 81)", "45 % (40 … 50)", "0.75", chrf, "a question (a)"):
        assert words in page and words in text, words
    assert "The least is kept of" in text and "&lt;b&gt;" in page and "of <b>:" not in page


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ('{"ways": {}}', "earlier version"),
        ('{"artifacts": []}', "earlier version"),
        ('{"demonstrations": 3}', "earlier version"),
    ],
)
def test_files_that_are_no_report(content, words, tmp_path):
    (tmp_path / "distill.json").write_text(content)
    with pytest.raises(SoftPromptError, match=words):
        report.write(tmp_path)
