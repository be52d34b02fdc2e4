"""Measure prompts for embeddings beside LoRA and full fine-tuning, at equal time (docs/embeddings.md).

    python -m benchmarks.embeddings --data DIR [--out runs/embeddings] [--sets banking77 qqp squad]
    python -m benchmarks.embeddings --short

Three sets are cut from DIR. banking77: a customer's question, and the words of its intent. qqp: a question,
and its duplicate. squad: a question, and the paragraph that answers it, where no document of the test rows is
trained on. Each way is trained for the same seconds on the training rows of a set, with a step's pace that a
few steps are timed for; the best step is chosen on dev rows. Then every way ranks the test rows of its own
set, and of the other sets, which it has not seen. A line of JSON is printed for each way and set, and the
table at the end. A run that is in OUT is not run again. `--short` uses made-up rows and a tiny random model:
its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import softprompt
from softprompt.evaluation.records import Evaluation
from softprompt.tuned import Tuned

from .training.machine import where

SPLITS = ("train", "dev", "test")
PILOT = 4  # steps that are timed
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to fit the encoder to a set: a method of the registry, or training of the base itself."""

    name: str
    method: str
    settings: dict[str, Any]


WAYS = (
    Way("prompt of 5", "prompt-tuning", {"length": 5, "lr": 1e-2}),
    Way("prompt of 16", "prompt-tuning", {"length": 16, "lr": 1e-2}),
    Way("prefix of 16", "prefix-tuning", {"length": 16, "lr": 1e-2}),
    Way("LoRA", "none", {"base": {"mode": "lora", "lr": 5e-4}}),
    Way("full", "none", {"base": {"mode": "full", "lr": 2e-5}}),
)


@dataclass(frozen=True, slots=True)
class Result:
    """The test scores of one way, trained on one set and measured on one."""

    way: str
    trained: str | None  # None: the plain model
    measured: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    rows: int
    steps: int
    seconds: float
    bytes: int


def banking77(data: Path) -> dict[str, list[Row]]:
    """Return rows of a customer's question and the words of its intent."""
    files = {"train": "train", "dev": "validation", "test": "test"}
    return {
        split: [
            {"query": row["input"], "positive": row["target"]}
            for row in _lines(data / "banking77" / f"{file}.jsonl")
        ]
        for split, file in files.items()
    }


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


SETS: dict[str, Callable[[Path], dict[str, list[Row]]]] = {"banking77": banking77, "qqp": qqp, "squad": squad}


def _lines(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


@dataclass(frozen=True, slots=True)
class Bench:
    """The settings of all runs, which are kept in the folder `out`."""

    data: Path
    out: Path
    model: str
    sets: Sequence[str]
    counts: Sequence[int]  # the most rows of train, dev, test
    seconds: float
    batch: int
    threads: int | None
    seed: int = 0

    def rows(self, name: str) -> dict[str, list[Row]]:
        """Return the rows of a set, drawn by the seed."""
        parts = SETS[name](self.data)
        for split, most in zip(SPLITS, self.counts, strict=True):
            random.Random(f"{name} {split} {self.seed}").shuffle(parts[split])
            parts[split] = parts[split][:most]
        return parts

    def tuned(self, way: Way, name: str, rows: dict[str, list[Row]]) -> Tuned:
        """Train a way on a set for the same seconds as the others, or open the run if it is finished."""
        output = self.out / f"{name}-{way.name}".replace(" ", "-")
        if not (output / "softprompt.json").exists():
            with tempfile.TemporaryDirectory() as folder:
                pilot = self._train(way, rows, Path(folder), PILOT)
                pace = _pace(pilot)
            return self._train(way, rows, output, max(1, round(self.seconds / pace)))
        return softprompt.open_prompt(output)

    def _train(self, way: Way, rows: dict[str, list[Row]], output: Path, steps: int) -> Tuned:
        settings = {
            "steps": steps,
            "eval_every": max(1, steps // 4),
            "batch_size": self.batch,
            "seed": self.seed,
        }
        settings |= {"dtype": "float32", "max_input_tokens": 256, "threads": self.threads, **way.settings}
        dev = rows["dev"] if steps > PILOT else rows["dev"][:2]
        return softprompt.tune(
            self.model, way.method, rows["train"], dev=dev, task="embedding", output=output, **settings
        )

    def results(self) -> list[Result]:
        """Train and measure every way; print each result."""
        every = {name: self.rows(name) for name in self.sets}
        results: list[Result] = []

        def keep(result: Result) -> None:
            results.append(result)
            print(json.dumps(asdict(result)), flush=True)

        for name, rows in every.items():
            for way in WAYS:
                tuned = self.tuned(way, name, rows)
                if way is WAYS[0]:
                    plain = softprompt.open_prompt(tuned.artifact.path, plain=True)
                    keep(_result("plain", None, name, plain, plain.evaluate(rows["test"])))
                for other in every:
                    keep(_result(way.name, name, other, tuned, tuned.evaluate(every[other]["test"])))
        return results


def _pace(tuned: Tuned) -> float:
    """Return the seconds of a step."""
    training = tuned.artifact.manifest["training"]
    return max(1e-3, training["seconds"] / training["steps"])


def _result(way: str, trained: str | None, measured: str, tuned: Tuned, scores: Evaluation) -> Result:
    training = tuned.artifact.manifest["training"] if trained else {"steps": 0, "seconds": 0.0}
    files = tuned.artifact.manifest["files"] if trained else ()
    return Result(
        way,
        trained,
        measured,
        {name: score.value for name, score in scores.metrics.items()},
        {name: (score.low, score.high) for name, score in scores.metrics.items()},
        scores.n,
        training["steps"],
        training["seconds"],
        sum((tuned.artifact.path / file).stat().st_size for file in files),
    )


def table(results: Sequence[Result]) -> str:
    """Return the results as a table of Markdown, with each way's share of LoRA's gain in nDCG@10."""
    lines = ["| trained on | measured on | way | nDCG@10 | MRR | recall@1 | of LoRA's gain | bytes | steps |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    score = {(r.way, r.trained, r.measured): r.metrics["ndcg_at_10"] for r in results}
    for r in results:
        low, high = r.intervals["ndcg_at_10"]
        plain, lora = score["plain", None, r.measured], score.get(("LoRA", r.trained, r.measured))
        share = (
            ""
            if lora is None or lora <= plain
            else f"{(r.metrics['ndcg_at_10'] - plain) / (lora - plain):.0%}"
        )
        shown = [f"{r.metrics[name]:.3f}" for name in ("mrr", "recall_at_1")]
        lines.append(
            f"| {r.trained or ''} | {r.measured} | {r.way} | {r.metrics['ndcg_at_10']:.3f} "
            f"[{low:.3f}, {high:.3f}] | {' | '.join(shown)} | {share} | {r.bytes:,} | {r.steps} |"
        )
    return "\n".join(lines)


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
    for name in ("banking77", "qqp", "squad_docs"):
        (data / name).mkdir(parents=True)
    for split in ("train", "validation", "test"):
        banking = [{"input": f"my {w} {split}", "target": f"{w} it"} for w in words]
        pairs = [
            {"input": f"sentence 1: a {w} sentence 2: {w} {split[0]}", "label": i % 2}
            for i, w in enumerate(words)
        ]
        for name, rows in (("banking77", banking), ("qqp", pairs)):
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embeddings", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, help="the folder of the data")
    parser.add_argument("--out", type=Path, default=Path("runs/embeddings"))
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument(
        "--rows", nargs=3, type=int, default=(5000, 500, 1000), metavar=("TRAIN", "DEV", "TEST")
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="of training, for each way")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--short", action="store_true", help="a tiny model and made-up rows")
    given = parser.parse_args(argv)
    if given.short:
        with tempfile.TemporaryDirectory() as folder:
            model, data = made_up(Path(folder))
            bench = Bench(
                data, Path(folder) / "out", str(model), given.sets, (8, 4, 6), 0.01, 4, given.threads
            )
            print(table(bench.results()))
        return 0
    if given.data is None:
        parser.error("--data DIR, or --short")
    bench = Bench(
        given.data, given.out, given.model, given.sets, given.rows, given.seconds, given.batch, given.threads
    )
    results = bench.results()
    print(f"{table(results)}\n\n{where()}")
    given.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(result) for result in results], indent=1)
    (given.out / "embeddings.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
