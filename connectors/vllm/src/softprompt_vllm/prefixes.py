"""Compiled prompts are read from disk, checked once, and kept in memory. Nothing here knows vLLM.

FOLDER/base.json                     layers: [[kv_heads, head_dim], …]
FOLDER/kv/ab/SHA256.safetensors      k.0, v.0, … [k, kv_heads, head_dim], post-rotary, positions 0 … k-1
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from pathlib import Path

import safetensors.torch
import torch

IDENTIFIER = re.compile(r"[0-9a-f]{64}")
Layers = list[tuple[torch.Tensor, torch.Tensor]]


class BrokenPrefix(Exception):
    """A prefix cannot be used; the message says why."""


class Prefixes:
    """Loads prefixes of one folder for a model that computes in `dtype`, and keeps the last used ones."""

    def __init__(
        self, folder: str | Path, max_bytes: int = 1 << 30, dtype: torch.dtype = torch.float32
    ) -> None:
        self.folder, self.max_bytes, self.dtype = Path(folder), max_bytes, dtype
        base = json.loads((self.folder / "base.json").read_text(encoding="utf-8"))
        self.layers = [(int(heads), int(size)) for heads, size in base["layers"]]
        self.bytes = 0
        self._kept: OrderedDict[str, Layers] = OrderedDict()

    def get(self, sha256: str) -> Layers:
        """Return keys and values of each layer [k, kv_heads, head_dim]. Raises BrokenPrefix."""
        if sha256 in self._kept:
            self._kept.move_to_end(sha256)
            return self._kept[sha256]
        layers = self._load(sha256)
        self._kept[sha256] = layers
        self.bytes += _size(layers)
        while self.bytes > self.max_bytes and len(self._kept) > 1:
            self.bytes -= _size(self._kept.popitem(last=False)[1])
        return layers

    def _load(self, sha256: str) -> Layers:
        if not IDENTIFIER.fullmatch(sha256):
            raise BrokenPrefix("its identifier is not a sha256")
        file = self.folder / "kv" / sha256[:2] / f"{sha256}.safetensors"
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BrokenPrefix(f"{file}: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BrokenPrefix(f"{file} does not have the hash in its name")
        try:
            tensors = safetensors.torch.load(content)
            # converted before they are checked, since float16 has a smaller range
            tensors = {name: tensor.to(self.dtype) for name, tensor in tensors.items()}
            layers = [(tensors.pop(f"k.{i}"), tensors.pop(f"v.{i}")) for i in range(len(self.layers))]
        except (safetensors.SafetensorError, KeyError) as error:
            raise BrokenPrefix(f"{file} does not have the layers of this model: {error}") from None
        if tensors:
            raise BrokenPrefix(f"{file} has more than {len(layers)} layers")
        self._check(layers)
        return layers

    def _check(self, layers: Layers) -> None:
        length = layers[0][0].shape[0]
        for index, (pair, sizes) in enumerate(zip(layers, self.layers, strict=True)):
            for tensor in pair:
                if tensor.shape != (length, *sizes):
                    raise BrokenPrefix(f"layer {index} is {tuple(tensor.shape)}, not {(length, *sizes)}")
                if not bool(torch.isfinite(tensor).all()):
                    raise BrokenPrefix(f"layer {index} has numbers that are not finite")


def _size(layers: Layers) -> int:
    return sum(tensor.nbytes for pair in layers for tensor in pair)
