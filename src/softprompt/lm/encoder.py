"""`EncoderLM` is an unmodified transformers encoder (BERT and its relatives) that takes an `Injection`.

A row is laid out [first | before | rest | after], left-aligned and without gaps: the first token
([CLS], <s>) stays in column 0, where heads pool and encoders begin to count, so positions are those
that the model counts. Answers are read at masked words, or off a head; no position is hidden
from any other, so nothing of a row can be computed once. This file knows nothing of methods,
templates or training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..data.collate import Batch, batch_of_ids
from ..errors import SoftPromptError
from ..injection import Injection, Layers
from .base import Answers, LanguageModel
from .context import Context, pack_left
from .equal_lengths import apart, hidden_apart
from .gradient_checkpointing import recomputed
from .injected import Active, Columns
from .pooling import output_of, pooled
from .probe import recorded


@final
class EncoderLM(LanguageModel):
    """A frozen encoder, with its masked-language-model head or a classification head, and its tokenizer."""

    answers: Answers = "mask"

    def _settle(self) -> None:
        limits = {**self.spec.limits, "cache": "every position sees every other, what is trained included"}
        context = self.spec.context - _unused_positions(self.model)
        self.spec = replace(self.spec, kind="encoder", context=context, limits=limits)
        self._measure_batching()

    @apart
    def logits(
        self, batch: Batch, injection: Injection | None = None, context: Context | None = None
    ) -> Tensor:
        """Compute the logits [B, T, C] of words or tags at `batch.places`; of a sequence head [B, 1, C].

        Of a head over "pooling" they are the texts' vectors [B, 1, H], of any length.
        """
        if context is not None:
            self.refuse("cache")
        injection = (injection or Injection()).fit(batch.size)
        self._check(injection)
        vectors, mask = self._sequence(batch, injection)
        with self.running(self._active(injection, mask)), recomputed(self.checkpointed):
            out = output_of(self.model(inputs_embeds=vectors, attention_mask=mask.long()))
        if self.head is not None and self.head.pooling is not None:
            return pooled(out, self._text(batch, injection), self.head.pooling)[:, None]
        if self.head is not None and self.head.over == "sequence":
            return out[:, None]
        if batch.places is None:
            raise SoftPromptError(
                "the batch does not say where its answers are read",
                why="an encoder answers at masked words, or at each word",
                fix="give Batch.places, as data.collate does for encoded rows",
            )
        columns = batch.places
        if injection.before is not None:
            columns = columns + (columns > 0) * injection.before.mask.sum(1, keepdim=True)
        return out.gather(1, columns[:, :, None].expand(-1, -1, out.shape[2]))

    @torch.no_grad()
    @hidden_apart
    def hidden(self, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
        """Compute the hidden states [B, N, H] after `layer` layers (0: embeddings), in the columns of ids."""
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # padding last, as in `_sequence`
        with self.running():
            out = self.model.base_model(
                inputs_embeds=self.embed(ids.gather(1, order)),
                attention_mask=mask.gather(1, order).long(),
                output_hidden_states=True,
            )
        states = out.hidden_states[layer]
        return states.gather(1, order.argsort(dim=1)[:, :, None].expand_as(states))

    @torch.no_grad()
    def _text_kv(self, ids: Sequence[int]) -> Layers:
        """Compute the keys and values of a text: see `LanguageModel`."""
        self.refuse("prefix")
        batch = batch_of_ids([ids]).to(self.device)
        vectors, mask = self._sequence(batch, Injection())
        active = Active(record={})
        with self.running(active):
            self.model.base_model(inputs_embeds=vectors, attention_mask=mask.long())
        return recorded(active, len(self.spec.layers))

    def _sequence(self, batch: Batch, injection: Injection) -> tuple[Tensor, Tensor]:
        """Return embeddings [B, S, H] and mask [B, S] of the row's parts, packed to the left."""
        vectors, mask = pack_left(self.embed(batch.input_ids), batch.input_mask)
        parts = [(vectors[:, :1], mask[:, :1])]
        if injection.before is not None:
            parts.append((injection.before.vectors.to(self.dtype), injection.before.mask))
        parts.append((vectors[:, 1:], mask[:, 1:]))
        if injection.after is not None:
            parts.append((injection.after.vectors.to(self.dtype), injection.after.mask))
        vectors, masks = (torch.cat(column, dim=1) for column in zip(*parts, strict=True))
        return pack_left(vectors, masks)

    def _text(self, batch: Batch, injection: Injection) -> Tensor:
        """Return which columns [B, S] of `_sequence` are the text's own tokens, and no injected vectors."""
        _, real = pack_left(batch.input_mask[:, :, None], batch.input_mask)
        marks, masks = [real[:, :1]], [real[:, :1]]
        if injection.before is not None:
            marks.append(torch.zeros_like(injection.before.mask))
            masks.append(injection.before.mask)
        marks.append(real[:, 1:])
        masks.append(real[:, 1:])
        if injection.after is not None:
            marks.append(torch.zeros_like(injection.after.mask))
            masks.append(injection.after.mask)
        packed, mask = pack_left(torch.cat(marks, 1)[:, :, None], torch.cat(masks, 1))
        return packed[:, :, 0] & mask

    def _active(self, injection: Injection, mask: Tensor) -> Active:
        """Every query sees every injected column; on rotary models the two places differ in position."""
        columns = []
        if injection.kv_before is not None:
            before = injection.kv_before
            columns.append(Columns(before.layers, before.mask, reach=before.reach))
        if injection.kv_after is not None:
            after = injection.kv_after
            behind = mask.sum(1) + after.mask.sum(1)  # from -P to right behind the last token
            columns.append(Columns(self.move(after.layers, behind), after.mask, reach=after.reach))
        return Active(
            columns=tuple(columns),
            adapter=injection.adapter,
        )


def _unused_positions(model: PreTrainedModel) -> int:
    """Count a position table's unused rows: RoBERTa begins to count behind its padding index."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
