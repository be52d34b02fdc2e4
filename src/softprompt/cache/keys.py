"""Names of a cache's folder and of its rows are made here.

A folder's name is a hash of all that the numbers depend on besides the input: the model (every weight of
it), its precision, the constant and its form, and whether it is computed from held weights whose sums differ
by rounding. A row's name is a hash of the input: its token ids, or its text. So a changed template, row or
weight never reads an old cache, and runs that differ in anything else (method, seed, split, task), or by a
few rows, share the rest.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..lm.base import LanguageModel
from ..lm.loading import fingerprint
from ..lm.offloaded import plain_weights

FORMAT = 1  # raise it with any change in the content of a cache or in how it is computed


def about(lm: LanguageModel) -> dict[str, Any]:
    """Return all that a base's numbers depend on."""
    parts = fingerprint(lm)
    return {
        # not how text becomes ids: a row is named by its ids
        "base": {part: parts[part] for part in ("config", "weights", "tokenizer")},
        "weights": checksum(plain_weights(lm.model), lm.head_names),
        "dtype": str(lm.dtype),
    }


def key_of(model: Mapping[str, Any], **content: Any) -> str:
    """Name the folder that keeps `content` under a model."""
    import transformers

    # transformers changes the code of a model family from time to time
    versions = {"format": FORMAT, "transformers": transformers.__version__}
    text = json.dumps({**model, **content, **versions}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def name_of_ids(ids: Sequence[int]) -> str:
    """Name a row by its input's token ids."""
    return hashlib.sha256(array("q", ids).tobytes()).hexdigest()[:32]


def name_of_text(text: str) -> str:
    """Name a row by its input's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def checksum(weights: Iterable[tuple[str, Tensor]], without: Collection[str] = ()) -> int:
    """Compute a checksum of every weight: `fingerprint` samples weights, and could miss one embedding."""
    total = 0
    for name, tensor in weights:
        if name not in without:
            plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            total = zlib.crc32(plain.numpy().data, total)
    return total
