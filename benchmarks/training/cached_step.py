"""Time a step with long inputs: cached, recomputed, and in full.

The sides are `prefix-tuning` after the input from a cache, the same with its inputs run again in every step,
and `prefix-tuning` ahead of the input, which runs everything forward and backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks import base_models

from .line import Line, apart
from .options import Options
from .ours import Block, Mode, Ours, kept
from .rows import filled

ALLOWED = {"float32": 1e-3, "bfloat16": 5e-2}  # of losses: in bfloat16 rounding depends on the batch
STEPS: dict[Mode, int] = {"cached": 8, "recompute": 2, "full": 1}  # of a block; fewer suffice for long ones
GOAL = 20.0


def measure(options: Options) -> Iterator[Line]:
    """Time a step with inputs of `options.inputs` tokens: full and recomputed, against cached."""
    for dtype in options.dtypes:
        lm = base_models.load(options.model, dtype)
        steps = min(options.steps, STEPS["cached"])
        rows = filled(options.data, "boolq", options.input_rows * steps, options.inputs, lm.tokenizer)
        sides = {
            "cached": Ours(lm, "prefix-tuning", rows, "cached", kept(lm, rows)),
            "recompute": Ours(lm, "prefix-tuning", rows, "recompute"),
            "full": Ours(lm, "prefix-tuning", rows, "full"),
        }
        blocks_of = in_turns(options, sides)
        seconds = {mode: median(_per_step(b) for b in blocks) for mode, blocks in blocks_of.items()}
        again = blocks_of["recompute"][0].losses
        first = sides["cached"].train(
            list(range(options.input_rows * len(again))), len(again), options.input_rows
        )
        wrong = apart(first.losses, again, ALLOWED[dtype], "cached against recomputed")
        for mode, goal in (("full", GOAL), ("recompute", None)):
            yield Line(
                "cached-step",
                f"{options.inputs} tokens × {options.input_rows} rows, {dtype}, against {mode}",
                1000 * seconds["cached"],
                1000 * seconds[mode],
                "ms/step",
                seconds[mode] / seconds["cached"],
                goal,
                wrong=wrong,
            )


def in_turns(options: Options, sides: dict[str, Ours]) -> dict[str, list[Block]]:
    """Return each side's blocks; all take their rows from the first on."""
    blocks_of: dict[str, list[Block]] = {mode: [] for mode in sides}
    for block in range(-1, options.blocks):  # the first one only warms the machine up
        for mode, side in sides.items():
            steps = 1 if block < 0 else min(options.steps, STEPS[mode])
            trained = side.train(list(range(options.input_rows * steps)), steps, options.input_rows)
            if block >= 0:
                blocks_of[mode].append(trained)
    return blocks_of


def _per_step(block: Block) -> float:
    return block.seconds / len(block.losses)
