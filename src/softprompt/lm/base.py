"""What every kind of frozen model shares: its tokens, its sizes, and moving keys between positions.

`CausalLM` (decoder-only), `Seq2SeqLM` (encoder-decoder) and `EncoderLM` are final; everything
downstream takes any of them.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.utils.checkpoint
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from ..data.collate import Batch
from ..data.tokens import beyond_vocabulary
from ..errors import SoftPromptError, unknown
from ..injection import Injection, LayerKV, Layers
from . import patches, per_layer_inputs, probe_checkpointing, probe_neighbours, settings
from .attention import EAGER, SDPA
from .capture import attention_inputs, attention_modules, project
from .context import Context
from .heads import Head
from .injected import Active, attention_lost, checkpoint_contexts, inject
from .model_errors import told
from .probe import accepted_arguments, measure
from .rotary import Turn
from .spec import ModelSpec

Answers = Literal["next", "mask", "head"]
Attention = Literal["auto", "sdpa", "eager"]
_REFUSALS = {  # what cannot be had, and what to do instead
    "prefix": ("take a prefix", "use a soft prompt (prompt-tuning, p-tuning, …), or another base model"),
    "cache": (
        "keep its inputs' keys and values",
        "leave the cache off (train.cache=off); the run is the same, only slower",
    ),
    "decoder": ("take soft tokens in its decoder", "use placement=before or after"),
    "generate": (
        "write text as it is trained",
        "score labels (task.kind=classification), or another base model",
    ),
}


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
        _refuse_wrapped(model)
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.head, self.head_names = head, frozenset(head_names)
        if head is not None:
            self.answers = "head"
        with told(model):
            patches.bind(model)
            self._beside = per_layer_inputs.bind(model)
            _set_attention(model, _implementation(model, attention))
        model.eval()
        model.requires_grad_(False)
        self._begin = settings.begin(model, tokenizer)
        self.inherited = settings.make_neutral(model, tokenizer)
        self._checkpointed: tuple[torch.nn.Module, ...] = ()
        self.decoding: dict[str | None, str] = {}  # by kind of cache: why `generate` is not exact, or empty
        self._recomputed = False  # whether checkpointing was found to give the gradient
        self._accepted = accepted_arguments(model)
        with told(model):
            self.spec, self._turns = measure(model, self.token_inputs)
            self._attending = (model, *dict.fromkeys(attention_modules(model).values()))
            self._attention = self._attention_names()
            self._settle()

    def _attention_names(self) -> set[str]:
        """The attention that the model's layers are to call, by their configurations as they are now.

        The modules are those found on load, for a walk through a model is slow. One that was put in since
        does not come for its vectors, which `Active.check` notices.
        """
        configs = [getattr(module, "config", None) for module in self._attending]
        return {str(getattr(config, "_attn_implementation", "")) for config in configs}

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

    @abc.abstractmethod
    def prefill(
        self, batch: Batch, injection: Injection | None = None, ahead: Context | None = None
    ) -> Context:
        """What `logits(context=…)` need not compute again. Refused where `spec.limits` names "cache".

        `ahead`, of one row, is what each input begins with: the batch holds the rest of them.
        """

    def context(self, batch: Batch, injection: Injection | None = None) -> Context | None:
        """`prefill` where this model can keep its inputs; None (compute them each time) where it cannot."""
        return None if "cache" in self.spec.limits else self.prefill(batch, injection)

    def advanced(
        self, batch: Batch, injection: Injection, context: Context | None
    ) -> tuple[Batch, Injection, Context | None]:
        """The same rows, with more of them in the context where several targets are to be scored for each."""
        return batch, injection, context

    @abc.abstractmethod
    def generate(self, batch: Batch, injection: Injection | None = None, **options: Any) -> Any:
        """New tokens [B × num_return_sequences, up to max_new_tokens] by transformers' own `generate`.

        Under `return_dict_in_generate` its output object is returned; `sequences` there are the new tokens.
        """

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
    def checkpointable_layers(self) -> tuple[torch.nn.Module, ...]:
        """Layers that can be computed again in the backward pass; none in some families.

        Of layers inside others, the outer ones.
        """
        found = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        inner = {part for layer in found for part in layer.modules() if part is not layer}
        return tuple(layer for layer in found if layer not in inner)

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
        self._checkpointed = layers if enabled else ()

    @contextlib.contextmanager
    def _checkpointing(self) -> Iterator[None]:
        """Each layer is computed again in the backward pass, wherever gradient is wanted in here.

        transformers' own switch asks for layers that are training: some would then drop out numbers, and
        all would take the KV cache away from a `generate`.
        """
        layers = self._checkpointed if torch.is_grad_enabled() else ()
        for layer in layers:
            layer.forward = partial(_checkpoint, layer.forward)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    @contextlib.contextmanager
    def running(self, active: Active | None = None, *, part: bool = False) -> Iterator[None]:
        """Around each call of the model: what is run inside sees `active` (see `active.inject`).

        An exception that the model raises comes out as a SoftPromptError with it as its cause.
        """
        with told(self.model), inject(active, part=part):
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
        return project(self.model, layer, hidden.to(self.dtype))

    @torch.no_grad()
    def attention_inputs(self, ids: Sequence[int]) -> list[Tensor]:
        """What each attention layer reads of a text: [P, H]."""
        self.refuse("prefix")
        return attention_inputs(self.model, torch.tensor([list(ids)], device=self.device))

    def refuse(self, what: str) -> None:
        """Raises where the model was found not to be able to do `what`: "prefix", "cache" or "decoder"."""
        if what not in self.spec.limits:
            return
        meant, fix = _REFUSALS[what]
        raise SoftPromptError(
            f"model family '{self.spec.family}' cannot {meant}", why=self.spec.limits[what], fix=fix
        )

    def _check(self, injection: Injection) -> None:
        """Raises SoftPromptError where this model, as it is now, does not take the injection."""
        if self._attention_names() != self._attention:
            raise attention_lost("it is no longer the one that puts vectors in")
        if injection.decoder is not None and not self.model.config.is_encoder_decoder:
            raise SoftPromptError(
                f"placement=decoder does not go with a {self.spec.family} model",
                why="it has no encoder and decoder",
                fix="use placement=before or after",
            )
        if injection.decoder is not None:
            self.refuse("decoder")
        if {"kv_before", "kv_after", "adapter"} & set(injection.channels()):
            self.refuse("prefix")

    def _only_accepted(self, **arguments: Any) -> dict[str, Any]:
        """The arguments that this model's forward knows (not every family takes `position_ids`).

        Positions are given as a row counts them, from 0.
        """
        if self._first and "position_ids" in arguments:
            arguments["position_ids"] = arguments["position_ids"] + self._first
        return {name: value for name, value in arguments.items() if name in self._accepted}

    def _pad_id(self) -> int:
        config = self.model.generation_config
        ends = config.eos_token_id  # type: ignore[union-attr]
        first_end = ends[0] if isinstance(ends, list) else ends
        pad = config.pad_token_id  # type: ignore[union-attr]
        return next((int(i) for i in (pad, first_end) if i is not None and 0 <= i < self.vocabulary), 0)


def _refuse_wrapped(model: Any) -> None:
    """Raises SoftPromptError for a model in PEFT's wrapper."""
    if not (hasattr(model, "peft_config") and hasattr(model, "get_base_model")):
        return
    raise SoftPromptError(
        f"a {type(model).__name__} of PEFT's is no base model",
        why="its wrapper changes what the model is given, so what is injected would not reach it as it is",
        fix="merge its LoRA first: model.merge_and_unload() gives a base model. A prompt or prefix of PEFT's "
        "is brought in with `softprompt import`, on its base model",
    )


def _checkpoint(function: Any, *args: Any, **named: Any) -> Any:
    return torch.utils.checkpoint.checkpoint(
        function, *args, use_reentrant=False, context_fn=checkpoint_contexts, **named
    )


def _set_attention(model: PreTrainedModel, name: str) -> None:
    """Let every layer of the model call the attention that is registered under `name`.

    transformers 5.17 leaves out parts that have a copy of the model's own configuration, as T5's stacks have.
    """
    model.set_attn_implementation(name)
    for part in model.modules():
        if not isinstance(part, PreTrainedModel) or type(part.config) is not type(model.config):
            continue
        if part.config._attn_implementation != model.config._attn_implementation:
            part.set_attn_implementation(name)


def _implementation(model: Any, choice: str) -> str:
    """The registered name for a user's choice of attention; "auto" is sdpa where the family has it.

    Raises SoftPromptError where the model cannot run it so, and for flash attention.
    """
    if choice.startswith("flash"):
        raise SoftPromptError(
            f"attention='{choice}' takes no injected vectors",
            why="flash kernels take no mask, and rows with prefixes of their own lengths need one",
            fix="use attention=sdpa: torch picks its fastest kernel that takes a mask",
        )
    if choice not in get_args(Attention):
        raise unknown("attention", choice, get_args(Attention))
    if choice == "sdpa" and not model._supports_sdpa:
        raise SoftPromptError(
            f"attention='sdpa' does not go with a {model.config.model_type} model",
            why="transformers has no fused attention for it",
            fix="use attention=auto or attention=eager",
        )
    return SDPA if model._supports_sdpa and choice != "eager" else EAGER
