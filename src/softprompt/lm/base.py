"""Every kind of frozen model shares this: tokens, sizes, and moving keys between positions.

`CausalLM` (decoder-only), `Seq2SeqLM` (encoder-decoder) and `EncoderLM` are final; everything
downstream takes any of them.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..data.collate import Batch
from ..injection import Injection, LayerKV, Layers
from . import (
    attention_choice,
    capture,
    gradient_checkpointing,
    offloaded,
    patches,
    per_layer_inputs,
    probe_checkpointing,
    probe_neighbours,
    refusals,
    settings,
    sharded,
    vocabulary,
)
from .context import Context
from .heads import Head
from .model_errors import errors_explained
from .open_model import OpenModel
from .origin import Origin
from .precision import Weights
from .probe import accepted_arguments, measure
from .rotary import Rotation, moved
from .spec import ModelSpec

Answers = Literal["next", "mask", "head", "pooled"]


class LanguageModel(OpenModel, abc.ABC):
    """A frozen transformers model and its tokenizer, which takes an `Injection`; `close` gives it back."""

    spec: ModelSpec
    answers: Answers = "next"  # where an answer is read: after the row, at masks, off a head, or a vector
    why_dtype: str = "as the caller loaded it"  # why the model computes in `dtype`
    origin: Origin = Origin()  # how it was loaded
    weights: Weights = "auto"  # the form of the frozen weights
    is_loaded_here: bool = False  # False where the caller had the model in memory, and may change its weights
    inherited: dict[str, Any]  # the checkpoint's generation settings, which count only where requested
    accepted: frozenset[str]  # names of the arguments of the model's forward
    _begin: tuple[int, ...]  # ids that a decoder behind an encoder reads ahead of a target
    _first: int = 0  # the position that the model gives a row's first token
    _rotations: tuple[Rotation | None, ...]  # by layer, how its keys depend on positions; None: unknown

    def __init__(
        self,
        model: Any,  # what is no usable model or attention is refused with the reason
        tokenizer: Any,
        name: str,
        head: Head | None = None,
        head_names: Collection[str] = (),
        attention: str = "auto",
    ) -> None:
        super().__init__(model, name)
        self.tokenizer = tokenizer
        self.head, self.head_names = head, frozenset(head_names)
        if head is not None:
            self.answers = "pooled" if head.over == "pooling" else "head"
        self.checkpointed: tuple[nn.Module, ...] = ()  # layers that are computed again in the backward pass
        self.decoding: dict[str | None, str] = {}  # by kind of cache: why `generate` is not exact, or empty
        self._recomputed = False  # whether checkpointing was found to give the gradient
        with self.opening():
            self._load(model, attention)

    def _load(self, model: PreTrainedModel, attention: str) -> None:
        """Change the model so that it takes vectors, and measure it."""
        with errors_explained(model):
            patches.bind(model)
            self._beside = per_layer_inputs.bind(model)
            attention_choice.set_attention(model, attention_choice.registered_name(model, attention))
        model.eval()
        model.requires_grad_(False)
        self._begin = settings.begin(model, self.tokenizer)
        self.inherited = settings.make_neutral(model, self.tokenizer)
        self.accepted = accepted_arguments(model)
        with errors_explained(model):
            attention_choice.check_flash(model)
            self.spec, self._rotations = measure(model, self.token_inputs)
            self.watch_attention()
            self._settle()

    @abc.abstractmethod
    def _settle(self) -> None:
        """Complete `spec` by what this kind of model knows beyond what was measured."""

    def _measure_batching(self) -> None:
        """Measure which rows may share a batch, once the rest of `spec` is complete."""
        self.spec = replace(self.spec, batching=probe_neighbours.measure(self))

    @property
    def device(self) -> torch.device:
        return offloaded.execution_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype  # type: ignore[return-value]

    @property
    def precision(self) -> str:
        """Return the precision as a run records it: that of the vectors, and whether weights are int8."""
        name = str(self.dtype).removeprefix("torch.")
        return f"{name} with int8 weights" if self.weights == "int8" else name

    @property
    def shares_beginnings(self) -> bool:
        """Return whether a common beginning of rows can be run once, and is then seen by each as columns."""
        return not {"prefix", "cache"} & set(self.spec.limits) and not self.is_sharded

    @functools.cached_property
    def is_sharded(self) -> bool:
        """True where the layers are split over devices: then all processes run the model equally often."""
        return sharded.is_sharded(self.model)

    @property
    def is_frozen(self) -> bool:
        """False while the base is trained jointly (lora, full); a head does not count."""
        named = self.model.named_parameters()
        return not any(p.requires_grad for name, p in named if name not in self.head_names)

    @property
    def ends(self) -> frozenset[int]:
        """Return the ids of the tokens that end an answer."""
        config = getattr(self.model, "generation_config", None)
        return frozenset(settings.end_tokens(getattr(config, "eos_token_id", None), self.tokenizer) or ())

    @property
    def forced(self) -> tuple[int, ...]:
        """Return the tokens between the decoder's start token and every target: see `lm.settings`."""
        return self._begin[1:]

    @property
    def vocabulary(self) -> int:
        """The number of ids that have an embedding, in an encoder and a decoder alike."""
        return vocabulary.embedded_ids(self.model, self.spec.vocab_size)

    @property
    def pad_id(self) -> int:
        """The id that fills rows: the model's padding, else its first end token, else 0."""
        return vocabulary.pad_id(self.model, self.vocabulary)

    def text_ids(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens."""
        return vocabulary.text_ids(self, text)

    def embed(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch hidden"]:
        """Return the token embeddings [..., H] of ids [...]."""
        vectors = self.model.get_input_embeddings()(ids)
        return vectors[0] if isinstance(vectors, tuple) else vectors  # a quantized table adds its scale

    def token_inputs(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Return the model's `inputs_embeds` for ids [...]: [..., H], or wider (`lm.per_layer_inputs`)."""
        vectors = self.embed(ids)
        return vectors if self._beside is None else torch.cat([vectors, self._beside.of_tokens(ids)], -1)

    def soft_inputs(self, vectors: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch width"]:
        """Return the `inputs_embeds` for soft tokens [..., H]; wider vectors are returned unchanged."""
        vectors = vectors.to(self.dtype)
        if self._beside is None or vectors.shape[-1] > self.spec.hidden_size:
            return vectors
        return torch.cat([vectors, self._beside.of_soft_tokens(vectors)], -1)

    @abc.abstractmethod
    def logits(
        self, batch: Batch, injection: Injection | None = None, context: Context | None = None
    ) -> Tensor:
        """Compute the logits [B, T, V] that predict `batch.target_ids`, right-aligned like the targets."""

    def prefill(
        self, batch: Batch, injection: Injection | None = None, ahead: Context | None = None
    ) -> Context:
        """Compute what `logits(context=…)` then takes. Raises SoftPromptError for models that cannot keep it.

        `ahead`, of one row, is the beginning of every input: the batch holds the rest of them.
        """
        raise refusals.refusal(self.spec, "cache")

    def context(self, batch: Batch, injection: Injection | None = None) -> Context | None:
        """Compute `prefill` where this model can keep its inputs; return None where it cannot."""
        return None if "cache" in self.spec.limits else self.prefill(batch, injection)

    def advanced(
        self, batch: Batch, injection: Injection, context: Context | None
    ) -> tuple[Batch, Injection, Context | None]:
        """Return the same rows with more of them in the context, so that several targets can share it."""
        return batch, injection, context

    def generate(self, batch: Batch, injection: Injection | None = None, **options: Any) -> Any:
        """Generate new tokens [B × num_return_sequences, up to max_new_tokens] by transformers' `generate`.

        Under `return_dict_in_generate` its output object is returned; `sequences` there are the new tokens.
        Raises SoftPromptError for models that write no text.
        """
        raise refusals.writes_no_text(self.name)

    @abc.abstractmethod
    def hidden(self, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
        """Compute the plain model's hidden states [B, N, H] after `layer` layers (0: the embeddings)."""

    def kv_of(self, ids: Sequence[int]) -> Layers:
        """Compute the KV of real text [1, kv_heads, P, head_dim] by layer, moved to the positions -P … -1."""
        return self.move(self._text_kv(ids), -len(ids))

    def kv_like(self, ids: Sequence[int]) -> Layers:
        """Compute `kv_of`; where keys cannot be moved, those at the positions 0 … P - 1 (for their size)."""
        return self._text_kv(ids) if None in self._rotations else self.kv_of(ids)

    @abc.abstractmethod
    def _text_kv(self, ids: Sequence[int]) -> Layers:
        """Compute the KV of real text [1, kv_heads, P, head_dim] by layer, at the positions 0 … P - 1."""

    def move(self, layers: Layers, delta: Int[Tensor, " batch"] | int) -> Layers:
        """Move keys by `delta` positions ([B] or one number); keys that are not rotary stay unchanged."""
        return moved(layers, self._rotations, delta, self.spec.family)

    def fit_prefix(self, *arguments: Any) -> Layers:
        """Fit a prefix to a text (see `lm.prefix_fit`). Raises SoftPromptError by default."""
        raise refusals.not_matched(self.spec)

    def project_kv(self, layer: int, hidden: Float[Tensor, "1 length hidden"]) -> LayerKV:
        """Keys and values that the layer's own frozen projections make of `hidden` [1, P, H], unrotated.

        Raises SoftPromptError where the layers are split over devices.
        """
        if self.is_sharded:
            raise refusals.projections_split()
        return capture.project(self.model, layer, hidden.to(self.dtype))

    @torch.no_grad()
    def attention_inputs(self, ids: Sequence[int]) -> list[Float[Tensor, "length _"]]:
        """Return the hidden states [P, H] that each attention layer reads of a text."""
        self.refuse("prefix")
        return capture.attention_inputs(self.model, torch.tensor([list(ids)], device=self.device))

    @property
    def checkpointable_layers(self) -> tuple[nn.Module, ...]:
        """The layers that can be computed again in the backward pass; none in some families."""
        return gradient_checkpointing.layers_of(self.model)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Save memory in `logits` under gradient by computing layers twice. Dropout stays off."""
        layers = self.checkpointable_layers
        if enabled and not self._recomputed:
            probe_checkpointing.check(self, layers)
            self._recomputed = True
        self.checkpointed = layers if enabled else ()

    def refuse(self, limit: str) -> None:
        """Raise SoftPromptError where the model has this limit (see `ModelSpec.limits`)."""
        if limit in self.spec.limits:
            raise refusals.refusal(self.spec, limit)

    def _check(self, injection: Injection) -> None:
        """Raise SoftPromptError where this model, as it is now, does not take the injection."""
        self.check_attention()
        if injection.decoder is not None:
            if not self.model.config.is_encoder_decoder:
                raise refusals.no_decoder(self.spec)
            self.refuse("decoder")
        if {"kv_before", "kv_after", "adapter"} & set(injection.channels()):
            self.refuse("prefix")

    def model_arguments(self, **arguments: Any) -> dict[str, Any]:
        """The arguments that this model's forward knows (not every family takes `position_ids`).

        Positions are given as a row counts them, from 0.
        """
        if self._first and "position_ids" in arguments:
            arguments["position_ids"] = arguments["position_ids"] + self._first
        return {name: value for name, value in arguments.items() if name in self.accepted}
