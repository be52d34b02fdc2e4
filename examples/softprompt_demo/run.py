"""Run the demo: tune, measure beside the plain model on rows never seen in training, and report.

A prompt table, a per-layer prefix and a generated prefix are tuned on the demo's rows. One batch of each part
is timed first, and the demo is fitted to ten minutes (`plan`).
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from softprompt import methods
from softprompt._system.memory import give_back, peak_memory, reset_peak
from softprompt._system.progress import duration
from softprompt.config.load import recipe_from_dict
from softprompt.data.capacity import Room
from softprompt.data.encode import Encoder
from softprompt.data.example import Example
from softprompt.data.fewshot import few_shot
from softprompt.data.task import Limits, Task
from softprompt.data.template import Template
from softprompt.evaluation.evaluator import Evaluator, evaluator_of
from softprompt.evaluation.records import Record
from softprompt.lm import loading
from softprompt.methods.base import SoftPrompt
from softprompt.training.prepare import prepare
from softprompt.training.tune import Hooks, tune

from .corpus import INSTRUCTIONS, PROMPTS, Row, demo_rows, write_rows
from .measure import measure
from .plan import BATCH, Paces, Size, seconds
from .result import DemoResult, TableRow
from .state import Demo
from .table import show

FOLDER = Path("runs/demo")
SHOTS = 3
ANSWERED_AT_ONCE, SCORED_AT_ONCE = 24, 24  # rows between two looks at the clock; answers: the first one
NEW_TOKENS = 48
STEPS = 80
#: The candidates that are tuned.
TUNED = ("prompt-tuning", "prefix-tuning", "generated-prefix")


def recipe(name: str, folder: Path, size: Size) -> dict[str, Any]:
    """Return the recipe of a candidate, as a user would write it."""
    return {
        "model": "smollm2",
        "data": {
            **{split: str(folder / "data" / f"{split}.jsonl") for split in ("train", "dev", "test")},
            "prompt_field": "prompt",
            "limit": size.train,
            "dev_limit": size.dev,
        },
        "template": {"chat": True},
        "task": {"kind": "generation", "max_new_tokens": size.tokens},
        "method": {"name": name, "length": 8, "placement": "after"},
        "train": {
            "steps": size.steps,
            "batch_size": min(BATCH, size.train),
            "eval_every": max(1, size.steps // 4),
        },
        "output": str(folder / name),
    }


def main(as_json: bool = False, folder: Path | None = None) -> int:
    """Run the demo; print tables (or one JSON object) on stdout and progress on stderr."""
    started = time.perf_counter()
    folder = folder or FOLDER
    print("[   0 s] making the rows", file=sys.stderr, flush=True)
    data = demo_rows()
    write_rows(data, folder / "data")
    full = Size(STEPS, len(data.train), len(data.dev), len(data.test), len(data.test), NEW_TOKENS)
    demo = Demo(None, data, folder, started, full)
    demo.report("loading smollm2")
    demo.lm = loading.load("smollm2")
    demo.report(f"measuring a batch of each part ({str(demo.lm.dtype).removeprefix('torch.')})")
    demo.paces = _paces(demo)
    result = DemoResult(_lines(demo), demo.rows, demo.full)
    if as_json:
        print(json.dumps({**result.to_json(), "seconds": round(demo.spent(), 1)}))
    else:
        show(result, folder, demo.spent())
    return 0


def _paces(demo: Demo) -> Paces:
    evaluator, short = _instructed(demo, 0)
    _, long = _instructed(demo, SHOTS)
    settings = recipe_from_dict(recipe(TUNED[0], demo.folder, demo.size))
    return measure(evaluator, _plain(demo.lm), short, long, prepare(settings, lm=demo.lm))


def _lines(demo: Demo) -> list[TableRow]:
    """Run the candidates one after another; the size is planned again before each."""
    parts: list[tuple[str, int | None]] = [("zero-shot", 0), (f"{SHOTS}-shot", SHOTS)]
    parts += [(name, None) for name in TUNED]
    lines = []
    for number, (name, shots) in enumerate(parts):
        left = demo.plan([shots for _, shots in parts[number:]], first=number == 0)
        assert demo.paces is not None
        share = seconds([shots], demo.size, demo.paces, demo.slower) / max(left, 1e-9)
        until, began = demo.until(share), demo.spent()
        demo.report(f"{name} ({number + 1} of {len(parts)}; about {duration(left)} left in all)")
        if shots is None:
            lines.append(_tuned_line(demo, name, until))
        else:
            lines.append(_reference_line(demo, name, shots, until))
        demo.learn(shots, demo.spent() - began)
    return lines


def _reference_line(demo: Demo, name: str, shots: int, until: float) -> TableRow:
    """Measure the plain model with an instruction, and with demonstrations too: it knows no prompt ids."""
    counted, started = _count_peak(), time.perf_counter()
    evaluator, examples = _instructed(demo, shots)
    records, answered = answers(demo, evaluator, _plain(demo.lm), examples, until)
    took = time.perf_counter() - started
    return TableRow(name, records, answered, 0, 0, took, peak_memory() if counted else None)


def _tuned_line(demo: Demo, name: str, until: float) -> TableRow:
    assert demo.paces is not None
    settings = recipe_from_dict(recipe(name, demo.folder, demo.size))
    training = demo.paces.training(demo.size) / demo.paces.tuned(demo.size)
    stop = demo.spent() + training * (until - demo.spent())
    counted, started = _count_peak(), time.perf_counter()
    prepared = prepare(settings, lm=demo.lm)
    hooks = Hooks(is_pruned=lambda learner: demo.spent() > stop)
    run = tune(prepared, hooks=hooks, overwrite=True, text_rows=0)
    took = time.perf_counter() - started
    demo.report(f"{name}: answering the test rows")
    test = prepared.encoder.encode_rows(demo.rows)
    evaluator = evaluator_of(settings, demo.lm, prepared.encoder)
    records, answered = answers(demo, evaluator, prepared.method, test, until)
    peak = peak_memory() if counted else None
    parameters, steps = prepared.trained_parameters, run.outcome.step
    return TableRow(name, records, answered, parameters, run.artifact.bytes, took, peak, steps)


def answers(
    demo: Demo, evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example], until: float
) -> tuple[list[Record], int]:
    """Return the records of the first test rows, and how many of them the time allowed to answer in text."""
    size, records = demo.size, list[Record]()
    texts = replace(evaluator, metrics=("chrf",), max_new_tokens=size.tokens)
    losses = replace(evaluator, metrics=("perplexity",))
    more = min(ANSWERED_AT_ONCE, size.answered)
    while more > 0:
        started, part = demo.spent(), examples[len(records) : len(records) + more]
        records += texts.run(method, part).records  # scored as well
        took = (demo.spent() - started) / len(part)
        # the rest must still be scored, which takes about a third of the time of answering
        fits = 1.5 * ((until - demo.spent()) / max(took, 1e-9) - (size.test - len(records)) / 3)
        more = min(size.answered - len(records), int(fits))
    answered = len(records)
    for part in _parts(examples[answered : size.test], SCORED_AT_ONCE):
        if demo.spent() > until:
            break
        records += losses.run(method, part, text_rows=0).records
    return records, answered


def _parts(examples: Sequence[Example], at_once: int) -> list[Sequence[Example]]:
    return [examples[at : at + at_once] for at in range(0, len(examples), at_once)]


def _instructed(demo: Demo, shots: int) -> tuple[Evaluator, list[Example]]:
    """Encode the test rows with an instruction in place of the prompt id that tuned candidates read."""
    lm = demo.lm
    template = Template("{{ instruction }}\n\n{{ input }}", "{{ target }}", chat=True, prompt_field="prompt")
    room = Room(lm.spec.context, limit=lm.spec.limits.get("length", ""))
    encoder = Encoder(lm.tokenizer, template, Task(prompts=PROMPTS), limits=Limits(room=room))

    def instructed(rows: Sequence[Row]) -> list[Row]:
        return [{**row, "instruction": INSTRUCTIONS[row["prompt"]]} for row in rows]

    examples = few_shot(encoder, instructed(demo.data.train), instructed(demo.rows), shots)
    return Evaluator(lm, encoder, max_new_tokens=NEW_TOKENS), examples


def _plain(lm: Any) -> SoftPrompt:
    return methods.build("none", methods.Setting(lm, PROMPTS))


def _count_peak() -> bool:
    """Free what the candidate before held, and count the peak of memory anew; False where that fails."""
    gc.collect()
    give_back()
    return reset_peak()
