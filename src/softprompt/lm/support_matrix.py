"""Measure what works on which family, with a tiny random model of each.

The probe finds what a model can take. Beyond that, each kind of injection is run on rows of different
lengths, in a batch and alone, for the whole row and decoded step by step; it works where all agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ..data.collate import Batch, batch_of_ids
from ..errors import SoftPromptError
from ..injection import Injection, Prefix, SoftTokens
from .base import LanguageModel
from .causal import CausalLM
from .encoder import EncoderLM
from .families import ENCODERS, tiny
from .model_errors import place, reason
from .seq2seq import Seq2SeqLM
from .spec import STACKS, Batching

INPUTS = ([5, 17, 80, 33, 9, 71, 3], [42], [60, 61, 7, 12])
TARGETS = ([11, 12], [90], [4, 70, 70])
PLACES = ([1, 4], [0], [0, 2, 3])  # where an encoder answers
NEW = 4  # tokens decoded
TOLERANCE = 2e-5  # of the logits' size, in float32


@dataclass(frozen=True, slots=True)
class Report:
    """One family is reported: by kind of injection an empty string where it is exact, else the reason."""

    family: str
    kind: str
    positions: str
    attended: int  # layers that take a prefix
    layers: int
    results: dict[str, str]
    cache: str  # why the inputs' keys and values are not kept, or empty
    length: str = ""  # why rows end before the model's own context, or empty
    batching: Batching | None = None  # which rows may share a batch; None: it was not loaded
    failed: str = ""  # why it could not be built or loaded, or empty


def survey(family: str) -> Report:
    """Run a tiny random model of the family; takes a fraction of a second.

    A family that cannot be built or loaded gets a report that says why.
    """
    try:
        model = tiny(family)
        apart = model.config.is_encoder_decoder
        wrapper = Seq2SeqLM if apart else EncoderLM if family in ENCODERS else CausalLM
        lm = wrapper(model, None, family)
    except SoftPromptError as error:
        return _failed(family, f"{error.what}: {error.why or error.fix}")
    except Exception as error:  # of the installed transformers, at one family: the others are tried
        return _failed(family, f"it cannot be built: {reason(error)} ({place(error)})")
    return replace(survey_model(lm), family=family)


def _failed(family: str, why: str) -> Report:
    return Report(family, "unknown", "unknown", 0, 0, {}, "", failed=why)


def survey_model(lm: LanguageModel) -> Report:
    """Run a loaded model (in float32: the tolerance is one of rounding)."""
    # where encoder and decoder are apart, an encoder does not see what is placed after the input
    after = ("decoder", "cross") if lm.spec.kind == "encoder-decoder" else STACKS
    kinds: dict[str, Callable[[], Injection]] = {
        "soft before": lambda: Injection(before=_soft(lm)),
        "soft after": lambda: Injection(after=_soft(lm)),
        "prefix before": lambda: Injection(kv_before=_prefix(lm, STACKS)),
        "prefix after": lambda: Injection(kv_after=_prefix(lm, after)),
    }
    if lm.spec.kind == "encoder-decoder":
        kinds["soft decoder"] = lambda: Injection(decoder=_soft(lm))
    return Report(
        lm.spec.family,
        lm.spec.kind,
        lm.spec.positions,
        len(lm.spec.layers),
        max(lm.spec.depth, len(lm.spec.layers)),
        {name: _try(lm, make) for name, make in kinds.items()},
        lm.spec.limits.get("cache", ""),
        lm.spec.limits.get("length", ""),
        lm.spec.batching,
    )


def _soft(lm: LanguageModel) -> SoftTokens:
    vectors = lm.embed(torch.tensor([[9, 10, 11]])).detach() * 1.5
    return SoftTokens(vectors, torch.ones(1, 3, dtype=torch.bool))


def _prefix(lm: LanguageModel, stacks: Sequence[str]) -> Prefix:
    pairs = zip(lm.kv_of([9, 10, 11]), lm.spec.layers, strict=True)
    return Prefix(tuple(kv if s.stack in stacks else None for kv, s in pairs), torch.ones(1, 3).bool())


@torch.no_grad()
def _try(lm: LanguageModel, make: Callable[[], Injection]) -> str:
    try:
        injection = make()
        batch = batch_of_ids(INPUTS, TARGETS, places=PLACES).to(lm.device)
        logits = lm.logits(batch, injection)
        scale = logits[batch.target_mask].abs().max()
        if not (logits - lm.logits(batch))[batch.target_mask].abs().max() > 1e-3 * scale:
            return "it has no effect"
        for i, ids in enumerate(INPUTS):
            single = batch_of_ids([ids], TARGETS[i : i + 1], places=PLACES[i : i + 1]).to(lm.device)
            alone = lm.logits(single, injection)[0]
            if not (logits[i][batch.target_mask[i]] - alone).abs().max() < TOLERANCE * scale:
                return "a row's answer depends on its neighbours"
        if lm.spec.kind == "encoder":
            return ""
        output = lm.generate(batch, injection, max_new_tokens=NEW, do_sample=False).tolist()
        if output != _recomputed(lm, batch, injection):
            return "decoding step by step gives another answer than computing anew"
    except SoftPromptError as error:
        return error.why or error.what
    except Exception as error:  # this row of the table says why; the others are still measured
        return f"it cannot be run: {reason(error)} ({place(error)})"
    return ""


def _recomputed(lm: LanguageModel, batch: Batch, injection: Injection) -> list[list[int]]:
    ids: list[list[int]] = [[] for _ in range(batch.size)]
    for _ in range(NEW):
        logits = lm.logits(batch.with_targets([[*row, 0] for row in ids]), injection)
        for row, best in zip(ids, logits[:, -1].argmax(-1).tolist(), strict=True):
            row.append(best)
    return ids
