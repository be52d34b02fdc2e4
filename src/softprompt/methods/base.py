"""What every method is: a module that turns prompt ids (and, for some, the input) into an `Injection`.

Methods know sizes (`ModelSpec`) and tensors. They do not know models, templates, training or files.
Classes are abstract here and final elsewhere.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..injection import Injection, LayerKV, Layers, Prefix, SoftTokens
from .transfer import Carried, OtherBase

Placement = Literal["before", "after"]


class BaseModel(Protocol):
    """What a method's builder may ask of the base model (`lm.FrozenLM` is one)."""

    @property
    def spec(self) -> Any: ...
    def text_ids(self, text: str) -> list[int]: ...
    def embed(self, ids: Tensor) -> Tensor: ...
    def kv_of(self, ids: Sequence[int]) -> Layers: ...
    def project_kv(self, layer: int, hidden: Tensor) -> LayerKV: ...
    def attention_inputs(self, ids: Sequence[int]) -> list[Tensor | None]: ...


@dataclass(frozen=True, slots=True)
class Reads:
    """What a generated prompt reads of the input."""

    kind: Literal["embeddings", "hidden", "encoder"]
    layer: int = 0  # for "hidden": after how many layers
    encoder: str = ""  # for "encoder": the name of a separate pretrained model


@dataclass(frozen=True, slots=True)
class Features:
    """The input as a prefix model reads it."""

    values: Tensor  # [B, M, D]
    mask: Tensor  # [B, M] bool


@dataclass(frozen=True)
class Setting:
    """What a builder is given: the base model, the prompts' names, and material to start from."""

    lm: BaseModel
    prompts: tuple[str, ...] = ("default",)
    labels: tuple[str, ...] = ()
    examples: tuple[tuple[int, ...], ...] = ()  # token ids of a few training rows, input and target
    examples_by_prompt: dict[int, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    seed: int = 0
    feature_size: Callable[[Reads], int] | None = None  # D of what a generated prompt reads
    read_prompt: Callable[[str, str], Mapping[str, Tensor]] | None = None  # of (folder, prompt)
    # of a folder: the base its prompts were trained on; None where that is this one
    other_base: Callable[[str], OtherBase | None] | None = None
    on_carried: Callable[[Carried], None] = lambda carried: None  # told how a prompt came from another base

    def generator(self, salt: int = 0) -> torch.Generator:
        """Random numbers for initialisers; the same for the same seed and salt."""
        return torch.Generator().manual_seed(self.seed * 1009 + salt)


class SoftPrompt(nn.Module, abc.ABC):
    """Learned vectors for a frozen model. `forward` is pure: the same ids and input, the same injection."""

    reads: Reads | None = None  # None: the prompt does not depend on the input

    @property
    @abc.abstractmethod
    def num_prompts(self) -> int:
        """Size of the prompt table."""

    @abc.abstractmethod
    def forward(self, prompt_ids: Tensor, inputs: Features | None = None) -> Injection:
        """The injection of B rows: `prompt_ids` [B], and their input features where `reads` asks for them."""

    def static(self, prompt_ids: Tensor) -> Injection:
        """The part that does not depend on the input: all of it, unless the prompt is generated."""
        return self(prompt_ids)


def soft_injection(vectors: Tensor, placement: Placement) -> Injection:
    """Soft tokens [B, P, H] at their place."""
    tokens = SoftTokens(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device))
    return Injection(before=tokens) if placement == "before" else Injection(after=tokens)


def kv_injection(layers: Layers, placement: Placement) -> Injection:
    """A prefix ahead of the input, or between input and target (infix)."""
    key = next(layer.key for layer in layers if layer is not None)
    prefix = Prefix(layers, torch.ones(key.shape[0], key.shape[2], dtype=torch.bool, device=key.device))
    return Injection(kv_before=prefix) if placement == "before" else Injection(kv_after=prefix)


def key_sizes(spec: Any) -> list[int]:
    """Numbers in one token's key, by layer that has attention."""
    return [s.kv_heads * s.head_dim for s in spec.layers if s is not None]


def value_sizes(spec: Any) -> list[int]:
    """Numbers in one token's value, by layer that has attention."""
    return [s.kv_heads * s.v_head_dim for s in spec.layers if s is not None]


def unflatten(spec: Any, keys: Tensor, values: Tensor) -> Layers:
    """Keys [B, P, sum of key sizes] and values [B, P, …] as layers of [B, kv_heads, P, head_dim]."""
    split_keys = iter(keys.split(key_sizes(spec), dim=-1))
    split_values = iter(values.split(value_sizes(spec), dim=-1))

    def heads(flat: Tensor, count: int) -> Tensor:
        return flat.unflatten(-1, (count, -1)).transpose(1, 2)

    return tuple(
        None
        if s is None
        else LayerKV(heads(next(split_keys), s.kv_heads), heads(next(split_values), s.kv_heads))
        for s in spec.layers
    )


def flatten(layers: Layers) -> tuple[Tensor, Tensor]:
    """The inverse of `unflatten`: keys and values [B, P, …]."""
    present = [layer for layer in layers if layer is not None]
    keys = torch.cat([layer.key.transpose(1, 2).flatten(2) for layer in present], dim=-1)
    values = torch.cat([layer.value.transpose(1, 2).flatten(2) for layer in present], dim=-1)
    return keys, values
