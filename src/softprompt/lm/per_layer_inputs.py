"""Gemma 3n and Gemma 4 read more of a token than its embedding: their per-layer embeddings.

Such a model looks up a second table by token id, and adds a part of it in each layer. Embeddings alone do
not determine which id to look up. So here a position of the input is wide: its embedding, and behind it the
entry of the second table, in one vector [H + layers × size]. Packing, padding and beams treat it as one, and
a hook splits it where the model is called. A soft token has no id: it gets the entry of the padding token, as
an image's tokens do in these models.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .attachment import attach
from .probe import named_arguments

NAME = "per_layer_inputs"  # the argument that takes it

_REST: ContextVar[Tensor | None] = ContextVar("softprompt_beside", default=None)


@dataclass(frozen=True, slots=True)
class Beside:
    """The second table of a model that has one."""

    table: nn.Module  # the text model
    padding: int  # the id whose entry a soft token gets

    def of_tokens(self, ids: Tensor) -> Tensor:
        """Look up the entries [..., layers × size] for ids [...]."""
        # Gemma 4's takes the embeddings too, which some releases of transformers have to be given.
        look_up: Any = self.table.get_per_layer_inputs
        entries: Tensor = look_up(*(ids, None)[: len(inspect.signature(look_up).parameters)])
        return entries.flatten(-2)

    def of_soft_tokens(self, vectors: Tensor) -> Tensor:
        """Return the padding token's entry for each of `vectors` [..., H]."""
        ids = torch.full((1, 1), self.padding, device=vectors.device)
        return self.of_tokens(ids)[0, 0].expand(*vectors.shape[:-1], -1)


def has_one(model: Any) -> bool:
    """Return whether the model reads more of a token than its embedding."""
    return any(_has_table(module) for module in model.modules())


def bind(model: Any) -> Beside | None:
    """Let the model take wide positions; None for a model that reads embeddings alone."""
    table = next((m for m in model.modules() if _has_table(m)), None)
    if table is None:
        return None
    width = model.get_input_embeddings().weight.shape[1]
    attachment = attach(model)
    attachment.unhook(NAME)  # of an earlier load of the same model
    for module in dict.fromkeys((model, model.base_model, table)):
        hook = partial(_split, width=width, layers=table.config.num_hidden_layers, inner=module is table)
        attachment.hook(NAME, module, hook)
    padding = getattr(table.config, "pad_token_id", None)
    return Beside(table, 0 if padding is None else padding)


def _has_table(module: nn.Module) -> bool:
    return hasattr(module, "get_per_layer_inputs") and bool(getattr(module, "hidden_size_per_layer_input", 0))


def _split(module: Any, args: tuple, named: dict[str, Any], *, width: int, layers: int, inner: bool) -> Any:
    """Split wide embeddings among a module's arguments into embeddings and the second table's entries.

    A module between the model and its text model may not pass the second part on: `_REST` carries it.
    """
    vectors = named.get("inputs_embeds")
    if vectors is not None and vectors.shape[-1] > width:
        rest = vectors[..., width:].unflatten(-1, (layers, -1))
        _REST.set(None if inner else rest)
        named = {**named, "inputs_embeds": vectors[..., :width]}
        return args, ({**named, NAME: rest} if inner or NAME in named_arguments(module) else named)
    rest = _REST.get()
    if not inner:
        _REST.set(rest if vectors is not None and _is_of(rest, vectors) else None)
        return None
    _REST.set(None)
    if vectors is None or not _is_of(rest, vectors):
        return None
    return args, {**named, NAME: rest}


def _is_of(rest: Tensor | None, vectors: Tensor) -> bool:
    return rest is not None and rest.shape[:2] == vectors.shape[:2]
