"""Both sides train on rows of the data folder, read as token ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softprompt.data.example import Example
from softprompt.data.sources import Row
from softprompt.data.template import Rendered

TEMPLATES = {
    "sst2": "Review: {input}\nSentiment:",
    "ag_news": "News: {input}\nTopic:",
    "boolq": "{input}\nAnswer:",
}


def example(input_ids: Sequence[int], target_ids: Sequence[int]) -> Example:
    """Build a row from bare ids."""
    return Example(tuple(input_ids), tuple(target_ids), 0, Rendered("", "", None, None, (), Row()), None)


def encoded(data: Path, name: str, count: int, tokenizer: Any) -> list[Example]:
    """Read the first `count` training rows of the set (repeated if it has fewer)."""
    rows = [
        example(
            _ids(tokenizer, TEMPLATES[name].format(input=row["input"])), _ids(tokenizer, " " + row["target"])
        )
        for row in _read(data / name / "train.jsonl", count)
    ]
    return [rows[i % len(rows)] for i in range(count)]


def filled(data: Path, name: str, count: int, tokens: int, tokenizer: Any) -> list[Example]:
    """Join texts to `count` rows of exactly `tokens` input tokens, which end as the last text does."""
    texts = iter(encoded(data, name, 4 * count, tokenizer) * tokens)
    rows = []
    for _ in range(count):
        ids: tuple[int, ...] = ()
        while len(ids) < tokens:
            last = next(texts)
            ids = ids + last.input_ids
        rows.append(example(ids[-tokens:], last.target_ids))
    return rows


def _read(file: Path, count: int) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
