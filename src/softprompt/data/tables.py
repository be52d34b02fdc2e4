"""Rows are read from CSV, TSV and Parquet files."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

from softprompt.data.row import MAX_FIELDS, Row, row_of, short
from softprompt.data.text_files import MAX_ROW, read_text
from softprompt.errors import SoftPromptError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


def read_csv(path: Path, split: str) -> list[Row]:
    """Read a header, then a row from each line. Without a comma, the header may be split by ; tab or |."""
    text = read_text(path)
    delimiter = _separator(text, path)
    limit = csv.field_size_limit(MAX_ROW)  # the default, 131,072, is shorter than a document
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        header = next(lines)
        _check_header(header, f"{path.name}:1")
        rows = []
        while True:
            start = lines.line_num + 1  # a quoted field may span lines: a row is named by its first line
            cells = next(lines, None)
            if cells is None:
                return rows
            if not cells:
                continue
            if len(cells) != len(header):
                raise SoftPromptError(
                    f"{path.name}:{start}: {len(cells)} cells, but the header names {len(header)}",
                    why=f"header: {short(', '.join(header))}; the separator is a {SEPARATORS[delimiter]}",
                    fix=f"quote cells that hold a {SEPARATORS[delimiter]} or a line break",
                )
            rows.append(Row(dict(zip(header, cells, strict=True)), f"{path.name}:{start}"))
    except csv.Error as error:
        raise SoftPromptError(
            f"{path.name}:{start}: broken quoting: {error}",
            fix='write "" for a quote inside a quoted cell, or use JSON Lines',
        ) from None
    finally:
        csv.field_size_limit(limit)


def _separator(text: str, path: Path) -> str:
    """Return the separator of the header's cells: the usual one of the suffix, else the only other one."""
    usual = "\t" if ".tsv" in [suffix.lower() for suffix in path.suffixes] else ","
    end = min((place for mark in "\r\n" if (place := text.find(mark)) >= 0), default=len(text))
    header = text[:end]
    others = [mark for mark in SEPARATORS if mark != usual and mark in header]
    return others[0] if usual not in header and len(others) == 1 else usual


def _check_header(header: list[str], where: str) -> None:
    if len(header) > MAX_FIELDS:
        raise SoftPromptError(
            f"{where}: a table has at most {MAX_FIELDS:,} columns, not {len(header):,}",
            fix="keep the columns that the templates name",
        )
    counts = Counter(header)
    twice = next((name for name in sorted(counts) if name and counts[name] > 1), None)
    if twice is not None:
        raise SoftPromptError(
            f"{where}: bad header", f"'{twice}' is there twice", "give each column a name of its own"
        )
    if "" in counts:
        number = header.index("") + 1
        fix = "give it a name" + (
            "; pandas writes none for its index: to_csv(…, index=False)" if number == 1 else ""
        )
        raise SoftPromptError(f"{where}: bad header", f"a column has no name (column {number})", fix)


def read_parquet(path: Path, split: str) -> list[Row]:
    """Read all rows of a Parquet file."""
    parquet = need("pyarrow.parquet", "pyarrow", "Parquet files")
    import pyarrow

    if path.stat().st_size == 0:
        raise SoftPromptError(f"'{path}' is empty")
    try:
        names = parquet.read_schema(path).names
        _check_header(names, path.name)
        records = parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise SoftPromptError(f"'{path}' is not a readable Parquet file", why=str(error)) from None
    return [row_of(record, f"{path.name} row {number}") for number, record in enumerate(records, 1)]


def need(module: str, package: str, purpose: str) -> Any:
    """Import a module. Raises SoftPromptError that names the package where it is not installed."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        fix = f"pip install {package}, or save the rows as JSON Lines"
        raise SoftPromptError(f"{purpose} need the package '{package}'", "it is not installed", fix) from None
