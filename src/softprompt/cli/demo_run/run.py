"""`softprompt demo`: the main job on real rows, end to end, in minutes on two cores.

It tunes a prompt table, a per-layer prefix and a generated prefix on the demo's rows (see `corpus`),
measures them beside the plain model on rows never seen in training, and prints one table, three
inputs with everybody's answers, and what to type next. One batch of each part is timed first, and the
demo is fitted to ten minutes (`plan`). This file holds no mathematics: it calls what a user's own recipe
would call.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..._system.memory import give_back
from ..._system.progress import duration
from ...config.load import recipe_from_dict
from ...data.capacity import Room
from ...data.encode import Encoder, Example
from ...evaluation.evaluator import Evaluation, Evaluator, Record, score
from ...methods.base import SoftPrompt
from .corpus import INSTRUCTIONS, PROMPTS, DemoData, demo_rows, write_demo_files
from .plan import AT_MOST, SECONDS, Paces, Size, fit, ladder, seconds

FOLDER = Path("runs/demo")
Row = dict[str, str]
SHOTS = 3
ANSWERED_AT_ONCE, SCORED_AT_ONCE = 12, 24  # rows, until the clock is looked at
NEW_TOKENS = 48
CHECKED = "rewrite"  # the prompt whose outputs have a reference to be held against

#: The three tuned contestants: a recipe's method section and its steps.
CONTESTANTS: dict[str, tuple[dict[str, Any], int]] = {
    "prompt-tuning": ({"name": "prompt-tuning", "length": 8, "placement": "after"}, 80),
    "prefix-tuning": ({"name": "prefix-tuning", "length": 8, "placement": "after"}, 80),
    "generated-prefix": ({"name": "generated-prefix", "length": 8, "placement": "after"}, 80),
}


@dataclass(frozen=True)
class TableRow:
    """One row of the demo's table."""

    name: str
    records: Sequence[Record]  # of the first test rows
    answered: int  # how many of them are answered in text
    parameters: int
    bytes: int
    seconds: float
    peak_bytes: int
    steps: int = 0

    def evaluation(self, rows: Sequence[Row], answered: int) -> Evaluation:
        """On these rows, of which the first `answered` count in text: what everybody has done."""
        own = list(self.records[: len(rows)])
        checked = [
            record for record, row in zip(own[:answered], rows, strict=False) if row["prompt"] == CHECKED
        ]
        return Evaluation(score(["perplexity"], own) | score(["chrf"] * bool(checked), checked), own)


@dataclass
class Demo:
    """What everybody has in common: rows, model, and the time."""

    lm: Any
    data: DemoData
    folder: Path
    started: float
    size: Size
    paces: Paces | None = None
    slower: float = 1.0  # than was measured, as the last part showed
    trained: bool = False  # all have as many steps, or the later ones fewer

    def __post_init__(self) -> None:
        self.sizes: Sequence[Size] = ladder(self.size)
        self.full = self.size
        self.rows = balanced(self.data.test)

    def spent(self) -> float:
        """Seconds."""
        return time.perf_counter() - self.started

    def say(self, text: str) -> None:
        """With the time."""
        print(f"[{self.spent():4.0f} s] {text}", file=sys.stderr, flush=True)

    def plan(self, parts: Sequence[int | None]) -> float:
        """Settle the size for the parts to come; their seconds.

        Rows that the first part left out are of no use to a later one, and all answer in as many tokens.
        """
        assert self.paces is not None
        sizes = self.sizes
        if len(parts) < len(CONTESTANTS) + 2:
            same = {"tokens": self.size.tokens}
            tested, answered = self.size.test, self.size.answered
            sizes = [
                replace(s, test=min(s.test, tested), answered=min(s.answered, answered), **same)
                for s in sizes
            ]
        if self.trained:
            sizes = [s for s in sizes if s.steps <= self.size.steps and s.train <= self.size.train]
        size = fit(sizes, parts, self.paces, SECONDS - self.spent(), self.slower)
        if size != self.size:
            self.say(f"to end in ten minutes: {', '.join(size.changes(self.full)) or 'all of it'}")
        self.size, self.trained = size, parts[0] is None
        return seconds(parts, size, self.paces, self.slower)

    def learn(self, part: int | None, took: float) -> None:
        """How much slower a part was than was thought."""
        assert self.paces is not None
        self.slower = max(0.5, took / max(seconds([part], self.size, self.paces), 1e-9))

    def until(self, share: float) -> float:
        """When a part that has such a share of what is to come must have ended."""
        return self.spent() + share * max(0.0, AT_MOST - self.spent())


def recipe(name: str, folder: Path, size: Size | None = None) -> dict[str, Any]:
    """The recipe of a contestant, as a user would write it."""
    method, steps = CONTESTANTS[name]
    data = folder / "data"
    rows: dict[str, Any] = {
        "train": str(data / "train.jsonl"),
        "dev": str(data / "dev.jsonl"),
        "test": str(data / "test.jsonl"),
        "prompt_field": "prompt",
    }
    tokens, batch = NEW_TOKENS, 16
    if size is not None:
        rows |= {"limit": size.train, "dev_limit": size.dev}
        steps, tokens, batch = size.steps, size.tokens, min(16, size.train)
    return {
        "model": "smollm2",
        "data": rows,
        "template": {"chat": True},
        "task": {"kind": "generation", "max_new_tokens": tokens},
        "method": method,
        "train": {"steps": steps, "batch_size": batch, "eval_every": max(1, steps // 4)},
        "output": str(folder / name),
    }


def main(as_json: bool = False, folder: Path | None = None) -> int:
    """Run the demo; tables on stdout (or one JSON object), progress on stderr."""
    from ...lm.loading import load

    started = time.perf_counter()
    folder = folder or FOLDER
    print("[   0 s] making the rows", file=sys.stderr, flush=True)
    data = demo_rows()
    write_demo_files(folder / "data")
    steps = max(steps for _, steps in CONTESTANTS.values())
    full = Size(steps, len(data.train), len(data.dev), len(data.test), len(data.test), NEW_TOKENS)
    demo = Demo(None, data, folder, started, full)
    demo.say("loading smollm2")
    demo.lm = load("smollm2")
    demo.say(f"measuring a batch of each part ({str(demo.lm.dtype).removeprefix('torch.')})")
    demo.paces = _paces(demo)
    lines = _lines(demo)
    found = Found(lines, demo.rows, demo.full)
    if as_json:
        print(json.dumps({**found.to_json(), "seconds": round(demo.spent(), 1)}))
        return 0
    from .table import show

    show(found, folder, demo.spent())
    return 0


def _paces(demo: Demo) -> Paces:
    from ...training.prepare import prepare
    from .measure import measure

    evaluator, short = _instructed(demo, 0)
    _, long = _instructed(demo, SHOTS)
    settings = recipe_from_dict(recipe(next(iter(CONTESTANTS)), demo.folder, demo.size))
    return measure(evaluator, _plain(demo.lm), short, long, prepare(settings, lm=demo.lm))


def _lines(demo: Demo) -> list[TableRow]:
    """Everybody's, one after another; what is to come is planned anew before each."""
    parts: list[tuple[str, int | None]] = [("zero-shot", 0), (f"{SHOTS}-shot", SHOTS)]
    parts += [(name, None) for name in CONTESTANTS]
    lines = []
    for number, (name, shots) in enumerate(parts):
        left = demo.plan([shots for _, shots in parts[number:]])
        assert demo.paces is not None
        share = seconds([shots], demo.size, demo.paces, demo.slower) / max(left, 1e-9)
        until, began = demo.until(share), demo.spent()
        demo.say(f"{name} ({number + 1} of {len(parts)}; about {duration(left)} left in all)")
        if shots is None:
            lines.append(_tuned_line(demo, name, until))
        else:
            lines.append(_reference_line(demo, name, shots, until))
        demo.learn(shots, demo.spent() - began)
    return lines


def _reference_line(demo: Demo, name: str, shots: int, until: float) -> TableRow:
    """The plain model with an instruction, and with demonstrations too: no prompt id tells it what to do."""
    with PeakMemory() as peak:
        started = time.perf_counter()
        evaluator, examples = _instructed(demo, shots)
        records, answered = answers(demo, evaluator, _plain(demo.lm), examples, until)
        return TableRow(name, records, answered, 0, 0, time.perf_counter() - started, peak.bytes())


def _tuned_line(demo: Demo, name: str, until: float) -> TableRow:
    from ...evaluation.evaluator import evaluator_of
    from ...training.prepare import prepare
    from ...training.tune import Hooks, tune

    assert demo.paces is not None
    settings = recipe_from_dict(recipe(name, demo.folder, demo.size))
    training = demo.paces.training(demo.size) / demo.paces.tuned(demo.size)
    cut = demo.spent() + training * (until - demo.spent())
    with PeakMemory() as peak:
        started = time.perf_counter()
        prepared = prepare(settings, lm=demo.lm)
        hooks = Hooks(is_pruned=lambda learner: demo.spent() > cut)
        run = tune(prepared, hooks=hooks, overwrite=True, text_rows=0)
        took = time.perf_counter() - started
        demo.say(f"{name}: answering the test rows")
        test = prepared.encoder.encode_rows(demo.rows)
        evaluator = evaluator_of(settings, demo.lm, prepared.encoder)
        records, answered = answers(demo, evaluator, prepared.method, test, until)
        size = run.artifact.bytes
        steps = run.outcome.step
        return TableRow(name, records, answered, prepared.trained_parameters, size, took, peak.bytes(), steps)


def answers(
    demo: Demo, evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example], until: float
) -> tuple[list[Record], int]:
    """Records of the first test rows and how many are answered in text, as many as the time allows."""
    size, records = demo.size, list[Record]()
    texts = replace(evaluator, metrics=("chrf",), max_new_tokens=size.tokens)
    losses = replace(evaluator, metrics=("perplexity",))
    for part in parts_of(examples[: size.answered], ANSWERED_AT_ONCE):
        started = demo.spent()
        records += texts.run(method, part).records  # scored as well
        # what is left must still be scored, which takes a third of answering, about
        took = (demo.spent() - started) / len(part)
        if demo.spent() + (size.test - len(records)) * took / 3 > until:
            break
    answered = len(records)
    for part in parts_of(examples[answered : size.test], SCORED_AT_ONCE):
        if demo.spent() > until:
            break
        records += losses.run(method, part, text_rows=0).records
    return records, answered


def parts_of(examples: Sequence[Example], at_once: int) -> list[Sequence[Example]]:
    """So few rows at a time that the clock is looked at often enough."""
    return [examples[at : at + at_once] for at in range(0, len(examples), at_once)]


def balanced(rows: Sequence[Row]) -> list[Row]:
    """In an order in which every beginning has its share of each prompt."""
    counts = Counter(row["prompt"] for row in rows)
    seen: Counter[str] = Counter()
    placed = []
    for row in rows:
        seen[row["prompt"]] += 1
        placed.append((seen[row["prompt"]] - 0.5) / counts[row["prompt"]])
    return [rows[i] for i in sorted(range(len(rows)), key=placed.__getitem__)]


@dataclass(frozen=True)
class Found:
    """Everybody's lines on the rows that all of them did."""

    lines: Sequence[TableRow]
    all_rows: Sequence[Row]
    full: Size

    @property
    def rows(self) -> Sequence[Row]:
        """Scored by everybody."""
        return self.all_rows[: min(len(line.records) for line in self.lines)]

    @property
    def answered(self) -> int:
        """Of them, answered in text by everybody."""
        return min(line.answered for line in self.lines)

    @property
    def reduced(self) -> list[str]:
        """What is less than in the full demo, in words."""
        steps = {line.name: line.steps for line in self.lines if line.steps}
        said = [
            f"{n} of {self.full.steps} steps of {name}" for name, n in steps.items() if n < self.full.steps
        ]
        if len(said) == len(steps) and len(set(steps.values())) == 1 and said:
            said = [f"{next(iter(steps.values()))} of {self.full.steps} steps"]
        for mine, most, what in (
            (len(self.rows), self.full.test, "test rows"),
            (self.answered, self.full.answered, "answers in text"),
        ):
            said += [f"{mine} of {most} {what}"] * (mine < most)
        return said

    def evaluations(self) -> list[Evaluation]:
        """Of each line."""
        return [line.evaluation(self.rows, self.answered) for line in self.lines]

    def copied(self) -> Evaluation:
        """The score of answering with the input itself: what any rewriting must beat."""
        rows = [row for row in self.rows[: self.answered] if row["prompt"] == CHECKED]
        records = [Record(r["input"], r["input"], (r["target"],), 0, 0.0, 1) for r in rows]
        return Evaluation(score(["chrf"] * bool(rows), records), records)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        lines = [
            {
                "name": line.name,
                **evaluation.to_json(),
                "steps": line.steps,
                "trained_parameters": line.parameters,
                "artifact_bytes": line.bytes,
                "seconds": round(line.seconds, 1),
                "peak_memory_bytes": line.peak_bytes,
            }
            for line, evaluation in zip(self.lines, self.evaluations(), strict=True)
        ]
        return {"lines": lines, "reduced": self.reduced}


def _instructed(demo: Demo, shots: int) -> tuple[Evaluator, list[Example]]:
    """Test rows whose input tells the plain model in words what a tuned prompt knows by its id."""
    from ...data.fewshot import few_shot
    from ...data.template import Template

    lm = demo.lm
    template = Template("{{ instruction }}\n\n{{ input }}", "{{ target }}", chat=True, prompt_field="prompt")
    encoder = Encoder(
        lm.tokenizer,
        template,
        chat=True,
        prompts=PROMPTS,
        room=Room(lm.spec.context, limit=lm.spec.limits.get("length", "")),
    )

    def instructed(rows: Sequence[Row]) -> list[Row]:
        return [{**row, "instruction": INSTRUCTIONS[row["prompt"]]} for row in rows]

    examples = few_shot(encoder, instructed(demo.data.train), instructed(demo.rows), shots)
    return Evaluator(lm, encoder, max_new_tokens=NEW_TOKENS), examples


def _plain(lm: Any) -> SoftPrompt:
    from ... import methods

    return methods.build("none", methods.Setting(lm, PROMPTS))


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
    give_back()
