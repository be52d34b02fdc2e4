"""pydantic's errors become one sentence that names the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

TYPES = {
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}
SENTENCES = {
    "missing": "is missing",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "too_long": "at most {max_length} entries, not {actual_length}",
    "string_too_long": "at most {max_length} characters",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "extra_forbidden": "is not a field of this request",
}


#: JSON's keys are texts.
TOKEN_IDS = "token ids, whole numbers as text"
#: pydantic's own types of errors; others are ours, and have a sentence as their message.
STANDARD = frozenset(get_args(ErrorType))


def sentence(error: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return where a mistake is, as names and numbers, and a sentence that quotes no text that was sent."""
    where, kind, value = tuple(map(str, error["loc"])), error["type"], error.get("input")
    if where and where[-1] == "[key]":  # the key of an object is wrong
        return where[:-2], f"its keys must be {TOKEN_IDS}"
    if value is None and kind in TYPES:
        return where, "must not be null" if where and where[-1].isdigit() else "is missing"
    if kind in TYPES:
        text = f"must be {TYPES[kind]}"
    else:
        context = {name: _shown(value) for name, value in error.get("ctx", {}).items()}
        text = SENTENCES.get(kind, "").format_map(context) or error["msg"]
    if text.startswith("must be") and _is_number(value):
        text += f", not {value}"
    return where, text


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 10**15


def _shown(bound: Any) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _one_of(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Report, of a field of several types, the mistake under the type that was probably meant."""
    try:
        return handler(value)
    except ValidationError as error:
        raise ValidationError.from_exception_data(error.title, [_meant(error.errors())]) from None


#: Marks a field of several types: `Annotated[A | B, ONE_OF]`.
ONE_OF = WrapValidator(_one_of)


def _meant(errors: Sequence[ErrorDetails]) -> InitErrorDetails:
    firsts: dict[Any, ErrorDetails] = {}
    for error in errors:  # each type's first; pydantic puts the type ahead of the place
        firsts.setdefault(error["loc"][0], error)
    best = max(map(_reached, firsts.values()))
    meant = [error for error in firsts.values() if _reached(error) == best]
    first, kind = meant[0], meant[0]["type"]
    names = list(dict.fromkeys(TYPES[error["type"]] for error in meant if error["type"] in TYPES))
    text = first["msg"] if kind not in STANDARD else ""
    if len(names) > 1 and first["input"] is not None:
        kind, text = "type", f"must be {', '.join(names[:-1])} or {names[-1]}"
    error_type: Any = PydanticCustomError(kind, "{text}", {"text": text}) if text else kind  # type: ignore[arg-type]
    return InitErrorDetails(
        type=error_type, loc=first["loc"][1:], input=first["input"], ctx=first.get("ctx", {})
    )


def _reached(error: ErrorDetails) -> tuple[tuple[int, ...], bool]:
    """Return how far a value could be read as one type, and whether the last part has the right type."""
    place = tuple(part if isinstance(part, int) else 0 for part in error["loc"][1:])
    return place, error["type"] not in TYPES
