"""The table for a paper: its values are those of the files and of the page, and both formats can be read."""

from __future__ import annotations

import io
import json
import re

import pytest

from softprompt.cli import main
from softprompt.compare import report
from softprompt.compare.report import paper, read
from softprompt.evaluation.metrics import METRICS

pandas = pytest.importorskip("pandas")
ODD = "my_method 50% & #1 {a} ~^ \\d $x"


@pytest.fixture
def comparison(build):
    return lambda **changes: read.comparison(build(**changes))


def rows_of(text: str) -> list[list[str]]:
    """The rows of a tabular, split at the & that are not escaped."""
    body = text.split("\\toprule")[1].split("\\bottomrule")[0]
    lines = [line.strip() for line in body.splitlines() if line.strip().endswith("\\\\")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line[:-2])] for line in lines]


def test_csv_has_the_values_of_the_files(comparison):
    found = comparison()
    frame = pandas.read_csv(io.StringIO(paper.table(found)))
    assert len(frame) == 2 * len(found.study.contestants) and set(frame["split"]) == {"test", "unseen"}
    for name, split in (("lora", "test"), ("zero-shot", "unseen")):
        row = frame[(frame["method"] == name) & (frame["split"] == split)].iloc[0]
        scores = [s for s in found.scores if s.contestant == name and s.split == split]
        values = [s.metrics["accuracy"]["value"] for s in scores]
        assert row["accuracy"] == pytest.approx(sum(values) / len(values), rel=1e-12)
        assert row["accuracy_low"] == min(s.metrics["accuracy"]["low"] for s in scores)
        assert row["seeds"] == len(scores) and row["macro_f1"] == 0.5
    trials = [t for t in found.trials if t.contestant == "lora" and t.phase == "final" and t.status == "done"]
    seconds = sum(t.cost["train_seconds"] for t in trials) / len(trials)
    assert frame[frame["method"] == "lora"]["train_seconds"].iloc[0] == pytest.approx(seconds, rel=1e-12)
    numeric = {"accuracy", "accuracy_low", "accuracy_high", "train_seconds", "trained_parameters", "rows"}
    assert all(pandas.api.types.is_numeric_dtype(frame[column]) for column in numeric)


def test_marks_are_what_the_corrected_tests_showed(comparison):
    """Written naively: each pair is looked up in the tests, in either order."""
    found = comparison(references=["zero-shot"])
    frame = pandas.read_csv(io.StringIO(paper.table(found)), keep_default_na=False)
    for split in ("test", "unseen"):
        rows = frame[frame["split"] == split].set_index("method")
        best = rows["accuracy"].astype(float).idxmax()
        reference = rows[rows["is_reference"]]["accuracy"].astype(float).idxmax()
        shown = {}
        for test in found.tests:
            if test.split == split:
                shown[test.a, test.b] = test.significant and test.difference > 0
                shown[test.b, test.a] = test.significant and test.difference < 0
        for name in rows.index:
            better, worse = shown.get((name, reference), ""), shown.get((best, name), "")
            assert rows.loc[name, "accuracy_better_than_reference"] == str(better)
            assert rows.loc[name, "accuracy_worse_than_best"] == str(worse)
        marks = paper.marks_of(found, split, "accuracy")
        assert marks is not None and marks.worse and marks.better and marks.best == best
        assert marks.of(best) == paper.BETTER  # it is shown better than the references


@pytest.mark.parametrize("higher", [True, False, None])
def test_a_second_metric_of_a_package_has_the_marks_of_its_direction(build, higher):
    """Old files do not say which direction is better (None): then nothing is marked."""
    folder = build(references=["zero-shot"])
    expected = paper.marks_of(read.comparison(folder), "test", "accuracy")
    for name in ("study.json", "results.jsonl"):
        lines = [
            json.loads(line.replace('"accuracy"', '"own"'))
            for line in (folder / name).read_text(encoding="utf-8").splitlines()
        ]
        lines[0] |= {"metric": "macro_f1"} | ({} if higher is None else {"directions": {"own": higher}})
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = read.comparison(folder)
    marks = paper.marks_of(found, "test", "own")
    values = {s.contestant: s.metrics["own"]["value"] for s in found.scores if s.split == "test"}
    if higher is None:
        assert marks is not None and not marks.best and not marks.worse | marks.better
    elif higher:
        assert marks == expected and marks.worse
    else:
        assert marks is not None and marks.best == min(values, key=values.get)
        assert expected is not None and expected.best in marks.worse and expected.best not in marks.better


def test_latex_agrees_with_the_page(build):
    folder = build()
    text = paper.latex(read.comparison(folder))
    report.write(folder)
    page = (folder / "report.md").read_text(encoding="utf-8")
    groups, head, *rows = rows_of(text)
    assert [len(row) for row in (head, *rows)] == [len(head)] * (1 + len(rows)) and len(rows) == 10
    assert "seen rows" in groups[1] and "unseen rows" in groups[2]
    assert head[:3] == ["method", r"accuracy (\%)", r"macro F1 (\%)"]
    for row in rows:
        value = re.match(r"(?:\\textbf\{)?([\d.]+)", row[1])[1]
        low, high = re.search(r"\(([\d.]+)~\\ldots\{\}~([\d.]+)\)", row[1]).groups()
        assert re.search(rf"\| {re.escape(row[0])} \|.* {value}\s%\s\({low}\s…\s{high}\)", page), row[0]
    training = dict(
        zip([row[0] for row in rows], [row[head.index("training time")] for row in rows], strict=True)
    )
    assert (
        all(time in page for name, time in training.items() if name == "lora")
        and training["zero-shot"] == "--"
    )
    assert sum("\\textbf" in row[1] for row in rows) == 1


CHANGES = [{}, {"tests": False, "references": []}, {"extras": False}, {"splits": {"unseen": 30}}]
CHANGES += [{"task": "generation", "metric": "perplexity", "higher_is_better": False}]
CHANGES += [{"methods": ["lora"], "references": [], "unfinished": ["lora"], "extras": False}]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_every_kind_of_comparison_gives_a_table(comparison, changes):
    found = comparison(**changes)
    text = paper.latex(found)
    assert text.count("{") == text.count("}") and not re.search(r"\b(nan|None|inf)\b", text)
    assert [*re.findall(r"\\begin\{(\w+)\}", text)] == [*re.findall(r"\\end\{(\w+)\}", text)][::-1]
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1]
    assert all(len(row) == len(columns) for row in rows_of(text) if "multicolumn" not in row[1:2][0][:13])
    assert text.isascii() or set(text) - set(map(chr, range(128))) <= {"’"}
    frame = pandas.read_csv(io.StringIO(paper.table(found)))
    assert "nan" not in frame.columns


def test_names_are_escaped(build):
    folder = build(methods=["lora", "prefix-tuning/after"])
    for name in ("study.json", "results.jsonl"):
        file = folder / name
        file.write_text(file.read_text(encoding="utf-8").replace('"lora"', json.dumps(ODD)), encoding="utf-8")
    found = read.comparison(folder)
    names = [row[0] for row in rows_of(paper.latex(found))]
    assert r"my\_method 50\% \& \#1 \{a\} \textasciitilde{}\textasciicircum{} \textbackslash{}d \$x" in names
    assert ODD in set(pandas.read_csv(io.StringIO(paper.table(found)))["method"])


def test_directions_are_those_of_the_metrics():
    assert {n for n, m in METRICS.items() if not m.higher_is_better} == paper.LOWER
    assert all(METRICS[name].higher_is_better for name in paper.HIGHER if name in METRICS)


def test_the_command(build, tmp_path, capsys):
    folder = build(extras=False)
    text = paper.latex(read.comparison(folder))
    assert main(["report", str(folder), "--latex"]) == 0 and capsys.readouterr().out == text
    file = tmp_path / "table.csv"
    assert main(["report", str(folder), "--csv", "--output", str(file), "--json"]) == 0
    assert file.read_text(encoding="utf-8") == paper.table(read.comparison(folder))
    assert json.loads(capsys.readouterr().out)["table"] == str(file) and not (folder / "report.html").exists()
    for wrong in (["--latex", "--csv"], ["--output", "x.tex"], ["--latex", "--open"]):
        assert main(["report", str(folder), *wrong]) == 1
        assert "fix:" in capsys.readouterr().err
