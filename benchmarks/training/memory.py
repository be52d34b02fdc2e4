"""Measure peak resident memory above the loaded model, each side in its own process.

Every module is imported and every weight touched before the steps begin, and the system's record of
the peak is reset then, so that neither imports nor loading count.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .line import Line, apart
from .options import Options

STEPS = 3


def measure(options: Options) -> Iterator[Line]:
    """Measure peak bytes of three steps of `prompt-tuning` ahead of the input; PEFT gets the same batches."""
    for name in options.sets:
        for dtype in options.dtypes:
            ours, theirs = (in_a_process(options, name, dtype, side) for side in ("ours", "peft"))
            wrong = apart(ours["losses"], theirs["losses"], 1e-3, "training beside PEFT")
            yield Line(
                "memory",
                f"{name}, {dtype}",
                ours["bytes"] / 1e6,
                theirs["bytes"] / 1e6,
                "MB",
                ours["bytes"] / max(1, theirs["bytes"]),
                0.5,
                at_most=True,
                wrong=wrong if dtype == "float32" else "",
            )


def in_a_process(options: Options, name: str, dtype: str, side: str) -> dict[str, Any]:
    """Call `run` in a new process and return its result; `side` is "ours" or "peft"."""
    start = "from benchmarks.training.memory import main; main()"
    command = [sys.executable, "-W", "ignore", "-c", start, json.dumps(options.to_json()), name, dtype, side]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(options: Options, name: str, dtype: str, side: str) -> dict[str, Any]:
    """Train, and return the peak above the loaded model in bytes and the losses of the steps."""
    import torch

    import softprompt

    from .ours import Ours, batches
    from .rows import encoded

    if options.threads:
        torch.set_num_threads(options.threads)
    lm: Any = softprompt.load(options.model, dtype=dtype)  # type: ignore[arg-type]
    rows = encoded(options.data, name, STEPS * options.batch, lm.tokenizer)
    ours = Ours(lm, "prompt-tuning", rows)
    chosen = list(range(len(rows)))
    if side == "ours":
        before = _from_here(lm.model)
        block = ours.train(chosen, STEPS, options.batch)
        return {"bytes": _peak() - before, "losses": block.losses}
    from transformers import Trainer, TrainingArguments  # noqa: F401  imports are not the training's memory

    from .theirs import Peft

    peft = Peft(options.model, dtype, ours)
    same = [rows[i] for part in batches(rows, chosen, STEPS, options.batch) for i in part]
    del lm, ours
    before = _from_here(peft.model)
    block = peft.train(same, STEPS, options.batch, ordered=True)
    return {"bytes": _peak() - before, "losses": block.losses}


def _from_here(model: Any) -> int:
    """Return the resident bytes with all weights in memory; reset the peak if the system can (Linux)."""
    import ctypes
    import gc

    import psutil

    for weight in model.parameters():
        weight.detach().flatten()[::1024].float().sum()  # a number of every page, where weights are mapped
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # freed memory returns to the system, and cannot hide later allocations
    record = Path("/proc/self/clear_refs")
    if record.exists():
        record.write_text("5")
    return psutil.Process().memory_info().rss


def _peak() -> int:
    from softprompt._system.memory import peak_memory

    return peak_memory()


def main() -> None:
    """Run one side; its process starts here."""
    print(json.dumps(run(Options.of_json(json.loads(sys.argv[1])), *sys.argv[2:])))
