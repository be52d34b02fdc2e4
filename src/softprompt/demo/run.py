"""`softprompt demo`: the main job on real rows, end to end, in minutes on two cores.

It tunes a prompt table, a per-layer prefix and a generated prefix on the demo's rows (see `corpus`),
measures them beside the plain model on rows never seen in training, and prints one table, three
inputs with everybody's answers, and what to type next. This file holds no mathematics: it calls what
a user's own recipe would call.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from ..config import recipe_from_dict
from ..data.encode import Encoder, Example
from ..data.room import Room
from ..evaluate import Evaluation, Evaluator, Record, score
from ..methods.base import SoftPrompt
from .corpus import INSTRUCTIONS, PROMPTS, DemoData, demo_rows, write_demo_files

FOLDER = Path("runs/demo")
SHOTS = 3
NEW_TOKENS = 48
CHECKED = "rewrite"  # the prompt whose outputs have a reference to be held against

#: The three tuned contestants: a recipe's method section and its steps.
CONTESTANTS: dict[str, tuple[dict[str, Any], int]] = {
    "prompt-tuning": ({"name": "prompt-tuning", "length": 8, "placement": "after"}, 80),
    "prefix-tuning": ({"name": "prefix-tuning", "length": 8, "placement": "after"}, 80),
    "generated-prefix": ({"name": "generated-prefix", "length": 8, "placement": "after"}, 80),
}


@dataclass(frozen=True)
class Line:
    """One row of the demo's table."""

    name: str
    evaluation: Evaluation
    parameters: int
    bytes: int
    seconds: float
    peak_bytes: int

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            **self.evaluation.to_json(),
            "trained_parameters": self.parameters,
            "artifact_bytes": self.bytes,
            "seconds": round(self.seconds, 1),
            "peak_memory_bytes": self.peak_bytes,
        }


def recipe(name: str, folder: Path) -> dict[str, Any]:
    """The recipe of a contestant, as a user would write it."""
    method, steps = CONTESTANTS[name]
    data = folder / "data"
    return {
        "model": "smollm2",
        "data": {
            "train": str(data / "train.jsonl"),
            "dev": str(data / "dev.jsonl"),
            "test": str(data / "test.jsonl"),
            "prompt_field": "prompt",
        },
        "template": {"chat": True},
        "task": {"kind": "generation", "max_new_tokens": NEW_TOKENS},
        "method": method,
        "train": {"steps": steps, "batch_size": 16, "eval_every": 20},
        "output": str(folder / name),
    }


def main(as_json: bool = False, folder: Path | None = None) -> int:
    """Run the demo; tables on stdout (or one JSON object), progress on stderr."""
    from ..lm.loading import load

    started = time.perf_counter()
    folder = folder or FOLDER
    data = demo_rows()
    write_demo_files(folder / "data")
    say = _narrator(sys.stderr, started)
    say("loading smollm2")
    lm = load("smollm2")
    lines = _reference_lines(lm, data, say)
    for name in CONTESTANTS:
        lines.append(_tuned_line(lm, name, folder, say))
    seconds = time.perf_counter() - started
    if as_json:
        print(json.dumps({"lines": [line.to_json() for line in lines], "seconds": round(seconds, 1)}))
        return 0
    from .table import show

    show(lines, data, folder, seconds)
    return 0


def _reference_lines(lm: Any, data: DemoData, say: Callable[[str], None]) -> list[Line]:
    """The plain model with an instruction, and with demonstrations too: no prompt id tells it what to do."""
    lines = []
    for name, shots in (("zero-shot", 0), (f"{SHOTS}-shot", SHOTS)):
        say(f"plain model, {name}")
        with PeakMemory() as peak:
            started = time.perf_counter()
            evaluator, examples = _instructed(lm, data, shots)
            evaluation = evaluate(evaluator, _plain(lm), examples)
            lines.append(Line(name, evaluation, 0, 0, time.perf_counter() - started, peak.bytes()))
    return lines


def _tuned_line(lm: Any, name: str, folder: Path, say: Callable[[str], None]) -> Line:
    from ..data.sources import read_rows
    from ..prepare import prepare
    from ..train import Event
    from ..tuning import Hooks, evaluator_of, tune

    settings = recipe_from_dict(recipe(name, folder))
    say(f"{name}: preparing")

    def follow(event: Event) -> None:
        if event.dev is not None:
            shown = f"{event.dev.name} {event.dev.shown:.1f}"
            say(f"{name}: step {event.step}/{event.steps}, dev {shown}, {event.seconds_left:.0f} s left")

    with PeakMemory() as peak:
        started = time.perf_counter()
        prepared = prepare(settings, lm=lm)
        run = tune(prepared, hooks=Hooks(on_event=follow), overwrite=True, text_rows=0)
        seconds = time.perf_counter() - started
        say(f"{name}: answering the test rows")
        test = prepared.encoder.encode_rows(read_rows(str(settings.data.test), split="test"))
        evaluation = evaluate(evaluator_of(settings, lm, prepared.encoder), prepared.method, test)
        return Line(name, evaluation, prepared.trained_parameters, run.artifact.bytes, seconds, peak.bytes())


def evaluate(evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example]) -> Evaluation:
    """Perplexity over all rows, chrF over those with a reference that an output can be held against."""
    result = replace(evaluator, metrics=("perplexity", "chrf")).run(method, examples)
    checked = [
        r for r, e in zip(result.records, examples, strict=True) if e.rendered.row["prompt"] == CHECKED
    ]
    return Evaluation({**result.metrics, **score(["chrf"], checked)}, result.records)


def _instructed(lm: Any, data: DemoData, shots: int) -> tuple[Evaluator, list[Example]]:
    """Test rows whose input tells the plain model in words what a tuned prompt knows by its id."""
    from ..data.template import Template
    from ..fewshot import few_shot

    template = Template("{{ instruction }}\n\n{{ input }}", "{{ target }}", chat=True, prompt_field="prompt")
    encoder = Encoder(lm.tokenizer, template, chat=True, prompts=PROMPTS, room=Room(lm.spec.context))

    def instructed(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        return [{**row, "instruction": INSTRUCTIONS[row["prompt"]]} for row in rows]

    examples = few_shot(encoder, instructed(data.train), instructed(data.test), shots)
    return Evaluator(lm, encoder, max_new_tokens=NEW_TOKENS), examples


def _plain(lm: Any) -> SoftPrompt:
    from .. import methods

    return methods.build("none", methods.Setting(lm, PROMPTS))


def copied(data: DemoData) -> Evaluation:
    """The score of answering with the input itself: what any rewriting must beat."""
    rows = [row for row in data.test if row["prompt"] == CHECKED]
    records = [Record(r["input"], r["input"], (r["target"],), 0, 0.0, 1) for r in rows]
    return Evaluation(score(["chrf"], records), records)


class PeakMemory:
    """Largest resident size of this process while a block runs (the system's own peak never falls)."""

    def __enter__(self) -> PeakMemory:
        import psutil

        _give_back()
        self._process, self._peak, self._done = psutil.Process(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def bytes(self) -> int:
        """So far."""
        return max(self._peak, self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self._peak = max(self._peak, self._process.memory_info().rss)


def _give_back() -> None:
    """Return freed memory to the system, so that what one contestant held does not count for the next."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _narrator(stream: TextIO, started: float) -> Callable[[str], None]:
    def say(text: str) -> None:
        print(f"[{time.perf_counter() - started:4.0f} s] {text}", file=stream, flush=True)

    return say
