"""Describe a tuned prompt's vectors: nearest tokens, norms, and distances from the start.

Materialised vectors are described; of a generated prompt, the static part. The start is computed again from
the recipe, seed and training rows, if they are unchanged. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import SoftPromptError
from ..injection import Injection, LayerKV, Prefix, SoftTokens
from ..lm.base import LanguageModel
from ..lm.vocabulary import token_text
from ..methods.base import SoftPrompt
from .artifact import Artifact

CHUNK = 8192  # vocabulary rows compared at once
#: The model's own norms are measured on this text.
ORDINARY_TEXT = (
    "The meeting was moved to Thursday because the train from the north came late, and most of those who "
    "wanted to speak had already gone home. She wrote down "
    "what was said, and sent it to everyone."  # codespell:ignore said
)


@dataclass(frozen=True, slots=True)
class Near:
    """A vocabulary token that is near, with its cosine similarity or Euclidean distance."""

    token: str
    id: int
    value: float


@dataclass(frozen=True, slots=True)
class SoftVector:
    """A soft token [H] as described."""

    norm: float
    moved: float | None  # Euclidean distance from where it started
    by_cosine: tuple[Near, ...]
    by_distance: tuple[Near, ...]


@dataclass(frozen=True, slots=True)
class LayerNorms:
    """The mean norms of a layer's keys and values [P, heads · size] compared with those of real text."""

    layer: int
    key: float
    usual_key: float
    value: float
    usual_value: float
    key_moved: float | None  # mean distance from the start, as a share of the start's norm
    value_moved: float | None
    gate: float | None  # mean |tanh(gate)| of a gated layer


@dataclass(frozen=True)
class PromptReport:
    """A prompt as described by channel (`before`, `after`, `kv_after`, …)."""

    name: str
    soft: dict[str, list[SoftVector]]
    layers: dict[str, list[LayerNorms]]


@dataclass(frozen=True)
class Inspection:
    """The result that describes an artifact's prompts."""

    prompts: list[PromptReport]
    usual_norm: float  # median norm of the vocabulary's embeddings
    usual_norms: tuple[float, float]  # their 5 % and 95 % quantiles
    similarity: list[list[float]] | None  # cosine of each pair of prompts, all vectors together
    generated: bool  # then only the static part is described
    no_start: str | None  # why the start could not be made again


@torch.no_grad()
def inspect(
    artifact: Artifact,
    lm: LanguageModel,
    *,
    names: Sequence[str] | None = None,
    top: int = 3,
    other_base: bool = False,
    start_of: Callable[[Artifact, LanguageModel], SoftPrompt] | None = None,
) -> Inspection:
    """Describe the prompts called `names` (default: all); `top` nearest tokens of each soft token.

    `start_of(artifact, lm)` gives the method as it was before training (`softprompt.build.start_of`);
    without it, no distances from the start are measured.
    """
    chosen = range(len(artifact.prompts)) if names is None else [artifact.index(name) for name in names]
    try:  # first, for a trained base changes `lm` in place
        start, no_start = (start_of(artifact, lm) if start_of else None), None
    except SoftPromptError as error:
        start, no_start = None, error.what + (f" ({error.why})" if error.why else "")
    usual = () if "prefix" in lm.spec.limits else lm.kv_like(lm.text_ids(ORDINARY_TEXT))
    method = artifact.method(lm, other_base=other_base)
    every = [_static(method, i, lm) for i in range(len(artifact.prompts))]
    reports = []
    for index in chosen:
        before = None if start is None else _static(start, index, lm)
        reports.append(_report(artifact.prompts[index], every[index], before, lm, usual, top))
    norms = torch.cat([table.norm(dim=-1) for _, table in _vocabulary(lm)])
    low, middle, high = norms.quantile(torch.tensor([0.05, 0.5, 0.95], device=norms.device)).tolist()
    return Inspection(reports, middle, (low, high), _similarity(every), method.reads is not None, no_start)


def nearest_tokens(
    lm: LanguageModel, vectors: Tensor, top: int
) -> list[tuple[tuple[Near, ...], tuple[Near, ...]]]:
    """Return the tokens nearest to each of the vectors [P, H] by cosine, and by Euclidean distance."""
    vectors = vectors.to(lm.device).float()
    result: dict[str, list[tuple[Tensor, Tensor]]] = {"cosine": [], "distance": []}
    for ids, table in _vocabulary(lm):
        cosine = (
            torch.nn.functional.normalize(vectors, dim=-1) @ torch.nn.functional.normalize(table, dim=-1).T
        )
        # the minus sign: both are then better when larger
        for name, closeness in (("cosine", cosine), ("distance", -torch.cdist(vectors, table))):
            values, places = closeness.topk(min(top, len(ids)), dim=-1)
            result[name].append((values, ids[places]))

    def best(name: str, sign: float) -> list[tuple[Near, ...]]:
        values = torch.cat([part for part, _ in result[name]], dim=-1)
        ids = torch.cat([part for _, part in result[name]], dim=-1)
        picked, places = values.topk(min(top, values.shape[-1]), dim=-1)
        tokens = ids.gather(1, places)
        return [
            tuple(
                Near(token_text(lm.tokenizer, i), i, sign * v)
                for i, v in zip(row_ids, row_values, strict=True)
            )
            for row_ids, row_values in zip(tokens.tolist(), picked.tolist(), strict=True)
        ]

    return list(zip(best("cosine", 1.0), best("distance", -1.0), strict=True))


def _vocabulary(lm: LanguageModel) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ids [C] and their embeddings [C, H], a part of the vocabulary at a time."""
    for first in range(0, lm.spec.vocab_size, CHUNK):
        ids = torch.arange(first, min(first + CHUNK, lm.spec.vocab_size), device=lm.device)
        yield ids, lm.embed(ids).float()


def _report(
    name: str, injection: Injection, start: Injection | None, lm: LanguageModel, usual: Sequence, top: int
) -> PromptReport:
    soft, layers = {}, {}
    for channel, part in injection.channels().items():
        began = None if start is None else getattr(start, channel)
        if isinstance(part, SoftTokens):
            soft[channel] = _soft(part, began, lm, top)
        else:
            layers[channel] = _layers(part, began, usual)
    return PromptReport(name, soft, layers)


def _soft(part: SoftTokens, start: SoftTokens | None, lm: LanguageModel, top: int) -> list[SoftVector]:
    vectors = part.vectors[0].float()
    moved = None if start is None else (vectors - start.vectors[0].float()).norm(dim=-1).tolist()
    near = nearest_tokens(lm, vectors, top)
    return [
        SoftVector(norm, None if moved is None else moved[i], *near[i])
        for i, norm in enumerate(vectors.norm(dim=-1).tolist())
    ]


def _layers(part: Prefix, start: Prefix | None, usual: Sequence) -> list[LayerNorms]:
    result = []
    for index, layer in enumerate(part.layers):
        if layer is None:
            continue
        began, real = None if start is None else start.layers[index], usual[index]
        result.append(
            LayerNorms(
                index,
                _norm(layer.key),
                _norm(real.key),
                _norm(layer.value),
                _norm(real.value),
                None if began is None else _moved(layer.key, began.key),
                None if began is None else _moved(layer.value, began.value),
                None if layer.gate is None else layer.gate.float().tanh().abs().mean().item(),
            )
        )
    return result


def _flat(tensor: Tensor) -> Tensor:
    """Convert [1, heads, P, size] to [P, heads · size] in float32."""
    return tensor[0].float().transpose(0, 1).flatten(1)


def _norm(tensor: Tensor) -> float:
    return _flat(tensor).norm(dim=-1).mean().item()


def _moved(now: Tensor, start: Tensor) -> float:
    return ((_flat(now) - _flat(start)).norm(dim=-1) / _flat(start).norm(dim=-1)).mean().item()


def _static(method: SoftPrompt, index: int, lm: LanguageModel) -> Injection:
    return method.static(torch.tensor([index], device=lm.device))


def _similarity(prompts: Sequence[Injection]) -> list[list[float]] | None:
    if len(prompts) < 2 or not prompts[0].channels():
        return None
    flat = torch.stack([torch.cat([t.flatten() for t in _tensors(p)]) for p in prompts])
    unit = torch.nn.functional.normalize(flat, dim=-1)
    return (unit @ unit.T).tolist()


def _tensors(injection: Injection) -> list[Tensor]:
    result: list[Tensor] = []
    for part in injection.channels().values():
        if isinstance(part, SoftTokens):
            result.append(part.vectors.float())
        else:
            present = [layer for layer in part.layers if isinstance(layer, LayerKV)]
            result += [t.float() for layer in present for t in (layer.key, layer.value)]
    return result
