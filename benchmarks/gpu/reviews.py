"""Reviews are made up, with a sentiment that a language model knows from their words."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

WORDS = {
    "positive": "wonderful moving brilliant charming inspired delightful gripping tender".split(),
    "negative": "dreadful tedious clumsy lifeless awful boring pointless dull".split(),
}
THINGS = "film story comedy thriller drama script performance sequel ending debut".split()
AROUND = [
    "a {word} {thing} from start to finish",
    "in the end , the {thing} is {word}",
    "a {word} {thing} , as everybody says",
    "this {word} {thing} is not one that i will forget soon",
    "we saw a {word} {thing} last night",
]


def write(folder: Path, train: int = 1000, validation: int = 400) -> Path:
    """Write `folder`/sst2/train.jsonl and validation.jsonl, the same rows every time; return the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "sst2").mkdir(parents=True)
    for split, count in (("train", train), ("validation", validation)):
        draw = random.Random(split)
        lines = []
        for i in range(count):
            target = ("positive", "negative")[i % 2]
            words = {"word": draw.choice(WORDS[target]), "thing": draw.choice(THINGS)}
            lines.append(json.dumps({"input": draw.choice(AROUND).format(**words), "target": target}) + "\n")
        (folder / "sst2" / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
