"""What names a cache's folder and its rows.

A folder is named by a hash of all that the numbers depend on besides the input: the model (every weight
of it), its precision and what is kept in which form. A row in it is named by a hash of the input: its
token ids, or its text. So a changed template, row or weight never reads an old cache, and runs that
differ in anything else (method, seed, split, task), or by a few rows, share what they have in common.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from array import array
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..lm.base import LanguageModel
from ..lm.loading import fingerprint

FORMAT = 1  # to be raised with any change of what a cache holds or how it is computed


def about(lm: LanguageModel) -> dict[str, Any]:
    """All that a base's numbers depend on."""
    found = fingerprint(lm)
    return {
        # not how text becomes ids: a row is named by its ids
        "base": {part: found[part] for part in ("config", "weights", "tokenizer")},
        "weights": checksum(lm.model.state_dict(), lm.head_names),
        "dtype": str(lm.dtype),
    }


def key_of(model: Mapping[str, Any], **what: Any) -> str:
    """The name of the folder that holds `what` of inputs under a model."""
    import transformers

    # a family's code is mended now and then
    versions = {"format": FORMAT, "transformers": transformers.__version__}
    text = json.dumps({**model, **what, **versions}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def name_of_ids(ids: Sequence[int]) -> str:
    """The name of a row by its input's token ids."""
    return hashlib.sha256(array("q", ids).tobytes()).hexdigest()[:32]


def name_of_text(text: str) -> str:
    """The name of a row by its input's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def checksum(weights: Mapping[str, Tensor], without: Collection[str] = ()) -> int:
    """Of every weight: `fingerprint` samples them, and one embedding trained anew could slip through."""
    found = 0
    for name, tensor in sorted(weights.items()):
        if name not in without:
            plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            found = zlib.crc32(plain.numpy().data, found)
    return found
