"""A method is a module that turns prompt ids (and, for some, the input) into an `Injection`.

Methods know sizes (`ModelSpec`) and tensors. They do not know models, templates, training or files.
Classes are abstract here and final elsewhere.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..errors import SoftPromptError
from ..injection import Injection, LayerKV, Layers, Prefix, SoftTokens
from .transfer import Carried, OtherBase

KVPlacement = Literal["before", "after"]
# of soft tokens; the last two in encoder-decoder models: ahead of the decoder's tokens, or there and before
Placement = Literal["before", "after", "decoder", "both"]
Stacks = Literal["all", "encoder", "decoder", "cross"]


@runtime_checkable
class BaseModel(Protocol):
    """The parts of a base model that a method's builder may use (`lm.LanguageModel` has them)."""

    @property
    def spec(self) -> Any: ...
    def text_ids(self, text: str) -> list[int]: ...
    def embed(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "... hidden"]: ...
    def kv_of(self, ids: Sequence[int]) -> Layers: ...
    def kv_like(self, ids: Sequence[int]) -> Layers: ...
    def project_kv(self, layer: int, hidden: Float[Tensor, "batch prefix hidden"]) -> LayerKV: ...
    def attention_inputs(self, ids: Sequence[int]) -> list[Float[Tensor, "prefix hidden"]]: ...


@dataclass(frozen=True, slots=True)
class Reads:
    """The part of the input that a generated prompt reads."""

    kind: Literal["embeddings", "hidden", "encoder"]
    layer: int = 0  # for "hidden": after how many layers
    encoder: str = ""  # for "encoder": the name of a separate pretrained model


@dataclass(frozen=True, slots=True)
class Features:
    """The input as a prefix model reads it."""

    values: Float[Tensor, "batch inputs features"]
    mask: Bool[Tensor, "batch inputs"]


@dataclass(frozen=True, slots=True)
class Hiding:
    """Training hides columns of the prefix; nothing is hidden at any other time.

    A row that is demonstration i does not see the columns from `demonstrations[i][0]` up to
    `demonstrations[i][1]`. Every other column but the first is hidden from a row with probability `dropout`.
    """

    columns: int
    demonstrations: tuple[tuple[int, int], ...] = ()  # none: they are not hidden
    dropout: float = 0.0


@dataclass(frozen=True)
class Setting:
    """A builder is given this: the base model, the prompts' names, and material to start from."""

    lm: BaseModel
    prompts: tuple[str, ...] = ("default",)
    labels: tuple[str, ...] = ()
    examples: tuple[tuple[int, ...], ...] = ()  # token ids of a few training rows, input and target
    examples_by_prompt: dict[int, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    # token ids of the demonstrations as they precede an input, and where each begins and ends
    demonstrations: tuple[int, ...] = ()
    demonstration_spans: tuple[tuple[int, int], ...] = ()
    # by prompt: ids of the teacher's text that the vectors replace, and of training rows (input and target)
    replaced: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    rows_by_prompt: Mapping[int, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    # by prompt: the folder and the name of the prompt whose inputs are most like its own
    nearest: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    seed: int = 0
    feature_size: Callable[[Reads], int] | None = None  # D of what a generated prompt reads
    # (folder, prompt name) -> the saved tensors
    read_prompt: Callable[[str, str], Mapping[str, Tensor]] | None = None
    # folder -> the base that its prompts were trained on; None where that is this one
    other_base: Callable[[str], OtherBase | None] | None = None
    # receives how a prompt was carried over from another base
    on_carried: Callable[[Carried], None] = lambda carried: None

    def generator(self, salt: int = 0) -> torch.Generator:
        """Return a generator of random numbers, the same for the same seed and salt."""
        return torch.Generator().manual_seed(self.seed * 1009 + salt)


class SoftPrompt(nn.Module, abc.ABC):
    """Learned vectors for a frozen model. `forward` is pure: the same ids and input, the same injection."""

    reads: Reads | None = None  # None: the prompt does not depend on the input
    hiding: Hiding | None = None  # columns of its prefix that training hides from rows
    num_prompts: int  # size of the prompt table

    @abc.abstractmethod
    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        """Return the injection of the rows; `inputs` are their features where the method has `reads`."""

    def static(self, prompt_ids: Int[Tensor, " batch"]) -> Injection:
        """Return the part that does not depend on the input: all of it, unless the prompt is generated."""
        return self(prompt_ids)


def soft_length(length: int, placement: Placement) -> int:
    """The number of vectors that a prompt holds: `length` at each place."""
    return 2 * length if placement == "both" else length


def soft_injection(vectors: Float[Tensor, "batch prefix hidden"], placement: Placement) -> Injection:
    """Put soft tokens at their place; with "both", the first half goes before the input."""
    if placement == "both":
        first, second = vectors.chunk(2, dim=1)
        return Injection(before=_soft_tokens(first), decoder=_soft_tokens(second))
    return Injection(**{placement: _soft_tokens(vectors)})  # type: ignore[arg-type]


def _soft_tokens(vectors: Float[Tensor, "batch prefix hidden"]) -> SoftTokens:
    return SoftTokens(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device))


def kv_injection(layers: Layers, placement: KVPlacement) -> Injection:
    """Put a prefix ahead of the input, or between input and target (infix)."""
    key = next(layer.key for layer in layers if layer is not None)
    prefix = Prefix(layers, torch.ones(key.shape[0], key.shape[2], dtype=torch.bool, device=key.device))
    return Injection(kv_before=prefix) if placement == "before" else Injection(kv_after=prefix)


@dataclass(frozen=True, slots=True)
class PrefixLayers:
    """The attention layers that a prefix goes to, and the shapes of its keys and values."""

    layers: tuple[Any, ...]  # LayerSpec, or None where the prefix does not go

    @staticmethod
    def choose(spec: Any, stacks: Stacks, placement: KVPlacement) -> PrefixLayers:
        """Choose the layers of a stack, or of all; an encoder never sees what is placed after the input.

        Raises SoftPromptError where the model has no such layer.
        """
        seen = {s.stack for s in spec.layers}
        hidden = {"encoder"} if placement == "after" and "decoder" in seen else set()
        wanted = (seen if stacks == "all" else {stacks}) - hidden
        chosen = tuple(s if s.stack in wanted else None for s in spec.layers)
        if spec.layers and not any(chosen):
            raise SoftPromptError(
                f"stacks={stacks} with placement={placement} leaves no layer of this model",
                why=f"its attention layers are those of: {', '.join(sorted(seen))}"
                + ("; its encoder does not see what is placed after the input" if hidden else ""),
                fix="use stacks=all" if stacks != "encoder" else "use placement=before",
            )
        return PrefixLayers(chosen)

    @property
    def key_sizes(self) -> list[int]:
        """Numbers in one token's key, for each layer that the prefix goes to."""
        return [s.kv_heads * s.head_dim for s in self.layers if s is not None]

    @property
    def value_sizes(self) -> list[int]:
        """Numbers in one token's value, for each layer that the prefix goes to."""
        return [s.kv_heads * s.v_head_dim for s in self.layers if s is not None]

    def only(self, layers: Layers) -> Layers:
        """Replace the layers that the prefix does not go to by None."""
        return tuple(kv if s is not None else None for kv, s in zip(layers, self.layers, strict=True))

    def unflatten(
        self, keys: Float[Tensor, "batch prefix keys"], values: Float[Tensor, "batch prefix values"]
    ) -> Layers:
        """Split keys and values of all layers, side by side, into layers and heads."""
        split_keys = iter(keys.split(self.key_sizes, dim=-1))
        split_values = iter(values.split(self.value_sizes, dim=-1))

        def heads(
            flat: Float[Tensor, "batch prefix numbers"], count: int
        ) -> Float[Tensor, "batch kv_heads prefix head_dim"]:
            return flat.unflatten(-1, (count, -1)).transpose(1, 2)

        return tuple(
            None
            if s is None
            else LayerKV(heads(next(split_keys), s.kv_heads), heads(next(split_values), s.kv_heads))
            for s in self.layers
        )


def flatten(
    layers: Layers,
) -> tuple[Float[Tensor, "batch prefix keys"], Float[Tensor, "batch prefix values"]]:
    """Join the keys and the values of all layers: the inverse of `PrefixLayers.unflatten`."""
    present = [layer for layer in layers if layer is not None]
    keys = torch.cat([layer.key.transpose(1, 2).flatten(2) for layer in present], dim=-1)
    values = torch.cat([layer.value.transpose(1, 2).flatten(2) for layer in present], dim=-1)
    return keys, values
