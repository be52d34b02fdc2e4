"""All sections are frozen, and take no unknown key."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from softprompt._system.units import SECONDS, amount

Positive = Annotated[int, Field(ge=1, le=10**12)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # a learning rate
Name = Annotated[str, Field(min_length=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    # Frozen: a recipe is fingerprinted, so it must not change under a run. Numbers become text where
    # text is asked for, so that `labels: [0, 1]` needs no quotes.
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


def mistake(text: str) -> PydanticCustomError:
    # Braces would be read as placeholders of pydantic's message template.
    return PydanticCustomError("mistake", "{text}", {"text": text})


def _in_seconds(value: Any) -> Any:
    """Return the seconds of a time with its unit, such as `10m`; a number counts seconds."""
    if not isinstance(value, str):
        return value
    seconds = amount(value, SECONDS)
    if seconds is None:
        with contextlib.suppress(ValueError):
            return float(value)
        raise mistake(f"'{value}' is no time: write a number and a unit, such as 90s, 10m or 1.5h")
    return seconds


Seconds = Annotated[float, BeforeValidator(_in_seconds), Field(gt=0, allow_inf_nan=False)]
