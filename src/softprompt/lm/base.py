"""What every kind of frozen model shares: its tokens, its sizes, and moving keys between positions.

`CausalLM` (decoder-only), `Seq2SeqLM` (encoder-decoder) and `EncoderLM` are final; everything
downstream takes any of them.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.collate import Batch
from ..data.tokens import beyond_vocabulary
from ..errors import SoftPromptError
from ..injection import Injection, LayerKV, Layers
from . import (
    attention_choice,
    capture,
    gradient_checkpointing,
    module_state,
    patches,
    per_layer_inputs,
    probe_checkpointing,
    probe_neighbours,
    refusals,
    settings,
)
from .attachment import attach, configurations
from .attention_choice import Attention
from .context import Context
from .heads import Head
from .injected import Active, attention_lost, inject
from .model_errors import told
from .probe import accepted_arguments, measure
from .rotary import Turn
from .spec import ModelSpec

if TYPE_CHECKING:
    from typing_extensions import Self

Answers = Literal["next", "mask", "head"]


class LanguageModel(abc.ABC):
    """A frozen transformers model and its tokenizer, taking an `Injection`."""

    spec: ModelSpec
    answers: Answers = "next"  # where an answer is read: after the row, at masks in it, or off a head
    why_dtype: str = "as the caller loaded it"  # why the model computes in `dtype`
    inherited: dict[
        str, Any
    ]  # generation settings that the checkpoint ships and that count only if asked for
    _first: int = 0  # the position that the model gives a row's first token
    _turns: tuple[Turn | None, ...]  # how each layer turns its keys by position; None: not recognised

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        name: str,
        head: Head | None = None,
        head_names: Collection[str] = (),
        attention: Attention = "auto",
    ) -> None:
        refusals.refuse_wrapped(model)
        self._model: PreTrainedModel | None = model
        self.tokenizer, self.name = tokenizer, name
        self.head, self.head_names = head, frozenset(head_names)
        if head is not None:
            self.answers = "head"
        self.checkpointed: tuple[nn.Module, ...] = ()  # layers that are computed again in the backward pass
        self.decoding: dict[str | None, str] = {}  # by kind of cache: why `generate` is not exact, or empty
        self._recomputed = False  # whether checkpointing was found to give the gradient
        self._attachment = attach(model)
        self._attachment.add_user(self)
        try:
            with self._attachment.changing(*model.modules(), *configurations(model)):
                self._load(model, attention)
        except BaseException:
            self.close()
            raise

    def _load(self, model: PreTrainedModel, attention: Attention) -> None:
        """Change the model so that it takes vectors, and measure it."""
        with told(model):
            patches.bind(model)
            self._beside = per_layer_inputs.bind(model)
            attention_choice.set_attention(model, attention_choice.registered_name(model, attention))
        model.eval()
        model.requires_grad_(False)
        self._begin = settings.begin(model, self.tokenizer)
        self.inherited = settings.make_neutral(model, self.tokenizer)
        self.accepted = accepted_arguments(model)
        with told(model):
            self.spec, self._turns = measure(model, self.token_inputs)
            # kept, because a walk through a model is slow; a layer that is put in later does not come for
            # its vectors, which `Active.check` notices
            self._attending = (model, *dict.fromkeys(self._attachment.attention_modules.values()))
            self._attention = attention_choice.names(self._attending)
            self._settle()

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model. Raises SoftPromptError once it is closed."""
        if self._model is None:
            raise refusals.closed(self.name)
        return self._model

    def close(self) -> None:
        """Give the transformers model back as it was; later calls of this object raise SoftPromptError.

        The model's attention, hooks, settings, `requires_grad` and training mode are what they were before.
        Weights that were trained (base=lora, base=full, a head) stay trained. Where several objects were made
        of one model, it is given back when the last of them is closed. Closing again does nothing.
        """
        model, self._model = self._model, None
        if model is not None:
            self._attending, self.checkpointed, self._beside = (), (), None
            self._attachment.release(model, self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._attachment.add_user(self)  # a copy is a user of the copied model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abc.abstractmethod
    def _settle(self) -> None:
        """What this kind of model knows beyond what was measured: its last word on `spec`."""

    def _measure_batching(self) -> None:
        """Which rows may share a batch: the last word on it, once the kind of model is settled."""
        self.spec = replace(self.spec, batching=probe_neighbours.measure(self))

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype  # type: ignore[return-value]

    @property
    def shares_beginnings(self) -> bool:
        """Whether what several rows begin with can be run once, and seen by each as columns."""
        return not {"prefix", "cache"} & set(self.spec.limits)

    @property
    def is_frozen(self) -> bool:
        """False while the base is trained jointly (lora, full); a head does not count."""
        named = self.model.named_parameters()
        return not any(p.requires_grad for name, p in named if name not in self.head_names)

    @property
    def ends(self) -> frozenset[int]:
        """Ids of the tokens that end an answer."""
        config = getattr(self.model, "generation_config", None)
        return frozenset(settings.end_tokens(getattr(config, "eos_token_id", None), self.tokenizer) or ())

    @property
    def forced(self) -> tuple[int, ...]:
        """Tokens that stand ahead of every target, behind the decoder's start token: see `lm.settings`."""
        return self._begin[1:]

    @property
    def vocabulary(self) -> int:
        """Ids below this have an embedding, in an encoder and a decoder alike."""
        modules = [self.model.get_input_embeddings()]
        if self.model.config.is_encoder_decoder:
            modules.append(self.model.get_decoder().get_input_embeddings())
        sizes = [len(weight) for module in modules if (weight := getattr(module, "weight", None)) is not None]
        return int(min([self.spec.vocab_size, *sizes]))

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings [..., H] of ids [...]."""
        found = self.model.get_input_embeddings()(ids)
        return found[0] if isinstance(found, tuple) else found  # a quantized table adds its scale

    def token_inputs(self, ids: Tensor) -> Tensor:
        """For ids [...], the `inputs_embeds` of a model: [..., H], or wider (`lm.per_layer_inputs`)."""
        vectors = self.embed(ids)
        return vectors if self._beside is None else torch.cat([vectors, self._beside.of_tokens(ids)], -1)

    def soft_inputs(self, vectors: Tensor) -> Tensor:
        """The same of soft tokens [..., H]; vectors that are inputs already stay as they are."""
        vectors = vectors.to(self.dtype)
        if self._beside is None or vectors.shape[-1] > self.spec.hidden_size:
            return vectors
        return torch.cat([vectors, self._beside.of_soft_tokens(vectors)], -1)

    @abc.abstractmethod
    def logits(
        self, batch: Batch, injection: Injection | None = None, context: Context | None = None
    ) -> Tensor:
        """Logits [B, T, V] that predict `batch.target_ids`; rows are right-aligned like the targets."""

    def prefill(
        self, batch: Batch, injection: Injection | None = None, ahead: Context | None = None
    ) -> Context:
        """What `logits(context=…)` need not compute again. Raises SoftPromptError for models that cannot.

        `ahead`, of one row, is what each input begins with: the batch holds the rest of them.
        """
        raise refusals.refusal(self.spec, "cache")

    def context(self, batch: Batch, injection: Injection | None = None) -> Context | None:
        """`prefill` where this model can keep its inputs; None (compute them each time) where it cannot."""
        return None if "cache" in self.spec.limits else self.prefill(batch, injection)

    def advanced(
        self, batch: Batch, injection: Injection, context: Context | None
    ) -> tuple[Batch, Injection, Context | None]:
        """The same rows, with more of them in the context where several targets are to be scored for each."""
        return batch, injection, context

    def generate(self, batch: Batch, injection: Injection | None = None, **options: Any) -> Any:
        """New tokens [B × num_return_sequences, up to max_new_tokens] by transformers' own `generate`.

        Under `return_dict_in_generate` its output object is returned; `sequences` there are the new tokens.
        Raises SoftPromptError for models that write no text.
        """
        raise refusals.writes_no_text(self.name)

    @abc.abstractmethod
    def hidden(self, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
        """Hidden states [B, N, H] of the plain model's input after `layer` layers (0: the embeddings)."""

    def kv_of(self, ids: Sequence[int]) -> Layers:
        """KV of real text [1, kv_heads, P, head_dim] by layer, moved to stand at positions -P … -1."""
        return self.move(self._text_kv(ids), -len(ids))

    def kv_like(self, ids: Sequence[int]) -> Layers:
        """KV of real text for their size: `kv_of`, or at 0 … P - 1 where keys cannot be moved."""
        return self._text_kv(ids) if None in self._turns else self.kv_of(ids)

    @abc.abstractmethod
    def _text_kv(self, ids: Sequence[int]) -> Layers:
        """KV of real text [1, kv_heads, P, head_dim] by layer, where the text stands by itself."""

    @property
    def checkpointable_layers(self) -> tuple[nn.Module, ...]:
        """Layers that can be computed again in the backward pass; none in some families."""
        return gradient_checkpointing.layers_of(self.model)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Trade compute for memory in `logits` under gradient. Dropout stays off."""
        layers = self.checkpointable_layers
        if enabled and not layers:
            raise SoftPromptError(
                f"gradient checkpointing does not go with a {self.spec.family} model",
                why="transformers has none for it",
                fix="leave it off, and use smaller batches (train.batch_size)",
            )
        if enabled and not self._recomputed:
            probe_checkpointing.check(self, layers)
            self._recomputed = True
        self.checkpointed = layers if enabled else ()

    @contextlib.contextmanager
    def generating(self, active: Active) -> Iterator[None]:
        """Around transformers' `generate`: as `running`; `close` removes what it leaves on the model."""
        with self.running(active), module_state.cleared(self.model), self._attachment.changing(self.model):
            yield

    @contextlib.contextmanager
    def running(self, active: Active | None = None, *, part: bool = False) -> Iterator[None]:
        """Around each call of the model: what is run inside sees `active` (see `injected.inject`).

        An exception that the model raises becomes a SoftPromptError with it as its cause.
        """
        with told(self.model), inject(active, self._attachment.sites, part=part):
            yield

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        if self.tokenizer is None:
            raise SoftPromptError(
                "this model was loaded without a tokenizer", fix="give token ids instead of text"
            )
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[assignment]
        if ids and max(ids) >= self.vocabulary:
            where = f"the text {text[:60]!r}"
            raise beyond_vocabulary(self.tokenizer, max(ids), self.vocabulary, where, text=text)
        return ids

    def move(self, layers: Layers, delta: Tensor | int) -> Layers:
        """Keys moved by `delta` positions ([B] or one number); unchanged where keys are not rotary."""
        moved: list[LayerKV | None] = []
        for layer, turn in zip(layers, self._turns, strict=True):
            if layer is None:
                moved.append(None)
                continue
            if turn is None:
                raise SoftPromptError(
                    f"a trained prefix cannot be moved to another position on a {self.spec.family} model",
                    why="how it turns its keys by position was not recognised",
                    fix="use placement=before with init=random, or a soft prompt (prompt-tuning)",
                )
            moved.append(LayerKV(turn(layer.key, delta), layer.value, layer.gate))
        return tuple(moved)

    def project_kv(self, layer: int, hidden: Tensor) -> LayerKV:
        """Keys and values that the layer's own frozen projections make of `hidden` [1, P, H], unrotated."""
        return capture.project(self.model, layer, hidden.to(self.dtype))

    @torch.no_grad()
    def attention_inputs(self, ids: Sequence[int]) -> list[Tensor]:
        """What each attention layer reads of a text: [P, H]."""
        self.refuse("prefix")
        return capture.attention_inputs(self.model, torch.tensor([list(ids)], device=self.device))

    def refuse(self, limit: str) -> None:
        """Raise SoftPromptError where the model has this limit (see `ModelSpec.limits`)."""
        if limit in self.spec.limits:
            raise refusals.refusal(self.spec, limit)

    def _check(self, injection: Injection) -> None:
        """Raises SoftPromptError where this model, as it is now, does not take the injection."""
        config = self.model.config
        if attention_choice.names(self._attending) != self._attention:
            raise attention_lost("it is no longer the one that puts vectors in")
        if injection.decoder is not None and not config.is_encoder_decoder:
            raise SoftPromptError(
                f"placement=decoder does not go with a {self.spec.family} model",
                why="it has no encoder and decoder",
                fix="use placement=before or after",
            )
        if injection.decoder is not None:
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

    @property
    def pad_id(self) -> int:
        """The id that fills rows: the model's padding, else its first end token, else 0."""
        config = self.model.generation_config
        ends = config.eos_token_id  # type: ignore[union-attr]
        first_end = ends[0] if isinstance(ends, list) else ends
        pad = config.pad_token_id  # type: ignore[union-attr]
        return next((int(i) for i in (pad, first_end) if i is not None and 0 <= i < self.vocabulary), 0)
