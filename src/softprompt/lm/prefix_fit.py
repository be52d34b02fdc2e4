"""A prefix is fitted layer by layer, in one pass, to what the attention layers give out behind a text.

Rows are read twice: behind the text's keys and values, which gives each layer's right output, and behind the
columns that are fitted. Each layer's columns are fitted when the pass reaches the layer, so that its queries
are those that the layers before it, with their fitted columns, lead to. This file does not know how they
are fitted (see `methods.matching`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.collate import batch_of_ids
from ..errors import SoftPromptError
from ..injection import Injection, LayerKV, Layers, Prefix
from ..methods.matching import Queries, attended
from . import causal_rows
from .context import positions_after

if TYPE_CHECKING:
    from .causal import CausalLM

MOST_QUERIES = 1024  # of each head: more of them change the fit little, and cost time
TOLERANCE = {torch.float32: 1e-3}  # relative error (root mean square); below, of lower precisions
INSTEAD = "method.init=context"

Fit = Callable[[int, Queries, LayerKV], LayerKV]


@torch.no_grad()
def fit_prefix(
    lm: CausalLM,
    text: Sequence[int],
    behind: Sequence[Sequence[int]],
    alone: Sequence[Sequence[int]],
    length: int,
    fit: Fit,
    seed: int = 0,
) -> Layers:
    """Return columns [1, kv_heads, length, head_dim] by layer, as `fit` chooses them.

    `text` are the ids that the columns replace. Row i is `behind[i]` where it follows the text, and
    `alone[i]` where it follows the columns: their common ends are compared. `fit` is called for each layer
    with its queries and the text's keys and values there.
    Raises SoftPromptError for a model with other attention than softmax over keys.
    """
    lm.refuse("prefix")
    layers = lm.kv_of(text)
    chosen = _chosen([_same_end(b, a) for b, a in zip(behind, alone, strict=True)], seed)
    targets = _targets(lm, layers, behind, chosen)
    fitted: dict[int, LayerKV] = {}

    def fit_site(site: int, query: Tensor, call: LayerKV, mask: Tensor | None, options: Mapping[str, Any]):
        queries = _queries(query, call, mask, options, chosen, targets[site])
        fitted[site] = fit(site, queries, layers[site])  # type: ignore[arg-type]
        return fitted[site].map(lambda t: t.to(call.key.dtype))

    room = Prefix(
        tuple(
            None if kv is None else kv.map(lambda t: t[:, :, :1].expand(-1, -1, length, -1)) for kv in layers
        ),
        torch.ones(1, length, dtype=torch.bool, device=lm.device),
    )
    _run(lm, alone, room, fit_site)
    return tuple(None if kv is None else fitted[site] for site, kv in enumerate(layers))


def _targets(
    lm: CausalLM, layers: Layers, rows: Sequence[Sequence[int]], chosen: Sequence[Sequence[int]]
) -> dict[int, Tensor]:
    """Return each layer's outputs [N, heads, v_head_dim] behind the text, at the chosen places."""
    targets: dict[int, Tensor] = {}
    computed: dict[int, Tensor] = {}

    def check_site(site: int, query: Tensor, call: LayerKV, mask: Tensor | None, options: Mapping[str, Any]):
        queries = _queries(query, call, mask, options, chosen)
        computed[site] = attended(queries, layers[site])  # type: ignore[arg-type]
        return layers[site]

    text = Prefix(layers, torch.ones(1, _length(layers), dtype=torch.bool, device=lm.device))
    outputs = _run(lm, rows, text, check_site)
    for site, output in outputs.items():
        targets[site] = _picked(output.transpose(1, 2), chosen)
        if layers[site] is None:
            continue
        error = (targets[site] - computed[site]).square().mean().sqrt()
        size = targets[site].square().mean().sqrt()
        if not error <= TOLERANCE.get(lm.dtype, 3e-2) * size:
            raise SoftPromptError(
                f"init=matched does not know the attention of '{lm.name}' ({lm.spec.family})",
                why=f"layer {site} is no softmax over its keys alone: the output is "
                f"{error / size:.2g} of its size off",
                fix=INSTEAD,
            )
    return targets


def _run(lm: CausalLM, rows: Sequence[Sequence[int]], prefix: Prefix, fit: Any) -> dict[int, Tensor]:
    batch = batch_of_ids(rows, device=lm.device)
    injection = Injection(kv_before=prefix).fit(batch.size)
    vectors, mask = causal_rows.sequence(lm, batch, injection, targets=False)
    positions = positions_after(None, mask)
    active = causal_rows.injected(lm, injection, positions, 0, 0, None)
    active.fit, active.outputs = fit, {}
    options = lm.model_arguments(position_ids=positions, use_cache=False)
    with lm.running(active):
        lm.model.base_model(inputs_embeds=vectors, attention_mask=mask.long(), **options)
    return active.outputs


def _queries(
    query: Tensor,
    call: LayerKV,
    mask: Tensor | None,
    options: Mapping[str, Any],
    chosen: Sequence[Sequence[int]],
    target: Tensor | None = None,
) -> Queries:
    """Return the chosen queries, with what each sees of its own row."""
    scale = options.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    groups = query.shape[1] // call.key.shape[1]
    outputs, masses, picked = [], [], []
    for row, places in enumerate(chosen):
        at = [query.shape[2] - place for place in places]
        q = query[row][:, at].float()  # [heads, n, d]
        key, value = (t[row].float().repeat_interleave(groups, dim=0) for t in (call.key, call.value))
        scores = q @ key.transpose(1, 2) * scale
        if mask is not None:
            seen = mask[row if mask.shape[0] > 1 else 0][:, at]
            scores = (
                scores.masked_fill(~seen, -torch.inf) if seen.dtype == torch.bool else scores + seen.float()
            )
        outputs.append((scores.softmax(-1) @ value).transpose(0, 1))
        masses.append(scores.logsumexp(-1).transpose(0, 1))
        picked.append(q.transpose(0, 1))
    seen = torch.cat(outputs)
    return Queries(
        torch.cat(picked), seen, torch.cat(masses), seen if target is None else target, float(scale)
    )


def _picked(states: Tensor, chosen: Sequence[Sequence[int]]) -> Tensor:
    """Pick states [B, heads, q, d] at places that are counted from the end: [N, heads, d]."""
    parts = [states[row][:, [states.shape[2] - p for p in places]] for row, places in enumerate(chosen)]
    return torch.cat(parts, dim=1).transpose(0, 1).float()


def _same_end(first: Sequence[int], second: Sequence[int]) -> int:
    same = 0
    while same < min(len(first), len(second)) and first[-1 - same] == second[-1 - same]:
        same += 1
    return same


def _chosen(ends: Sequence[int], seed: int) -> list[list[int]]:
    """Choose places of each row, counted from its end (1: its last token), among those that are compared."""
    every = [(row, place) for row, end in enumerate(ends) for place in range(end, 0, -1)]
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:MOST_QUERIES]
    places: list[list[int]] = [[] for _ in ends]
    for index in sorted(order.tolist()):
        row, place = every[index]
        places[row].append(place)
    return places


def _length(layers: Layers) -> int:
    return next(layer.key.shape[2] for layer in layers if layer is not None)
