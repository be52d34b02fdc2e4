"""transformers calls a model's cache `cache` from 5.24 on, `past_key_values` before.

Newer releases still take the old name, with a warning, until 6.0. Users may give either name on any release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers.modeling_outputs import CausalLMOutputWithPast

from ..errors import SoftPromptError

NAMES = ("cache", "past_key_values")
#: The argument of a model and of `generate`, and the field of what they return.
CACHE = next(name for name in NAMES if name in {field.name for field in fields(CausalLMOutputWithPast)})


def given(options: Mapping[str, Any]) -> Any:
    """Return the cache among the options, or None. Raises SoftPromptError where both names are given."""
    caches = [options[name] for name in NAMES if options.get(name) is not None]
    if len(caches) > 1:
        raise SoftPromptError(
            f"{' and '.join(NAMES)} are both given",
            why="they are two names of one option",
            fix=f"leave {NAMES[1]} out",
        )
    return caches[0] if caches else None


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the cache under the installed release's name."""
    cache = given(options)
    rest = {name: value for name, value in options.items() if name not in NAMES}
    return rest if cache is None else {**rest, CACHE: cache}
