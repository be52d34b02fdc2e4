"""Run one kind of work with the modules that are on the path, and print its seconds as one JSON object.

`python work.py KIND SHARE CLOCK MODEL`: this file runs under two versions of the package, so it uses what
both have.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

import softprompt
from softprompt import methods
from softprompt.cache import InputCache

TOKENS, AT_ONCE, MANY = 48, 8, 60
REPEATS = 5  # of a step
LETTERS = 24  # of a row of the demo on a tiny model, which has a token for each
LEAST = 40  # rows of each part of the demo: some of every prompt
REVIEWS = ("a tired film that never finds its way", "warm, funny and quietly moving", "loud and hollow")


def answers(model: str, share: float) -> Iterator[tuple[str, Callable[[], Any], int]]:
    """Yield the demo's test rows, answered by the plain model eight at a time, and many at once."""
    from softprompt.data.encode import Encoder
    from softprompt.data.task import Task
    from softprompt.data.template import Template
    from softprompt.evaluation.evaluator import Evaluator

    lm = softprompt.load(model, dtype="auto")
    chat = bool(lm.tokenizer.chat_template)
    template = Template("{{ instruction }}\n\n{{ input }}", "{{ target }}", chat=chat)
    encoder = Encoder(lm.tokenizer, template, Task())
    examples = [encoder.encode(row) for row in _demo_rows(max(2 * AT_ONCE, round(MANY * share)))]
    tokens = TOKENS if share == 1 else 4
    evaluator, plain = Evaluator(lm, encoder, max_new_tokens=tokens), methods.build("none", _setting(lm))

    def texts(rows: Any) -> None:
        evaluator._texts(plain, list(rows), InputCache(), None)

    texts(examples[:2])  # warms the machine up
    few = examples[: 3 * AT_ONCE]
    groups = [few[at : at + AT_ONCE] for at in range(0, len(few), AT_ONCE)]
    yield f"{AT_ONCE} rows at a time", lambda: [texts(rows) for rows in groups], len(groups)
    yield f"{len(examples)} rows", lambda: texts(examples), 1


def steps(model: str, share: float) -> Iterator[tuple[str, Callable[[], Any], int]]:
    """Yield cached steps of a classification: prefixes and soft tokens after the input."""
    from benchmarks.training.ours import Ours, kept
    from softprompt.data.encode import Encoder
    from softprompt.data.task import Task
    from softprompt.data.template import Template

    lm = softprompt.load(model, dtype="auto")
    encoder = Encoder(lm.tokenizer, Template("{{ input }}", "{{ target }}"), Task())
    texts = [{"input": f"{REVIEWS[i % 3]} {i}", "target": ("good", "bad")[i % 2]} for i in range(64)]
    rows = [encoder.encode(row) for row in texts]
    cache = kept(lm, rows)
    for name, length in (("prefix-tuning", 16), ("prompt-tuning", 16)):
        side = Ours(lm, name, rows, "cached", cache, length=length)
        for size in (8, 32):
            if name == "prefix-tuning" or size == 8:
                run = lambda side=side, size=size: side.train(list(range(size)), 3, size)  # noqa: E731
                run()
                yield f"a cached step of {size} rows, {name}", run, 3


def demo(model: str, share: float) -> Iterator[tuple[str, Callable[[], Any], int]]:
    """Yield the demo, with a share of its rows and steps and without its limit of time."""
    from softprompt_demo import plan, run, state

    rows = run.demo_rows

    def fewer() -> Any:
        data = rows()
        parts = {name: getattr(data, name) for name in ("train", "dev", "test")}
        chosen = {name: part[: max(LEAST, round(len(part) * share))] for name, part in parts.items()}
        if model != "smollm2":  # whose context has room for a prompt's demonstrations
            chosen = {name: [_cut(row) for row in part] for name, part in chosen.items()}
        return replace(data, **chosen)

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            run.main(folder=Path(folder))

    for module in (plan, state):
        for name in ("SECONDS", "AT_MOST"):
            if hasattr(module, name):
                setattr(module, name, 1e9)
    run.STEPS, run.demo_rows = max(1, round(run.STEPS * share)), fewer
    if model != "smollm2":
        load = run.loading.load
        run.loading.load = lambda *_: _talking(load(model))
    yield f"the demo, {share:.0%} of its rows and steps", whole, 1


def _cut(row: dict[str, str]) -> dict[str, str]:
    return {**row, "input": row["input"][:LETTERS], "target": row["target"][:LETTERS]}


def _talking(lm: Any) -> Any:
    lm.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return lm


def _demo_rows(count: int) -> list[dict[str, str]]:
    from softprompt_demo.corpus import INSTRUCTIONS, demo_rows

    return [{**row, "instruction": INSTRUCTIONS[row["prompt"]]} for row in demo_rows().test[:count]]


def _setting(lm: Any) -> Any:
    return methods.Setting(lm, ("default",))


KINDS = {"answers": answers, "steps": steps, "demo": demo}


def main(kind: str, share: str, clock: str, model: str) -> None:
    """Print the seconds of each case of the work."""
    torch.set_num_threads(1)
    now, seconds = getattr(time, clock), {}
    for case, work, times in KINDS[kind](model, float(share)):
        taken = []
        for _ in range(REPEATS if kind == "steps" and float(share) == 1 else 1):
            started = now()
            work()
            taken.append(now() - started)
        seconds[case] = median(taken) / times
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
