"""Findings of a comparison on its own run."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest

from softprompt.compare.diagnose import _row_scores, _searched
from softprompt.compare.experiment import compare
from softprompt.compare.measures.quality import whole
from softprompt.compare.report.read import comparison
from softprompt.compare.running.executors import Serial
from softprompt.config.load import recipe_from_dict

pytestmark = pytest.mark.whole

QUICK = {"rates": [1e-5, 1e-4], "seeds": 2, "shots": 1, "control": False, "serving": False, "prune": False}


def compared(folder, model, rows, *, more=None, **sections):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    whole = {
        "model": str(model),
        "data": {"train": str(path)},
        "train": {"steps": 8, "batch_size": 4, "dtype": "float32"},
        "output": str(folder / "out"),
        **sections,
        "compare": {**QUICK, "methods": ["prompt-tuning/after", "zero-shot"], **(more or {})},
    }
    done = compare(recipe_from_dict(whole), on=Serial())
    assert done.failed == 0
    return comparison(done.folder)


@pytest.fixture(scope="module")
def easy(tmp_path_factory, model_folder):
    """Words tell the label, rates are too low to learn by, and test inputs are nearly those of training."""
    rows = [
        {"input": f"{('fine', 'foul')[i % 2]} word {i // 4}", "target": ("good", "bad")[i % 2]}
        for i in range(80)
    ]
    task = {"kind": "classification", "labels": ["good", "bad"]}
    folder = tmp_path_factory.mktemp("easy")
    return compared(folder, model_folder, rows, task=task)


def test_words_alone_are_a_baseline_of_every_classification(easy):
    output = [f.text for f in easy.findings if f.contestant == "prompt-tuning/after"]
    assert any(what.startswith("TF-IDF with logistic regression does as well") for what in output), output


def test_what_the_run_shows_is_found(easy):
    output = " | ".join(f.text for f in easy.findings)
    for what in ("barely moved", "test rows overlap", "pinned", "as well or better"):
        assert what in output
    assert all(f.command for f in easy.findings)


@pytest.mark.parametrize(("metric", "sign"), [("accuracy", 1), ("perplexity", -1), ("macro_f1", 1)])
def test_rows_scores_come_to_the_metric(metric, sign):
    """One row that nothing expected is no verdict on all: the mean of rows' perplexities would be."""

    def rows(nll):
        return [
            {"prediction": p, "references": ["a"], "nll": float(n), "tokens": 2}
            for p, n in zip("aabb" * 5, [*nll, *[1.0] * (20 - len(nll))], strict=True)
        ]

    study = SimpleNamespace(metric=metric)
    for examples in (rows([30.0]), rows([3.0] * 19)):
        found = _row_scores(study, {"examples": examples})  # type: ignore[arg-type]
        assert len(found) == 20
        assert sum(found) / 20 == pytest.approx(sign * whole(examples, metric), rel=1e-6)


@pytest.mark.parametrize(("status", "wanted"), [("done", -8.0), ("pruned", -math.inf), ("failed", -math.inf)])
def test_a_rate_that_lay_behind_was_tried_and_is_not_the_best(status, wanted):
    """Otherwise the best of those that ended would be at the edge of the searched rates."""
    dev = {} if status == "failed" else {"perplexity": 8.0}
    assert _searched({"status": status, "dev": dev}, "perplexity", -1) == wanted


def test_unseen_rows_that_cannot_measure_are_found(tmp_path, model_folder):
    """All unseen rows have one label: results, page and Markdown say so, and no rate is searched again."""
    rows = [
        {"input": f"{('fine', 'foul')[i % 2]} word {i} {i * i}", "target": ("good", "bad")[i % 2]}
        for i in range(48)
    ]
    unseen = tmp_path / "unseen.jsonl"
    unseen.write_text(
        "".join(json.dumps({"input": f"thing {i}!", "target": "good"}) + "\n" for i in range(9))
    )
    methods = ["prompt-tuning/after", "prefix-tuning/after", "zero-shot"]
    found = compared(
        tmp_path,
        model_folder,
        rows,
        task={"kind": "classification", "labels": ["good", "bad"]},
        more={"unseen": str(unseen), "methods": methods, "seeds": 1},
    )
    (one,) = [f for f in found.findings if "rows ask for one answer" in f.text]
    assert "unseen" in one.splits and "test" not in one.splits
    assert "9 of 9 unseen rows ask for 'good'" in one.evidence
    messages = (found.folder / "report.md").read_text(encoding="utf-8")
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    for text in (messages, page):
        assert text.count("The unseen rows cannot measure quality: ") == 2
        assert "9 of 9 unseen rows ask for" in text
        assert "unseen (cannot measure)" in text
    for test in found.tests:
        assert test.level is not None and test.low is not None and test.high is not None
        assert test.significant == (test.low > 0 or test.high < 0)
        assert test.detectable is None or test.detectable <= 1
    searched = [f.command or "" for f in found.findings if "softprompt search" in (f.command or "")]
    rates = {float(rate) for c in searched for rate in c.split("train.lr=")[1].split()[0].split(",")}
    assert not rates & {*QUICK["rates"]}


def test_cut_targets_are_found(tmp_path, model_folder):
    rows = [{"input": f"say {i}", "target": "a long answer " * 3 + str(i)} for i in range(30)]
    data = {"train": str(tmp_path / "rows.jsonl"), "max_target_tokens": 5}
    task = {"kind": "generation", "max_new_tokens": 4, "metrics": ["perplexity"]}
    found = compared(tmp_path, model_folder, rows, data=data, task=task)
    (cut,) = [f for f in found.findings if "targets were cut" in f.text]
    assert "of 30 targets are longer than data.max_target_tokens=5" in cut.evidence
    assert "data.max_target_tokens=10" in (cut.command or "")


def test_an_artifact_of_one_prompt_has_all_bytes_in_it(easy):
    finals = [t.cost for t in easy.trials if t.phase == "final"]
    assert finals and all(cost["artifact_bytes_per_prompt"] == cost["artifact_bytes"] for cost in finals)
