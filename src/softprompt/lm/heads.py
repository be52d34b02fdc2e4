"""A classification head is on top of a base model, trained with a prompt and saved with it.

A head of labels is the transformers model's own (`AutoModelForSequenceClassification`,
`AutoModelForTokenClassification`): every parameter outside its `base_model`. Where a checkpoint has a
head of the same size, it is the start; else a fresh one is drawn from the seed. A pooler that the
checkpoint lacks is drawn too, and counts as part of the head. A head over "pooling" has no weights: a
text's vector is pooled from the last hidden states (`lm.pooling`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

Pooling = Literal["mean", "cls", "last"]  # of a text's tokens, its first token, or its last one


@dataclass(frozen=True, slots=True)
class Head:
    """A head has `size` outputs: labels, tags, or 1 for a number; over "pooling", it gives a vector.

    `over` is what is classified: the "sequence", its "tokens", or "pooling" for a vector of the text. `seed`
    draws a head that the checkpoint lacks. `pooling` is "mean", "cls" or "last", by default the checkpoint's.
    A head that the model cannot have raises SoftPromptError in `load`.
    """

    over: Literal["sequence", "tokens", "pooling"]
    size: int = 0  # of a vector: the model's own
    seed: int = 0  # of a fresh one
    pooling: Pooling | None = None  # over "pooling"; None: as the checkpoint says

    @property
    def auto_class(self) -> Any:
        """Return the transformers class that has it."""
        return {
            "sequence": AutoModelForSequenceClassification,
            "tokens": AutoModelForTokenClassification,
            "pooling": AutoModel,
        }[self.over]


def is_encoder(config: PreTrainedConfig) -> bool:
    """Return whether a checkpoint is a BERT-like model, where every position sees every other.

    Most such families can be used as decoders too; then `is_decoder` or the saved class says so.
    """
    if config.is_encoder_decoder or getattr(config, "is_decoder", False):
        return False
    saved = getattr(config, "architectures", None) or []
    causal = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in saved)
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not causal


def auto_class(config: PreTrainedConfig, head: Head | None) -> Any:
    """Return the transformers class to load a checkpoint as."""
    if head is not None:
        return head.auto_class
    if config.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    return AutoModelForMaskedLM if is_encoder(config) else AutoModelForCausalLM


def parameter_names(model: PreTrainedModel, fresh: Collection[str] = ()) -> frozenset[str]:
    """Return the names of the head's parameters; the checkpoint lacked those in `fresh`."""
    if model.base_model is model:  # without a head, or with one that has no weights
        return frozenset()
    inside = f"{model.base_model_prefix}."
    names = (name for name, _ in model.named_parameters())
    return frozenset(n for n in names if not n.startswith(inside) or (n in fresh and ".pooler." in n))


@contextlib.contextmanager
def drawn(head: Head | None) -> Iterator[None]:
    """Make the numbers of a head that is drawn inside depend on its seed alone."""
    if head is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(head.seed)
        yield
