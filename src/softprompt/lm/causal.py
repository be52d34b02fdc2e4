"""`CausalLM` is an unmodified transformers decoder-only model that takes an `Injection`.

`lm.causal_rows` says how a row is laid out. Every call computes the logits of the target positions only.
This file knows nothing of methods, templates or training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from .._system.quiet import quietly
from ..data.collate import Batch, batch_of_ids
from ..errors import SoftPromptError
from ..injection import Injection, Layers, SoftTokens
from . import (
    cache_name,
    causal_rows,
    chat_cache,
    generation,
    patches,
    prefix_fit,
    probe_cache,
    probe_generate,
    probe_lengths,
    row_options,
)
from .base import LanguageModel
from .context import Context, pack_right, positions_after
from .equal_lengths import NOT_KEPT, apart, hidden_apart
from .gradient_checkpointing import recomputed
from .injected import Active
from .probe import recorded
from .probe_positions import first_position, positions_from

#: A common beginning is run once where that saves so many positions: the pass itself costs something.
WORTH_A_PASS = 128

COUNTS_COLUMNS = (
    "it takes no positions but counts columns, padding among them: the distance from a prefix to a row's "
    "keys would grow with the row's padding"
)


@final
class CausalLM(LanguageModel):
    """A frozen decoder-only language model, which continues a text, and its tokenizer."""

    def _settle(self) -> None:
        if self.head is not None and self.model.config.pad_token_id is None:
            # any will do: of embeddings, transformers pools the last column
            self.model.config.pad_token_id = 0
        if self.head is None:
            self._first = first_position(self.model, self.accepted)
            self.spec = replace(self.spec, context=self.spec.context - self._first)
        if self.answers == "pooled":
            limits = {"cache": "a vector is read off the whole text, which is run once", **self.spec.limits}
            self.spec = replace(self.spec, limits=limits)
        if self.spec.layers and self.spec.positions == "unknown" and "position_ids" not in self.accepted:
            limits = {"prefix": COUNTS_COLUMNS, "cache": COUNTS_COLUMNS, **self.spec.limits}
            self.spec = replace(self.spec, limits=limits)
        self.spec = probe_lengths.with_rope(self)
        self._measure_batching()
        if self.spec.batching != "any":
            self.spec = replace(self.spec, limits={"cache": NOT_KEPT, **self.spec.limits})
        if "cache" not in self.spec.limits and (reason := probe_cache.check(self)):
            self.spec = replace(self.spec, limits={**self.spec.limits, "cache": reason})
        self.spec = probe_lengths.with_settings(self)

    @apart
    def logits(
        self, batch: Batch, injection: Injection | None = None, context: Context | None = None
    ) -> Tensor:
        """Compute the logits [B, T, V] that predict `batch.target_ids`, right-aligned like the targets.

        Under a head they are [B, 1, labels]: a row has one target, its label. With `context` (from `prefill`
        under the same injection) only the tail is computed. A common beginning of all rows is run once, and
        seen by each row as columns.
        """
        batch, injection = batch.with_inputs_at_right(), injection or Injection()
        self._check(injection)
        has_input = context is None
        if context is None:
            context, batch, injection = self._begun(batch, injection)
        injection = injection.fit(batch.size)
        vectors, mask = causal_rows.sequence(self, batch, injection, skip_input=not has_input)
        lengths = batch.target_mask.sum(1).clamp(min=1)  # the last input token is in the tail of any row
        if injection.after is not None:
            lengths = lengths + injection.after.mask.sum(1)
        positions = positions_after(context, mask)
        tail_start = vectors.shape[1] - lengths
        active = causal_rows.injected(
            self, injection, positions, tail_start, positions[:, -1] - lengths + 1, context
        )
        return self.run(vectors, mask, positions, active, batch.target_ids.shape[1])

    def run(self, vectors: Tensor, mask: Tensor, positions: Tensor, active: Active, count: int = 1) -> Tensor:
        """Compute the logits [B, count, V] of the last columns of embeddings [B, S, H] under `active`.

        `mask` [B, S] marks the real columns, `positions` [B, S] counts them. Under a head [B, 1, labels].
        """
        width = vectors.shape[1]
        # as indices, not as a number: a slice would leave the last hidden states strided, and torch then
        # multiplies with a copy of the vocabulary matrix for every row
        keep = torch.arange(width - count, width, device=mask.device)
        options = self.model_arguments(position_ids=positions, use_cache=False, logits_to_keep=keep)
        with self.running(active), recomputed(self.checkpointed):
            out = self.model(inputs_embeds=vectors, attention_mask=mask.long(), **options)
        # a head has read the last column, the one that predicts the first target
        if self.answers == "pooled":
            return out.last_hidden_state[:, -1:]
        return out.logits[:, None] if self.head is not None else out.logits[:, -count:]

    @torch.no_grad()
    def prefill(
        self, batch: Batch, injection: Injection | None = None, ahead: Context | None = None
    ) -> Context:
        """Compute the keys and values of [before | input without its last token], for `logits(context=…)`.

        `ahead`, of one row, is the beginning of every input: the batch holds the rest of them.
        """
        self.refuse("cache")
        return self.input_context(batch, injection or Injection(), ahead)

    @torch.no_grad()
    def context(self, batch: Batch, injection: Injection | None = None) -> Context | None:
        """Compute `prefill`, a common beginning once; None for a model that cannot keep its inputs."""
        if "cache" in self.spec.limits:
            return None
        ahead, batch, injection = self._begun(batch.with_inputs_at_right(), injection or Injection())
        return self.input_context(batch, injection, ahead)

    @torch.no_grad()
    def advanced(
        self, batch: Batch, injection: Injection, context: Context | None
    ) -> tuple[Batch, Injection, Context | None]:
        """Run the soft tokens after the input once, all but the last: a row's targets share them.

        What is left of a row is one soft token and its targets. A prefix after the input takes its position
        from the input's last token, which must then be in the row: such rows are returned unchanged.
        """
        if context is None or injection.after is None or injection.kv_after is not None:
            return batch, injection, context
        injection = injection.fit(batch.size)
        batch = batch.with_inputs_at_right()
        vectors, mask = causal_rows.sequence(self, batch, injection, skip_input=True, targets=False)
        rest = replace(injection, before=None, after=None)
        context = self._record(vectors[:, :-1], mask[:, :-1], rest, context)
        batch = replace(batch, input_ids=batch.input_ids[:, :0], input_mask=batch.input_mask[:, :0])
        return batch, replace(rest, after=SoftTokens(vectors[:, -1:], mask[:, -1:])), context

    def input_context(
        self, batch: Batch, injection: Injection | None = None, ahead: Context | None = None
    ) -> Context:
        """Compute the input's keys and values, whether or not the model is exact with them."""
        batch, injection = batch.with_inputs_at_right(), injection or Injection()
        self._check(injection)
        # nothing that follows can change what precedes
        head = replace(injection, after=None, kv_after=None).fit(batch.size)
        shortened = replace(batch, input_ids=batch.input_ids[:, :-1], input_mask=batch.input_mask[:, :-1])
        vectors, mask = causal_rows.sequence(self, shortened, head, targets=False)
        if not vectors.shape[1]:
            return Context.empty(self.spec, batch.input_mask, self.dtype, ahead)
        return self._record(vectors, mask, head, ahead)

    def _begun(self, batch: Batch, injection: Injection) -> tuple[Context | None, Batch, Injection]:
        """Run a common beginning of all rows, with its gradient; return it (or None) and the rest.

        It is None where a pass of its own costs more than it saves. Soft tokens and all that they see must
        have one row, as a prompt that is the same for all rows has. The tokens that follow are shared as far
        as no row differs: a template's text, demonstrations.
        """
        seen = (injection.before, injection.kv_before, injection.adapter)
        shared = all(part is None or part.mask.shape[0] == 1 for part in seen)
        if batch.size == 1 or not shared or not self.shares_beginnings:
            return None, batch, injection
        soft = 0 if injection.before is None else injection.before.mask.shape[1]
        same = batch.shared_tokens()
        if (batch.size - 1) * (soft + same) < WORTH_A_PASS:
            return None, batch, injection
        first = batch.input_ids[batch.input_mask.sum(1).argmax()]  # the longest row: it has no padding
        parts = [(self.token_inputs(first[None, :same]), batch.input_mask.new_ones(1, same))]
        if injection.before is not None:
            parts.insert(0, (self.soft_inputs(injection.before.vectors), injection.before.mask))
        vectors, mask = pack_right(*(torch.cat(column, dim=1) for column in zip(*parts, strict=True)))
        rest = replace(injection, before=None)
        context = self._record(vectors, mask, replace(rest, after=None, kv_after=None))
        return context, batch.without_first(same), rest

    def _record(
        self, vectors: Tensor, mask: Tensor, head: Injection, ahead: Context | None = None
    ) -> Context:
        """Compute the keys and values of embeddings [B, S, H] behind what is `ahead` of them."""
        positions = positions_after(ahead, mask)
        active = causal_rows.injected(self, head, positions, 0, 0, ahead)
        active.record = {}
        options = self.model_arguments(position_ids=positions, use_cache=False)
        with self.running(active):  # without the head: no logits are needed
            self.model.base_model(inputs_embeds=vectors, attention_mask=mask.long(), **options)
        return Context(recorded(active, len(self.spec.layers)), mask, ahead)

    @torch.no_grad()
    @hidden_apart
    def hidden(self, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
        """Compute the plain model's hidden states [B, N, H] after `layer` layers (0: the embeddings)."""
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        options = self.model_arguments(position_ids=positions, use_cache=False)
        if (why := self.spec.limits.get("length")) is not None:
            probe_lengths.refuse_longer(self.spec.context, why, int(positions.max()) + 1)
        shown = {"attention_mask": mask.long(), "output_hidden_states": True}
        with self.running():
            out = self.model.base_model(input_ids=ids, **shown, **options)
        return out.hidden_states[layer]

    @quietly
    @torch.no_grad()
    @apart
    def generate(self, batch: Batch, injection: Injection | None = None, **options: Any) -> Any:
        """Generate new tokens [B × num_return_sequences, up to max_new_tokens] by transformers' `generate`.

        `options` are transformers' generation options, streamers and caches included. Under
        `return_dict_in_generate` its output object is returned; `sequences` there are the new tokens. A cache
        that an earlier turn filled (`cache`, `past_key_values`) is continued where that is exact: see
        `lm.chat_cache`.
        """
        batch = batch.with_inputs_at_right()
        injection = (injection or Injection()).fit(batch.size)
        self._check(injection)
        self.refuse("generate")
        options = cache_name.renamed(options)
        cache = cache_name.given(options)
        chat_cache.check(self.model, cache, batch, injection)
        options = generation.merged(options)
        generation.check(self.model, options, injection)
        generation.draw_from_all(options)
        ids, there = generation.ids_in_place(batch, injection, pack_right)
        inputs, mask, width = {"input_ids": ids}, batch.input_mask, ids.shape[1]
        if injection.before is not None or injection.after is not None:
            self._check_soft_generation(options)
            inputs["inputs_embeds"], mask = causal_rows.sequence(self, batch, injection, targets=False)
        after = 0 if injection.after is None else injection.after.mask.sum(1)
        last_input = mask.sum(1) - after - 1
        active = causal_rows.injected(self, injection, None, width - 1 - after, last_input, None)
        self._check_length(mask, options)
        generation.default(options, "pad_token_id", self.pad_id)
        if "logits_to_keep" in self.accepted and not generation.guesses(self.model, options):
            # by index, where transformers would slice: see `logits`
            options.setdefault("logits_to_keep", [-1])
        row_options.with_own_inputs(self.model, options, ids, there)
        row_options.with_own_columns(self.model, options, there, mask.sum(1))
        if self._first:
            options["position_ids"] = positions_from(self._first, mask)
        probe_generate.check(self, options)
        with self.generating(active):
            out = self.model.generate(**inputs, attention_mask=mask.long(), **options)  # type: ignore[operator]
        output = generation.new_tokens(out, width)
        chat_cache.note(cache, batch, injection, generation.tokens_of(output), width)
        return output

    def _check_length(self, mask: Tensor, options: dict[str, Any]) -> None:
        """Raise SoftPromptError where the longest row cannot get the requested number of new tokens."""
        if (why := self.spec.limits.get("length")) is not None:
            new = (
                generation.option_value(self.model, options, "max_new_tokens") or 1
            )  # the last is not fed back
            probe_lengths.refuse_longer(self.spec.context, why, int(mask.sum(1).max()) + new - 1)

    def _check_soft_generation(self, options: dict[str, Any]) -> None:
        generation.check_soft_tokens(self.model, options)
        if not patches.let_generate_take_embeddings(self.model):
            raise SoftPromptError(
                f"transformers cannot generate from soft tokens with a {self.spec.family} model",
                why="its `generate` takes no embeddings for this family (training and scoring do)",
                fix="use a prefix (prefix-tuning), or score labels instead of generating",
            )

    def fit_prefix(self, *arguments: Any) -> Layers:
        """Fit a prefix to a text: `prefix_fit.fit_prefix` has the arguments."""
        return prefix_fit.fit_prefix(self, *arguments)

    @torch.no_grad()
    def _text_kv(self, ids: Sequence[int]) -> Layers:
        """Compute the keys and values of a text: see `LanguageModel`."""
        self.refuse("prefix")
        batch = batch_of_ids([[*ids, ids[-1]]]).to(self.device)  # the last token is no part of a context
        return self.input_context(batch, Injection()).layers
