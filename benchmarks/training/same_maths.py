"""The same computation on both sides: a prompt or a prefix ahead of the input.

A block is one epoch over rows of its own, the same rows on every side, from the same vectors. PEFT at its
best sees our side's batches, so that the losses of all steps of a prompt must be the same: forward pass,
gradient and optimizer at once. Of a prefix only a block's first loss must be: PEFT keeps its keys turned to
other positions, and AdamW, which goes by single numbers, moves turned vectors elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

import softprompt

from .line import Line, apart
from .options import Options
from .ours import Block, Ours, batches
from .rows import encoded
from .theirs import Peft

ALLOWED = 1e-3  # of losses, in float32
SIDES = ("ours", "as run", "at its best")


def prompts(options: Options) -> Iterator[Line]:
    """Examples a second of `prompt-tuning` ahead of the input, against PEFT's as run and at its best."""
    yield from _compared(options, "same-maths", "prompt-tuning", {"as run": 2.0, "at its best": 1.4}, None)


def prefixes(options: Options) -> Iterator[Line]:
    """Examples a second of `prefix-tuning` ahead of the input, against PEFT's as run and at its best."""
    yield from _compared(options, "prefix", "prefix-tuning", {"as run": 1.5, "at its best": 1.5}, 1)


def _compared(
    options: Options, measure: str, method: str, goals: dict[str, float], same_steps: int | None
) -> Iterator[Line]:
    """`same_steps`: how many of a block's losses must be the same; None is all."""
    for name in options.sets:
        for dtype in options.dtypes:
            lm = softprompt.load(options.model, dtype=dtype)
            rows = encoded(options.data, name, options.blocks * options.steps * options.batch, lm.tokenizer)
            ours = Ours(lm, method, rows)
            found = in_turns(options, ours, Peft(options.model, dtype, ours))
            speed = {
                side: options.steps * options.batch / median(b.seconds for b in blocks)
                for side, blocks in found.items()
            }
            mine, theirs = (
                [x for b in found[side] for x in b.losses[:same_steps]] for side in ("ours", "at its best")
            )
            wrong = apart(mine, theirs, ALLOWED, "training beside PEFT") if dtype == "float32" else ""
            note = f"losses within {max(abs(a - b) for a, b in zip(mine, theirs, strict=True)):.1e}"
            for side, goal in goals.items():
                case, both = f"{name}, {dtype}, PEFT {side}", (speed["ours"], speed[side])
                ratio = both[0] / both[1]
                yield Line(measure, case, *both, "examples/s", ratio, goal, note=note, wrong=wrong)


def in_turns(
    options: Options, ours: Ours, peft: Peft, sides: Sequence[str] = SIDES
) -> dict[str, list[Block]]:
    """The blocks of these sides."""
    size, steps, batch = options.steps * options.batch, options.steps, options.batch
    found: dict[str, list[Block]] = {side: [] for side in sides}
    for block in range(-1, options.blocks):  # the first one only warms the machine up
        if block < 0:
            steps, chosen = 1, list(range(batch))
        else:
            steps, chosen = options.steps, list(range(block * size, (block + 1) * size))
        same = [ours.rows[i] for part in batches(ours.rows, chosen, steps, batch) for i in part]
        turns = {
            "ours": partial(ours.train, chosen, steps, batch),
            "as run": partial(peft.train, [ours.rows[i] for i in chosen], steps, batch, ordered=False),
            "at its best": partial(peft.train, same, steps, batch, ordered=True),
        }
        for side in sides:
            block_of_side = turns[side]()
            if block >= 0:
                found[side].append(block_of_side)
    return found
