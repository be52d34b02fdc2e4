"""Whether an engine answers with the state that it says it restored.

Some builds of llama.cpp were reported to restore nothing and to say that all is well, so its word is not
taken: the next request must go on from all of the state, the slot must hold the keys that were written, and
its answer must be another than to the tokens that stand for the prompt, read as text.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....data.collate import batch_of_ids
from ....errors import SoftPromptError
from ....lm.base import LanguageModel
from ...artifact import Artifact
from . import state
from .engine import CONTEXT, Engine, post

PROBE = (3, 5, 7, 9)  # the tokens that are asked about
ASKED = 200  # likeliest tokens of an answer
ALIKE = 0.02  # half the sum of all differences: what rounding does is less
GOOD = "xllamacpp 2026.4.8929 to 2026.10.11549, which is llama.cpp b8929 to b11549"


@dataclass(frozen=True, slots=True)
class Filled:
    """A state that was made, and the answer that it stands for."""

    tokens: Sequence[int]
    content: bytes  # of its file
    wanted: Tensor  # [V], probabilities of the token after `PROBE`


@torch.no_grad()
def expected(artifact: Artifact, lm: LanguageModel, name: str, *, other_base: bool = False) -> Tensor:
    """Probabilities [V] of the token after `PROBE`, under a prompt."""
    index = torch.tensor([artifact.index(name)], device=lm.device)
    injection = artifact.method(lm, other_base=other_base)(index)
    logits = lm.logits(batch_of_ids([list(PROBE)], [[0]], device=lm.device), injection)
    return logits[0, -1].float().softmax(-1).cpu()


def check(engine: Engine, states: Mapping[str, Filled]) -> None:
    """Restore each state, by its prompt's name, in the engine, and ask.

    Raises SoftPromptError where one has no effect.
    """
    with tempfile.TemporaryDirectory() as scratch:
        context = max(CONTEXT, max(len(one.tokens) for one in states.values()) + 64)
        server = engine.start(Path(scratch), context)
        for name, one in states.items():
            check_slot(server.listening_address, Path(scratch), name, one)


def check_slot(address: str, folder: Path, name: str, filled: Filled) -> None:
    """Restore a state into slot 0 of a server whose states are in `folder`, and ask with and without it.

    Raises SoftPromptError where it had no effect.
    """
    tokens, vocab = filled.tokens, len(filled.wanted)
    (folder / "state.bin").write_bytes(filled.content)
    said = post(f"{address}/slots/0?action=restore", {"filename": "state.bin"})
    found, timings = _answer(address, tokens, vocab, cached=True)
    restored, used = said.get("n_restored"), timings.get("cache_n")
    if restored != len(tokens) or used != len(tokens):
        raise _without_effect(
            name,
            f"it says that it restored {restored} of {len(tokens)} tokens, and the next request went on from "
            f"{used} of them",
        )
    post(f"{address}/slots/0?action=save", {"filename": "kept.bin"})
    if not _holds((folder / "kept.bin").read_bytes(), filled):
        raise _without_effect(name, "it says that it did, and holds other keys than those of the file")
    as_text, _ = _answer(address, tokens, vocab, cached=False)
    near, far = _apart(found, filled.wanted), _apart(found, as_text)
    if far < ALIKE <= near:
        raise _without_effect(
            name,
            f"it says that it did, and answers as if the tokens of the prompt were text (from that it is "
            f"{far:.2g} apart, from the prompt's answer {near:.2g}, and 1 is most)",
        )


def _holds(kept: bytes, filled: Filled) -> bool:
    """Whether a saved state begins with the keys of another."""
    after, before = state.read(kept), state.read(filled.content)
    count = len(before.tokens)
    return after.tokens[:count] == before.tokens and all(
        bool((new.data[:count] == old.data).all()) for new, old in zip(after.keys, before.keys, strict=True)
    )


def _answer(
    address: str, tokens: Sequence[int], vocab: int, *, cached: bool
) -> tuple[Tensor, dict[str, Any]]:
    body = {"prompt": [*tokens, *PROBE], "id_slot": 0, "n_predict": 1, "n_probs": min(ASKED, vocab)}
    said = post(f"{address}/completion", {**body, "temperature": 0, "cache_prompt": cached})
    found = torch.zeros(vocab)
    for one in said["completion_probabilities"][0]["top_logprobs"]:
        found[one["id"]] = torch.tensor(one["logprob"]).exp()
    return found, said["timings"]


def _apart(one: Tensor, other: Tensor) -> float:
    """0 where two distributions are the same, 1 where they have nothing in common."""
    return ((one - other).abs().sum() / 2).item()


def _without_effect(name: str, why: str) -> SoftPromptError:
    return SoftPromptError(
        f"this llama.cpp does not restore the state of '{name}'",
        why=why,
        fix=f"use a version that was tried: {GOOD}",
    )
