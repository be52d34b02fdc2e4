"""Time the same computation on both sides: a prompt or a prefix ahead of the input.

A block is one epoch over its own rows, the same on every side, from the same vectors. PEFT at its best gets
softprompt's batches, so the losses of all steps of a prompt must be equal, which tests the forward pass, the
gradient and the optimizer at once. For a prefix only a block's first loss must be equal: PEFT keeps its keys
rotated to other positions, and AdamW, which updates each number separately, moves them differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

from benchmarks import base_models

from .line import Line, apart
from .options import Options
from .ours import Block, Ours, batches
from .rows import encoded
from .theirs import Peft

ALLOWED = 1e-3  # of losses, in float32
SIDES = ("ours", "as run", "at its best")


def prompts(options: Options) -> Iterator[Line]:
    """Measure examples a second of `prompt-tuning` before the input, against PEFT as run and at its best."""
    yield from _compared(options, "same-maths", "prompt-tuning", {"as run": 2.0, "at its best": 1.4}, None)


def prefixes(options: Options) -> Iterator[Line]:
    """Measure examples a second of `prefix-tuning` before the input, against PEFT as run and at its best."""
    yield from _compared(options, "prefix", "prefix-tuning", {"as run": 1.5, "at its best": 1.5}, 1)


def _compared(
    options: Options, measure: str, method: str, goals: dict[str, float], same_steps: int | None
) -> Iterator[Line]:
    """Compare the sides; the first `same_steps` losses of a block must be equal (None: all)."""
    for name in options.sets:
        for dtype in options.dtypes:
            lm = base_models.load(options.model, dtype)
            rows = encoded(options.data, name, options.blocks * options.steps * options.batch, lm.tokenizer)
            ours = Ours(lm, method, rows)
            blocks_of = in_turns(options, ours, Peft(options.model, dtype, ours))
            speed = {
                side: options.steps * options.batch / median(b.seconds for b in blocks)
                for side, blocks in blocks_of.items()
            }
            mine, theirs = (
                [x for b in blocks_of[side] for x in b.losses[:same_steps]]
                for side in ("ours", "at its best")
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
    """Run the sides in turns and return their blocks."""
    size, steps, batch = options.steps * options.batch, options.steps, options.batch
    blocks_of: dict[str, list[Block]] = {side: [] for side in sides}
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
                blocks_of[side].append(block_of_side)
    return blocks_of
