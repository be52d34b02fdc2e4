"""Sets of queries and documents, cut from data sets that are at hand, and made-up ones of the same shape."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SPLITS = ("train", "dev", "test")
Row = dict[str, Any]


def _pairs(name: str) -> Callable[[Path], dict[str, list[Row]]]:
    """Return a function that reads a set's rows of an input and its target."""

    def read(data: Path) -> dict[str, list[Row]]:
        files = {"train": "train", "dev": "validation", "test": "test"}
        return {
            split: [
                {"query": row["input"], "positive": row["target"]}
                for row in _lines(data / name / f"{file}.jsonl")
            ]
            for split, file in files.items()
        }

    return read


def qqp(data: Path) -> dict[str, list[Row]]:
    """Return rows of a question and its duplicate."""
    files = {"train": "train", "dev": "validation", "test": "test"}

    def pair(row: Row) -> Row:
        match = re.fullmatch(r"sentence 1: (.*) sentence 2: (.*)", row["input"], re.S)
        assert match is not None
        return {"query": match[1], "positive": match[2]}

    return {
        split: [pair(row) for row in _lines(data / "qqp" / f"{file}.jsonl") if row["label"] == 1]
        for split, file in files.items()
    }


def squad(data: Path) -> dict[str, list[Row]]:
    """Return rows of a question and the paragraph that answers it, split by document."""
    documents = _lines(data / "squad_docs" / "documents.jsonl")
    held = max(1, len(documents) // 5)
    parts = {"test": documents[:held], "dev": documents[held : 2 * held], "train": documents[2 * held :]}
    rows: dict[str, list[Row]] = {}
    for split in SPLITS:
        rows[split] = []
        for document in parts[split]:
            paragraphs = document["document"].split("\n\n")
            for item in document["qas"]:
                if item["answerable"] and item["paragraph"] < len(paragraphs):
                    rows[split].append({"query": item["question"], "positive": paragraphs[item["paragraph"]]})
    return rows


SETS: dict[str, Callable[[Path], dict[str, list[Row]]]] = {
    **{name: _pairs(name) for name in ("banking77", "clinc150", "e2e")},
    "qqp": qqp,
    "squad": squad,
}


def _lines(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def made_up(folder: Path) -> tuple[Path, Path]:
    """Write a tiny encoder and rows of all sets; return the folders of both."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    from softprompt.lm.families import tiny
    from softprompt.testing.material import tiny_tokenizer

    model, data = folder / "model", folder / "data"
    tiny("bert", max_position_embeddings=128).save_pretrained(model)
    raw = tiny_tokenizer().backend_tokenizer
    raw.add_special_tokens(["[CLS]", "[SEP]", "[PAD]"])
    ids = [(name, raw.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]").save_pretrained(model)
    words = "sun mud cake rain song ache gift loss tea ink".split()
    for name in ("banking77", "clinc150", "e2e", "qqp", "squad_docs"):
        (data / name).mkdir(parents=True)
    for split in ("train", "validation", "test"):
        banking = [{"input": f"my {w} {split}", "target": f"{w} it"} for w in words]
        pairs = [
            {"input": f"sentence 1: a {w} sentence 2: {w} {split[0]}", "label": i % 2}
            for i, w in enumerate(words)
        ]
        for name, rows in (("banking77", banking), ("clinc150", banking), ("e2e", banking), ("qqp", pairs)):
            _write(data / name / f"{split}.jsonl", rows)
    documents = [
        {
            "document": f"{w} is\n\n{w} has",
            "qas": [{"question": f"what {w}", "answerable": True, "paragraph": i} for i in (0, 1)],
        }
        for w in words
    ]
    _write(data / "squad_docs" / "documents.jsonl", documents)
    return model, data


def _write(file: Path, rows: Sequence[Row]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
