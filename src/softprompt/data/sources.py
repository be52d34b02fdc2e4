"""Rows are read from files, folders, hubs and Python objects, and each knows where it came from.

This file does not know what a row means: the template says which field is the input. Readers of other
libraries (pyarrow, datasets) are imported only when their format is read.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompt._system.notes import note
from softprompt._system.paths import COMPRESSED, expanded, kind_of
from softprompt._system.progress import task
from softprompt.data.json_files import read_jsonl, row_lines, rows_of_json
from softprompt.data.python_rows import ALIASES, ended, is_stream, read_object, restore_integers
from softprompt.data.row import Row, canonical
from softprompt.data.tables import need, read_csv, read_parquet
from softprompt.data.text_files import check_regular, read_standard_input, read_text
from softprompt.errors import SoftPromptError, nearest

__all__ = ["FORMATS", "Row", "fingerprint", "read_rows"]


def read_rows(
    source: str | Path | Iterable[Mapping[str, Any]], *, split: str = "train", first: int | None = None
) -> list[Row]:
    """Read all rows of `source`, at least one.

    A path: `.jsonl`, `.json`, `.csv`, `.tsv` (each also as .gz, .bz2, .xz, .zst), `.parquet`; a pattern such
    as `data/*.jsonl`, a folder of such files, or one that `datasets` saved. `hf:NAME[:CONFIG][:SPLIT]` is
    loaded through `datasets`. Otherwise any object that `python_rows.read_object` takes. `split` picks one
    where the source has several. Rows are kept in memory. Of a stream of `datasets` the `first` rows are read
    where that is given; a source without an end is refused after `STREAM_ROWS` rows.

    Raises SoftPromptError that names the file and line: missing or empty file, broken line, a row that is not
    an object, an unknown extension or split.
    """
    with task(f"reading {source if isinstance(source, (str, Path)) else 'rows'}") as reading:
        if isinstance(source, str) and source.startswith("hf:"):
            rows, name = _read_hub(source, split), source
        elif isinstance(source, (str, Path)):
            if not str(source).strip():
                why = "the text that names it is empty"
                raise SoftPromptError("the rows' file has no name", why, "name a file")
            path = Path(expanded(source))
            rows, name = _read_path(path, split), f"'{path}'"
        else:
            rows, name = read_object(source, split), f"the {split} rows"
            if is_stream(source) and first is not None:
                note(f"the first {first:,} rows of the stream are read; shuffle it before, if it is sorted")
                rows = itertools.islice(rows, first)
            rows = ended(rows, name)
        result: list[Row] = []
        for row in rows:
            result.append(row)
            if len(result) % 1000 == 0:
                reading.at(len(result))
    if not result:
        raise SoftPromptError(f"{name}: no rows", why="the source is empty", fix="give at least one row")
    restore_integers(result)
    return result


def read_row_lines(path: Path) -> list[Row | None]:
    """Read the rows of a file of JSON Lines, None for a blank line.

    Raises SoftPromptError as `read_rows` does. A file of another JSON shape has no blank lines.
    """
    check_regular(path)
    text = read_text(path)
    if text.lstrip().startswith("["):
        return list(read_rows(path, split="test"))
    try:
        lines = row_lines(text, path.name)
    except SoftPromptError:
        return list(read_rows(path, split="test"))  # one object over several lines, or the error
    restore_integers([row for row in lines if row is not None])
    return lines


def read_standard_rows(text: str | None = None, split: str = "train") -> list[Row | None]:
    """Read rows from standard input, or from the text that was read from it: JSON Lines, or a JSON list.

    None marks a blank line. Raises SoftPromptError for anything else.
    """
    text, name = read_standard_input() if text is None else text, "standard input"
    if not text.strip():
        raise SoftPromptError(f"{name}: no rows", why="it is empty", fix="write one JSON object a line")
    if text.lstrip().startswith("["):
        lines: list[Row | None] = list(rows_of_json(text, name, split))
    else:
        lines = row_lines(
            text, name, "rows are one JSON object a line; write other text or tables to a file, and name it"
        )
    restore_integers([row for row in lines if row is not None])
    return lines


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the sha256 (hex) of the rows' contents in their order; where they came from does not count."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(canonical(row).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


_READERS: dict[str, Callable[[Path, str], list[Row]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}
FORMATS = tuple(_READERS)
TEXTS = tuple(name for name in FORMATS if name != ".parquet")  # those that may be compressed


def _format(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        return suffixes[0] if len(suffixes) > 1 and suffixes[0] in TEXTS else None
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def _read_path(path: Path, split: str) -> Iterable[Row]:
    try:
        kind = kind_of(path, "the rows")
        if kind == "folder":
            return _read_folder(path, split)
        if kind == "missing":
            if glob.has_magic(str(path)):
                return _read_files(_matching(path), split)
            raise _missing(path)
        return _read_file(path, split)
    except OSError as error:
        why = error.strerror or str(error)
        raise SoftPromptError(f"cannot read '{path}'", why=why, fix="name an existing file") from None


def _read_file(path: Path, split: str) -> list[Row]:
    check_regular(path)
    kind = _format(path)
    if kind is None:
        suffix = f"'{''.join(path.suffixes[-2:])}'" if path.suffix else "no extension"
        packed = path.suffix.lower() in (".zip", ".lz4", ".7z", ".tar")
        raise SoftPromptError(
            f"cannot tell the format of '{path}'",
            why=f"it has {suffix}; known: {', '.join(FORMATS)}; texts also with {', '.join(COMPRESSED)}",
            fix="unpack it first"
            if packed
            else "convert or rename it, JSON Lines (.jsonl) being the simplest",
        )
    return _READERS[kind](path, split)


def _read_files(paths: Sequence[Path], split: str) -> list[Row]:
    return [row for path in paths for row in _read_file(path, split)]


def _matching(pattern: Path) -> list[Path]:
    files = [path for path in map(Path, sorted(glob.glob(str(pattern), recursive=True))) if path.is_file()]
    if not files:
        raise SoftPromptError(
            f"no file matches '{pattern}'",
            why=f"the folder '{pattern.parent}' holds none"
            if pattern.parent.is_dir()
            else "there is no such folder",
            fix="name an existing file; a relative path in a recipe belongs to the recipe's folder",
        )
    return files


def _missing(path: Path) -> SoftPromptError:
    folder = path.parent
    if address := re.search(r"(?:^|/)((?:https?|ftp|file|s3|gs|az|abfss?|hdfs):/.*)", str(path)):
        return SoftPromptError(
            f"rows are not read from an address ('{address[1]}')",
            why="they are read from files, and from the Hugging Face hub as hf:NAME",
            fix="download it, and name the file",
        )
    if not folder.is_dir():
        return SoftPromptError(f"no file '{path}'", why=f"the folder '{folder}' does not exist")
    if str(path.name) == "-":
        problem, why = "rows are not read from standard input here", "they are read more than once"
        return SoftPromptError(problem, why, "write them to a file")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() or _format(p))
    guess = nearest(path.name, names)
    return SoftPromptError(
        f"no file '{path}'" + (f"; did you mean '{folder / guess}'?" if guess else ""),
        why=f"data files in '{folder.resolve()}': {', '.join(names[:10]) or 'none'}",
        fix="name an existing file; a relative path in a recipe belongs to the recipe's folder",
    )


def _read_folder(path: Path, split: str) -> Iterable[Row]:
    if any((path / name).exists() for name in ("dataset_info.json", "dataset_dict.json")) and (
        (path / "dataset_dict.json").exists() or (path / "state.json").exists()
    ):
        loaded = need("datasets", "datasets", "folders saved by datasets").load_from_disk(str(path))
        return read_object(loaded, split, path.name)
    return _read_files(_shards(path, split), split)


def _shards(folder: Path, split: str) -> list[Path]:
    """List the folder's data files; by names (`train-00000-of-00002.parquet`), only the split's."""
    files = sorted(path for path in folder.iterdir() if _format(path) and path.is_file())
    named = {path: _split_named(path) for path in files}
    wanted = (split, *ALIASES.get(split, ()))
    if any(named.values()):
        files = next((part for name in wanted if (part := [p for p in files if named[p] == name])), [])
    shown = ", ".join(path.name for path in list(named)[:10]) or "none"
    if not files:
        raise SoftPromptError(
            f"the folder '{folder}' holds no data file" + (f" of the split '{split}'" if named else ""),
            why=f"data files in it: {shown}",
            fix=f"name a file: {next(iter(named))}" if named else "name a data file",
        )
    kinds = sorted({str(_format(path)) for path in files})
    if len(kinds) > 1:
        raise SoftPromptError(
            f"the folder '{folder}' holds files of several formats: {', '.join(kinds)}",
            why=f"data files in it: {shown}",
            fix=f"name one format: {folder}/*{kinds[0]}",
        )
    return files


def _split_named(path: Path) -> str | None:
    word = re.split(r"[-_.]", path.name.lower())[0]
    known = {*ALIASES, *(name for names in ALIASES.values() for name in names)}
    return word if word in known else None


def _read_hub(source: str, split: str) -> Iterator[Row]:
    # a split may be sliced, train[:50%]: a colon within brackets separates nothing
    parts = re.split(r":(?![^\[]*\])", source[3:])
    if not parts[0] or len(parts) > 3 or not all(parts):
        fix = "write hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT"
        raise SoftPromptError(f"cannot read '{source}'", fix=fix)
    name, config = parts[0], parts[1] if len(parts) == 3 else None
    chosen = parts[-1] if len(parts) > 1 else split
    datasets = need("datasets", "datasets", "hf: sources")
    try:
        loaded = datasets.load_dataset(expanded(name), config, split=chosen)
    except Exception as error:  # no network, no such data set or split, a refused script
        reason = (str(error).strip().splitlines() or [""])[0]
        raise SoftPromptError(
            f"cannot load '{source}' through datasets (split '{chosen}')",
            why=f"{type(error).__name__}: {reason}",
            fix="check name, config and split, and the network; or save the rows to a file first",
        ) from error
    return read_object(loaded, chosen, source)
