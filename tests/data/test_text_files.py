"""Files as people have them: encodings, separators, compression, shards, JSON of any shape."""

from __future__ import annotations

import gzip
import json
import lzma
import os

import pyarrow
import pytest

from softprompt.data.sources import read_rows
from softprompt.errors import SoftPromptError

ROWS = [{"text": "é", "label": "a"}, {"text": "b", "label": "c"}]
LINES = [json.dumps(row, ensure_ascii=False) for row in ROWS]


def fails(source) -> str:
    with pytest.raises(SoftPromptError) as caught:
        read_rows(source)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(
            (f"{code}.csv", "text;label\né;a\nb;c\n".encode(code))
            for code in ("utf-16", "utf-32", "utf-8-sig")
        ),
        ("tab.csv", "text\tlabel\r\né\ta\r\nb\tc".encode()),
        ("bar.tsv", "text|label\né|a\nb|c\n".encode()),
        ("cr.csv", "text,label\ré,a\rb,c\r".encode()),
        ("cr.jsonl", "\r".join(LINES).encode()),
        ("z.jsonl.gz", gzip.compress("\n".join(LINES).encode())),
        ("z.csv.xz", lzma.compress("text,label\né,a\nb,c".encode())),
        ("list.jsonl", json.dumps(ROWS, indent=1).encode()),
        ("columns.json", json.dumps({"text": ["é", "b"], "label": ["a", "c"]}, indent=1).encode()),
        ("data.json", json.dumps({"version": 1, "data": ROWS}, indent=1).encode()),
        ("data1.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("splits.json", json.dumps({"train": ROWS, "test": ROWS[:1]}).encode()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # gzip writes the time into its bytes
)
def test_a_file_is_read_as_what_it_is(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read_rows(tmp_path / name) == ROWS


def test_shards_and_patterns(tmp_path):
    for name, row in {
        "train-00000-of-00002": ROWS[0],
        "train-00001-of-00002": ROWS[1],
        "test-0": ROWS[1],
    }.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    assert read_rows(tmp_path) == ROWS and read_rows(tmp_path, split="test") == ROWS[1:]
    assert read_rows(tmp_path / "train-*.jsonl") == ROWS
    assert "no file matches" in fails(tmp_path / "*.csv")
    (tmp_path / "train-2.csv").write_text("text,label\nx,y\n")
    assert "several formats" in fails(tmp_path)


def test_files_that_cannot_be_read_say_why(tmp_path):
    os.mkfifo(tmp_path / "p.jsonl")
    assert "is a pipe" in fails(tmp_path / "p.jsonl")
    assert "File name too long" in fails(tmp_path / ("n" * 300 + ".csv"))
    assert "NUL" in fails("a\0b.csv")
    for address in ("https://x.org/a.jsonl", str(tmp_path / "s3:/x/y.csv")):
        assert "not read from an address" in fails(address)
    for name, content, output in (
        ("deep.jsonl", "[" * 10_000, "too deeply"),
        ("deep1.jsonl", '{"a": ' + "[" * 10_000, "too deeply"),
        ("big.jsonl", '{"a": ' + "9" * 5000 + "}", "too many digits"),
        ("comma.json", '[{"a": 1},]', "there is a comma after the last row"),
        ("wide.csv", ",".join(f"c{i}" for i in range(20_000)) + "\n", "at most 10,000 columns"),
        ("index.csv", ",a\n0,1\n", "index=False"),
        ("z.jsonl.zip", "x", "unpack it first"),
        ("bad.jsonl.zst", "x", "cannot be unpacked"),
        ("bad.jsonl.gz", "x", "cannot be unpacked"),
    ):
        (tmp_path / name).write_text(content)
        assert output in fails(tmp_path / name), name


def packed(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as out:
        out.write(content)
    return sink.getvalue().to_pybytes()


def test_zst_is_unpacked(tmp_path):
    content = "\n".join(LINES).encode() + b"\n"
    (tmp_path / "z.jsonl.zst").write_bytes(packed(content) * 2)
    assert read_rows(tmp_path / "z.jsonl.zst") == ROWS * 2
    whole = packed(os.urandom(20_000))
    (tmp_path / "cut.jsonl.zst").write_bytes(whole[: len(whole) // 2])
    assert "cannot be unpacked" in fails(tmp_path / "cut.jsonl.zst")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "list.jsonl", "list.json", "cell.csv"])
def test_a_row_that_is_too_long_is_refused(tmp_path, name, monkeypatch):
    for module in ("text_files", "json_files", "tables"):
        monkeypatch.setattr(f"softprompt.data.{module}.MAX_ROW", 5000)
    monkeypatch.setattr("softprompt.data.text_files.BLOCK", 1000)
    many = [{"text": "a" * 90, "label": "b"}] * 200  # long files of short rows are read
    huge = [{"text": "a" * 9000, "label": "b"}]

    def write(rows) -> None:
        if "csv" in name:
            text = "text,label\n" + "".join(f"{row['text']},b\n" for row in rows)
        else:
            text = json.dumps(rows) if "list" in name else "".join(json.dumps(row) + "\n" for row in rows)
        content = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    write(many)
    assert read_rows(tmp_path / name)
    if name == "cell.csv":
        (tmp_path / name).write_text('text,label\n"' + "a\n" * 4000 + '",b\n')
    else:
        write(huge)
    output = fails(tmp_path / name)
    assert "too long" in output or "field larger" in output


def test_a_hub_split_may_be_sliced(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((*a, k["split"])) or ROWS)
    read_rows("hf:./folder:train[:50%]")
    read_rows("hf:set:config:train[10:20]+test[:5]")
    assert asked == [("./folder", None, "train[:50%]"), ("set", "config", "train[10:20]+test[:5]")]
