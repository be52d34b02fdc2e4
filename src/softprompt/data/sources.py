"""Rows from files, folders, hubs and Python objects, each knowing where it came from.

This file does NOT know what a row means: which field is the input is the template's business.
Readers of other libraries (pyarrow, datasets) are imported only when their format is read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from softprompt.errors import SoftPromptError, nearest, unknown
from softprompt.progress import task

R = TypeVar("R", bound=Mapping[str, Any])


class Row(dict[str, Any]):
    """A row's fields, and `where` it stands (`train.jsonl:12`), for errors to name."""

    def __init__(self, fields: Mapping[str, Any] | None = None, where: str = "the row") -> None:
        super().__init__(fields or {})
        self.where = where


def read_rows(source: str | Path | Iterable[Mapping[str, Any]], *, split: str = "train") -> list[Row]:
    """All rows of `source`, at least one.

    A path: `.jsonl`, `.json` (a list, or JSON lines), `.csv`, `.tsv`, `.parquet`, or a folder that
    `datasets` saved. `hf:NAME[:CONFIG][:SPLIT]` is loaded through `datasets`. Else a `datasets`
    object, a data frame, or an iterable of mappings. `split` picks one where the source has several.

    Raises SoftPromptError that names the file and line: missing or empty file, broken line, a row that
    is not an object, an unknown extension or split.
    """
    with task(f"reading {source if isinstance(source, (str, Path)) else 'rows'}"):
        if isinstance(source, str) and source.startswith("hf:"):
            rows = _read_hub(source, split)
            name = source
        elif isinstance(source, (str, Path)):
            path = Path(source).expanduser()
            rows, name = _read_path(path, split), f"'{path}'"
        else:
            rows, name = _read_object(source, split), f"the {split} rows"
        result = list(rows)
    if not result:
        raise SoftPromptError(f"{name}: no rows", why="the source is empty", fix="give at least one row")
    return result


def limit_rows(rows: Sequence[R], limit: int | None, seed: int) -> list[R]:
    """The first `limit` rows of a seeded shuffle, so that a smaller limit is a part of a larger one."""
    if limit is None:
        return list(rows)
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return [rows[i] for i in order[:limit]]


def split_rows(
    rows: Sequence[R], fraction: float, seed: int, *, key: Callable[[R], Hashable] | None = None
) -> tuple[list[R], list[R]]:
    """(train, dev): about `fraction` of the rows as dev, at least one; both in the rows' own order.

    Rows of equal `key` (default: identical rows) stay on one side, so that dev holds nothing trained
    on; `key=template.render_input` keeps rows of the same input together. Depends on the rows, the
    fraction and the seed alone. Raises SoftPromptError where no split leaves a row on both sides.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(key(row) if key else _canonical(row), []).append(index)
    if len(groups) < 2:
        raise SoftPromptError(
            f"cannot carve a dev set out of {len(rows)} row(s)",
            why="it takes at least two different rows, one to train on and one to measure on",
            fix="add rows, or name a dev file: data.dev=FILE",
        )
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    wanted = max(1, round(len(rows) * fraction))
    dev: set[int] = set()
    for group in order:
        if len(dev) + len(group) <= wanted and len(dev) + len(group) < len(rows):
            dev.update(group)
    if not dev:  # every group is larger than the share
        dev.update(min(order, key=len))
    train = [row for index, row in enumerate(rows) if index not in dev]
    return train, [row for index, row in enumerate(rows) if index in dev]


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """sha256 (hex) of the rows' contents in their order; where they came from does not count."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_canonical(row).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _canonical(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, Mapping):
        raise SoftPromptError(
            f"{where}: a row is an object with named fields, not {type(value).__name__} {_short(value)}",
            fix='write {"input": "…", "target": "…"}',
        )
    if not all(isinstance(name, str) for name in value):
        raise SoftPromptError(f"{where}: field names are text", why=f"found {_short(list(value))}")
    return Row(value, where)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


# --- files ---


def _read_path(path: Path, split: str) -> Iterable[Row]:
    if path.is_dir():
        return _read_folder(path, split)
    if not path.exists():
        raise _missing(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        suffix = f"'{path.suffix}'" if path.suffix else "no extension"
        raise SoftPromptError(
            f"cannot tell the format of '{path}'",
            why=f"it has {suffix}; known: {', '.join(sorted(_READERS))}, or a folder saved by datasets",
            fix="convert or rename it, JSON Lines (.jsonl) being the simplest",
        )
    try:
        return reader(path)
    except OSError as error:
        raise SoftPromptError(f"cannot read '{path}'", why=error.strerror or str(error)) from None


def _missing(path: Path) -> SoftPromptError:
    folder = path.parent
    if not folder.is_dir():
        return SoftPromptError(f"no file '{path}'", why=f"the folder '{folder}' does not exist")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() or p.suffix.lower() in _READERS)
    guess = nearest(path.name, names)
    listing = ", ".join(names[:10]) or "none"
    return SoftPromptError(
        f"no file '{path}'" + (f"; did you mean '{folder / guess}'?" if guess else ""),
        why=f"data files in '{folder.resolve()}': {listing}",
        fix="name an existing file (data=FILE); paths in a recipe are relative to the recipe's folder",
    )


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SoftPromptError(
            f"{path.name}:{line}: not UTF-8 text",
            why=f"byte {content[error.start]:#04x} cannot be decoded",
            fix=f"convert it: iconv -f latin1 -t utf-8 {path.name}",
        ) from None
    if not text.strip():
        raise SoftPromptError(f"'{path}' is empty", fix="write one row a line, with an input and a target")
    return text


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    # Not splitlines(): U+2028 and its like are legal inside a JSON string.
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise SoftPromptError(
                f"{where}: broken JSON: {error.msg} at column {error.colno}",
                why=f"the line reads {_short(line)}",
                fix="each line is one complete JSON object",
            ) from None
        rows.append(_row(value, where))
    return rows


def _read_json(path: Path) -> list[Row]:
    text = _text(path)
    position = len(text) - len(text.lstrip())
    if text[position] != "[":
        return _read_jsonl(path)
    # Element by element, so that each row knows its line.
    decoder, rows, line, seen = json.JSONDecoder(), [], 1, 0
    try:
        position = _skip(text, position + 1)
        while text[position : position + 1] != "]":
            line, seen = line + text.count("\n", seen, position), position
            value, end = decoder.raw_decode(text, position)
            rows.append(_row(value, f"{path.name}:{line}"))
            position = _skip(text, end)
            if text[position : position + 1] == ",":
                position = _skip(text, position + 1)
            elif text[position : position + 1] != "]":
                raise json.JSONDecodeError("expected ',' or ']' after a row", text, position)
        if (rest := _skip(text, position + 1)) != len(text):
            raise json.JSONDecodeError("text after the end of the list", text, rest)
    except json.JSONDecodeError as error:
        raise SoftPromptError(
            f"{path.name}:{error.lineno}: broken JSON: {error.msg} at column {error.colno}",
            why="the file begins with '[', so it is read as one JSON list of objects",
            fix="mend that place, or write JSON Lines",
        ) from None
    return rows


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _read_csv(path: Path) -> list[Row]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    limit = csv.field_size_limit(sys.maxsize)  # the default, 131,072, is shorter than a document
    lines = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        header = next(lines)
        _check_header(header, f"{path.name}:1")
        rows = []
        while True:
            start = lines.line_num + 1  # a quoted field may span lines: a row stands where it begins
            cells = next(lines, None)
            if cells is None:
                return rows
            if not cells:
                continue
            if len(cells) != len(header):
                raise SoftPromptError(
                    f"{path.name}:{start}: {len(cells)} cells, but the header names {len(header)}",
                    why=f"header: {', '.join(header)}",
                    fix=f"quote cells that hold a {'tab' if delimiter != ',' else 'comma'} or a line break",
                )
            rows.append(Row(dict(zip(header, cells, strict=True)), f"{path.name}:{start}"))
    except csv.Error as error:
        raise SoftPromptError(
            f"{path.name}:{start}: broken quoting: {error}",
            fix='write "" for a quote inside a quoted cell, or use JSON Lines',
        ) from None
    finally:
        csv.field_size_limit(limit)


def _check_header(header: list[str], where: str) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        why = f"'{twice[0]}' is there twice" if twice and twice[0] else "a column has no name"
        raise SoftPromptError(f"{where}: bad header", why=why, fix="give each column a name of its own")


def _read_parquet(path: Path) -> list[Row]:
    parquet = _need("pyarrow.parquet", "pyarrow", "Parquet files")
    import pyarrow

    if path.stat().st_size == 0:
        raise SoftPromptError(f"'{path}' is empty")
    try:
        records = parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise SoftPromptError(f"'{path}' is not a readable Parquet file", why=str(error)) from None
    return [Row(record, f"{path.name} row {number}") for number, record in enumerate(records, 1)]


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
FORMATS = tuple(_READERS)


# --- datasets and objects ---


def _need(module: str, package: str, what: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        fix = f"pip install {package}, or save the rows as JSON Lines"
        raise SoftPromptError(f"{what} need the package '{package}'", "it is not installed", fix) from None


def _read_folder(path: Path, split: str) -> Iterator[Row]:
    if not any((path / name).exists() for name in ("dataset_info.json", "dataset_dict.json")):
        names = sorted(p.name for p in path.iterdir() if p.suffix.lower() in _READERS)
        raise SoftPromptError(
            f"'{path}' is a folder, but not one that datasets saved",
            why=f"data files in it: {', '.join(names[:10]) or 'none'}",
            fix=f"name a file: data={path / names[0]}" if names else "name a data file",
        )
    loaded = _need("datasets", "datasets", "folders saved by datasets").load_from_disk(str(path))
    return _read_object(loaded, split, path.name)


def _read_hub(source: str, split: str) -> Iterator[Row]:
    parts = source[3:].split(":")
    if not parts[0] or len(parts) > 3 or not all(parts):
        fix = "write hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT"
        raise SoftPromptError(f"cannot read '{source}'", fix=fix)
    name, config = parts[0], parts[1] if len(parts) == 3 else None
    chosen = parts[-1] if len(parts) > 1 else split
    datasets = _need("datasets", "datasets", "hf: sources")
    try:
        loaded = datasets.load_dataset(name, config, split=chosen)
    except Exception as error:  # many kinds: no network, no such set, no such split, a script refused
        reason = (str(error).strip().splitlines() or [""])[0]
        raise SoftPromptError(
            f"cannot load '{source}' through datasets (split '{chosen}')",
            why=f"{type(error).__name__}: {reason}",
            fix="check name, config and split, and the network; or save the rows to a file first",
        ) from error
    return _read_object(loaded, chosen, source)


def _read_object(source: Any, split: str, name: str | None = None) -> Iterator[Row]:
    """Rows of a datasets object, a data frame (by duck typing: neither is imported) or an iterable."""
    if isinstance(source, Mapping):
        if split not in source or isinstance(source[split], (str, bytes)):
            raise unknown("split", split, map(str, source), fix="give rows, or splits of them")
        source = source[split]
    elif hasattr(source, "to_dict") and hasattr(source, "columns"):
        source = source.to_dict("records")
    elif not isinstance(source, Iterable):
        raise SoftPromptError(
            f"cannot read rows from {type(source).__name__} {_short(source)}",
            fix="give a path, hf:NAME, a datasets object or a list of dicts",
        )
    for number, value in enumerate(source, 1):
        where = f"{name or split} row {number}"
        yield Row(value, value.where) if isinstance(value, Row) else _row(value, where)
