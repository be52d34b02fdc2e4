"""Vectors are put into a call of the user's own: the backbone sees them, and what follows it does not.

The model's forward is transformers' own. Only its backbone (`model.base_model`) is given other inputs:
embeddings with the vectors in their places. Its hidden states are put back into the caller's columns, so
that every head, loss and option behind it works on tokens alone. The state before an answer's first token is
that of the last vector.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SoftPromptError


@dataclass(frozen=True, slots=True)
class Layout:
    """Holds what the backbone is run on, and where its states belong."""

    inputs: dict[str, Any]  # inputs_embeds, attention_mask, position_ids …
    places: Tensor  # [batch, columns]: the backbone's column for each of the caller's

    def restore(self, states: Tensor) -> Tensor:
        """Put hidden states [batch, width, hidden] into the caller's columns."""
        return states.gather(1, self.places[:, :, None].expand(-1, -1, states.shape[2]))


#: What the caller gave and the layout replaces.
REPLACED = (
    "input_ids",
    "inputs_embeds",
    "attention_mask",
    "position_ids",
    "cache_position",
    "token_type_ids",
)


def backbones(model: Any) -> list[nn.Module]:
    """Return the modules of which the model's forward calls one for hidden states, the outer ones first."""
    inner = [model.base_model, getattr(model, "model", None), model.get_decoder()]
    inner += [getattr(part, "decoder", None) for part in inner]
    return [part for part in dict.fromkeys(inner) if isinstance(part, nn.Module) and part is not model]


@contextlib.contextmanager
def laid_out(model: Any, layout: Layout) -> Iterator[None]:
    """Run the model's backbone on a layout in the place of what it is called with.

    Raises SoftPromptError where the model does not call it once.
    """
    calls, depth = 0, 0

    def before(_: nn.Module, args: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        nonlocal depth
        depth += 1
        if depth > 1:  # a part of the backbone, which has its inputs already
            return None
        return (), {name: value for name, value in options.items() if name not in REPLACED} | layout.inputs

    def after(_: nn.Module, args: tuple, options: dict[str, Any], output: Any) -> Any:
        nonlocal calls, depth
        depth -= 1
        if depth:
            return output
        calls += 1
        output["last_hidden_state"] = layout.restore(output["last_hidden_state"])
        if output.get("hidden_states") is not None:
            output["hidden_states"] = tuple(layout.restore(states) for states in output["hidden_states"])
        return output

    handles = []
    for backbone in backbones(model):
        handles.append(backbone.register_forward_pre_hook(before, with_kwargs=True, prepend=True))
        handles.append(backbone.register_forward_hook(after, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if calls != 1:
        raise SoftPromptError(
            f"the model called its backbone {calls} times in one forward",
            why="vectors are put in where a model computes its hidden states once",
            fix="use softprompt.tune with this model",
        )


def causal_places(rows: Any, mask: Tensor, before: Tensor | int, after: Tensor | int) -> Tensor:
    """Return the backbone's column for each column of the caller, in rows at the right: [batch, columns].

    A row is [before | input | after | answer]. Padding takes any column: nothing reads it.
    """
    start = mask.shape[1] - mask.sum(1, keepdim=True)
    number, inputs = rows.columns, rows.inputs[:, None]
    after = torch.as_tensor(after, device=mask.device).reshape(-1, 1)
    before = torch.as_tensor(before, device=mask.device).reshape(-1, 1)
    shift = torch.where(
        number >= inputs - 1, after, torch.zeros_like(after)
    )  # the last input token: see above
    return (start + before + number + shift).clamp(min=0)
