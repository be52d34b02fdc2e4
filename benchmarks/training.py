"""Training steps beside PEFT: the same model, rows, batch and optimizer, in alternation.

    python -m benchmarks.training --data DIR [--steps N] [--blocks N] [--batch N] [--dtype float32] [--json]

`DIR` holds train.jsonl with `input` and `target` (SST-2, AG News). First both sides compute the loss of one
batch under the same vectors; more than 1e-3 apart in float32 ends the run with exit code 1. Then they train
in blocks, one after the other in one process, and the medians of examples a second are compared. Peak memory
above the loaded model comes from fresh processes. PEFT is run as people do (transformers' `Trainer`, right
padding) and at its best (rows grouped by length).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

TEMPLATE = "Review: {input}\nSentiment:"
LENGTH, LR = 16, 1e-2
METHODS = ("prompt-tuning", "prefix-tuning")
SIDES = ("ours", "peft", "peft-grouped")


def rows_of(data: Path, count: int, tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Token ids of input and target."""
    lines = (data / "train.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    rows = [json.loads(line) for line in lines]
    return [
        (
            tokenizer(TEMPLATE.format(**row), add_special_tokens=False)["input_ids"],
            tokenizer(" " + row["target"], add_special_tokens=False)["input_ids"],
        )
        for row in rows
    ]


class Ours:
    """This library's loop over its own steps."""

    def __init__(self, lm: Any, method: str, rows: Sequence, batch: int) -> None:
        from softprompt import methods

        setting = methods.Setting(lm, examples=tuple(tuple(i) for i, _ in rows[:8]))
        options = {"length": LENGTH, "placement": "before", "init": "vocab"}
        self.lm, self.rows, self.batch = lm, rows, batch
        self.method = methods.build(method, setting, options)

    def vectors(self) -> Any:
        import torch

        return self.method(torch.zeros(1, dtype=torch.long))

    def collated(self, indices: Sequence[int]) -> Any:
        from softprompt.data.collate import batch_of_ids

        return batch_of_ids([self.rows[i][0] for i in indices], [self.rows[i][1] for i in indices])

    def loss(self, indices: Sequence[int]) -> Any:
        from softprompt.objectives import next_token

        return next_token(self.lm, self.method, self.collated(indices))

    def train(self, steps: int, seed: int) -> float:
        """Seconds of `steps` steps."""
        from softprompt.train import DevScore, Optimization, fit

        lengths = [len(a) + len(b) for a, b in self.rows]
        how = Optimization(steps, LR, self.batch, seed=seed, eval_every=steps + 1)
        started = time.perf_counter()
        fit(self.lm, self.method, self.loss, lengths, lambda: DevScore((0.0,), "", 0.0), how)
        return time.perf_counter() - started


class Peft:
    """The same prompt or prefix in PEFT, trained by transformers' Trainer."""

    def __init__(self, name: str, dtype: str, ours: Ours, method: str, rows: Sequence, batch: int) -> None:
        import torch
        from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        from softprompt.lm import smollm2

        folder = str(smollm2.folder()) if name == "smollm2" else name
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        kind = PromptTuningConfig if method == "prompt-tuning" else PrefixTuningConfig
        self.model: Any = get_peft_model(base, kind(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH))
        self.rows, self.batch = rows, batch
        self._start_as(ours)

    def _start_as(self, ours: Ours) -> None:
        """The same vectors: the other library's format is ours to write (docs/peft.md)."""
        import torch

        injection = ours.vectors()
        weight = self.model.prompt_encoder["default"].embedding.weight
        with torch.no_grad():
            if injection.before is not None:
                weight.copy_(injection.before.vectors[0])
                return
            layers = ours.lm.move(injection.kv_before.layers, LENGTH)  # PEFT's keys stand at 0 … P-1
            pairs = [t[0].transpose(0, 1).flatten(1) for kv in layers for t in (kv.key, kv.value)]
            weight.copy_(torch.cat(pairs, dim=1))

    def examples(self) -> list[dict[str, list[int]]]:
        return [{"input_ids": a + b, "labels": [-100] * len(a) + b} for a, b in self.rows]

    def collate(self, examples: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        import torch

        width = max(len(e["input_ids"]) for e in examples)

        def padded(key: str, fill: int) -> Any:
            return torch.tensor([e[key] + [fill] * (width - len(e[key])) for e in examples])

        mask = [[1] * len(e["input_ids"]) + [0] * (width - len(e["input_ids"])) for e in examples]
        return {
            "input_ids": padded("input_ids", 0),
            "labels": padded("labels", -100),
            "attention_mask": torch.tensor(mask),
        }

    def loss(self, indices: Sequence[int]) -> Any:
        examples = self.examples()
        return self.model(**self.collate([examples[i] for i in indices])).loss

    def train(self, steps: int, seed: int, grouped: bool) -> float:
        """Seconds of `steps` steps."""
        import tempfile

        from transformers import Trainer, TrainingArguments

        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                max_steps=steps,
                per_device_train_batch_size=self.batch,
                learning_rate=LR,
                lr_scheduler_type="cosine",
                seed=seed,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                logging_steps=10**6,
                use_cpu=True,
                train_sampling_strategy="group_by_length" if grouped else "random",
            )
            trainer = Trainer(
                self.model, arguments, data_collator=self.collate, train_dataset=self.examples()
            )
            started = time.perf_counter()
            trainer.train()
            return time.perf_counter() - started


def compare(args: argparse.Namespace, method: str) -> dict[str, Any]:
    """Losses of one batch, and examples a second of each side."""
    import softprompt

    lm = softprompt.load(args.model, dtype=args.dtype)
    rows = rows_of(args.data, args.rows, lm.tokenizer)
    ours = Ours(lm, method, rows, args.batch)
    theirs = Peft(args.model, args.dtype, ours, method, rows, args.batch)
    first = range(min(args.batch, len(rows)))
    losses = {"ours": ours.loss(first).item(), "peft": theirs.loss(first).item()}
    work: dict[str, Callable[[int, int], float]] = {
        "ours": ours.train,
        "peft": lambda n, s: theirs.train(n, s, False),
        "peft-grouped": lambda n, s: theirs.train(n, s, True),
    }
    for run in work.values():
        run(1, 0)  # warm
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    for block in range(args.blocks):
        for side, run in work.items():
            speeds[side].append(args.steps * args.batch / run(args.steps, block))
    return {
        "method": method,
        "losses": losses,
        "equal": abs(losses["ours"] - losses["peft"]) <= 1e-3 or args.dtype != "float32",
        "examples_per_second": {side: round(median(values), 2) for side, values in speeds.items()},
        "ratio": {
            side: round(median(speeds["ours"]) / median(speeds[side]), 2) for side in ("peft", "peft-grouped")
        },
        "memory_above_model_bytes": {side: memory(args, method, side) for side in ("ours", "peft")},
    }


def memory(args: argparse.Namespace, method: str, side: str) -> int:
    """Peak resident bytes of three steps above the loaded model, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", "--one", method, side, "--data", str(args.data)]
    command += [
        "--batch",
        str(args.batch),
        "--dtype",
        args.dtype,
        "--model",
        args.model,
        "--rows",
        str(args.rows),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def one(args: argparse.Namespace, method: str, side: str) -> int:
    """What `memory` runs."""
    import psutil

    import softprompt
    from softprompt.memory import peak_memory

    lm = softprompt.load(args.model, dtype=args.dtype)
    rows = rows_of(args.data, args.rows, lm.tokenizer)
    ours = Ours(lm, method, rows, args.batch)
    if side == "ours":
        before = psutil.Process().memory_info().rss
        ours.train(3, 0)
        return peak_memory() - before
    theirs = Peft(args.model, args.dtype, ours, method, rows, args.batch)
    del lm, ours.lm
    before = psutil.Process().memory_info().rss
    theirs.train(3, 0, False)
    return peak_memory() - before


def main() -> None:
    """Compare every method and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--steps", type=int, default=8, help="of a block")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", nargs="*", default=list(METHODS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(one(args, *args.one))
        return
    results = [compare(args, method) for method in args.only]
    print(
        json.dumps(
            {"dtype": args.dtype, "batch": args.batch, "results": results}, indent=None if args.json else 2
        )
    )
    sys.exit(0 if all(result["equal"] for result in results) else 1)


if __name__ == "__main__":
    main()
