"""`prompt.safetensors` holds materialised prompts as named tensors; they are written, read and checked here.

    NAME/CHANNEL/vectors [P, H]      NAME/CHANNEL/LAYER/key, value [heads, P, D], gate [heads]

The hashes of an artifact show that a file is as it was written, and not that its content is usable. So names,
shapes, types and numbers are checked on reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._system.files import read_tensors
from ..errors import SoftPromptError
from ..injection import Injection, LayerKV, Prefix, SoftTokens
from ..methods.materialised import Materialised

SOFT, PREFIXES = ("before", "after", "decoder"), ("kv_before", "kv_after", "adapter")
NUMBERS = (torch.float32, torch.bfloat16, torch.float16)
DEPTH = "layers"  # how many layers a prefix has, for those above the last injected one


class _Unfit(Exception):
    """Raised with the reason why tensors are no prompts."""


def tensors_of(static: Materialised, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors to write for these prompts, by name."""
    tensors: dict[str, Tensor] = {}
    for name, injection in zip(prompts, static.prompts, strict=True):
        for channel, part in injection.channels().items():
            if isinstance(part, SoftTokens):
                tensors[f"{name}/{channel}/vectors"] = part.vectors[0]
                continue
            for index, layer in enumerate(part.layers):
                if layer is None:
                    continue
                prefix = f"{name}/{channel}/{index}"
                tensors[f"{prefix}/key"], tensors[f"{prefix}/value"] = layer.key[0], layer.value[0]
                if layer.gate is not None:
                    tensors[f"{prefix}/gate"] = layer.gate[0]
    depths = [len(p.layers) for i in static.prompts for p in i.channels().values() if isinstance(p, Prefix)]
    if depths:
        tensors[DEPTH] = torch.tensor(depths[0])
    return tensors


def read_prompts(file: Path, prompts: Sequence[str], device: torch.device | str = "cpu") -> Materialised:
    """Read the prompts of a file, in this order. Raises SoftPromptError for tensors that are no prompts."""
    tensors = read_tensors(file)
    try:
        check_numbers(tensors, but={DEPTH})
        depth = _depth(tensors.pop(DEPTH, None))
        grouped = _grouped(tensors, prompts)
        injections = [_injection(grouped[name], depth) for name in prompts]
    except _Unfit as error:
        raise SoftPromptError(
            f"{file} holds no usable prompts", why=str(error), fix="train it again"
        ) from None
    return Materialised([injection.map_rows(lambda t: t.to(device)) for injection in injections])


def checked(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Return other tensors of an artifact. Raises SoftPromptError where a number is not finite."""
    try:
        check_numbers({name: t for name, t in tensors.items() if t.is_floating_point()})
    except _Unfit as error:
        raise SoftPromptError(f"{file} cannot be used", why=str(error), fix="train it again") from None
    return tensors


def check_numbers(tensors: Mapping[str, Tensor], but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Raise _Unfit unless all numbers are finite and of a type that vectors have."""
    for name, tensor in tensors.items():
        if name in but:
            continue
        if tensor.dtype not in NUMBERS:
            raise _Unfit(f"'{name}' holds numbers of type {str(tensor.dtype).removeprefix('torch.')}")
        if not bool(tensor.isfinite().all()):
            raise _Unfit(
                f"'{name}' holds numbers that are not finite, which would make every answer nonsense"
            )


def _depth(tensor: Tensor | None) -> int:
    if tensor is None:
        return 0
    if tensor.numel() != 1 or tensor.dtype != torch.int64 or not 0 <= int(tensor) < 100_000:
        raise _Unfit(f"'{DEPTH}' is no number of layers")
    return int(tensor)


def _grouped(
    tensors: Mapping[str, Tensor], prompts: Sequence[str]
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Group tensors by prompt, channel and the rest of the name; each becomes a batch of one row."""
    known = sorted(prompts, key=len, reverse=True)  # a prompt's name may hold slashes
    grouped: dict[str, dict[str, dict[str, Tensor]]] = {name: {} for name in prompts}
    for key, tensor in tensors.items():
        name = next((p for p in known if key.startswith(p + "/")), None)
        channel, slash, rest = key[len(name or "") + 1 :].partition("/")
        if name is None or not slash or channel not in SOFT + PREFIXES:
            raise _Unfit(f"'{key}' belongs to none of its prompts")
        grouped[name].setdefault(channel, {})[rest] = tensor[None]
    kinds = {name: tuple(sorted(channels)) for name, channels in grouped.items()}
    if len(set(kinds.values())) > 1:
        missing = next(name for name, kind in kinds.items() if kind != max(kinds.values(), key=len))
        raise _Unfit(f"vectors of prompt '{missing}' are missing")
    return grouped


def _check_soft(channel: str, tensors: Mapping[str, Tensor]) -> None:
    rows = tensors.get("vectors")
    if set(tensors) != {"vectors"} or rows is None or rows.dim() != 3 or 0 in rows.shape:
        raise _Unfit(f"'{channel}' is not one list of vectors, each of the same length")


def _check_prefix(channel: str, tensors: Mapping[str, Tensor], depth: int) -> None:
    numbers = {name.partition("/")[0] for name in tensors}
    known = {f"{n}/{part}" for n in numbers for part in ("key", "value", "gate")}
    if not set(tensors) <= known or not all(n.isdecimal() and int(n) < depth for n in numbers):
        raise _Unfit(f"'{channel}' names layers that it does not have")
    lengths = set()
    for number in numbers:
        key, value, gate = (tensors.get(f"{number}/{part}") for part in ("key", "value", "gate"))
        if key is None or value is None or key.dim() != 4 or value.dim() != 4:
            raise _Unfit(f"'{channel}' lacks the keys or the values of layer {number}")
        if 0 in (*key.shape, *value.shape) or key.shape[1:3] != value.shape[1:3]:
            raise _Unfit(f"keys and values of layer {number} in '{channel}' are of different shapes")
        if gate is not None and (gate.dim() != 2 or not gate.shape[1]):
            raise _Unfit(f"the gate of layer {number} in '{channel}' has another shape")
        lengths.add(key.shape[2])
    if len(lengths) != 1:
        raise _Unfit(f"'{channel}' has not the same length in every layer")


def _injection(channels: Mapping[str, Mapping[str, Tensor]], depth: int) -> Injection:
    parts: dict[str, Any] = {}
    for channel, tensors in channels.items():
        if channel in SOFT:
            _check_soft(channel, tensors)
            rows = tensors["vectors"]
            parts[channel] = SoftTokens(
                rows, torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
            )
            continue
        _check_prefix(channel, tensors, depth)
        layers = tuple(
            LayerKV(tensors[f"{i}/key"], tensors[f"{i}/value"], tensors.get(f"{i}/gate"))
            if f"{i}/key" in tensors
            else None
            for i in range(depth)
        )
        key = next(layer.key for layer in layers if layer is not None)
        parts[channel] = Prefix(layers, torch.ones(1, key.shape[2], dtype=torch.bool, device=key.device))
    return Injection(**parts)
