"""Check that an engine really uses the state that it reports to have restored.

Some builds of llama.cpp were reported to restore nothing and to answer that all is well, so their reply is
not trusted: the next request must continue from all of the state, the slot must hold the keys that were
written, and its answer must differ from the answer to the placeholder tokens read as text.
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

PROBE = (3, 5, 7, 9)  # the tokens of the test request
LIKELIEST = 200  # tokens whose probabilities are compared
ALIKE = 0.02  # half the sum of all differences; rounding makes smaller ones
GOOD = "xllamacpp 2026.4.8929 to 2026.10.11549, which is llama.cpp b8929 to b11549"


@dataclass(frozen=True, slots=True)
class Filled:
    """A state that was filled in, and the answer that it must give."""

    tokens: Sequence[int]
    content: bytes  # of its file
    wanted: Tensor  # [V], probabilities of the token after `PROBE`


@torch.no_grad()
def expected(artifact: Artifact, lm: LanguageModel, name: str, *, other_base: bool = False) -> Tensor:
    """Return the probabilities [V] of the token after `PROBE`, under a prompt."""
    index = torch.tensor([artifact.index(name)], device=lm.device)
    injection = artifact.method(lm, other_base=other_base)(index)
    logits = lm.logits(batch_of_ids([list(PROBE)], [[0]], device=lm.device), injection)
    return logits[0, -1].float().softmax(-1).cpu()


def check(engine: Engine, states: Mapping[str, Filled]) -> None:
    """Restore each state, by its prompt's name, in the engine and test it.

    Raises SoftPromptError where one has no effect.
    """
    with tempfile.TemporaryDirectory() as scratch:
        context = max(CONTEXT, max(len(filled.tokens) for filled in states.values()) + 64)
        server = engine.start(Path(scratch), context)
        for name, filled in states.items():
            check_slot(server.listening_address, Path(scratch), name, filled)


def check_slot(address: str, folder: Path, name: str, filled: Filled) -> None:
    """Restore a state into slot 0 of a server, and compare answers with and without it.

    The server keeps states in `folder`. Raises SoftPromptError where it had no effect.
    """
    tokens, vocab = filled.tokens, len(filled.wanted)
    (folder / "state.bin").write_bytes(filled.content)
    reply = post(f"{address}/slots/0?action=restore", {"filename": "state.bin"})
    output, timings = _answer(address, tokens, vocab, cached=True)
    restored, used = reply.get("n_restored"), timings.get("cache_n")
    if restored != len(tokens) or used != len(tokens):
        raise _without_effect(
            name,
            f"it reports that it restored {restored} of {len(tokens)} tokens, and the next request continued "
            f"from {used} of them",
        )
    post(f"{address}/slots/0?action=save", {"filename": "kept.bin"})
    if not _holds((folder / "kept.bin").read_bytes(), filled):
        raise _without_effect(name, "it reports that it did, but its keys differ from those of the file")
    as_text, _ = _answer(address, tokens, vocab, cached=False)
    near, far = _distance(output, filled.wanted), _distance(output, as_text)
    if far < ALIKE <= near:
        raise _without_effect(
            name,
            f"it reports that it did, but answers as if the placeholder tokens were text (distance {far:.2g} "
            f"from that answer, {near:.2g} from the prompt's; 1 is the largest)",
        )


def _holds(kept: bytes, filled: Filled) -> bool:
    """Tell whether a saved state begins with the keys of the filled one."""
    after, before = state.read(kept), state.read(filled.content)
    count = len(before.tokens)
    return after.tokens[:count] == before.tokens and all(
        bool((new.data[:count] == old.data).all()) for new, old in zip(after.keys, before.keys, strict=True)
    )


def _answer(
    address: str, tokens: Sequence[int], vocab: int, *, cached: bool
) -> tuple[Tensor, dict[str, Any]]:
    body = {"prompt": [*tokens, *PROBE], "id_slot": 0, "n_predict": 1, "n_probs": min(LIKELIEST, vocab)}
    reply = post(f"{address}/completion", {**body, "temperature": 0, "cache_prompt": cached})
    probabilities = torch.zeros(vocab)
    for token in reply["completion_probabilities"][0]["top_logprobs"]:
        probabilities[token["id"]] = torch.tensor(token["logprob"]).exp()
    return probabilities, reply["timings"]


def _distance(left: Tensor, right: Tensor) -> float:
    """Return the total variation distance of two distributions: 0 where they are equal, at most 1."""
    return ((left - right).abs().sum() / 2).item()


def _without_effect(name: str, why: str) -> SoftPromptError:
    return SoftPromptError(
        f"this llama.cpp does not restore the state of '{name}'",
        why=why,
        fix=f"use a version that was tried: {GOOD}",
    )
