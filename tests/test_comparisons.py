"""Published comparisons are split as their recipes say, and the tables agree with the scores."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmarks.comparisons import named
from benchmarks.comparisons.__main__ import publish, sample
from benchmarks.comparisons.claims import is_near, judge, paired, pilots, tables
from benchmarks.comparisons.rows import MEASURED, TRAIN
from benchmarks.comparisons.rows import write as write_rows
from benchmarks.comparisons.sets import SETS, recipe

from softprompt import methods
from softprompt.compare.candidates import candidates_of
from softprompt.compare.report.limits import unmeasurable
from softprompt.compare.report.read import comparison
from softprompt.config.load import recipe_from_dict
from softprompt.data.template import Template

pytestmark = pytest.mark.whole

SENTENCES = "sst2 customer_reviews imdb_reviews ag_news rte mrpc qqp".split()
FILES = ("train", "validation", "test")


def lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Write invented rows with the fields of each set."""
    folder = tmp_path_factory.mktemp("data")
    yes = {"rte": "entailment", "mrpc": "paraphrase", "qqp": "paraphrase"}
    for split in FILES:
        for name in SENTENCES:
            output = [yes[name], f"not {yes[name]}"] if name in yes else ["positive", "negative"]
            rows = [
                {"input": f"{name} {split} {i} " + "x " * (i % 9), "target": output[i % 2]}
                for i in range(800)
            ]
            lines(folder / name / f"{split}.jsonl", rows)
        for name in ("webnlg", "bible_style"):
            rows = [
                {
                    "input": f"{split} {i}",
                    "target": "t",
                    "references": ["t"],
                    "seen": split != "test" or i % 2 == 0,
                }
                for i in range(800)
            ]
            lines(folder / name / f"{split}.jsonl", rows)
        intents = [
            {"input": f"{split} {i}", "target": f"intent {i % 20}", "domain": "banking" if i % 2 else "work"}
            for i in range(1600)
        ]
        lines(folder / "clinc150" / f"{split}.jsonl", intents)
        outside = [
            {"input": f"oos {split} {i}", "target": "out of scope", "domain": "oos"} for i in range(100)
        ]
        lines(folder / "clinc150" / f"oos_{split}.jsonl", outside)
        tasks = [f"task{i:02}" for i in range(12)]
        rows = [
            {
                "input": f"{split} {i}" + " long" * 60 * (task == "task00"),
                "task": task,
                "target": "t",
                "references": ["t"],
            }
            for task in tasks
            for i in range(100)
        ]
        lines(folder / "natural_instructions" / f"{split}.jsonl", rows)
    messages = [{"task": task, "instruction": f"do {task} " + "so " * 200} for task in tasks]
    lines(folder / "natural_instructions" / "tasks.jsonl", messages)
    return folder


@pytest.mark.parametrize("name", SETS)
def test_each_set_is_split_and_rendered_as_its_recipe_says(data, tmp_path, name):
    parts = SETS[name].parts(data)
    assert len(parts["train"]) >= TRAIN and len(parts["test"]) == MEASURED
    shown = [{(row["input"], row.get("instruction")) for row in rows} for rows in parts.values()]
    assert sum(map(len, shown)) == len(set().union(*shown))  # no row is in two parts
    plain = recipe(name, write_rows(parts, tmp_path), tmp_path / "out")
    read = recipe_from_dict(plain, method_option_names=methods.option_names())
    who = candidates_of(read)
    assert {len(set(one.rates)) for one in who if not one.is_reference} == {4} and read.compare.seeds == 3
    assert len(who) >= 9
    assert read.compare.unseen is not None or "unseen" not in parts
    template = Template(read.template.input, read.template.target)
    for rows in parts.values():
        assert all(template.render(row).input and template.render(row).target for row in rows)
    if read.task.labels:
        assert {row["target"] for row in parts["train"]} <= {*read.task.labels}


def test_unseen_rows_are_of_other_kinds(data):
    parts = SETS["natural_instructions"].parts(data)
    tasks = {split: {row["task"] for row in rows} for split, rows in parts.items()}
    assert not tasks["unseen"] & tasks["train"] and tasks["test"] <= tasks["train"]
    assert "task00" not in set().union(*tasks.values())  # too long
    parts = SETS["clinc150"].parts(data)
    assert {row["domain"] for row in parts["train"]} == {"banking", "oos"}
    assert {row["target"] for row in parts["unseen"]} == {"out of scope"}
    for name in ("webnlg", "bible_style"):
        parts = SETS[name].parts(data)
        assert {row["seen"] for row in parts["test"]} == {True} and {
            row["seen"] for row in parts["unseen"]
        } == {False}


@pytest.fixture
def published(tmp_path) -> Path:
    """Write a comparison by hand: less is better, and the test has the other sign."""
    run = tmp_path / "some" / "where"
    study = {"kind": "study", "version": 1, "name": "toy", "metric": "perplexity", "higher_is_better": False}
    study["contestants"] = [{"name": "prompt-tuning/after"}, {"name": "prefix-tuning/after"}]
    study["command"] = f"compare --out {run}"
    test = {
        "kind": "test",
        "split": "unseen",
        "metric": "perplexity",
        "significant": True,
        "p_adjusted": 0.01,
    }
    test |= {
        "a": "prompt-tuning/after",
        "b": "prefix-tuning/after",
        "difference": 2.0,
        "low": 1.5,
        "high": 3.0,
    }
    cost = {"trained_parameters": 100, "flops": 50.0}
    trial = {"kind": "trial", "id": "1", "phase": "final", "status": "done"}
    found = [
        study,
        test,
        {**trial, "contestant": "prompt-tuning/after", "cost": cost},
        {**trial, "contestant": "prefix-tuning/after", "cost": {"trained_parameters": 400, "flops": 100.0}},
        {"kind": "control", "contestant": "prefix-tuning/after", "measure": "swap", "value": 0.75},
    ]
    lines(run / "results.jsonl", found)
    publish(run, tmp_path / "docs" / "toy", {run: "runs/toy"})
    return tmp_path / "docs" / "toy"


def test_a_sample_shows_rows_and_nobodys_folders(published, tmp_path):
    run = tmp_path / "some" / "where"
    of = {"split": "unseen", "row": 0}
    scored_row = {"kind": "example", **of, "contestant": "prefix-tuning/after", "seed": 0, "score": 1.0}
    with (run / "results.jsonl").open("a", encoding="utf-8") as results:
        results.write(json.dumps(scored_row) + "\n")
    row = {"kind": "row", **of, "input": "a row of words", "references": ["b"]}
    answer = {"kind": "answer", **of, "contestant": "prefix-tuning/after", "seed": 0, "prediction": "a text"}
    lines(run / "examples.jsonl", [row, answer])
    sample(run, tmp_path / "docs" / "toy.html", {run: "runs/toy"})
    page = (tmp_path / "docs" / "toy.html").read_text(encoding="utf-8")
    assert "a row of words" in page and "compare --out runs/toy" in page and str(tmp_path) not in page


def test_aggregates_are_published_without_scores_of_rows(published, tmp_path):
    """The labels of the rows say that they cannot measure quality; the copy states it without them."""
    run, copy = tmp_path / "some" / "where", tmp_path / "docs" / "aggregates"
    score = {"kind": "score", "contestant": "prefix-tuning/after", "seed": 0, "metrics": {}}
    row = {"kind": "example", "contestant": "prefix-tuning/after", "seed": 0, "score": 1.0}
    labels = {"unseen": [1, 1, 1], "test": [0, 1, 0]}
    with (run / "results.jsonl").open("a", encoding="utf-8") as results:
        for split, targets in labels.items():
            results.write(json.dumps({**score, "split": split}) + "\n")
            for number, target in enumerate(targets):
                results.write(json.dumps({**row, "split": split, "row": number, "target": target}) + "\n")
    publish(run, copy, {})
    full, aggregates = comparison(run), comparison(copy)
    assert len(full.examples) == 6 and aggregates.examples == []
    assert (aggregates.study, aggregates.scores, aggregates.tests) == (full.study, full.scores, full.tests)
    for split, expected in (("unseen", "3 of 3 unseen rows ask for label 1"), ("test", None)):
        assert unmeasurable(full, split) == unmeasurable(aggregates, split) == expected
    publish(copy, copy, {})  # publishing twice changes nothing
    assert comparison(copy) == aggregates


def test_nobodys_folders_are_published(published, tmp_path):
    text = (published / "results.jsonl").read_text()
    assert str(tmp_path) not in text and "runs/toy" in text


def test_tables_turn_differences_so_that_more_is_better(published):
    one = comparison(published)
    test = paired(one, "unseen", "prefix-tuning/after", "prompt-tuning/after")
    # prompt − prefix is 2 in perplexity: the prefix is better by 2
    assert test is not None and (test.difference, test.low, test.high) == (2.0, 1.5, 3.0)
    turned = paired(one, "unseen", "prompt-tuning/after", "prefix-tuning/after")
    assert turned is not None and (turned.difference, turned.low, turned.high) == (-2.0, -3.0, -1.5)
    assert paired(one, "test", "prefix-tuning/after", "prompt-tuning/after") is None
    text = "\n".join(tables([one]))
    assert "| toy | unseen | after | 2 | 1.5 … 3 | 0.01 | prefix |" in text
    assert "| unseen | after | 1 | 1 | 0 | 0 |" in text and "| test | after | 0 | 0 | 0 | 0 |" in text
    assert "| toy | after | 0.25 |  | 0.5 |  |  |" in text
    assert "| toy | swap | after |  | 0.75 |" in text


def scored(folder: Path, *, metric: str = "accuracy", worse: bool = False, **scores: float) -> Path:
    """Write a comparison of methods with these scores; `worse` means that the second is shown to be worse."""
    study = {"kind": "study", "version": 1, "name": folder.name, "metric": metric}
    study |= {"higher_is_better": metric == "accuracy", "contestants": [{"name": name} for name in scores]}
    score = {"kind": "score", "split": "test", "seed": None}
    made = [{**score, "contestant": n, "metrics": {metric: {"value": v}}} for n, v in scores.items()]
    first, second = list(scores)[:2]
    test = {"kind": "test", "split": "test", "metric": metric, "a": first, "b": second, "significant": worse}
    difference = scores[first] - scores[second]
    lines(folder / "results.jsonl", [study, *made, {**test, "difference": difference, "low": 0, "high": 1}])
    return folder


@pytest.mark.parametrize(
    ("second", "worse", "good"), [(0.89, False, "yes"), (0.89, True, "no"), (0.87, False, "no")]
)
def test_a_pilot_is_good_where_nothing_is_shown_to_be_better(tmp_path, second, worse, good):
    folder = scored(tmp_path / "toy", first=0.9, second=second, worse=worse)
    messages = {"named": "second", "seconds": 30.0}
    (folder / "pilot.json").write_text(json.dumps(messages))
    text = "\n".join(tables([comparison(folder)], pilots([folder])))
    assert f"| toy | 30 | second | {second} | first | 0.9 | {'yes' if worse else 'no'} | {good} |" in text


def test_a_pilot_is_compared_with_methods_that_use_the_model(tmp_path):
    one = comparison(scored(tmp_path / "a", first=0.8, second=0.7, **{"tf-idf": 0.9}))
    assert judge(one, "first") == ("first", (0.8, 0.8), False)
    assert judge(one, "third") is None
    one = comparison(scored(tmp_path / "b", metric="perplexity", first=8.0, second=9.0, worse=True))
    assert judge(one, "second") == ("first", (9.0, 8.0), True)
    assert is_near("perplexity", 8.1, 8.0) and not is_near("perplexity", 8.2, 8.0)
    assert pilots([tmp_path]) == [None]


def test_what_finals_would_have_named(tmp_path):
    """Seed 0 names the better by both; seed 1 names the worse by the metric, the better by log-loss."""
    one = comparison(scored(tmp_path / "toy", first=0.9, second=0.7))
    trials = tmp_path / "contest" / "trials"
    trials.mkdir(parents=True)
    (trials.parent / "study.json").write_text(json.dumps({"rows": {"dev": 50}}))
    scores = {("first", 0): (0.8, -1.0), ("second", 0): (0.6, -1.5)}
    scores |= {("first", 1): (0.7, -1.0), ("second", 1): (0.72, -1.5)}
    common = {"phase": "final", "steps": 60, "status": "done", "rows": 100}
    for (who, seed), key in scores.items():
        record = common | {"contestant": who, "seed": seed, "dev_key": key}
        (trials / f"{who}-{seed}.json").write_text(json.dumps(record))
    (trials / "other.json").write_text(json.dumps(common | {"phase": "search"}))
    finals = named.read(tmp_path / "contest")
    assert sorted(finals) == [0, 1]
    found = dict(zip(finals, named.good(one, finals), strict=True))
    assert found == {0: (True, True), 1: (False, True)}


DOCS = Path(__file__).parents[1] / "docs"
PUBLISHED = sorted(path.parent for path in DOCS.glob("comparisons/*/results.jsonl"))


def test_the_page_has_the_tables_of_what_is_published():
    page = (DOCS / "nine-comparisons.md").read_text(encoding="utf-8").splitlines()
    messages = [line for line in tables([comparison(f) for f in PUBLISHED], pilots(PUBLISHED)) if line]
    assert len(PUBLISHED) >= 4 and set(messages) <= set(page), [
        line for line in messages if line not in page
    ][:3]


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_what_is_published_is_whole(folder):
    """Every contestant has its seeds and scores, or a reason; local folders and rows' texts are absent."""
    found = comparison(folder)
    text = (folder / "results.jsonl").read_text(encoding="utf-8")
    assert not re.search(r'"/\w', text)
    assert '"kind": "row"' not in text and '"input"' not in text.split("\n", 1)[1]
    assert found.examples == [] and len(text) < 200_000
    ended = {(t.contestant, t.seed) for t in found.trials if t.phase == "final" and t.status == "done"}
    failed = {t.contestant for t in found.trials if t.status == "failed"}
    for one in found.study.contestants:
        if not one.is_reference and one.name not in failed:
            assert {(one.name, seed) for seed in found.study.seeds} <= ended
    splits = {(score.contestant, score.split) for score in found.scores}
    assert {(one.name, split) for one in found.study.contestants for split in ("test", "unseen")} <= splits


def test_samples_are_of_sets_whose_rows_may_be_shown():
    assert {path.stem for path in DOCS.glob("samples/*.html")} <= {n for n, s in SETS.items() if s.shown}
