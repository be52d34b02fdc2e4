"""A row's values are text, numbers, truth values, nothing, or lists and mappings of these.

Values of other libraries (tensors, arrays, time stamps) are converted; missing ones (NaN, NA, NaT) become
None. Values without a text (bytes, images, sets) stay in the row as `Unusable`, so that a column that nobody
reads does no harm; reading it raises the error. No other library is imported here.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import hashlib
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from softprompt._system.characters import FIX, half_in, is_whole
from softprompt.errors import SoftPromptError

MAX_DEPTH = 64  # lists and mappings inside each other
MAX_DIGITS = 4300  # of one number: Python writes no longer ones as text


class Unusable:
    """A value that has no text. Reading it raises SoftPromptError; `digest` distinguishes it from others."""

    def __init__(self, description: str, fix: str, digest: str = "") -> None:
        self.description, self.fix, self.digest = description, fix, digest
        self.place = ""  # of the field, once it is in a row

    def error(self) -> SoftPromptError:
        """Return the error of reading it, with what to give in its place."""
        return SoftPromptError(
            f"{self.place or 'a field'} holds {self.description}",
            why="templates, labels and names are made of text, numbers and lists of them",
            fix=self.fix,
        )

    def _refuse(self, *_: object) -> Any:
        raise self.error()

    __str__ = __iter__ = __len__ = __bool__ = __getitem__ = _refuse

    def __repr__(self) -> str:
        return f"<{self.description}>"


class ClassNumber(int):
    """The number of a class with a known name, as a ClassLabel column of `datasets` holds it."""

    names: tuple[str, ...]

    def __new__(cls, value: int, names: tuple[str, ...]) -> ClassNumber:
        number = super().__new__(cls, value)
        number.names = names
        return number

    def __reduce__(self) -> tuple[Any, ...]:
        return ClassNumber, (int(self), self.names)


def plain(value: Any, depth: int = 0) -> Any:
    """Return the value as a row holds it. Raises SoftPromptError for lists that are nested too deeply."""
    kind = type(value)
    if kind is bool or value is None:
        return value
    if kind is str:
        return value if is_whole(value) else Unusable(half_in(value), FIX, ascii(value))
    if kind is int:
        return value if abs(value).bit_length() * 0.30103 < MAX_DIGITS else _long_number()
    if kind is float:
        if math.isfinite(value):
            return value
        return None if math.isnan(value) else Unusable("an infinite number", "put a finite number there")
    if depth > MAX_DEPTH:
        raise SoftPromptError(
            f"lists or mappings are nested more than {MAX_DEPTH} deep",
            why="no template reads such a value",
            fix="flatten the field, or leave it out",
        )
    if isinstance(value, Mapping):
        return _mapping(value, depth)
    if kind is list or kind is tuple:
        return [plain(item, depth + 1) for item in value]
    return _standard(value, depth)


def _mapping(value: Mapping[Any, Any], depth: int) -> Any:
    result: dict[Any, Any] = {}
    for name, item in value.items():
        key = name if isinstance(name, str) else plain(name, depth + 1)
        if isinstance(key, (list, dict, Unusable)):
            return Unusable("a mapping whose keys are no text or numbers", "name what it holds with text")
        result[key] = plain(item, depth + 1)
    return result


def json_default(value: Any) -> Any:
    """Return what json.dumps writes for a value without a text: what distinguishes it from others."""
    return (
        {"unusable": value.description, "digest": value.digest} if isinstance(value, Unusable) else str(value)
    )


def _standard(value: Any, depth: int) -> Any:
    """Convert types of Python's standard library, then those of other libraries."""
    if isinstance(value, (ClassNumber, Unusable)):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value, depth + 1)
    for base in (str, int, float):
        if isinstance(value, base):  # a subclass, such as numpy's str_ and float64
            return plain(base(value), depth)
    if isinstance(value, decimal.Decimal):
        return _decimal(value)
    # pandas' NaT is a datetime, and NA has no public class
    if type(value).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return None
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta, uuid.UUID)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        digest = hashlib.sha256(bytes(value)).hexdigest()
        return Unusable("bytes", 'decode them before: value.decode("utf-8")', digest)
    if isinstance(value, os.PathLike):
        return plain(os.fspath(value), depth)
    if isinstance(value, (set, frozenset)):
        return Unusable("a set, which has no order", "give a list: sorted(value)")
    return _foreign(value, depth)


def _foreign(value: Any, depth: int) -> Any:
    """Convert tensors, arrays, series and scalars of other libraries, recognised by their methods."""
    name = type(value).__name__
    try:
        if name in ("datetime64", "timedelta64"):
            item = value.item()  # nanoseconds come as a bare number
            return plain(value.astype(f"{name}[us]").item() if isinstance(item, int) else item)
        if name in ("float16", "float32"):  # the shortest form: 0.1, not 0.10000000149011612
            return plain(float(str(value)), depth)
        if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
            return [plain(item, depth + 1) for item in value]
        for method in ("as_py", "tolist", "to_list", "to_pylist", "numpy"):
            if callable(getattr(value, method, None)) and not isinstance(value, type):
                result = getattr(value, method)()
                if type(result) is not type(value):
                    return plain(result, depth)
    except SoftPromptError:
        raise
    except Exception:  # a sparse tensor, one without data, or another library's object
        return _unknown(value)
    if isinstance(value, Sequence):
        return [plain(item, depth + 1) for item in value]
    return _unknown(value)


def _decimal(value: decimal.Decimal) -> Any:
    if value.is_nan():
        return None
    if value.is_infinite():
        return Unusable("an infinite number", "put a finite number there")
    return format(value, "f") if abs(value.adjusted()) < MAX_DIGITS else _long_number()


def _long_number() -> Unusable:
    return Unusable(f"a number of more than {MAX_DIGITS:,} digits", "give it as text, in quotes")


def _unknown(value: Any) -> Unusable:
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    if "PIL." in kind.__module__:
        return Unusable(
            f"an image ({name})", "a language model reads text: describe it, or name another field"
        )
    return Unusable(f"an object ({name})", "turn it into text or a number before")
