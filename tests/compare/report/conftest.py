"""Comparison folders made up from a seed: what `softprompt compare` would have written, without a model."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: name: chance to be right (or mean score), seconds to train, trained parameters, bytes, added tokens
METHODS = {
    "prompt-tuning/after": (0.83, 41.0, 11_520, 46_080, 20),
    "prompt-tuning/before": (0.80, 220.0, 11_520, 46_080, 20),
    "prefix-tuning/after": (0.86, 38.0, 230_400, 921_600, 20),
    "prefix-tuning/before": (0.85, 190.0, 230_400, 921_600, 20),
    "generated-prefix/after": (0.87, 64.0, 1_192_896, 4_771_584, 16),
    "p-tuning/before": (0.79, 260.0, 1_300_000, 46_080, 20),
    "lora": (0.86, 310.0, 460_800, 1_843_200, 0),
}
REFERENCES = {"zero-shot": 0.55, "few-shot": 0.66, "tf-idf": 0.76}
SUBJECTS = "the film the soup our guide that novel her speech the hotel".split(" the ")
SAYINGS = ("was a delight", "bored us all", "ran far too long", "won everybody over", "cost a fortune")


class Builder:
    """Draws every measure of a comparison; `changes` take parts away or make it a task of generation."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder, self.changes = folder, changes
        self.random = random.Random(changes.get("draw", 7))
        self.seeds = changes.get("seeds", [0, 1, 2])
        self.methods = changes.get("methods", list(METHODS))
        self.references = changes.get("references", list(REFERENCES))
        self.texts = changes.get("task") == "generation"
        self.metric = changes.get("metric", "chrf" if self.texts else "accuracy")
        self.splits = changes.get("splits", {"test": 120, "unseen": 60})
        self.lines: list[dict[str, Any]] = []
        self.examples: list[dict[str, Any]] = []
        self.drawn: dict[tuple[str, str], list[float]] = {}

    def write(self) -> Path:
        self.study()
        for name in self.methods:
            self.trials(name)
        for split, rows in self.splits.items():
            self.rows(split, rows)
            for name in (*self.methods, *self.references):
                self.scores(name, split, rows)
            self.tests(split, rows)
        if self.changes.get("extras", True):
            for name in self.methods:
                self.curves(name)
                self.serving(name)
            for name in self.methods[:4]:
                self.controls(name)
            self.findings()
        self.folder.mkdir(parents=True, exist_ok=True)
        for file, lines in (("results.jsonl", self.lines), ("examples.jsonl", self.examples)):
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (self.folder / file).write_text(text, encoding="utf-8")
        (self.folder / "study.json").write_text(json.dumps(self.lines[0]), encoding="utf-8")
        return self.folder

    def study(self) -> None:
        contestants = [
            {"name": name, "method": name.split("/")[0], "options": {"length": 20}, "base": "frozen",
             "is_reference": name in REFERENCES}
            for name in (*self.methods, *self.references)
        ]  # fmt: skip
        self.lines.append(
            {"kind": "study", "name": self.changes.get("title", "reviews"), "model": "smollm2",
             "dtype": "float32", "weights": self.changes.get("weights", "auto"),
             "task": "generation" if self.texts else "classification", "metric": self.metric,
             "higher_is_better": self.changes.get("higher_is_better", True), "contestants": contestants,
             "seeds": self.seeds, "budget": {"search_trials": 4, "steps": 200, "batch_size": 16},
             "rows": {"train": 400, "dev": 100, **self.splits},
             "labels": None if self.texts else ["negative", "positive"], "prompts": ["default"],
             "unseen": {"how": "field", "detail": "domain=hotels"}, "machine": {"cpu": "a CPU", "cores": 2},
             "versions": {"softprompt": "0.1.0", "torch": "2.13.0"},
             "command": "softprompt compare reviews.yaml",
             "started": "2026-11-23 08:00 UTC", "seconds": 5400.0,
             "hashes": {"data": "3f" * 16, "base": "a1" * 16, "recipe": "0c" * 16}}
        )  # fmt: skip

    def trials(self, name: str) -> None:
        ability, seconds, parameters, size, tokens = METHODS[name]
        for i, rate in enumerate((1e-3, 3e-3, 1e-2, 3e-2)):
            failed = name == "p-tuning/before" and rate == 3e-2
            self.trial(name, f"{len(self.lines):016x}", "search", {"lr": rate, "length": 20}, 0,
                       ability - 0.02 * i,
                       "failed" if failed else "pruned" if i == 0 else "done",
                       seconds, parameters, size, tokens)  # fmt: skip
        if name in self.changes.get("unfinished", []):
            return
        for seed in self.seeds:
            self.trial(name, f"{len(self.lines):016x}", "final", {"lr": 1e-2, "length": 20}, seed,
                       ability, "done",
                       seconds * self.random.uniform(0.9, 1.1), parameters, size, tokens)  # fmt: skip

    def trial(
        self, name, id, phase, settings, seed, value, status, seconds, parameters, size, tokens
    ) -> None:
        error = {"what": "the loss is not a number", "why": "at step 31", "fix": "a smaller lr than 0.03"}
        self.lines.append(
            {"kind": "trial", "id": id, "contestant": name, "phase": phase, "settings": settings,
             "seed": seed,
             "rows": 400, "status": status, "error": error if status == "failed" else None,
             "dev": {} if status == "failed" else {self.metric: value * self.size}, "best_step": 160,
             "steps": 200,
             "history": [], "cost": {"train_seconds": seconds, "cache_seconds": 12.0,
             "seconds_to_target": None,
             "flops": seconds * 4e10, "peak_memory_bytes": 1.4e9 + size, "cache_bytes": 3e8,
             "trained_parameters": parameters, "artifact_bytes": size, "added_tokens": tokens}}
        )  # fmt: skip

    @property
    def size(self) -> float:
        """The metric's full score."""
        return 100.0 if self.metric == "chrf" else 1.0

    def ability(self, name: str, split: str) -> float:
        known = METHODS[name][0] if name in METHODS else REFERENCES[name]
        return known - (0.07 if split == "unseen" and name in METHODS else 0)

    def rows(self, split: str, rows: int) -> None:
        self.hard = [self.random.gauss(0, 0.8) for _ in range(rows)]
        self.truth = [self.random.randrange(2) for _ in range(rows)]
        for row in range(rows):
            text = f"{self.random.choice(SUBJECTS)} {self.random.choice(SAYINGS)} (no. {row})"
            if row == 3:
                text = '<script>window.broken = 1</script> & "quotes" | a pipe'
            reference = "a fine and happy day" if self.texts else ("negative", "positive")[self.truth[row]]
            line = {"kind": "row", "split": split, "row": row, "input": text, "references": [reference]}
            self.examples.append(line)

    def scores(self, name: str, split: str, rows: int) -> None:
        if name in self.changes.get("unfinished", []):
            return
        for seed in self.seeds if name in METHODS else self.seeds[:1]:
            values, bins = [], {}
            for row in range(rows):
                value, confidence = self.draw(name, split, row)
                values.append(value)
                label = None if self.texts else self.truth[row] if value else 1 - self.truth[row]
                text = "a fine day <b>indeed</b>" if self.texts else ("negative", "positive")[label or 0]
                line = {"split": split, "row": row, "contestant": name, "seed": seed}
                self.lines.append(
                    {"kind": "example", **line, "score": value, "nll": 1 - value / self.size, "label": label,
                     "target": None if self.texts else self.truth[row],
                     "confidence": None if self.texts else confidence, "prompt": 0}
                )  # fmt: skip
                self.examples.append({"kind": "answer", **line, "prediction": text})
                bins.setdefault(int(confidence * 10), []).append((confidence, value))
            self.drawn.setdefault((split, name), []).extend(values)
            self.lines.append({"kind": "score", "contestant": name, "seed": seed, "split": split,
                               "metrics": self.metrics(values), "calibration": self.calibration(bins)}
            )  # fmt: skip

    def draw(self, name: str, split: str, row: int) -> tuple[float, float]:
        ability = self.ability(name, split)
        logit = math.log(ability / (1 - ability)) * 1.25 - self.hard[row] + self.random.gauss(0, 0.3)
        share = 1 / (1 + math.exp(-logit))
        if self.texts:
            return self.size * min(1.0, max(0.02, share * 0.6 + self.random.gauss(0, 0.04))), 0.5
        return float(self.random.random() < share), min(0.999, max(0.5, share + self.random.uniform(0, 0.15)))

    def metrics(self, values: list[float]) -> dict[str, Any]:
        n, mean = len(values), sum(values) / len(values)
        error = 1.96 * (sum((v - mean) ** 2 for v in values) / n / n) ** 0.5
        score = {"value": mean, "low": mean - error, "high": mean + error, "n": n}
        second = "rouge_l" if self.texts else "macro_f1"
        return {self.metric: score, second: {"value": 0.5, "low": 0.4, "high": 0.6, "n": n}}

    def calibration(self, bins: dict[int, list[tuple[float, float]]]) -> dict[str, Any] | None:
        if self.texts:
            return None
        shown = [
            {
                "confidence": sum(c for c, _ in g) / len(g),
                "accuracy": sum(v for _, v in g) / len(g),
                "n": len(g),
            }
            for _, g in sorted(bins.items())
        ]
        total = sum(b["n"] for b in shown)
        return {
            "ece": sum(abs(b["confidence"] - b["accuracy"]) * b["n"] for b in shown) / total,
            "bins": shown,
        }

    def tests(self, split: str, rows: int) -> None:
        """Test every pair by a normal approximation, which is good enough to separate them."""
        if not self.changes.get("tests", True):
            return
        names = [name for name in (*self.methods, *self.references) if (split, name) in self.drawn]
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                x, y = ([sum(self.drawn[split, name][row::rows]) / len(self.drawn[split, name][row::rows])
                         for row in range(rows)] for name in (a, b))  # fmt: skip
                gaps = [u - v for u, v in zip(x, y, strict=True)]
                mean = sum(gaps) / rows
                error = max(1e-9, (sum((g - mean) ** 2 for g in gaps) / rows / rows) ** 0.5)
                p = math.erfc(abs(mean) / error / 2**0.5)
                self.lines.append(
                    {"kind": "test", "split": split, "metric": self.metric, "a": a, "b": b,
                     "difference": mean,
                     "low": mean - 1.96 * error, "high": mean + 1.96 * error, "p": p,
                     "p_adjusted": min(1.0, 4 * p),
                     "n_rows": rows, "n_seeds": len(self.seeds), "significant": 4 * p < 0.05,
                     "detectable": 2.8 * error,
                     "rows_needed": rows * (2.8 * error / abs(mean)) ** 2 if mean else None}
                )  # fmt: skip

    def curves(self, name: str) -> None:
        for seed in self.seeds:
            for rows in (16, 32, 64, 128, 256, 400):
                value = METHODS[name][0] - 0.9 / rows**0.55 + self.random.gauss(0, 0.01)
                line = {"contestant": name, "seed": seed, "value": value * self.size}
                self.lines.append({"kind": "curve", "split": "dev", "rows": rows, **line})
            for prompts in (1, 10, 100):
                value = METHODS[name][0] - 0.012 * math.log(prompts) + self.random.gauss(0, 0.005)
                line = {"contestant": name, "seed": seed, "value": value * self.size}
                self.lines.append({"kind": "table", "prompts": prompts, **line})

    def serving(self, name: str) -> None:
        self.lines.append(
            {"kind": "serving", "contestant": name, "time_to_first_token_ms": self.random.uniform(40, 90),
             "tokens_per_second": self.random.uniform(50, 70), "plain_tokens_per_second": 71.0,
             "mixed_tokens_per_second": None if name == "lora" else self.random.uniform(150, 190),
             "added_tokens": METHODS[name][-1]}
        )  # fmt: skip

    def controls(self, name: str) -> None:
        prompts = ["joke", "fact", "old", "rewrite"]
        matrix = [
            [30 + self.random.randrange(20) if i == j else self.random.randrange(6) for j in range(4)]
            for i in range(4)
        ]
        follow = sum(matrix[i][i] for i in range(4)) / sum(map(sum, matrix))
        strengths = [0, 0.5, 1, 1.5, 2]
        effect = [0.0, 0.3, 0.62 + self.random.uniform(-0.1, 0.2), 0.8, 0.7 + self.random.uniform(-0.3, 0.2)]
        for measure, value, low, high, detail in (
            ("swap", follow, follow - 0.05, min(1, follow + 0.05), {"prompts": prompts, "matrix": matrix}),
            ("dose", 0.9, None, None, {"strengths": strengths, "effect": effect, "effect_name": "log-odds"}),
            ("leakage", self.random.uniform(-0.02, 0.3), None, None, {"tokens": 5000}),
            ("adherence", 0.97, 0.93, 0.99, {}),
        ):
            self.lines.append({"kind": "control", "contestant": name, "measure": measure, "value": value,
                               "low": low, "high": high, "detail": detail})  # fmt: skip

    def findings(self) -> None:
        self.lines.append(
            {"kind": "finding", "level": "warning", "contestant": self.methods[0],
             "what": "the loss was still falling",
             "evidence": "dev loss fell by 0.11 over the last quarter of the steps",
             "command": "softprompt compare reviews.yaml train.steps=400"}
        )  # fmt: skip
        self.lines.append({"kind": "finding", "level": "note", "contestant": None, "command": None,
                           "what": "two test rows occur in the training rows", "evidence": "rows 17 and 80"}
        )  # fmt: skip


@pytest.fixture
def build(tmp_path) -> Callable[..., Path]:
    """`build(task="generation", seeds=[0], …)`: a folder as compare leaves it."""
    return lambda name="study", **changes: Builder(tmp_path / name, **changes).write()


@pytest.fixture(scope="session")
def full(tmp_path_factory) -> Path:
    """A comparison with everything, reported; nobody may change it."""
    from softprompt.compare import report

    folder = Builder(tmp_path_factory.mktemp("full") / "reviews").write()
    report.write(folder)
    return folder
