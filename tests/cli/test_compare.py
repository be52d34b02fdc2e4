"""`softprompt compare` on the tiny Llama, in this process."""

from __future__ import annotations

import pytest

from softprompt.cli.contest import Contest
from softprompt.compare import experiment
from softprompt.compare.running.executors import Serial

from .conftest import QUICKEST

pytestmark = pytest.mark.whole

QUICK = [*QUICKEST, "test_fraction=0.3"]


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr(experiment, "executor", lambda kind, workers, threads: Serial())


def test_from_a_recipe_to_a_report(run, recipe):
    output = run("compare", recipe, *QUICK)
    assert output.code == 0, output.err
    page = recipe.parent / "out-compare" / "report.html"
    assert page.exists() and str(page) in output.out
    lines = output.out.splitlines()
    assert lines[0].startswith(("Take ", "Keep ", "prompt-tuning/after"))
    assert f"  softprompt report {page.parent} --open" in lines
    # every trial has a line of its own, with what is left
    assert "1/5  zero-shot  reference" in output.err and "5/5" in output.err and "left" in output.err
    assert "5 trials, 5 of them run now" in output.err
    again = run("compare", recipe, *QUICK)
    assert again.code == 0 and "5 trials, 0 of them run now" in again.err and again.out == output.out


def test_as_json(run, recipe):
    output = run("compare", recipe, *QUICK, "--json", "--no-report", "--output", recipe.parent / "there")
    assert output.code == 0
    found = output.json
    assert found["folder"] == str(recipe.parent / "there") and found["report"] is None
    assert found["trials"] == found["ran"] == 5 and found["failed"] == 0
    assert len(found["answer"]) >= 2 and (recipe.parent / "there" / "results.jsonl").exists()
    decision = found["decision"]
    assert decision["chosen"] == "prompt-tuning/after" and decision["tells"] and decision["margin"] == 0.02
    assert decision["standings"]["prompt-tuning/after"]["best"] == 1.0


def test_another_margin_trains_nothing(run, recipe):
    run("compare", recipe, *QUICK)
    again = run("compare", recipe, *QUICK, "compare.margin=30", "--json")
    assert again.json["ran"] == 0 and again.json["decision"]["margin"] == 0.3


def test_stopped_it_says_how_to_go_on(run, recipe, monkeypatch):
    class Stopped:
        workers = 1

        def run(self, work, jobs):
            yield from Serial().run(work, jobs[:1])
            if len(jobs) == 1 and isinstance(jobs[0], experiment.FirstLook):
                return
            raise KeyboardInterrupt

        def close(self):
            pass

    monkeypatch.setattr(experiment, "executor", lambda kind, workers, threads: Stopped())
    output = run("compare", recipe, *QUICK, "--json")
    assert output.code == 130
    assert output.json["interrupted"] and output.json["ran"] == 1
    assert output.json["resume"].startswith(f"softprompt compare {recipe}")
    monkeypatch.setattr(experiment, "executor", lambda kind, workers, threads: Serial())
    assert run("compare", recipe, *QUICK, "--json").json["ran"] == 4


@pytest.mark.parametrize(
    ("override", "output"),
    [
        ("methods=[prefix-tunning/after]", "did you mean 'prefix-tuning/after'"),
        ("seeds=0", "seeds"),
        ("compare.margin=-1", "margin"),
        ("compare.seed=3", "did you mean"),
        ("compare.unseen={field: colour}", "no row has the field 'colour'"),
    ],
)
def test_mistakes_are_told_with_what_mends_them(run, recipe, override, output):
    found = run("compare", recipe, *QUICK, override)
    assert found.code == 1 and output in found.err and "Traceback" not in found.err


def test_the_table_counts_and_knows_the_best(recipe):
    from rich.console import Console

    contest = Contest()
    contest.plan({("a", "search"): 2, ("a", "final"): 1, ("b", "search"): 2})
    common = {"settings": {"train.lr": 0.01}, "seed": 0, "error": None}
    for score, name in ((0.5, "a"), (0.75, "a")):
        done = {"status": "done", "dev": {"accuracy": score}, "dev_key": [score, -1.0]}
        contest.record({"contestant": name, "phase": "search", **common, **done}, False)
    failed = {"status": "failed", "error": {"what": "no"}}
    contest.record({"contestant": "b", "phase": "search", **common, **failed}, True)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(contest._table())
    text = console.export_text()
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line[:1] in ("a", "b")}
    assert rows["a"] == ["2/2", "0/1", "0.750"] and rows["b"] == ["1/2", "1"]
    assert "3/5 trials" in text and "left" in text and contest.ran == 2
