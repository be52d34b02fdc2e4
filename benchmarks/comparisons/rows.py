"""Rows of each set are split into four parts: train, dev, test, and unseen (unlike the training rows).

If a set has no unseen rows, the comparison itself holds out clusters of its inputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from softprompt.data.split import limit_rows

Row = dict[str, Any]
Parts = dict[str, list[Row]]

TRAIN, DEV, MEASURED, SEED = 300, 100, 200, 0
FILES = {"train": "train", "dev": "validation", "test": "test"}
BANKING = "banking"
OUTSIDE = "out of scope"


def sentiment(data: Path) -> Parts:
    """Return film reviews; unseen are reviews of goods, and long film reviews cut at 400 characters."""
    goods = limit_rows(read(data / "customer_reviews" / "test.jsonl"), MEASURED // 2, SEED)
    films = limit_rows(read(data / "imdb_reviews" / "test.jsonl"), MEASURED // 2, SEED)
    cut = [row | {"input": _cut(row["input"], 400)} for row in films]
    return _parts(data / "sst2") | {"unseen": [*goods, *cut]}


def news(data: Path) -> Parts:
    """Return news of four topics."""
    return _parts(data / "ag_news")


def intents(data: Path) -> Parts:
    """Return queries with fifteen intents at a bank or none; unseen are queries of other domains.

    A sixth of the training rows are out of scope. The queries of other domains have intents
    that no training row has, and the right answer is that they are out of scope.
    """
    folder = data / "clinc150"

    def banking(rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if row["domain"] == BANKING]

    def split(name: str, count: int) -> list[Row]:
        outside = limit_rows(read(folder / f"oos_{name}.jsonl"), count // 6, SEED)
        return [*limit_rows(banking(read(folder / f"{name}.jsonl")), count - len(outside), SEED), *outside]

    others = [row | {"target": OUTSIDE} for row in read(folder / "test.jsonl") if row["domain"] != BANKING]
    return {
        "train": split("train", TRAIN),
        "dev": split("validation", DEV),
        "test": split("test", MEASURED),
        "unseen": limit_rows(others, MEASURED, SEED),
    }


def entailment(data: Path) -> Parts:
    """Return pairs of sentences: does one follow from the other?"""
    return _parts(data / "rte", _answered("entailment"), up_to=500)


def paraphrase(data: Path, of: str, other: str) -> Parts:
    """Return pairs of sentences (do they mean the same?) of one set; unseen are those of the other set."""
    change = _answered("paraphrase")
    return _parts(data / of, change) | {"unseen": _parts(data / other, change)["test"]}


def triples(data: Path) -> Parts:
    """Return facts and texts; unseen are categories that no training row has."""
    return _by_seen(data / "webnlg")


def restaurants(data: Path) -> Parts:
    """Return facts about a restaurant and a text."""
    return _parts(data / "e2e")


def bible(data: Path) -> Parts:
    """Return verses of 1611 with their modern form; unseen are books that no training row is from."""
    return _by_seen(data / "bible_style")


def instructions(data: Path) -> Parts:
    """Return short tasks with an instruction, cut at 240 characters; unseen is every fourth task."""
    folder = data / "natural_instructions"
    instruction = {row["task"]: _cut(row["instruction"], 240) for row in read(folder / "tasks.jsonl")}
    train = read(folder / "train.jsonl")
    lengths = {name: [len(row["input"]) for row in train if row["task"] == name] for name in instruction}
    short = [name for name, counts in sorted(lengths.items()) if sum(counts) <= 200 * len(counts)]
    unseen_tasks = set(short[::4])

    def split(name: str, count: int, unseen: bool = False) -> list[Row]:
        tasks = unseen_tasks if unseen else set(short) - unseen_tasks
        rows = [row for row in read(folder / f"{name}.jsonl") if row["task"] in tasks]
        return [row | {"instruction": instruction[row["task"]]} for row in limit_rows(rows, count, SEED)]

    return {
        "train": split("train", 2 * TRAIN),
        "dev": split("validation", DEV),
        "test": split("test", MEASURED),
        "unseen": split("test", MEASURED, unseen=True),
    }


def write(parts: Parts, folder: Path) -> dict[str, Path]:
    """Write a file of JSON lines for each part, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, rows in parts.items():
        files[name] = folder / f"{name}.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        files[name].write_text("".join(lines), encoding="utf-8")
    return files


def _parts(folder: Path, change: Callable[[Row], Row] = dict, up_to: int = 1000) -> Parts:
    """Read the set's own three files, without inputs of more than `up_to` characters."""
    counts = {"train": TRAIN, "dev": DEV, "test": MEASURED}
    parts = {}
    for split, name in FILES.items():
        fit = [row for row in read(folder / f"{name}.jsonl") if len(row["input"]) <= up_to]
        parts[split] = [change(row) for row in limit_rows(fit, counts[split], SEED)]
    return parts


def _by_seen(folder: Path) -> Parts:
    parts = _parts(folder)
    tested = read(folder / "test.jsonl")
    for split, seen in (("test", True), ("unseen", False)):
        parts[split] = limit_rows([row for row in tested if row["seen"] is seen], MEASURED, SEED)
    return parts


def _answered(yes: str) -> Callable[[Row], Row]:
    """Return a function that changes a row's target to "yes" or "no"."""
    return lambda row: row | {"target": "yes" if row["target"] == yes else "no"}


def _cut(text: str, characters: int) -> str:
    """Shorten a text to the last word that fits."""
    return text if len(text) <= characters else text[:characters].rsplit(" ", 1)[0] + " …"


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
