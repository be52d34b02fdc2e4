"""The same rows as a list, a data frame, a table, a data set or a stream are the same examples."""

from __future__ import annotations

import datetime
import itertools
import re
from pathlib import Path

import pandas as pd
import polars
import pyarrow
import pytest

import softprompt
from softprompt.data import python_rows
from softprompt.data.row_files import write_rows
from softprompt.data.sources import fingerprint, read_rows
from softprompt.errors import SoftPromptError
from softprompt.evaluation.answering import listed

datasets = pytest.importorskip("datasets")

ROWS = [
    {
        "text": f"q{i}",
        "answer": "ab"[i % 2],
        "n": None if i == 2 else i,
        "about": {"by": "x", "tags": ["t", "u"]},
    }
    for i in range(8)
]
SOURCES = {
    "pandas": lambda rows: pd.DataFrame(rows),
    "polars": lambda rows: polars.DataFrame(rows),
    "polars, lazy": lambda rows: polars.DataFrame(rows).lazy(),
    "pyarrow": lambda rows: pyarrow.Table.from_pylist(rows),
    "pyarrow, a reader": lambda rows: pyarrow.Table.from_pylist(rows).to_reader(),
    "datasets": lambda rows: datasets.Dataset.from_list(rows),
    "datasets, a stream": lambda rows: datasets.Dataset.from_list(rows).to_iterable_dataset(),
    "a stream of a generator": lambda rows: datasets.IterableDataset.from_generator(
        lambda rows: iter(rows), gen_kwargs={"rows": rows}
    ),
    "a generator": lambda rows: (row for row in rows),
}


@pytest.fixture(params=SOURCES)
def source(request):
    return SOURCES[request.param](ROWS)


def test_the_same_rows(source, recwarn):
    assert fingerprint(read_rows(source)) == fingerprint(ROWS)
    assert not [w for w in recwarn if "Performance" in w.category.__name__]


def test_the_same_inputs(source, recwarn):
    many, single = listed(source)
    assert fingerprint(many) == fingerprint(ROWS) and not single
    assert not [w for w in recwarn if "Performance" in w.category.__name__]


def test_the_page_runs(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "data.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 1
    assert blocks[0].count('"smollm2"') == 1
    exec(blocks[0].replace("smollm2", str(model_folder)), {})
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) == 5 and len(set(lines)) == 1


def test_odd_values_of_every_library():
    when = datetime.datetime(2026, 1, 31, 10, 0)
    plain = [
        {"c": "x", "f": 0.5, "t": str(when), "d": "2026-01-31"},
        {"c": None, "f": None, "t": None, "d": None},
    ]
    values = {"c": ["x", None], "f": [0.5, float("nan")], "t": [when, None], "d": [when.date(), None]}
    frame = pd.DataFrame({**values, "t": pd.to_datetime(values["t"])}).astype({"c": "category"})
    polar = polars.DataFrame(values).with_columns(polars.col("c").cast(polars.Categorical))
    table = pyarrow.table({**values, "c": pyarrow.array(values["c"]).dictionary_encode()})
    for source in (values, frame, polar, table, datasets.Dataset(table)):
        assert read_rows(source) == plain, type(source)


def test_tune_search_evaluate_and_generate_take_them(llama, tmp_path):
    common = {
        "template": {"input": "{{ text }}", "target": "{{ answer }}"}, "task": "classification",
        "length": 2, "steps": 1, "progress": False,
    }  # fmt: skip
    wanted = None
    for name in ("list", "polars", "datasets, a stream"):
        rows = ROWS if name == "list" else SOURCES[name](ROWS)
        run = softprompt.tune(llama, "prompt-tuning", rows, output=tmp_path / name, **common)
        about = run.artifact.manifest["identity"]["rows"], run.metrics
        wanted = wanted or about
        assert about == wanted
    for name, make in SOURCES.items():
        assert run.generate(make(ROWS)) == run.generate(ROWS), name
        assert run.evaluate(make(ROWS)).metrics == run.evaluate(ROWS).metrics, name
    both = softprompt.search(
        llama, "prompt-tuning", SOURCES["pandas"](ROWS), {"lr": [1e-3, 1e-2]}, output=tmp_path / "s", **common
    )
    assert {each.artifact.manifest["identity"]["rows"]["train"] for each in both} == {wanted[0]["train"]}


def test_a_stream_without_an_end(monkeypatch):
    def endless():
        for number in itertools.count():
            yield {"text": str(number)}

    monkeypatch.setattr(python_rows, "STREAM_ROWS", 50)
    stream = datasets.IterableDataset.from_generator(endless)
    for source in (stream, endless()):
        with pytest.raises(SoftPromptError, match="do not end within 50") as caught:
            read_rows(source)
        assert "take(" in caught.value.fix
        with pytest.raises(SoftPromptError, match="do not end"):
            listed(source)
    assert read_rows(stream, first=3) == [{"text": "0"}, {"text": "1"}, {"text": "2"}]
    assert len(read_rows(stream.take(50))) == 50


def test_a_limit_reads_no_more_of_a_stream(llama, tmp_path):
    read = []

    def rows():
        for number in range(1000):
            read.append(number)
            yield {"input": f"q{number}", "target": "ab"}

    stream = datasets.IterableDataset.from_generator(rows)
    softprompt.tune(
        llama, "prompt-tuning", stream, limit=6, output=tmp_path / "out", length=2, steps=1, progress=False
    )
    assert len(read) <= 7


def test_a_column_that_is_there_twice():
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    with pytest.raises(SoftPromptError, match="'text' is there twice"):
        read_rows(table)


def test_rows_in_a_file_for_other_processes(tmp_path):
    file = write_rows(tmp_path / "rows", polars.DataFrame(ROWS), "train")
    assert fingerprint(read_rows(file)) == fingerprint(ROWS)
    assert write_rows(tmp_path / "rows", ROWS, "train") == file
    assert write_rows(tmp_path / "rows", ROWS[1:], "train") != file
    image = write_rows(tmp_path / "rows", [{"text": "a", "image": b"123"}], "train")
    assert read_rows(image) == [{"text": "a"}]
