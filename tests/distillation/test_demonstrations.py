"""Demonstrations become vectors, from the command line, on a tiny model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import softprompt
from softprompt.build import template_of
from softprompt.cli import main
from softprompt.config.load import recipe_from_dict
from softprompt.distillation.demonstration_recipe import recipe_of
from softprompt.distillation.demonstration_rows import read, split
from softprompt.distillation.report_blocks import is_better
from softprompt.page.numbers import plain, unit

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss", "tree", "fog"]
LABELLED = [{"input": f"{word} {i}", "target": ("good", "bad")[i % 2]} for i, word in enumerate(WORDS * 2)]
SHOTS, REQUESTS = LABELLED[:6], LABELLED[6:]
QUICK = ["steps=2", "batch_size=4", "dtype=float32"]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def documented():
    """Return the words of the command that the page on distilling begins its demonstrations with."""
    section = (Path(__file__).parents[2] / "docs/distill.md").read_text().split("\n## Demonstrations\n")[1]
    words = shlex.split(section.split("```bash\n")[1].split("```")[0])
    assert words[:2] == ["softprompt", "distill"]
    return words[1:]


@pytest.fixture
def run(model_folder, tmp_path, monkeypatch, capsys):
    """Run the command on the tiny model in a folder of its own; return (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(shots, requests=None, *more):
        words = ["distill", "--demonstrations", written(tmp_path / "shots.jsonl", shots)]
        if requests is not None:
            written(tmp_path / "requests.jsonl", requests)
            words = documented()
        code = main([*words, *more, f"model={model_folder}", "output=out", *QUICK])
        return code, *capsys.readouterr()

    return call


def test_demonstrations_of_labels(run, tmp_path):
    requests = [*REQUESTS, {"input": "no target here"}, {"input": "nor here"}]
    code, out, err = run(SHOTS, requests, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["demonstrations"] == 6 and report["leave_one_out"] and report["answered"] == [2, 2]
    ways = report["ways"]
    assert list(ways) == ["no demonstrations", "in context", "untrained vectors", "tuned vectors"]
    # the start is the few-shot prompt
    assert report["start_differs_by"] < 1e-3
    assert ways["in context"]["metrics"]["accuracy"] == ways["untrained vectors"]["metrics"]["accuracy"]
    tuned = ways["tuned vectors"]
    assert tuned["n"] == 6 and tuned["target_loss"] != ways["in context"]["target_loss"]
    assert len(tuned["intervals"]["accuracy"]) == 2
    assert report["tokens_saved"] == sum(len(f"{r['input']} {r['target']}\n\n") for r in SHOTS)
    assert json.loads((tmp_path / "out-distill" / "distill.json").read_text()) == report
    # the answers of the model with the demonstrations in context are targets
    answered = [
        json.loads(line) for line in (tmp_path / "out-distill/answered.jsonl").read_text().splitlines()
    ]
    assert {row["target"] for row in answered} <= {"good", "bad"} and len(answered) == 2
    assert softprompt.open_prompt(tmp_path / "out").generate("sun 1")  # one like any other
    code, out, err = run(SHOTS, requests, "--json")
    assert code == 0, err + out
    again = json.loads(out)
    assert again["seconds"] == report["seconds"]
    page_shows(tmp_path / "out", again, "accuracy")


def page_shows(folder, report, metric):
    """Check that the page of a prompt has the figures of its report."""
    assert main(["report", str(folder)]) == 0
    texts = [(folder.parent / "out-distill" / name).read_text() for name in ("report.html", "report.md")]
    tuned, first = report["ways"]["tuned vectors"], report["samples"][0]
    last = report["history"][-1]
    words = [*report["ways"], unit(metric).value(tuned["metrics"][metric]), plain(tuned["target_loss"])]
    words += [f"{report['tokens_saved']}; as many vectors", first["right answer"], plain(last["loss"])]
    words += [f"6 demonstrations as {report['vectors']} vectors", "tuned vectors − in context"]
    for text in texts:
        assert not [word for word in words if word.replace("\xa0", " ") not in text.replace("\xa0", " ")]
    assert all(first[name] in texts[1] for name in ("request", "in context", "tuned vectors"))


def test_demonstrations_of_texts(run, tmp_path):
    """Without requests some demonstrations are kept apart; a report is printed."""
    shots = [{"question": f"{word} {i}", "answer": word[::-1]} for i, word in enumerate(WORDS)]
    code, out, err = run(shots, None, "max_new_tokens=4")
    assert code == 0, err
    assert "6 demonstrations as vectors, on 2 rows that were kept apart" in out
    assert "untrained vectors differ from the text by" in out and "tokens saved a request" in out
    report = json.loads((tmp_path / "out-distill" / "distill.json").read_text())
    page_shows(tmp_path / "out", report, report["metric"])


def test_a_test_knows_which_way_is_better():
    """Perplexity is better where it is less, whatever the page."""
    lower = {"metric": "perplexity", "difference": -1.0, "higher_is_better": False}
    assert is_better(lower) and not is_better({**lower, "higher_is_better": True})
    # a file of old does not say it
    assert is_better({"metric": "kl", "difference": -1.0}) and is_better(
        {"metric": "chrf", "difference": 1.0}
    )


@pytest.mark.parametrize(
    "shots, requests, more, message",
    [
        (SHOTS[:1], REQUESTS, [], "1 demonstration is too few"),
        (SHOTS, None, [], "6 demonstrations and 0 requests with a target are too few"),
        (SHOTS[:3] * 4, None, [], "why: 3 differ, and of at least 8 rows"),
        ([*SHOTS, {"input": "x"}], REQUESTS, [], "1 of 7 rows have no target: "),
        ([{"a": "x", "b": "y"}], None, [], "have no field that holds their target"),
        (SHOTS, REQUESTS, ["placement=after"], "cannot be combined with placement=after"),
        (SHOTS, REQUESTS, ["init=context"], "method.init=context does not start as the demonstrations"),
        (SHOTS, REQUESTS, ["--vectors", "3"], "no demonstration fits: the first takes"),
        (SHOTS, REQUESTS, ["--field", "input"], "--field has no effect on demonstrations"),
        (SHOTS, REQUESTS, ["--system", "x.txt"], "both name what becomes vectors"),
    ],
)
def test_bad_input(run, tmp_path, shots, requests, more, message):
    code, _, err = run(shots, requests, *more)
    assert code == 1 and message in err and "Traceback" not in err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out-distill").exists()


def test_rows_are_split_once(model_folder, tmp_path):
    """No row that is measured on is shown or trained on, also where a file repeats it."""
    tree = recipe_of(written(tmp_path / "shots.jsonl", SHOTS), [f"model={model_folder}"])
    assert tree["task"]["kind"] == "classification"
    recipe = recipe_from_dict(tree)
    rows = split(read(recipe, [*REQUESTS, *SHOTS, *REQUESTS], None), 0, template_of(recipe))
    parts = [[row["input"] for row in part] for part in (rows.shown, rows.train, rows.dev, rows.test)]
    every = [text for part in parts for text in part]
    assert sorted(every) == sorted({row["input"] for row in LABELLED})
    assert list(map(len, parts)) == [6, 5, 3, 6]
    spaced = [{**row, "input": f"{row['input']} "} for row in SHOTS]
    again = split(read(recipe, [*REQUESTS, *spaced], None), 0, template_of(recipe))
    assert (again.train, again.dev, again.test) == (rows.train, rows.dev, rows.test)


def test_a_demonstration_that_is_repeated_is_on_one_side(model_folder, tmp_path):
    """A file may hold a row twice: neither is shown where the other is measured on."""
    tree = recipe_of(written(tmp_path / "shots.jsonl", LABELLED * 2), [f"model={model_folder}"])
    recipe = recipe_from_dict(tree)
    rows = split(read(recipe, None, None), 0, template_of(recipe))
    parts = [{row["input"] for row in part} for part in (rows.shown, rows.dev, rows.test)]
    assert parts[0] | parts[1] | parts[2] == {row["input"] for row in LABELLED}
    assert sum(map(len, parts)) == len(LABELLED) and (len(rows.dev), len(rows.test)) == (3, 5)
