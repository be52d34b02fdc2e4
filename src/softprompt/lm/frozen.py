"""`FrozenLM`: an unmodified transformers causal model that takes an `Injection`.

Every call lays a row out as [before | input | after | target], right-aligned and without gaps, and
asks for the logits of the target positions only. The last input token always belongs to the *tail*
(what runs after the cached input): it predicts the first target token, so it must see a prefix that
is placed after the input. This file knows nothing of methods, templates or training.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from ..data.collate import Batch
from ..errors import SoftPromptError
from ..injection import Injection, LayerKV, Layers, Prefix, SoftTokens
from .attention import EAGER, SDPA, Active, Columns, checkpoint_contexts, inject
from .capture import attention_inputs, project
from .probe import cached_layers, measure


@dataclass(frozen=True, slots=True)
class Context:
    """Keys and values of everything ahead of the tail, computed once: soft tokens before, and the input."""

    layers: Layers  # key [B, kv_heads, N, head_dim]
    mask: Tensor  # [B, N] bool

    def repeat_rows(self, times: int) -> Context:
        """Each row `times` times in place."""
        layers = tuple(
            None if layer is None else layer.map(lambda t: t.repeat_interleave(times, dim=0))
            for layer in self.layers
        )
        return Context(layers, self.mask.repeat_interleave(times, dim=0))


class FrozenLM:
    """A frozen causal language model and its tokenizer."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, name: str) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        model.set_attn_implementation(EAGER if _needs_eager(model) else SDPA)
        model.eval()
        model.requires_grad_(False)
        self._checkpointed: tuple[torch.nn.Module, ...] = ()
        self.spec, self._turns = measure(model)
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype  # type: ignore[return-value]

    @property
    def is_frozen(self) -> bool:
        """False while the base is trained jointly (lora, full)."""
        return not any(p.requires_grad for p in self.model.parameters())

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings [..., H] of ids [...]."""
        return self.model.get_input_embeddings()(ids)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Trade compute for memory in `logits` under gradient. Dropout stays off."""
        for layer in self._checkpointed:
            layer.gradient_checkpointing = False  # type: ignore[assignment]
        self._checkpointed = ()
        if enabled:
            self.model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=_checkpoint)
            self._checkpointed = tuple(
                m for m in self.model.modules() if getattr(m, "gradient_checkpointing", False)
            )

    @contextlib.contextmanager
    def _checkpointing(self) -> Iterator[None]:
        """transformers checkpoints a layer whose flag says "training", and then takes its KV cache away.

        So the flag is up only here: a `prefill` or `generate` in between would compute without a cache.
        """
        layers = self._checkpointed if torch.is_grad_enabled() else ()
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    def logits(
        self, batch: Batch, injection: Injection | None = None, context: Context | None = None
    ) -> Tensor:
        """Logits [B, T, V] that predict `batch.target_ids`; rows are right-aligned like the targets.

        With `context` (from `prefill` under the same injection) only the tail is computed.
        """
        injection = _fit_rows(injection or Injection(), batch.size)
        vectors, mask = self._sequence(batch, injection, skip_input=context is not None)
        lengths = batch.target_mask.sum(1)
        if injection.after is not None:
            lengths = lengths + injection.after.mask.sum(1)
        ahead = 0 if context is None else context.mask.sum(1, keepdim=True)
        positions = (mask.cumsum(1) - 1 + ahead).clamp(min=0)
        tail_start = vectors.shape[1] - lengths
        active = self._active(injection, positions, tail_start, positions[:, -1] - lengths + 1, context)
        width, targets = vectors.shape[1], batch.target_ids.shape[1]
        # as indices, not as a number: a slice would leave the last hidden states strided, and torch then
        # multiplies with a copy of the vocabulary matrix for every row
        keep = (
            {"logits_to_keep": torch.arange(width - targets, width, device=mask.device)}
            if self._keeps_logits
            else {}
        )
        with inject(active), self._checkpointing():
            out = self.model(
                inputs_embeds=vectors, attention_mask=mask, position_ids=positions, use_cache=False, **keep
            )
        return out.logits[:, -targets:]

    @torch.no_grad()
    def prefill(self, batch: Batch, injection: Injection | None = None) -> Context:
        """Keys and values of [before | input without its last token], for `logits(context=…)`."""
        injection = _fit_rows(injection or Injection(), batch.size)
        head = replace(injection, after=None, kv_after=None)  # nothing that follows can change what precedes
        shortened = replace(batch, input_ids=batch.input_ids[:, :-1], input_mask=batch.input_mask[:, :-1])
        vectors, mask = self._sequence(shortened, head, targets=False)
        if vectors.shape[1] == 0:
            return self._empty_context(batch.size)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache()
        with inject(self._active(head, positions, 0, 0, None)):
            self.model.base_model(  # without the head: no logits are needed
                inputs_embeds=vectors,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
        kept = cached_layers(cache)
        layers = tuple(kv if spec else None for spec, kv in zip(self.spec.layers, kept, strict=True))
        return Context(layers, mask)

    @torch.no_grad()
    def hidden(self, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
        """Hidden states [B, N, H] of the plain model after `layer` layers (0: the embeddings)."""
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        out = self.model.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            output_hidden_states=True,
        )
        return out.hidden_states[layer]

    @torch.no_grad()
    def generate(self, batch: Batch, injection: Injection | None = None, **options: Any) -> Tensor:
        """New tokens [B × num_return_sequences, up to max_new_tokens] by transformers' own `generate`.

        `options` are transformers' generation options, streamers and caches included.
        """
        injection = _fit_rows(injection or Injection(), batch.size)
        bare = injection.before is None and injection.after is None
        if bare:
            inputs, mask = {"input_ids": batch.input_ids}, batch.input_mask
            width = batch.input_ids.shape[1]
        else:
            if options.get("prefill_chunk_size"):
                raise SoftPromptError(
                    "prefill_chunk_size does not go with soft tokens",
                    why="transformers prefills token ids in chunks, and soft tokens have none",
                    fix="leave it out, or use a prefix",
                )
            vectors, mask = self._sequence(batch, injection, targets=False)
            inputs, width = {"inputs_embeds": vectors}, vectors.shape[1]
        after = 0 if injection.after is None else injection.after.mask.sum(1)
        last_input = mask.sum(1) - after - 1
        active = self._active(injection, None, width - 1 - after, last_input, None)
        options.setdefault("pad_token_id", self._pad_id())
        with inject(active):
            out = self.model.generate(**inputs, attention_mask=mask.long(), **options)  # type: ignore[operator]
        sequences = out if isinstance(out, Tensor) else out.sequences
        return sequences[:, width:] if bare else sequences

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        if self.tokenizer is None:
            raise SoftPromptError(
                "this model was loaded without a tokenizer", fix="give token ids instead of text"
            )
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[return-value]

    def kv_of(self, ids: Sequence[int]) -> Layers:
        """KV of real text [1, kv_heads, P, head_dim] by layer, moved to stand at positions -P … -1."""
        tensor = torch.tensor([[*ids, ids[-1]]], device=self.device)
        batch = Batch(
            tensor,
            torch.ones_like(tensor, dtype=torch.bool),
            tensor[:, :0],
            tensor[:, :0].bool(),
            torch.zeros(1, dtype=torch.long),
        )
        return self.move(self.prefill(batch).layers, -len(ids))

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
    def attention_inputs(self, ids: Sequence[int]) -> list[Tensor | None]:
        """What each layer's attention reads of a text: [P, H], or None where a layer has no attention."""
        tensor = torch.tensor([list(ids)], device=self.device)
        return attention_inputs(self.model, tensor, len(self.spec.layers))

    def _sequence(
        self, batch: Batch, injection: Injection, *, skip_input: bool = False, targets: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Embeddings [B, S, H] and mask [B, S] of the row's parts, packed to the right."""
        ids, mask = batch.input_ids, batch.input_mask
        before = injection.before
        if skip_input:
            ids, mask, before = ids[:, -1:], mask[:, -1:], None
        parts = [] if before is None else [(before.vectors.to(self.dtype), before.mask)]
        parts.append((self.embed(ids), mask))
        if injection.after is not None:
            parts.append((injection.after.vectors.to(self.dtype), injection.after.mask))
        if targets and batch.target_ids.shape[1] > 1:
            parts.append((self.embed(batch.target_ids[:, :-1]), _all_but_last(batch.target_mask)))
        vectors, masks = (torch.cat(column, dim=1) for column in zip(*parts, strict=True))
        return pack_right(vectors, masks)

    def _active(
        self,
        injection: Injection,
        positions: Tensor | None,
        tail_start: Tensor | int,
        last_input: Tensor | int,
        context: Context | None,
    ) -> Active:
        columns = []
        if context is not None:
            at = (context.mask.cumsum(1) - 1).clamp(min=0)
            columns.append(Columns(context.layers, context.mask, positions=at))
        if injection.kv_before is not None:
            columns.append(Columns(injection.kv_before.layers, injection.kv_before.mask))
        if injection.kv_after is not None:
            moved = self.move(injection.kv_after.layers, last_input)
            columns.append(Columns(moved, injection.kv_after.mask, tail_only=True))
        adapter = injection.adapter
        return Active(
            columns=tuple(columns),
            adapter=() if adapter is None else adapter.layers,
            adapter_mask=None if adapter is None else adapter.mask,
            tail_start=tail_start,
            query_positions=positions,
        )

    def _empty_context(self, rows: int) -> Context:
        def empty(heads: int, size: int) -> Tensor:
            return torch.zeros(rows, heads, 0, size, dtype=self.dtype, device=self.device)

        layers = tuple(
            None if s is None else LayerKV(empty(s.kv_heads, s.head_dim), empty(s.kv_heads, s.v_head_dim))
            for s in self.spec.layers
        )
        return Context(layers, torch.zeros(rows, 0, dtype=torch.bool, device=self.device))

    def _pad_id(self) -> int:
        config = self.model.generation_config
        ends = config.eos_token_id  # type: ignore[union-attr]
        first_end = ends[0] if isinstance(ends, list) else ends
        pad = config.pad_token_id  # type: ignore[union-attr]
        return next((int(i) for i in (pad, first_end) if i is not None), 0)


def pack_right(vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with their real positions moved to the right end, in order; columns nobody uses are dropped.

    A gap inside a row would be harmless to full attention, but sliding windows count columns.
    """
    width = int(mask.sum(1).max()) if mask.numel() else 0
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)[:, mask.shape[1] - width :]  # padding first
    packed = vectors.gather(1, order[:, :, None].expand(-1, -1, vectors.shape[2]))
    return packed, mask.gather(1, order)


def _all_but_last(mask: Tensor) -> Tensor:
    """Mask of the target tokens that are fed back: a right-aligned row minus its last token."""
    return mask[:, :-1] & mask[:, 1:] if mask.shape[1] > 1 else mask[:, :0]


def _fit_rows(injection: Injection, rows: int) -> Injection:
    """An injection made for one row serves a whole batch; KV layers broadcast by themselves."""

    def fit(part: Any) -> Any:
        if part is None or part.mask.shape[0] == rows:
            return part
        if part.mask.shape[0] != 1:
            raise SoftPromptError(
                f"an injection of {part.mask.shape[0]} rows does not fit a batch of {rows}",
                why="each row needs its own, or one serves all",
                fix="call the method with one prompt id for each row of the batch",
            )
        mask = part.mask.expand(rows, -1)
        if isinstance(part, SoftTokens):
            return SoftTokens(part.vectors.expand(rows, -1, -1), mask)
        return Prefix(part.layers, mask)

    return Injection(**{name: fit(part) for name, part in injection.channels().items()})


def _needs_eager(model: PreTrainedModel) -> bool:
    return not model._supports_sdpa


def _checkpoint(function: Any, *args: Any) -> Any:
    return torch.utils.checkpoint.checkpoint(
        function, *args, use_reentrant=False, context_fn=checkpoint_contexts
    )
