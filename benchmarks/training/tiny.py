"""`--short` runs on a tiny random Llama in a folder, and on made-up rows in a data folder."""

from __future__ import annotations

import json
import random
from pathlib import Path

from softprompt.lm.families import tiny
from softprompt.testing.material import tiny_tokenizer

LABELS = {
    "sst2": ("negative", "positive"),
    "ag_news": ("Business", "Sports"),
    "boolq": ("no", "yes"),
}
WORDS = "the film was long and dull but warm bright or flat with a slow end".split()
ROWS = 24


def make(folder: Path) -> tuple[Path, Path]:
    """Make a model and data, and return the folders of both."""
    model, data = folder / "model", folder / "data"
    # room for a few demonstrations at a token a character
    tiny("llama", max_position_embeddings=1024).save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    return model, write_rows(data)


def write_rows(data: Path, count: int = ROWS, longest: int = 8) -> Path:
    """Write made-up rows of two to `longest` words in the files of a data folder, and return the folder."""
    for name, labels in LABELS.items():
        (data / name).mkdir(parents=True)
        for split in ("train", "validation"):
            draw = random.Random(f"{name}/{split}")
            rows = [
                {"input": " ".join(draw.choices(WORDS, k=draw.randint(2, longest))), "target": labels[i % 2]}
                for i in range(count)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (data / name / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return data
