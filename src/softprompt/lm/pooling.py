"""A text's vector is pooled from the last hidden states of its tokens, in the way that a checkpoint records.

Checkpoints of sentence-transformers record it in `modules.json` and in the folder of their pooling module.
A mean is taken over the text's own tokens, its special tokens included, and over no injected vectors. A
decoder's last column is that of the soft tokens behind the text, where there are any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.utils.hub import cached_file

from ..errors import SoftPromptError
from .heads import Head, Pooling, is_encoder

KNOWN: dict[str, Pooling] = {
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
}  # by sentence-transformers' names
WITHOUT_EFFECT = ("Transformer", "Pooling", "Normalize")  # modules: what we compute, and a vector's length


def completed(
    head: Head | None, path: str, config: PreTrainedConfig, options: Mapping[str, Any], name: str
) -> Head | None:
    """Return the head with the pooling of the checkpoint at `path`, a folder or a hub id.

    Without a head, an encoder of sentence-transformers gets one over "pooling". Raises SoftPromptError where
    the checkpoint records a pooling that is not supported, where a decoder records none, and for one that the
    model cannot have.
    """
    if head is not None and head.over != "pooling":
        return head
    if head is None and not is_encoder(config):
        return None
    modules = _json(path, "modules.json", options)
    if head is None and modules is None:
        return None
    head = head or Head("pooling")
    mode = head.pooling or (None if modules is None else _recorded(path, modules, options, name))
    return replace(head, pooling=checked(mode, config, name))


def checked(mode: Pooling | None, config: PreTrainedConfig, name: str) -> Pooling:
    """Return how the model's vectors are pooled; `mode` None is the mean of an encoder.

    Raises SoftPromptError for a decoder without a pooling, and for a pooling that the model cannot have.
    """
    if config.is_encoder_decoder:
        raise SoftPromptError(
            f"'{name}' gives no vector of a text",
            why="it is an encoder-decoder model, and its vectors are not pooled here",
            fix="use an encoder, such as model=minilm, or a decoder with task.pooling=last",
        )
    if is_encoder(config):
        if mode == "last":
            raise SoftPromptError(
                f"task.pooling=last does not fit '{name}'",
                why="it is an encoder, whose last token is a separator",
                fix="task.pooling=mean, or task.pooling=cls",
            )
        return mode or "mean"
    if mode != "last":
        raise SoftPromptError(
            f"'{name}' records no pooling of its tokens to one vector"
            if mode is None
            else f"task.pooling={mode} does not fit '{name}'",
            why="it is a decoder, of whose tokens only the last has read the whole text",
            fix="task.pooling=last, or an encoder such as model=minilm",
        )
    return mode


def output_of(result: Any) -> Tensor:
    """Return a model's logits; of one without a head its last hidden states [B, S, H]."""
    logits = getattr(result, "logits", None)
    return result.last_hidden_state if logits is None else logits


def pooled(states: Tensor, text: Tensor, mode: Pooling) -> Tensor:
    """Pool hidden states [B, S, H] to vectors [B, H]; `text` [B, S] marks the tokens of the text."""
    if mode == "mean":
        weights = text[:, :, None].float()  # a mean in bfloat16 would lose two digits
        return (states.float() * weights).sum(1) / weights.sum(1)
    return states[:, 0] if mode == "cls" else states[:, -1]


def without_pooler(model: nn.Module) -> None:
    """Remove the layer behind the first token's state, which no vector is read from, where there is one."""
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None  # type: ignore[assignment]


def _recorded(
    path: str, modules: list[dict[str, Any]], options: Mapping[str, Any], name: str
) -> Pooling | None:
    kinds = {str(module.get("type", "")).rpartition(".")[2]: module for module in modules}
    if odd := next((kind for kind in kinds if kind not in WITHOUT_EFFECT), None):
        raise SoftPromptError(
            f"the vectors of '{name}' cannot be computed as its checkpoint says",
            why=f"its modules.json has a {odd} module, which is not supported",
            fix="use a checkpoint of a transformer and a pooling alone, such as model=minilm",
        )
    if "Pooling" not in kinds:
        return None
    settings = _json(path, f"{kinds['Pooling']['path']}/config.json", options) or {}
    prefix = "pooling_mode_"
    modes = [
        k.removeprefix(prefix).removesuffix("_tokens").removesuffix("_token")
        for k, value in settings.items()
        if k.startswith(prefix) and value
    ]
    if written := settings.get("pooling_mode"):
        modes = [written] if isinstance(written, str) else list(written)
    if len(modes) == 1 and modes[0] in KNOWN:
        return KNOWN[modes[0]]
    raise SoftPromptError(
        f"the pooling of '{name}' is not supported: {', '.join(modes) or 'none is named'}",
        why=f"its {kinds['Pooling']['path']}/config.json says so",
        fix="task.pooling=mean (or cls) pools in another way, which gives other vectors",
    )


def _json(path: str, file: str, options: Mapping[str, Any]) -> Any:
    known = {key: options[key] for key in ("revision", "token") if key in options}
    place = cached_file(
        path,
        file,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **known,
    )
    if place is None:
        return None
    try:
        return json.loads(Path(place).read_text(encoding="utf-8"))
    except ValueError as error:
        raise SoftPromptError(
            f"{place} is no JSON", why=str(error), fix="download or copy it again"
        ) from None
