"""Measure the README's table: softprompt and PEFT on one model, in turns in one run.

    python -m benchmarks.beside_peft [--data DIR] [--dtype bfloat16] [--threads N] [--cpu] [--json]
    python -m benchmarks.beside_peft --short

The four rows are pairs of medians: training steps a second, peak memory above the loaded model, the error of
a padded batch, and how many prompts one batch serves. PEFT gets the same batches as softprompt, whose rows
have similar lengths; that is faster than its own random order. Training is `prompt-tuning` with 16 vectors
ahead of the input. The rows are made-up reviews, or those of `DIR/sst2/train.jsonl` (`input` and `target`).

An error is the largest difference of a logit, as a share of the largest logit. A prompt is served if its
row's logits in the mixed batch equal those of the row alone, to a thousandth. The command fails if
softprompt is not exact, or if the losses of the two trainings differ in float32. `--short` runs on a tiny
random model: its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import logging

import softprompt
from softprompt import methods
from softprompt.data.collate import batch_of_ids
from softprompt.lm.base import LanguageModel
from softprompt.methods.base import Setting, SoftPrompt

from .command import need_peft
from .exactness.rows import ROUNDING, difference
from .training import clock, memory, tiny
from .training.line import apart
from .training.machine import where
from .training.options import Options
from .training.ours import LENGTH, Ours
from .training.rows import encoded
from .training.same_maths import ALLOWED, in_turns
from .training.theirs import Peft

SET = "sst2"
ALIKE = 1e-3  # of the largest logit: the answer of a row in a mixed batch is its answer alone


@dataclass(frozen=True, slots=True)
class Pair:
    """A row compares both sides. `wrong` says why the result cannot be used; it is empty where it can."""

    measure: str
    ours: float
    peft: float
    unit: str
    wrong: str = ""

    def cells(self) -> tuple[str, str, str, str]:
        """Format the measure, both numbers and their ratio."""
        form = "{:.1e}" if self.unit == "" else "{:,.3g}" if self.ours < 100 else "{:,.0f}"
        numbers = (f"{form.format(number)} {self.unit}".strip() for number in (self.ours, self.peft))
        return self.measure, *numbers, _ratio(self.ours, self.peft) if self.unit else ""


def measure(options: Options, dtype: str, prompts: int) -> list[Pair]:
    """Measure the four rows of the table."""
    lm = softprompt.load(options.model, dtype=dtype)  # type: ignore[arg-type]
    rows = encoded(options.data, SET, options.blocks * options.steps * options.batch, lm.tokenizer)
    ours = Ours(lm, "prompt-tuning", rows)
    peft = Peft(options.model, dtype, ours)
    pairs = [_speed(options, dtype, ours, peft), _memory(options, dtype)]
    # exactness is measured in float32, whatever precision the training has
    lm = lm if dtype == "float32" else softprompt.load(options.model, dtype="float32")
    peft = peft if dtype == "float32" else Peft(options.model, "float32", Ours(lm, "prompt-tuning", rows))
    by_length = sorted({row.input_ids for row in rows}, key=len)
    return [*pairs, *_exactness(lm, peft.model, by_length[0], by_length[-1], prompts)]


def _speed(options: Options, dtype: str, ours: Ours, peft: Peft) -> Pair:
    sides = ("ours", "at its best")
    blocks = in_turns(options, ours, peft, sides)
    speed, losses = {}, {}
    for side in sides:
        speed[side] = options.steps / median(block.seconds for block in blocks[side])
        losses[side] = [loss for block in blocks[side] for loss in block.losses]
    differ = apart(losses["ours"], losses["at its best"], ALLOWED, "training beside PEFT")
    wrong = differ if dtype == "float32" else ""
    return Pair("training steps a second", speed["ours"], speed["at its best"], "steps/s", wrong)


def _memory(options: Options, dtype: str) -> Pair:
    peaks: dict[str, list[float]] = {"ours": [], "peft": []}
    for _ in range(options.blocks):
        for side, values in peaks.items():
            values.append(memory.in_a_process(options, SET, dtype, side)["bytes"] / 1e6)
    return Pair("peak memory above the model", median(peaks["ours"]), median(peaks["peft"]), "MB")


@torch.no_grad()
def _exactness(
    lm: LanguageModel, peft: Any, short: Sequence[int], long: Sequence[int], prompts: int
) -> list[Pair]:
    names = [f"prompt {i}" for i in range(prompts)]
    torch.manual_seed(0)
    method = methods.build(
        "prompt-tuning", Setting(lm, names), {"length": LENGTH, "placement": "before", "init": "vocab"}
    )
    for i, name in enumerate(names):
        peft.add_adapter(name, peft.peft_config["default"])
        vectors = method(torch.tensor([i])).before
        assert vectors is not None
        peft.prompt_encoder[name].embedding.weight.copy_(vectors.vectors[0])
    peft.set_adapter(names[0])
    peft.eval()
    error = _padded_ours(lm, method, short, long)
    served = _served_ours(lm, method, short, prompts)
    return [
        Pair(
            "error of a padded batch",
            error,
            _padded_peft(peft, short, long),
            "",
            "" if error <= ROUNDING else f"a padded row differs by {error:.1e}",
        ),
        Pair(
            f"prompts that one batch of {prompts} rows serves",
            served,
            _served_peft(peft, names, short),
            f"of {prompts}",
            "" if served == prompts else f"only {served} of {prompts} rows got their own prompt",
        ),
    ]


def _padded_ours(lm: LanguageModel, method: SoftPrompt, short: Sequence[int], long: Sequence[int]) -> float:
    injection = method(torch.tensor([0]))
    together = lm.logits(batch_of_ids([long, short], [[1], [1]]), injection)[1]
    return difference(together, lm.logits(batch_of_ids([short], [[1]]), injection)[0])


def _padded_peft(model: Any, short: Sequence[int], long: Sequence[int]) -> float:
    gap = len(long) - len(short)
    ids = torch.tensor([[*long], [0] * gap + [*short]])
    mask = torch.tensor([[1] * len(long), [0] * gap + [1] * len(short)])
    together = model(input_ids=ids, attention_mask=mask).logits[1, -1]
    return difference(together, _alone(model, short))


def _served_ours(lm: LanguageModel, method: SoftPrompt, row: Sequence[int], prompts: int) -> int:
    mixed = lm.logits(batch_of_ids([row] * prompts, [[1]] * prompts), method(torch.arange(prompts)))
    single = batch_of_ids([row], [[1]])
    alone = [lm.logits(single, method(torch.tensor([i])))[0] for i in range(prompts)]
    return sum(difference(a, b) <= ALIKE for a, b in zip(mixed, alone, strict=True))


def _served_peft(model: Any, names: Sequence[str], row: Sequence[int]) -> int:
    ids = torch.tensor([[*row]] * len(names))
    mixed = model(input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=[*names]).logits[:, -1]
    alone = []
    for name in names:
        model.set_adapter(name)
        alone.append(_alone(model, row))
    return sum(difference(a, b) <= ALIKE for a, b in zip(mixed, alone, strict=True))


def _alone(model: Any, row: Sequence[int]) -> Tensor:
    ids = torch.tensor([[*row]])
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]


def _ratio(ours: float, peft: float) -> str:
    if not ours or not peft:
        return ""
    return f"{ours / peft:.2g} ×"


def table(pairs: Sequence[Pair]) -> str:
    """Format the rows as a Markdown table."""
    rows = [("", "softprompt", "PEFT", "softprompt / PEFT"), ("---",) * 4, *(pair.cells() for pair in pairs)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where our side is right, however fast or slow."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.beside_peft",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, help="folder that holds sst2/train.jsonl; by default made-up rows"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--blocks", type=int, default=5, help="times that each side has its turn (5)")
    parser.add_argument("--steps", type=int, default=4, help="training steps of a block (4)")
    parser.add_argument("--prompts", type=int, default=64, help="prompts of the mixed batch (64)")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its default")
    parser.add_argument("--cpu", action="store_true", help="processor time, for a machine with other work")
    parser.add_argument("--short", action="store_true", help="everything once, on a tiny model")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args(arguments)
    need_peft(parser)
    if args.cpu:
        clock.use_processor_time()
    if args.threads:
        torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of other libraries
        data = args.data or tiny.write_rows(Path(folder) / "rows", args.blocks * args.steps * 16, longest=40)
        options = Options(data, blocks=args.blocks, steps=args.steps, threads=args.threads)
        if args.short:
            options = options.in_short(*tiny.make(Path(folder)))
        pairs = measure(replace(options, sets=(SET,)), args.dtype, 4 if args.short else args.prompts)
    seconds = "processor time" if args.cpu else "wall-clock time"
    place = f"{where()}; load {load:.1f} at the start; {seconds}"
    if args.json:
        print(json.dumps({"where": place, "dtype": args.dtype, "rows": [asdict(pair) for pair in pairs]}))
    else:
        print(f"{table(pairs)}\n\n{args.dtype}; {place}")
    wrong = [f"{pair.measure}: {pair.wrong}" for pair in pairs if pair.wrong]
    if wrong:
        print("not as it should be:\n" + "\n".join(wrong), file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
