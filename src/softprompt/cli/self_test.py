"""A tiny random model is trained for some steps and answers, as a test of what is installed."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .._system.notes import logger
from .._system.progress import following


def self_test() -> list[dict[str, Any]]:
    """Run each check and return its name, whether it passed, its seconds, and what was seen.

    A check that raises has failed with that error. The checks after a failed one are left out.
    """
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, _silence():
        checks = _checks(Path(folder))
        while True:
            begun = time.perf_counter()
            try:
                name, passed, seen = next(checks)
            except StopIteration:
                return results
            except Exception as error:  # whatever an installation raises is its result
                name, passed, seen = "the next check", False, f"{type(error).__name__}: {str(error)[:300]}"
            seconds = round(time.perf_counter() - begun, 3)
            results.append({"name": name, "passed": passed, "seconds": seconds, "seen": seen})
            if not passed:
                return results


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Show no progress and no notes: a run of three steps on twelve rows has nothing to say."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with following(None):
            yield
    finally:
        logger.setLevel(level)


def _checks(folder: Path) -> Iterator[tuple[str, bool, str]]:
    import softprompt

    from ..lm.causal import CausalLM
    from ..lm.families import tiny
    from ..testing.material import tiny_tokenizer

    softprompt.tune  # noqa: B018  its import is the slow part
    yield "the packages are imported", True, "torch, transformers and the library"

    lm = CausalLM(tiny("llama"), tiny_tokenizer(), "tiny-llama")
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    limits = ", ".join(map(str, lm.spec.limits))
    yield "a tiny model is loaded and probed", not limits, limits or "no limits"

    rows = [{"input": f"w{i} w{i + 1}", "target": ("w1", "w2")[i % 2]} for i in range(3, 15)]
    for method in ("prompt-tuning", "prefix-tuning"):
        tuned = softprompt.tune(
            lm, method, rows, length=3, output=folder / method, steps=3, dtype="float32", seed=0
        )
        name, score = next(iter(tuned.metrics.items()))
        yield f"three steps of {method}", math.isfinite(score), f"{name} {score:.3f} on rows held out"
        inputs = ["w5 w6", "w7 w8 w9 w10 w11"]
        together = tuned.generate(inputs, max_new_tokens=4)
        alone = [tuned.generate(text, max_new_tokens=4) for text in inputs]
        yield f"answers under {method}", together == alone, "a batch answers as its rows alone"
    same = all(torch.equal(value, before[name]) for name, value in lm.model.state_dict().items())
    yield "the model's weights are unchanged", same, "the same bytes"
