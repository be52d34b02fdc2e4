"""The features that a generated prompt reads are kept as rows: hidden states, or an encoder's outputs.

A row is one tensor [inputs, features]. Plain embeddings are not kept: they are a look-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import torch

from ..data.collate import collate
from ..data.example import Example
from ..lm.base import LanguageModel
from ..lm.features import encoder_ids, pretrained, read, size
from ..lm.held_layers import plain_layers
from ..lm.offloaded import plain_weights
from ..methods.base import Features, Reads
from .base import Row
from .keys import about, checksum, key_of, name_of_ids, name_of_text


@final
class InputFeatures:
    """Compute features, as a `cache.base.Constant`. `reads` is of kind "hidden" or "encoder"."""

    def __init__(self, lm: LanguageModel, reads: Reads) -> None:
        self.lm, self.reads = lm, reads
        self._counts: dict[str, int] = {}  # tokens of a text, as the encoder splits it

    @property
    def content(self) -> str:
        if self.reads.kind == "encoder":
            return f"outputs of the encoder {self.reads.encoder}"
        return f"hidden states after layer {self.reads.layer}"

    @property
    def key(self) -> str:
        """Identify the base and the layer, or the encoder and its tokenizer."""
        if self.reads.kind == "hidden":
            return key_of(about(self.lm), read="hidden", layer=self.reads.layer)
        tokenizer, encoder = pretrained(self.reads.encoder, str(self.lm.device))
        config = encoder.config.to_dict()
        config.pop("_name_or_path", None)
        encoder_parts = {
            "config": repr(sorted(config.items())),
            "weights": checksum(plain_weights(encoder)),
            "tokenizer": sorted(tokenizer.get_vocab().items()),
        }
        return key_of(encoder_parts, read="encoder")

    def name(self, example: Example) -> str:
        if self.reads.kind == "encoder":
            return name_of_text(example.rendered.input)
        return name_of_ids(example.input_ids)

    def tokens(self, example: Example) -> int:
        if self.reads.kind == "hidden":
            return len(example.input_ids)
        text = example.rendered.input
        if text not in self._counts:
            mask = encoder_ids(self.lm, self.reads, [text])["attention_mask"]
            self._counts[text] = int(mask.sum())
        return self._counts[text]

    def bytes_needed(self, examples: Iterable[Example]) -> int:
        kind = self.lm.dtype
        if self.reads.kind == "encoder":
            kind = pretrained(self.reads.encoder, str(self.lm.device))[1].dtype
        return sum(map(self.tokens, examples)) * size(self.lm, self.reads) * kind.itemsize

    def compute(self, examples: Sequence[Example]) -> list[Row]:
        # plainly, as rows on disk are: a row in memory is read first in a step, or where dev rows are scored
        with torch.no_grad(), plain_layers():
            features = read(self.lm, collate(examples, self.lm.device, targets=False), self.reads)
        return [[values[real]] for values, real in zip(features.values, features.mask, strict=True)]

    def assemble(self, rows: Sequence[Row]) -> Features:
        """Align the rows on the right, as inputs are."""
        parts = [row[0] for row in rows]
        width = max(len(part) for part in parts)
        values = parts[0].new_zeros(len(parts), width, parts[0].shape[1])
        mask = torch.zeros(len(parts), width, dtype=torch.bool)
        for i, part in enumerate(parts):
            values[i, width - len(part) :] = part
            mask[i, width - len(part) :] = True
        return Features(values.to(self.lm.device), mask.to(self.lm.device))
