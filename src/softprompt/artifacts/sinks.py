"""One attention sink is kept where several prefixes that each start with one are joined.

The first column of a prefix that starts as the keys and values of a text draws attention whatever the input
is (the attention sink). Prefixes that were trained alone have one each, and a model has never seen two. The
rule: a prefix starts with the sink where training kept its first vector as it was (`freeze_first`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..injection import Injection, Prefix

STARTS = "starts_with_sink"  # the option that says so in the manifest of a prompt that was made of others


def starts_with_sink(options: Mapping[str, Any]) -> bool:
    """Return whether a prompt with these options (as its manifest has them) starts with the sink."""
    return bool(options.get("freeze_first") or options.get(STARTS))


def one_sink(parts: Sequence[Injection], starts: Sequence[bool]) -> list[Injection]:
    """Return the injections (of one row or more) without the first column of all but the first sink.

    `starts` tells which of them start with the sink. Prefixes of different channels keep one sink each; a
    prefix that held nothing else is left out.
    """
    seen: set[str] = set()
    result = []
    for part, starts_here in zip(parts, starts, strict=True):
        channels: dict[str, Any] = dict(part.channels())
        for name, channel in part.channels().items():
            if not starts_here or not isinstance(channel, Prefix) or name == "adapter":
                continue
            if name not in seen:
                seen.add(name)
            elif channel.mask.shape[1] == 1:
                del channels[name]
            else:
                channels[name] = _without_first(channel)
        result.append(Injection(**channels))
    return result


def _without_first(prefix: Prefix) -> Prefix:
    layers = tuple(
        None if layer is None else type(layer)(layer.key[:, :, 1:], layer.value[:, :, 1:], layer.gate)
        for layer in prefix.layers
    )
    return Prefix(layers, prefix.mask[:, 1:], prefix.reach)
