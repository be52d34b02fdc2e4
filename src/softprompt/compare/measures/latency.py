"""Times serving with a prompt and with the plain model: time to the first token, and tokens a second.

Definitions are in docs/measures-resources.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from statistics import median

import torch

from ...data.collate import Batch, collate
from ...data.example import Example
from ...errors import SoftPromptError
from ...lm.apply import injection_for
from ...lm.base import LanguageModel
from ...methods.base import SoftPrompt
from ...methods.materialised import materialise
from ...methods.none import NoPrompt

BATCH, NEW_TOKENS, REPEATS = 8, 16, 5


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of repeated timings, and the least and largest that were measured."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Serving:
    """The timings that serving has; `mixed_tokens_per_second` is None if there is only one prompt."""

    first_token_ms: Spread  # one row, from its ids to its first new token
    plain_first_token_ms: Spread
    tokens_per_second: Spread  # new tokens of all rows of a batch, all under one prompt
    plain_tokens_per_second: Spread
    mixed_tokens_per_second: Spread | None  # rows of the batch under all prompts in turn
    rows: int
    new_tokens: int  # of each row


def serving(
    lm: LanguageModel,
    method: SoftPrompt,
    examples: Sequence[Example],
    *,
    rows: int = BATCH,
    new_tokens: int = NEW_TOKENS,
    repeats: int = REPEATS,
    plain: LanguageModel | None = None,
) -> Serving:
    """Time greedy generation of `new_tokens` for each of `rows` rows (`examples`, repeated if too few).

    `method` may hold several artifacts side by side. Variants take turns, so that other load on the machine
    affects all of them; a first round, which warms up, does not count. Static prompts are served as plain
    tensors. `plain` is the base before training, if it was trained too. Raises SoftPromptError for a model
    that generates no text, or no examples.
    """
    if lm.answers != "next" or not examples:
        raise SoftPromptError(
            "there is nothing to serve" if not examples else "this model writes no tokens",
            why="tokens a second are measured by generating",
            fix="give it rows" if not examples else "leave serving out for it",
        )
    served, bare = materialise(method) or method, NoPrompt(method.num_prompts)
    chosen = list(islice(cycle(examples), rows))
    alone = [replace(e, prompt=0) for e in chosen]
    mixed = [replace(e, prompt=i % method.num_prompts) for i, e in enumerate(chosen)]
    work: dict[str, Callable[[], None]] = {
        "first": _generation(lm, served, alone[:1], 1),
        "plain first": _generation(plain or lm, bare, alone[:1], 1),
        "alone": _generation(lm, served, alone, new_tokens),
        "plain": _generation(plain or lm, bare, alone, new_tokens),
    }
    if method.num_prompts > 1:
        work["mixed"] = _generation(lm, served, mixed, new_tokens)
    times = _in_turns(work, repeats)
    speeds = {name: [rows * new_tokens / t for t in times[name]] for name in work if "first" not in name}
    return Serving(
        _spread([1000 * t for t in times["first"]]),
        _spread([1000 * t for t in times["plain first"]]),
        _spread(speeds["alone"]),
        _spread(speeds["plain"]),
        _spread(speeds["mixed"]) if "mixed" in speeds else None,
        rows,
        new_tokens,
    )


def _generation(
    lm: LanguageModel, method: SoftPrompt, examples: Sequence[Example], tokens: int
) -> Callable[[], None]:
    """Return a function that generates exactly `tokens` tokens for each row; it includes the injection."""
    batch: Batch = collate(examples, lm.device, targets=False)

    def work() -> None:
        with torch.no_grad():
            injection = injection_for(lm, method, batch)
        lm.generate(batch, injection, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        if lm.device.type == "cuda":
            torch.cuda.synchronize(lm.device)

    return work


def _in_turns(work: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + 1):
        for name, do in work.items():
            started = time.perf_counter()
            do()
            if turn:
                times[name].append(time.perf_counter() - started)
    return times


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))
