"""A row has fields, and a place where it was read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from softprompt.data.values import Unusable, json_default, plain
from softprompt.errors import SoftPromptError

MAX_FIELDS = 10_000  # of a row


class Row(dict[str, Any]):
    """A row's fields as `values.plain` makes them, with the place `where` it was read (`train.jsonl:12`), for
    errors.

    Raises SoftPromptError, which names the field, where a value is nested too deeply.
    """

    def __init__(self, fields: Mapping[str, Any] | None = None, where: str = "the row") -> None:
        super().__init__()
        self.where = where
        for name, value in (fields or {}).items():
            self[name] = value if type(value) is str and value.isascii() else self._plain(name, value)

    def _plain(self, name: str, value: Any) -> Any:
        if isinstance(value, Unusable):
            return value
        try:
            result = plain(value)
        except SoftPromptError as error:
            problem = f"{self.where}: field '{name}': {error.what}"
            raise SoftPromptError(problem, error.why, error.fix) from None
        _place(result, f"{self.where}: field '{name}'")
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return Row, (dict(self), self.where)


def _place(value: Any, where: str) -> None:
    """Write its place into each value without a text, also within lists and mappings."""
    if isinstance(value, Unusable):
        value.place = where
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            _place(item, where)


def row_of(value: Any, where: str) -> Row:
    """Return `value` as a row. Raises SoftPromptError where it has no named fields, or too many."""
    if not isinstance(value, Mapping):
        raise SoftPromptError(
            f"{where}: a row is an object with named fields, not {type(value).__name__} {short(value)}",
            fix=_as_mapping(value),
        )
    if len(value) > MAX_FIELDS:
        raise SoftPromptError(
            f"{where}: a row has at most {MAX_FIELDS:,} fields, not {len(value):,}",
            fix="keep the columns that the templates name",
        )
    if odd := [name for name in value if not isinstance(name, str)]:
        raise SoftPromptError(
            f"{where}: field names are text",
            why=f"found {short(odd)}",
            fix="a row has more cells than the header names: quote cells that hold a separator"
            if odd == [None]  # csv.DictReader's key for surplus cells
            else "name them, as in frame.rename(columns={0: 'text'})",
        )
    return value if isinstance(value, Row) else Row(value, where)


def canonical(row: Mapping[str, Any]) -> str:
    """Return the row's contents as one text that depends on nothing else."""
    try:
        return _json(row)
    except TypeError:  # keys of several types have no order
        return _json(json.loads(json.dumps(row, default=json_default)))


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=json_default)


def _as_mapping(value: Any) -> str:
    if callable(getattr(value, "model_dump", None)):
        return "give row.model_dump() in its place"
    if callable(getattr(value, "_asdict", None)):
        return "give row._asdict() in its place"
    if hasattr(value, "__dataclass_fields__"):
        return "give dataclasses.asdict(row) in its place"
    if callable(getattr(value, "to_dict", None)):
        return "give row.to_dict() in its place, or the whole data frame"
    return 'write {"input": "…", "target": "…"}'


def short(value: Any) -> str:
    """Return the value as an error shows it."""
    text = repr(value[:60] if isinstance(value, (str, list, bytes)) else value)
    return text if len(text) <= 60 else text[:57] + "…"
