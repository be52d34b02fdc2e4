"""Rows are read from Python objects: lists, data frames, tables, and data sets of `datasets` and torch.

No other library is imported: an object is recognised by its methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from softprompt.data.row import Row, row_of, short
from softprompt.data.values import ClassNumber, plain
from softprompt.errors import SoftPromptError, unknown

#: Other names that people use for a split.
ALIASES = {
    "dev": ("validation", "valid", "val", "eval"),
    "validation": ("dev", "valid", "val"),
    "test": ("eval", "testing"),
    "train": ("training",),
}
STREAM_ROWS = 1_000_000  # rows that are read of an object at most
#: Objects that give a table on request: polars' lazy frames, pyarrow's readers and data sets.
_GATHERED = (("collect_schema", "collect"), ("read_all", "read_all"), ("to_table", "to_table"))

T = TypeVar("T")


def read_object(source: Any, split: str, name: str | None = None) -> Iterator[Row]:
    """Yield the rows of a `datasets` object, a data frame, a table, columns by name, or an iterable of
    mappings.

    Raises SoftPromptError for objects without rows, and for batches of rows.
    """
    for number, value in enumerate(_records(source, split), 1):
        yield row_of(value, value.where if isinstance(value, Row) else f"{name or split} row {number}")


def is_stream(source: Any) -> bool:
    """Return whether an object is a data set of `datasets` that is read as it arrives."""
    return any(kind.__name__ == "IterableDataset" for kind in type(source).__mro__)


def ended(rows: Iterable[T], name: str) -> Iterator[T]:
    """Yield what a source yields. Raises SoftPromptError where it does not end within `STREAM_ROWS`."""
    for number, row in enumerate(rows):
        if number == STREAM_ROWS:
            raise SoftPromptError(
                f"{name} do not end within {STREAM_ROWS:,}",
                why="all rows are read before training, and are kept in memory",
                fix="give a part of them: dataset.take(100_000) of a stream of datasets, or "
                "itertools.islice(rows, 100_000)",
            )
        yield row


def columns_of(value: Mapping[Any, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of columns by name, {"text": [...], "label": [...]}; None for any other mapping."""
    lists = {}
    for name, column in value.items():
        if isinstance(column, (str, bytes, Mapping)) or _is_table(column):
            return None
        values = plain(column)
        if not isinstance(values, list):
            return None
        lists[name] = values
    items = [item for column in lists.values() for item in column[:1]]
    if not items or all(isinstance(item, Mapping) for item in items):
        return None
    lengths = {name: len(column) for name, column in lists.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"'{name}' {length}" for name, length in list(lengths.items())[:8])
        raise SoftPromptError(
            "columns of unequal length", why=shown, fix="give each column a value for each row"
        )
    return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]


def split_of(value: Mapping[Any, Any], split: str) -> Any | None:
    """Return the value under a split's name, or under a usual other name of it."""
    return next((value[name] for name in (split, *ALIASES.get(split, ())) if name in value), None)


def _records(source: Any, split: str) -> Iterable[Any]:
    if isinstance(source, Mapping):
        if (rows := columns_of(source)) is not None:
            return rows
        part = split_of(source, split)
        if part is None or isinstance(part, (str, bytes)):
            raise unknown("split", split, map(str, source), fix="give rows, or splits of them")
        return _records(part, split)
    if any(kind.__name__ == "DataLoader" for kind in type(source).__mro__):
        raise SoftPromptError(
            "a DataLoader gives batches, not rows",
            why="a batch holds a list of values for each field",
            fix="give the rows themselves: loader.dataset",
        )
    if type(source).__module__.partition(".")[0] == "datasets" and hasattr(source, "with_format"):
        return _dataset(source)
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        return _frame(source)
    if isinstance(source, type):
        raise _no_rows(source)
    for mark, method in _GATHERED:
        if callable(getattr(source, mark, None)) and callable(getattr(source, method, None)):
            return _records(getattr(source, method)(), split)
    for method in ("to_dicts", "to_pylist"):  # polars; pyarrow
        if callable(getattr(source, method, None)):
            _check_names(list(getattr(source, "column_names", ())))  # of pyarrow; polars has no name twice
            return getattr(source, method)()
    if isinstance(source, Iterable) and not isinstance(source, (str, bytes)):
        return source
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):  # torch's map-style Dataset
        return (source[index] for index in range(len(source)))
    raise _no_rows(source)


def _no_rows(source: Any) -> SoftPromptError:
    return SoftPromptError(
        f"cannot read rows from {type(source).__name__} {short(source)}",
        fix="give a path, hf:NAME, a datasets object, a data frame or a list of dicts",
    )


def _is_table(value: Any) -> bool:
    return hasattr(value, "with_format") or (hasattr(value, "iloc") and hasattr(value, "columns"))


def _dataset(source: Any) -> Iterator[dict[str, Any]]:
    """Yield Python values whatever the format of a `datasets` object; pictures and sound are not decoded."""
    source = source.with_format(None)
    features = dict(getattr(source, "features", None) or {})
    classes = {}
    for name, feature in features.items():
        if getattr(feature, "decode", False) is True and hasattr(source, "cast_column"):
            source = source.cast_column(name, type(feature)(decode=False))
        if type(feature).__name__ == "ClassLabel":
            classes[name] = tuple(feature.names)
    for record in source:
        for name, names in classes.items():
            number = record.get(name)
            if isinstance(number, int) and 0 <= number < len(names):
                record = {**record, name: ClassNumber(number, names)}
        yield record


def _frame(source: Any) -> Iterator[dict[Any, Any]]:
    """Read a pandas frame by columns, so that each value keeps its column's type."""
    names = list(source.columns)
    _check_names(names)
    columns: Sequence[list[Any]] = [source.iloc[:, place].tolist() for place in range(len(names))]
    for cells in zip(*columns, strict=True):
        yield dict(zip(names, cells, strict=True))


def _check_names(names: Sequence[Any]) -> None:
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        fix = "give each column a name of its own"
        raise SoftPromptError("bad columns of the data frame", f"'{twice[0]}' is there twice", fix)


def restore_integers(rows: Sequence[Row]) -> None:
    """Turn floats into integers in columns with blanks, where pandas writes 1.0 for 1."""
    blank: set[str] = set()
    whole: dict[str, bool] = {}
    for row in rows:
        for name, value in row.items():
            if value is None:
                blank.add(name)
            elif type(value) is float:
                whole[name] = whole.get(name, True) and value.is_integer()
            else:
                whole[name] = False
    for name in blank:
        if whole.get(name):
            for row in rows:
                if type(row.get(name)) is float:
                    row[name] = int(row[name])
