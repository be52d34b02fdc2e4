"""`Seq2SeqLM` is an unmodified transformers encoder-decoder model that takes an `Injection`.

The encoder reads [before | input | after], the decoder [start | forced | target] (see `lm.settings`). Rows
are left-aligned, because these models count positions from column 0. Soft tokens for the decoder (channel
`decoder`) run through it once, under the encoder's output; their keys and values are then columns ahead of
every token, in training and in `generate`. So the decoder's own tokens keep their positions, and T5's
relative bias sees the columns at -Q … -1, exactly as if they were in its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from .._system.quiet import quietly
from ..data.collate import Batch
from ..errors import SoftPromptError
from ..injection import Injection, Layers, SoftTokens
from . import cache_name, chat_cache, generation, probe_generate, probe_places, row_options
from .base import LanguageModel
from .context import Context, back_to_right, pack_left
from .equal_lengths import apart, hidden_apart
from .gradient_checkpointing import recomputed
from .injected import Active, Columns
from .probe import recorded

NOT_KEPT = "what its decoder reads of the input is the encoder's output, which is computed every step"


@final
class Seq2SeqLM(LanguageModel):
    """A frozen encoder-decoder model, which reads a text and writes another, and its tokenizer."""

    def _settle(self) -> None:
        config = self.model.config
        keys = ("max_encoder_position_embeddings", "max_source_positions")
        lengths = (getattr(config, key, None) for key in keys)
        answers = int(getattr(config, "max_decoder_position_embeddings", None) or self.spec.context)
        self.spec = replace(
            self.spec,
            limits={**self.spec.limits, "cache": NOT_KEPT},
            context=int(next((most for most in lengths if most), self.spec.context)),
            answer_context=answers
            - max(0, len(self._begin) - 1),  # the start token takes the place of the end token
        )
        if not self._begin:
            raise SoftPromptError(
                f"'{self.name}' does not say which token its decoder starts with",
                fix="set decoder_start_token_id in its config.json",
            )
        self.spec = replace(self.spec, limits={**self.spec.limits, **probe_places.check(self)})
        self._measure_batching()

    @property
    def _start(self) -> int:
        return self._begin[0]

    @property
    def _encoder(self) -> Any:
        return self.model.get_encoder()

    def embed(self, ids: Tensor) -> Tensor:
        """Return token embeddings [..., H], as the encoder's first layer adds positions to them."""
        # some families scale in the encoder and not in the embedding
        return self.model.get_input_embeddings()(ids) * getattr(self._encoder, "embed_scale", 1.0)

    @apart
    def logits(
        self, batch: Batch, injection: Injection | None = None, context: Context | None = None
    ) -> Tensor:
        """Compute the logits [B, T, V] that predict `batch.target_ids`, right-aligned like the targets."""
        if context is not None:
            self.refuse("cache")
        injection = (injection or Injection()).fit(batch.size)
        ids, mask = self._decoder_input(batch)
        with recomputed(self.checkpointed):
            read, active = self._read(batch, injection)
            with self.running(active):
                out = self.model(
                    **read, decoder_input_ids=ids, decoder_attention_mask=mask.long(), use_cache=False
                ).logits
        ahead = len(self.forced)  # their columns predict no token of the target
        return back_to_right(out[:, ahead:], mask[:, ahead:])

    @torch.no_grad()
    @hidden_apart
    def hidden(self, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
        """Compute the encoder's hidden states [B, N, H] after `layer` layers, right-aligned as given."""
        vectors, left = pack_left(self.embed(ids), mask)
        with self.running():
            out = self._encoder(inputs_embeds=vectors, attention_mask=left.long(), output_hidden_states=True)
        states = out.hidden_states[layer]
        return back_to_right(states, mask)

    @quietly
    @torch.no_grad()
    @apart
    def generate(self, batch: Batch, injection: Injection | None = None, **options: Any) -> Any:
        """Generate new tokens [B × num_return_sequences, …] by transformers' `generate`, without the start.

        Under `return_dict_in_generate` its output object is returned; `sequences` there are the new tokens.
        """
        options = cache_name.renamed(options)
        if chat_cache.length(cache_name.given(options)):
            raise SoftPromptError(
                "an encoder-decoder model does not continue from a cache of an earlier turn",
                why="the cache holds what its decoder has read of that turn's input",
                fix=chat_cache.FRESH,
            )
        injection = (injection or Injection()).fit(batch.size)
        options = generation.merged(options)
        generation.check(self.model, options, injection)
        generation.draw_from_all(options)
        shown = {
            name: True
            for name in ("output_hidden_states", "output_attentions")
            if generation.option_value(self.model, options, name)
        }
        read, active = self._read(batch, injection, **shown)
        ids, there = generation.ids_in_place(batch, injection, pack_left)  # for penalties, and an assistant
        row_options.with_own_inputs(self.model, options, ids, there)
        generation.default(options, "pad_token_id", self.pad_id)
        generation.default(options, "decoder_start_token_id", self._start)
        width = 1
        if self.forced and options.get("forced_bos_token_id") is None:
            width, options["forced_bos_token_id"] = len(self._begin), None
            options["decoder_input_ids"] = torch.tensor([self._begin] * batch.size, device=self.device)
        probe_generate.check(self, options)
        with self.generating(active):
            out = self.model.generate(input_ids=ids, **read, **options)  # type: ignore[operator]
        return generation.new_tokens(out, width)

    @torch.no_grad()
    def _text_kv(self, ids: Sequence[int]) -> Layers:
        """Compute the keys and values of a text that both encoder and decoder read: see `LanguageModel`."""
        self.refuse("prefix")
        tensor = torch.tensor([list(ids)], device=self.device)
        active = Active(record={})
        with self.running(active):
            self.model(input_ids=tensor, decoder_input_ids=tensor, use_cache=False)
        return recorded(active, len(self.spec.layers))

    def _read(self, batch: Batch, injection: Injection, **shown: bool) -> tuple[dict[str, Any], Active]:
        """Run the encoder; return its output and mask as the model's arguments, and what the decoder sees.

        `shown`: which of its hidden states and attentions are kept in its output.
        """
        self._check(injection)
        parts = [(self.embed(batch.input_ids), batch.input_mask)]
        if injection.before is not None:
            parts.insert(0, (injection.before.vectors.to(self.dtype), injection.before.mask))
        if injection.after is not None:
            parts.append((injection.after.vectors.to(self.dtype), injection.after.mask))
        vectors, mask = pack_left(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))
        active = self._active(injection)
        with self.running(active, part=True):
            output = self._encoder(inputs_embeds=vectors, attention_mask=mask.long(), **shown)
        read = {"encoder_outputs": output, "attention_mask": mask.long()}
        if injection.decoder is not None:
            ahead = self._decoder_columns(read, active, injection.decoder)
            active = replace(active, columns=(*active.columns, ahead), record=None)
        return read, active

    def _decoder_columns(self, read: dict[str, Any], active: Active, tokens: SoftTokens) -> Columns:
        """Compute the decoder's keys and values of soft tokens, by row, under the encoder's output."""
        scale = getattr(self.model.get_decoder(), "embed_scale", 1.0)  # the decoder multiplies by it itself
        vectors, mask = pack_left(tokens.vectors.to(self.dtype) / scale, tokens.mask)
        active = replace(active, record={}, masks={})
        with self.running(active, part=True):
            self.model(
                **read, decoder_inputs_embeds=vectors, decoder_attention_mask=mask.long(), use_cache=False
            )
        # the last vector is nearest to the decoder's first token, whatever a row's length
        order = mask.to(torch.uint8).argsort(dim=1, stable=True)
        place = order[:, None, :, None]

        def right(tensor: Tensor) -> Tensor:
            return tensor.gather(2, place.expand(-1, tensor.shape[1], -1, tensor.shape[3]))

        entries = recorded(active, len(self.spec.layers))
        pairs = zip(entries, self.spec.layers, strict=True)
        layers = tuple(kv.map(right) if kv is not None and s.stack == "decoder" else None for kv, s in pairs)
        return Columns(layers, mask.gather(1, order))

    def _active(self, injection: Injection) -> Active:
        """A prefix placed after the input differs from one before it in that the encoder does not see it."""
        prefixes = [p for p in (injection.kv_before, injection.kv_after) if p is not None]
        return Active(
            columns=tuple(Columns(p.layers, p.mask, reach=p.reach) for p in prefixes),
            adapter=injection.adapter,
        )

    def _decoder_input(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return ids and mask [B, F + T] of [start | F forced | target but its last token], left-aligned."""
        begin = torch.tensor([self._begin] * batch.size, device=self.device)
        begun = batch.target_mask.any(1, keepdim=True).expand_as(begin)
        ids, real = batch.target_ids[:, :-1], batch.target_mask[:, :-1] & batch.target_mask[:, 1:]
        ids, mask = torch.cat([begin, ids], dim=1), torch.cat([begun, real], dim=1)
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        return ids.gather(1, order), mask.gather(1, order)
