"""Compare the plug-in with lm-evaluation-harness's own `hf` model, on a plain base model.

    python -m benchmarks.harness [--model smollm2] [--rows N] [--batch N] [--dtype float32]

Requests are made of the demo's texts: four continuations of each input, whole texts, and generated texts.
Printed for each kind: how many requests, the seconds of each model (the second of two runs in turns), and
the largest difference of a log-likelihood. The command fails if a flag or a generated text differs.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import softprompt
from softprompt.harness.model import SoftPromptLM
from softprompt.lm import locate
from softprompt.lm.loading import ALIASES
from softprompt_demo.corpus import demo_rows


def requests(rows: int) -> dict[str, list[Instance]]:
    """Return requests of each kind, made of the demo's rows."""
    texts = [row for row in demo_rows().train if row["prompt"] == "old"][:rows]
    pairs = [
        (row["input"], " " + texts[(i + k) % len(texts)]["target"])
        for i, row in enumerate(texts)
        for k in range(4)
    ]
    options = {"until": ["\n"], "max_gen_toks": 16}
    kinds: dict[str, list[Any]] = {
        "loglikelihood": pairs,
        "loglikelihood_rolling": [(row["target"],) for row in texts],
        "generate_until": [(row["input"], options) for row in texts],
    }
    return {kind: [Instance(kind, {}, arg, 0) for arg in args] for kind, args in kinds.items()}


def main() -> int:
    """Run the comparison, and return 1 where the two models differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harness", description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    path, _ = locate.find(options.model, ALIASES)
    theirs = HFLM(pretrained=str(path), dtype=options.dtype, device="cpu", batch_size=options.batch)
    lm = softprompt.load(options.model, dtype=options.dtype)
    ours = {
        "softprompt": SoftPromptLM(lm=lm, batch_size=options.batch),
        "softprompt, auto": SoftPromptLM(lm=lm),
    }
    wrong = False
    for kind, batch in requests(options.rows).items():
        seconds, answers = {}, {}
        for _ in range(2):
            for name, model in {"hf": theirs, **ours}.items():
                start = time.perf_counter()
                answers[name] = getattr(model, kind)(batch, disable_tqdm=True)
                seconds[name] = time.perf_counter() - start
        difference, same = compared(answers["hf"], [answers[name] for name in ours])
        wrong |= not same
        times = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(
            f"{kind}: {len(batch)} requests; {times}; largest difference {difference:.1e}; equal: {same}",
            flush=True,
        )
    return int(wrong)


def compared(wanted: list[Any], others: list[list[Any]]) -> tuple[float, bool]:
    """Return the largest difference of a number, and whether all flags and texts are the same."""
    if isinstance(wanted[0], str):
        return 0.0, all(answers == wanted for answers in others)
    values = [
        [item[0] if isinstance(item, tuple) else item for item in answers] for answers in (wanted, *others)
    ]
    flags = [[item[1] for item in answers if isinstance(item, tuple)] for answers in (wanted, *others)]
    far = max(abs(a - b) for answers in values[1:] for a, b in zip(values[0], answers, strict=True))
    return far, all(answers == flags[0] for answers in flags)


if __name__ == "__main__":
    raise SystemExit(main())
