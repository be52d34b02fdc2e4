"""Prompts that write no text, or do not affect the log-probabilities of an input's tokens, are refused.

A token's log-probability depends on what precedes it. No token of the input sees vectors behind the input, so
the scores would be the plain model's under the prompt's name. A generated prompt is computed from the whole
input, so each score would know the tokens that it has to predict.
"""

from __future__ import annotations

from ..injection import Injection
from .registry import Loaded
from .request import InvalidRequest, NotScored

BEHIND = ("after", "kv_after")


def check_writes(loaded: Loaded) -> None:
    """Raise InvalidRequest for a prompt that answers by a head, and neither writes nor scores text."""
    if loaded.tuned.lm.head is not None:
        raise InvalidRequest(
            f"'{loaded.name}' writes no text",
            why="it answers by a classification head, and was trained for nothing else",
            fix="ask /v1/classify for its labels; strength=0 asks the plain model",
        )


def check_scored(loaded: Loaded, shape: Injection) -> None:
    """Raise NotScored unless everything that `shape` injects affects the scores of an input."""
    name = loaded.name
    counts = {channel: int(part.mask.sum()) for channel, part in shape.channels().items()}
    behind, total = sum(counts.get(channel, 0) for channel in BEHIND), sum(counts.values())
    if behind:
        raise NotScored(
            f"the input's tokens have no log-probabilities under '{name}'",
            why=f"{behind} of its {total} vectors are behind the input, where none of its tokens sees "
            "them, so the scores would ignore them",
            fix=_instead(loaded, "tune a prompt with placement=before"),
        )
    if loaded.tuned.method.reads is not None:
        raise NotScored(
            f"the input's tokens have no log-probabilities under '{name}'",
            why="its vectors depend on the whole input, so each score would know the tokens that follow",
            fix=_instead(loaded, "use a prompt that is not generated, with placement=before"),
        )


def _instead(loaded: Loaded, advice: str) -> str:
    plain = "strength=0 scores the input under the plain model"
    if loaded.encoder.kind in ("classification", "choice"):
        return f"ask /v1/classify how likely its labels are, or {advice}; {plain}"
    return f"{advice}, or measure targets with softprompt eval; {plain}"
