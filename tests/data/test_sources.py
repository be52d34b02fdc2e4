"""Rows from every kind of source, and the line that each mistake names."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from softprompt.data.sources import Row, fingerprint, read_rows
from softprompt.data.split import limit_rows, split_rows
from softprompt.errors import SoftPromptError

ROWS = [{"input": "a, b", "target": "x\u2028y"}, {"input": 'say "hi"', "target": "two\nlines"}]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def fails(source, **kwargs) -> str:
    with pytest.raises(SoftPromptError) as caught:
        read_rows(source, **kwargs)
    return str(caught.value)


def test_jsonl_rows_know_their_lines(tmp_path):
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    rows = read_rows(write(tmp_path / "train.jsonl", "\ufeff" + lines[0] + "\r\n\n" + lines[1]))
    assert rows == ROWS
    assert [row.where for row in rows] == ["train.jsonl:1", "train.jsonl:3"]
    assert pickle.loads(pickle.dumps(rows[1])).where == "train.jsonl:3"


def test_json_list_rows_know_their_lines(tmp_path):
    rows = read_rows(write(tmp_path / "a.json", json.dumps(ROWS, indent=1)))
    assert rows == ROWS
    assert [row.where for row in rows] == ["a.json:2", "a.json:6"]
    assert (
        read_rows(write(tmp_path / "b.json", json.dumps(ROWS[0]))) == ROWS[:1]
    )  # JSON lines by another name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[\n{"a": 1}\n{"a": 2}]', "c.json:3: broken JSON: expected ','"),
        ('[\n{"a": 1},\n{"a": }]', "c.json:3: broken JSON"),
        ('[\n{"a": 1},\n7]', "c.json:3: a row is an object"),
        ('[{"a": 1}', "c.json:1: broken JSON"),
        ('[{"a": 1}]\n\nmore', "c.json:3: broken JSON: text after the end"),
        ("[]", "no rows"),
    ],
)
def test_json_list_mistakes(tmp_path, text, expected):
    assert expected in fails(write(tmp_path / "c.json", text))


@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t")])
def test_csv_rows_know_where_they_begin(tmp_path, name, delimiter):
    import csv

    with (tmp_path / name).open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["input", "target"])
        for row in [*ROWS, {"input": "x" * 200_000, "target": "long"}]:
            writer.writerow([row["input"], row["target"]])
    rows = read_rows(tmp_path / name)
    assert rows[:2] == ROWS and len(rows[2]["input"]) == 200_000
    assert [row.where for row in rows] == [f"{name}:2", f"{name}:3", f"{name}:5"]
    assert csv.field_size_limit() == 131_072


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n\n1,2,3\n", "t.csv:4: 3 cells, but the header names 2"),
        ('a,b\n1,"2"x\n', "t.csv:2: broken quoting"),
        ('a,b\n1,2\n1,"2\n', "t.csv:3: broken quoting"),
        ("a,a\n1,2\n", "'a' is there twice"),
        ("a,b\n", "no rows"),
    ],
)
def test_csv_mistakes(tmp_path, text, expected):
    assert expected in fails(write(tmp_path / "t.csv", text))


def test_parquet_and_saved_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    rows = read_rows(tmp_path / "a.parquet")
    assert rows == ROWS and rows[1].where == "a.parquet row 2"
    assert "not a readable Parquet file" in fails(write(tmp_path / "b.parquet", "nonsense"))
    assert "is empty" in fails(write(tmp_path / "c.parquet", ""))

    dataset = datasets.Dataset.from_list(ROWS)
    assert read_rows(dataset) == ROWS
    dataset.save_to_disk(tmp_path / "saved")
    assert read_rows(tmp_path / "saved")[0].where == "saved row 1"
    splits = datasets.DatasetDict({"train": dataset, "validation": dataset.select([1])})
    splits.save_to_disk(tmp_path / "splits")
    assert read_rows(tmp_path / "splits", split="validation") == ROWS[1:]
    assert "did you mean 'validation'" in fails(splits, split="validatoin")
    assert read_rows(dataset.to_pandas()) == ROWS


def test_hub_source_goes_through_datasets(monkeypatch):
    datasets = pytest.importorskip("datasets")
    calls = []

    def load_dataset(name, config, split):
        calls.append((name, config, split))
        if name == "gone":
            raise ConnectionError("no network")
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_rows("hf:org/set", split="test")[0].where == "hf:org/set row 1"
    read_rows("hf:set:dev")
    read_rows("hf:glue:sst2:train")
    assert calls == [("org/set", None, "test"), ("set", None, "dev"), ("glue", "sst2", "train")]
    assert "ConnectionError: no network" in fails("hf:gone")
    assert "hf:NAME:CONFIG:SPLIT" in fails("hf:")


def test_lists_of_dicts():
    rows = read_rows(ROWS, split="dev")
    assert rows == ROWS and rows[0].where == "dev row 1"
    assert read_rows([Row(ROWS[0], "a.jsonl:9")])[0].where == "a.jsonl:9"
    assert "train row 2: a row is an object" in fails([{"a": 1}, "b"])
    assert "cannot read rows from int" in fails(3)
    assert "no rows" in fails([])


def test_jsonl_mistakes_name_the_line(tmp_path):
    assert "x.jsonl:2: broken JSON" in fails(write(tmp_path / "x.jsonl", '{"a": 1}\n{"a": \n'))
    assert "x.jsonl:3: a row is an object" in fails(write(tmp_path / "x.jsonl", '{"a": 1}\n\n[1]\n'))
    assert "x.jsonl:2: not UTF-8" in fails(write(tmp_path / "x.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n'))
    assert "is empty" in fails(write(tmp_path / "x.jsonl", " \n"))


def test_file_mistakes(tmp_path):
    write(tmp_path / "train.jsonl", "{}")
    assert "did you mean" in fails(tmp_path / "trian.jsonl") and "train.jsonl" in fails(
        tmp_path / "trian.jsonl"
    )
    assert "does not exist" in fails(tmp_path / "nowhere" / "train.jsonl")
    assert "'.xml'" in fails(write(tmp_path / "a.xml", "<a/>"))
    (tmp_path / "none").mkdir()
    assert "holds no data file" in fails(tmp_path / "none")


def test_split_is_deterministic_and_keeps_copies_together():
    rows = [Row({"input": str(i % 70), "target": str(i % 35)}, f"r:{i}") for i in range(100)]
    train, dev = split_rows(rows, 0.2, seed=3)
    assert (train, dev) == split_rows(rows, 0.2, seed=3) != split_rows(rows, 0.2, seed=4)
    assert len(train) + len(dev) == 100 and 15 <= len(dev) <= 20
    assert not {fingerprint([row]) for row in train} & {fingerprint([row]) for row in dev}
    train, dev = split_rows(rows, 0.2, seed=3, key=lambda row: row["target"])
    assert not {row["target"] for row in train} & {row["target"] for row in dev}


def test_split_edges():
    train, dev = split_rows([{"a": 1}, {"a": 2}], 0.001, seed=0)
    assert len(train) == len(dev) == 1
    train, dev = split_rows([{"a": 1}, {"a": 2}], 0.999, seed=0)
    assert len(train) == len(dev) == 1
    train, dev = split_rows([{"a": 1}] * 9 + [{"a": 2}] * 5, 0.1, seed=0)
    assert (len(train), len(dev)) == (9, 5)
    with pytest.raises(SoftPromptError, match="cannot carve a dev set out of 3"):
        split_rows([{"a": 1}] * 3, 0.5, seed=0)


def test_limit_is_nested():
    rows = [{"a": i} for i in range(20)]
    small, large = limit_rows(rows, 5, seed=1), limit_rows(rows, 15, seed=1)
    assert small == large[:5] and small != rows[:5]
    assert limit_rows(rows, None, seed=1) == rows and len(limit_rows(rows, 99, seed=1)) == 20


def test_fingerprint_is_of_contents_in_order():
    assert fingerprint([Row(ROWS[0], "x:1")]) == fingerprint([{"target": "x\u2028y", "input": "a, b"}])
    assert fingerprint(ROWS) != fingerprint(ROWS[::-1])
    assert fingerprint([{"a": "\ud800"}])  # a lone surrogate, as broken scrapes hold them
