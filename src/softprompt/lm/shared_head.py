"""A decoder in memory answers by a classification head, beside its own answers in text.

transformers' classifier of a family is the family's backbone and a head. Here its backbone is the one of the
model in memory, so that every weight of it is shared, and so is what this library has changed on it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, final

import torch
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as CLASSIFIERS

from ..errors import SoftPromptError
from . import heads
from .causal import CausalLM
from .heads import Head
from .offloaded import devices
from .probe import accepted_arguments
from .probe_neighbours import measure


@final
class SharedHeads:
    """Makes models with a head that share the backbone of `lm`, which still answers in text."""

    def __init__(self, lm: CausalLM) -> None:
        self._lm = lm
        self._is_measured = False

    def make(self, size: int) -> CausalLM:
        """Return the model with a head of `size` outputs, whose weights are still to be loaded: they are NaN.

        Raises SoftPromptError where transformers has no classifier with this backbone.
        """
        lm = self._lm
        model = self._classifier(size)
        prefix, backbone = model.base_model_prefix, lm.model.base_model
        if type(getattr(model, prefix, None)) is not type(backbone):
            raise _unshared(lm, f"its classifier has another backbone than {type(backbone).__name__}")
        places = devices(lm.model)
        if len(places) > 1 or lm._beside is not None:
            why = f"its layers run on {len(places)} devices" if len(places) > 1 else "its inputs are widened"
            raise _unshared(lm, why)
        setattr(model, prefix, None)
        if any(True for _ in model.buffers()):
            raise _unshared(lm, "its classifier has buffers, which no prompt is saved with")
        model.to_empty(device=lm.device)
        weights = [*model.parameters()]
        for parameter in weights:
            numbers = torch.linspace(-1, 1, parameter.numel(), device=lm.device)
            parameter.data = numbers.view_as(parameter).to(lm.dtype)
        setattr(model, prefix, backbone)
        model.eval().requires_grad_(False)
        result = copy.copy(lm)
        result._model, result.head, result.answers = model, Head("sequence", size), "head"
        result.head_names = heads.parameter_names(model)
        result.accepted = accepted_arguments(model)
        result._first = 0  # as in a classifier that is loaded from its checkpoint
        self._measure(result)
        for parameter in weights:
            parameter.data.fill_(float("nan"))
        return result

    def _measure(self, result: CausalLM) -> None:
        """Raise SoftPromptError where the answer of a head depends on a row's neighbours."""
        if self._is_measured:
            return
        if measure(result) != self._lm.spec.batching:
            why = "its head reads a column that is padding in rows of a batch"
            raise _unshared(self._lm, why)
        self._is_measured = True

    def _classifier(self, size: int) -> Any:
        """Return transformers' classifier without weights."""
        config = copy.deepcopy(self._lm.model.config)
        config.num_labels = size
        if config.pad_token_id is None:
            config.pad_token_id = 0  # any will do: of embeddings, transformers pools the last column
        try:
            kind: Callable[[Any], Any] = CLASSIFIERS[type(config)]  # type: ignore[assignment]
        except KeyError:
            raise _unshared(self._lm, "transformers has no classifier for this family") from None
        with torch.device("meta"):
            return kind(config)


def _unshared(lm: CausalLM, why: str) -> SoftPromptError:
    return SoftPromptError(
        f"'{lm.name}' cannot share its backbone with a classification head",
        why=why,
        fix="softprompt generate and eval load the base with the head",
    )
