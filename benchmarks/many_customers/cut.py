"""Cut customers from sets of rows: each has one task, a subset of its labels, and 16 to 64 rows.

A task is a set of rows, or a part of one that has a name (`task`), whose targets repeat. A customer draws a
task, labels of it and rows of these labels; a quarter of the rows is held out to choose the best step by.
Its test rows come from the test file of the set. All draws depend on the seed and the customer's number, so a
smaller number of customers is a part of a larger one.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABEL_ROWS = 20  # of a label, at least
WORDS = 40  # of a task's inputs, on average at most: longer ones would decide the time
FEWEST, MOST = 16, 64  # rows of a customer
LABELS = 6  # of a customer, at most
TEST_ROWS = 32
DEV_SHARE = 4  # one row of so many is held out

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Hold rows of one kind, by label."""

    name: str
    train: Mapping[str, Sequence[str]]
    test: Mapping[str, Sequence[str]]


def tasks_in(data: Path) -> list[Task]:
    """Read the tasks with labels from the folders of `data`. Raises FileNotFoundError where there is none."""
    tasks = []
    for folder in sorted(data.iterdir()):
        if not all((folder / f"{split}.jsonl").exists() for split in ("train", "test")):
            continue
        train, test = (_by_task(folder / f"{split}.jsonl") for split in ("train", "test"))
        for name, rows in train.items():
            seen = {text for texts in rows.values() for text in texts}
            labels = {
                label: texts
                for label, texts in rows.items()
                if len(texts) >= LABEL_ROWS and len(test.get(name, {}).get(label, ())) >= 2
            }
            texts = [text for group in labels.values() for text in group]
            words = sum(len(text.split()) for text in texts) / max(1, len(texts))
            if len(labels) >= 2 and words <= WORDS:
                held = {x: [t for t in test[name][x] if t not in seen] for x in labels}
                tasks.append(Task(f"{folder.name}/{name}".rstrip("/"), labels, held))
    if not tasks:
        raise FileNotFoundError(f"no set in {data} has a train.jsonl and a test.jsonl with labels")
    return tasks


def _by_task(file: Path) -> dict[str, dict[str, list[str]]]:
    """Return the distinct inputs of a file, by task and by target: of an input with several, the first."""
    tasks: dict[str, dict[str, dict[str, None]]] = {}
    known: set[tuple[str, str]] = set()
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if isinstance(row.get("input"), str) and isinstance(row.get("target"), str):
            name, text = str(row.get("task", "")), row["input"]
            if (name, text) not in known:
                known.add((name, text))
                tasks.setdefault(name, {}).setdefault(row["target"], {})[text] = None
    return {name: {label: [*texts] for label, texts in rows.items()} for name, rows in tasks.items()}


def customer(
    tasks: Sequence[Task], number: int, seed: int = 0, rows: int | None = None
) -> dict[str, list[Row]]:
    """Draw one customer: its rows by split. `rows` is how many it has; by default 16 to 64."""
    draw = random.Random(f"{seed}/{number}/{rows}")
    # a task with many labels has many different customers, but the others must not vanish beside it
    task = draw.choices(tasks, [len(task.train) ** 0.5 for task in tasks])[0]
    labels = draw.sample(sorted(task.train), draw.randint(2, min(LABELS, len(task.train))))
    count = rows or draw.randint(FEWEST, MOST)
    chosen = _drawn(draw, task.train, labels, count)
    held = max(2, len(chosen) // DEV_SHARE)
    parts = {"dev": chosen[:held], "train": chosen[held:]}
    parts["test"] = _drawn(draw, task.test, labels, TEST_ROWS)
    name = f"customer-{number:04d}"
    choices = sorted(labels)
    return {
        split: [
            {"customer": name, "input": text, "target": label, "choices": choices, "task": task.name}
            for text, label in part
        ]
        for split, part in parts.items()
    }


def _drawn(
    draw: random.Random, rows: Mapping[str, Sequence[str]], labels: Sequence[str], count: int
) -> list[tuple[str, str]]:
    """Draw rows of each label in turns, so that both the first rows and the rest hold every label."""
    piles = [(label, draw.sample(rows[label], min(count, len(rows[label])))) for label in labels]
    taken = [(pile[turn], label) for turn in range(count) for label, pile in piles if turn < len(pile)]
    return taken[:count]


def write(folder: Path, customers: Iterable[Mapping[str, Sequence[Row]]]) -> dict[str, Any]:
    """Write the rows of all customers, a file for each split; return what they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[Row]] = {}
    for each in customers:
        for split, part in each.items():
            rows.setdefault(split, []).extend(part)
    for split, part in rows.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    tasks = Counter({row["customer"]: row["task"] for row in rows["train"]}.values())
    counts = {split: len(part) for split, part in rows.items()}
    distinct = len({row["input"] for part in rows.values() for row in part})
    return {"rows": counts, "distinct_inputs": distinct, "tasks": dict(tasks)}
