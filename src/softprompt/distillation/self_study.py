"""The model writes requests itself, where the user gives none: self-study (Cartridges,
Eyuboglu et al. 2025).

It reads the text and is asked for a message that somebody might send, in five ways with several wordings
each. Varied wordings give varied requests, and requests of one wording are kept together when rows are split.
"""

from __future__ import annotations

from pathlib import Path

import torch

from .._system.progress import task
from ..config.schema import Recipe
from ..data.collate import collate
from ..data.encode import Encoder
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.generation import answering, tokens_of
from . import kept_rows
from .requests import LEAST

#: Ways to ask for a request, and the wordings of each.
WORDINGS: dict[str, tuple[str, ...]] = {
    "question": (
        "Write one question that a person may ask you. Write the question alone.",
        "Give me one short question about your subject. Write nothing else.",
        "What might a new user ask you first? Write only that question.",
    ),
    "task": (
        "Write one task that a person may give you. Write the task alone.",
        "Give me one instruction that a user could send to you. Write nothing else.",
    ),
    "use case": (
        "Describe in one sentence a problem that somebody brings to you, in their own words.",
        "Write one message of a person who needs your help today. Write only the message.",
    ),
    "structure": (
        "Write one request that asks you for a list, a table or steps. Write the request alone.",
        "Give me one request for a summary or a comparison. Write nothing else.",
    ),
    "creative": (
        "Write one unusual request that has little to do with your instructions. Write it alone.",
        "Give me one playful message that somebody could send to you. Write nothing else.",
    ),
}
MOST_TOKENS = 48  # of a request
AT_ONCE = 16  # requests
ROUNDS = 4  # times as many attempts as requests are wanted


def self_study(recipe: Recipe, lm: LanguageModel, encoder: Encoder, count: int, file: Path) -> dict[str, str]:
    """Return up to `count` requests that the model writes behind the text, each with its wording.

    `file` keeps them as JSON Lines, which a person can read and change; a later call takes those that it has.
    Raises SoftPromptError where the model writes too few that differ.
    """
    written = kept_rows.read(file)
    pairs = [(kind, wording) for kind, wordings in WORDINGS.items() for wording in wordings]
    options = answering(lm, MOST_TOKENS, do_sample=True, temperature=1.0, top_p=0.95)
    attempts = -(-ROUNDS * count // AT_ONCE)
    with task("requests that the model writes", count) as progress, torch.random.fork_rng():
        for attempt in range(attempts):
            if len(written) >= count:
                break
            torch.manual_seed(recipe.train.seed * 10**6 + len(written) * 10**3 + attempt)
            chosen = [pairs[(attempt * AT_ONCE + i) % len(pairs)] for i in range(AT_ONCE)]
            rows = [encoder.encode({"request": wording}, with_target=False) for _, wording in chosen]
            with torch.no_grad():
                batch = collate(rows, lm.device, targets=False)
                outputs = tokens_of(lm.generate(batch, None, **options)).tolist()
            for (kind, wording), ids in zip(chosen, outputs, strict=True):
                if any(token in lm.ends for token in ids) and (text := _cleaned(encoder.decode(ids))):
                    written.setdefault(text, {"kind": kind, "wording": wording, "request": text})
            kept_rows.write(file, list(written.values())[:count])
            progress.at(min(count, len(written)))
    wordings = {row["request"]: row["wording"] for row in list(written.values())[:count]}
    kinds = len(set(wordings.values()))
    if len(wordings) < LEAST or kinds < 3:
        raise SoftPromptError(
            f"the model wrote only {len(wordings)} requests that differ, to {kinds} wordings",
            why="a small model may not be able to imagine who writes to it",
            fix="give requests of your own: --requests FILE",
        )
    return wordings


def _cleaned(text: str) -> str:
    """Return the first line that says something, without quotes around it."""
    lines = [line.strip().strip('"“”').strip() for line in text.splitlines()]
    return next((line for line in lines if len(line.split()) > 2), "")
