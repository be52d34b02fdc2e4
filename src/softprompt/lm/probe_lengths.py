"""Check on load, with short rows, that a model's answers stay exact where rows are long.

Two things may depend on how long a row is. The rotary embedding may rotate all keys by the longest row of
the call: then a key at position 1 changes with the position of another token, which two tokens show. And a
setting (a window, a chunk, the number of keys that a query chooses) may apply only beyond some length: it
is made small for a moment, so that rows of a few tokens reach beyond it. Both are limits of the model's own
computation. A limit that makes an answer depend on a row's neighbours is where rows end
(`ModelSpec.context`), with the reason in `ModelSpec.limits["length"]`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.collate import batch_of_ids
from ..errors import SoftPromptError
from . import module_state
from .attachment import attach
from .attention_choice import plain_attention
from .injected import Active, current, inject
from .model_errors import DoesNotRun
from .probe import by_site
from .rotary import has_table
from .spec import ModelSpec

if TYPE_CHECKING:
    from .causal import CausalLM

#: Settings of a configuration that limit what a query sees of a long row, by the words in their names.
SETTINGS = re.compile(r"window|chunk_size|top_?k|block_size|_blocks|floor_scale|local_size")
GUARD = "length"  # the name of the hook that refuses longer rows
SMALL = 5  # what they are for the moment
ROWS = ([3, 71, 20, 5, 44, 9, 12, 80, 31, 6, 55, 27, 14], [61, 8, 17])
TARGETS = ([33, 7, 90], [52, 4])


@torch.no_grad()
def with_rope(lm: CausalLM) -> ModelSpec:
    """Return the spec, where rows end before keys depend on how long a row is."""
    spec = lm.spec
    attach(lm.model).unhook(GUARD)  # of an earlier load of the same model
    with module_state.unchanged(lm.model):  # some rotary embeddings grow with the rows that are tried
        border = rope_border(lm.model, spec) if spec.layers and "position_ids" in lm.accepted else None
    if border is None:
        return spec
    reason = (
        f"beyond {border} positions it rotates the keys of a whole batch by its longest row, so an answer "
        "would depend on a row's neighbours, and on what is cached"
    )
    spec = replace(spec, context=min(spec.context, border), limits={**spec.limits, "length": reason})
    guard(lm.model, spec)
    return spec


@torch.no_grad()
def with_settings(lm: CausalLM) -> ModelSpec:
    """Return the spec with the limits that settings cause in long rows. Raises for a refused model."""
    spec = lm.spec
    if not spec.layers or "position_ids" not in lm.accepted:
        return spec
    spec = _settings_hold(lm, spec)
    if "length" in spec.limits:
        guard(lm.model, spec)
    return spec


def rope_border(model: Any, spec: ModelSpec) -> int | None:
    """Return how many positions a row may have before its keys depend on it; None: they never do."""
    if spec.positions not in ("rotary", "unknown"):
        return None
    far = spec.context if has_table(model) else 4 * spec.context
    here = _keys(model, 2)
    if _same(_keys(model, far - 1), here):
        return None
    fits, differs = 2, far - 1  # the last position of a row
    while differs - fits > 1:
        middle = (fits + differs) // 2
        _keys(model, 2)  # some ropes stay as they grew until a short row comes
        fits, differs = (middle, differs) if _same(_keys(model, middle), here) else (fits, middle)
    return fits + 1


def _keys(model: Any, last: int) -> list[Tensor]:
    """Return each layer's key of a token at position 1, where another is at position `last` behind it."""
    ids = torch.tensor([[3, 5]], device=model.device) % model.get_input_embeddings().weight.shape[0]
    positions = torch.tensor([[1, last]], device=model.device)
    with inject(Active(visits=[])) as active:
        model(input_ids=ids, position_ids=positions, use_cache=False)
    assert active is not None and active.visits is not None
    return [layer.key[:, :, 0].float() for _, layer in sorted(by_site(model, active.visits).items())]


def _same(keys: list[Tensor], expected: list[Tensor]) -> bool:
    pairs = zip(keys, expected, strict=True)
    return all((a - b).abs().max() <= 1e-5 * b.abs().max().clamp(min=1e-6) for a, b in pairs)


def _settings_hold(lm: CausalLM, spec: ModelSpec) -> ModelSpec:
    """Return the spec with what is wrong beyond a setting's length; refuse what is wrong at any length."""
    lengths = settings(lm.model)
    if not lengths:
        return spec
    at_once = _wrong(lm, spec)
    if "plain" in at_once:
        raise _unlike_plain(spec)
    if "step" in at_once:
        spec = replace(spec, limits={**spec.limits, "generate": f"{_MEANING['step']} (measured)"})
    longer = {name: value for name, value in lengths.items() if len(ROWS[0]) < value < spec.context}
    if not longer or not (wrong := _wrong_with(lm, spec, longer) - at_once):
        return spec
    alone = {name: _wrong_with(lm, spec, {name: value}) for name, value in longer.items()}
    for kind in ("plain", "batch", "step"):
        if kind in wrong:
            # where no setting does it alone, the shortest of them is on the safe side
            guilty = {name: longer[name] for name in longer if kind in alone[name]} or longer
            name = min(guilty, key=guilty.__getitem__)
            border = min(spec.context, guilty[name])
            why = f"beyond its {name} of {guilty[name]} positions {_MEANING[kind]}"
            spec = replace(spec, context=border, limits={**spec.limits, "length": why})
    guilty = {name: longer[name] for name in longer if "cache" in alone[name]} or longer
    if "cache" in wrong and min(guilty.values()) < spec.context:
        name = min(guilty, key=guilty.__getitem__)
        why = f"beyond its {name} of {guilty[name]} positions it keeps more of the input than keys and values"
        spec = replace(spec, limits={**spec.limits, "cache": why})
    return spec


_MEANING = {
    "plain": "it answers otherwise under an attention function of transformers' own",
    "batch": "an answer depends on a row's neighbours",
    "step": "an answer to the same tokens depends on how many follow, so decoding is not computing anew",
}


def _unlike_plain(spec: ModelSpec) -> SoftPromptError:
    return SoftPromptError(
        f"model family '{spec.family}' cannot take injected vectors",
        why="it answers otherwise under any attention function but transformers' own",
        fix="use another base model, and report this family",
    )


def _wrong_with(lm: CausalLM, spec: ModelSpec, chosen: Mapping[str, int]) -> set[str]:
    """Return what is wrong while these settings are small; nothing where the model then fails."""
    try:
        with shrunk(lm.model, chosen):
            return _wrong(lm, spec)
    except (DoesNotRun, RuntimeError, ValueError, TypeError, IndexError, AssertionError):
        return set()


def _wrong(lm: CausalLM, spec: ModelSpec) -> set[str]:
    """Return what differs: "plain" (transformers' own), "batch" (alone), "step" (a longer row), "cache"."""
    size = spec.vocab_size
    rows, targets = ([[i % size for i in row] for row in part] for part in (ROWS, TARGETS))
    if lm.head is not None:
        targets = [[0]] * len(rows)  # a label, which follows the whole row
    batch = batch_of_ids(rows, targets).to(lm.device)
    full, real = lm.logits(batch).float(), batch.target_mask
    scale = full[real].abs().max().clamp(min=1.0)
    most = (1e-4 if lm.dtype == torch.float32 else 0.1) * scale
    wrong: set[str] = set()
    for row, target, together in zip(rows, targets, full, strict=True):
        alone = lm.logits(batch_of_ids([row], [target]).to(lm.device)).float()[0]
        if (together[-len(target) :] - alone).abs().max() > most:
            wrong.add("batch")
        if (_plain(lm, row, target) - alone).abs().max() > most:
            wrong.add("plain")
    if "cache" not in spec.limits:
        cached = lm.logits(batch, None, lm.input_context(batch)).float()
        if (cached - full)[real].abs().max() > most:
            wrong.add("cache")
    if lm.head is not None:
        return wrong  # it decodes nothing
    start, rest = rows[0][:8], rows[0][8:]
    longer = lm.logits(batch_of_ids([start], [rest]).to(lm.device)).float()[0]
    for count in range(1, len(rest)):
        shorter = lm.logits(batch_of_ids([start], [rest[:count]]).to(lm.device)).float()[0]
        if (shorter[-1] - longer[count - 1]).abs().max() > most:
            wrong.add("step")
    return wrong


def _plain(lm: CausalLM, row: list[int], target: list[int]) -> Tensor:
    """Compute the logits [T, V] of a row alone by transformers' attention, on the tokens that `logits` runs.

    Sparse attention that finds two keys as good chooses by how many there are.
    """
    ids = torch.tensor([row + target[:-1]], device=lm.device)
    # of embeddings a head reads the last column; of ids, one that may be taken for padding
    given = {"input_ids": ids} if lm.head is None else {"inputs_embeds": lm.token_inputs(ids)}
    with plain_attention(lm.model):
        logits = lm.model(**given, use_cache=False).logits
    return logits[0, len(row) - 1 :].float() if lm.head is None else logits.float()


def settings(model: Any) -> dict[str, int]:
    """Return the configuration's numbers that limit what a query sees, by name."""
    config = model.config.get_text_config(decoder=True)
    result = {name: value for name, value in vars(config).items() if SETTINGS.search(name)}
    return {name: value for name, value in result.items() if type(value) is int and value > 0}


@contextlib.contextmanager
def shrunk(model: Any, chosen: Mapping[str, int]) -> Iterator[None]:
    """Make these settings small inside, in the configuration and in every module that holds them."""
    config = model.config.get_text_config(decoder=True)
    changed: list[tuple[Any, str, Any]] = []
    for name, value in chosen.items():
        for holder in (config, *model.modules()):
            if vars(holder).get(name) == value:
                changed.append((holder, name, value))
                setattr(holder, name, SMALL)
    try:
        yield
    finally:
        for holder, name, value in changed:
            setattr(holder, name, value)


def guard(model: Any, spec: ModelSpec) -> None:
    """Refuse every later call with something injected where a row is too long for it."""
    attachment = attach(model)
    attachment.unhook(GUARD)
    attachment.hook(GUARD, model.base_model, partial(_refuse_longer, spec.context, spec.limits["length"]))


def _refuse_longer(border: int, why: str, module: Any, args: Any, named: dict[str, Any]) -> None:
    positions = named.get("position_ids")
    if current() is not None and positions is not None:
        refuse_longer(border, why, int(positions.max()) + 1)


def refuse_longer(border: int, why: str, positions: int) -> None:
    """Raise SoftPromptError where a row has more positions than that."""
    if positions > border:
        raise SoftPromptError(
            f"a row of {positions} positions is too long for this model",
            why=why,
            fix="shorten the input (data.max_input_tokens) or the answer (max_new_tokens): a row, soft "
            f"tokens and the answer included, has {border} positions at most",
        )
