"""Measure DPO on soft prompts beside DPO with LoRA: the table of docs/preferences.md.

    python -m benchmarks.preferences --data DIR [--out runs/preferences] [--seeds 0 1 2]
    python -m benchmarks.preferences --short

`DIR/boolq/train.jsonl` holds rows with a `question`. The plain model answers each question several times,
a program scores the answers, and the best and the worst of each question are a pair. The score is 1 for an
answer that begins with Yes or No, and 1 more for one that ends within its 24 tokens.

Each method learns from the same pairs, with the same steps, batches and beta, over three learning rates with
the first seed; the best on the dev pairs is trained with every seed. Then it answers the test questions once.
A win is an answer with a higher score than the plain model's; ties count half. The divergence is the exact
KL(tuned || plain) of each next token, along the tuned model's own answers, and its sum over an answer. A run
that is in OUT is not run again. The table is printed, and everything is written to OUT/preferences.json.
`--short` uses made-up questions and a tiny random model: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

import softprompt
from softprompt import methods
from softprompt.build import encoder_of, template_of
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import collate
from softprompt.data.encode import Encoder
from softprompt.data.example import Example
from softprompt.lm import finetune
from softprompt.lm.apply import injection_for
from softprompt.lm.base import LanguageModel
from softprompt.methods.base import Setting, SoftPrompt
from softprompt.tuned import Tuned

from .training import tiny
from .training.machine import where

ASK = "{{ prompt }} Answer yes or no first, and then give one short reason."
TOKENS, SAMPLES, ROWS = 24, 4, 32  # of an answer; answers to a question; rows of one pass
SETTINGS = {"batch_size": 4, "max_target_tokens": TOKENS}
SPLITS = ("train", "dev", "test")

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Way:
    """A way learns from the pairs: with a method of the registry, or with LoRA."""

    name: str
    method: str
    rates: tuple[float, ...]

    def settings(self, rate: float) -> dict[str, Any]:
        """Return the arguments of `tune`."""
        return {"base": {"mode": "lora", "lr": rate}} if self.method == "none" else {"length": 16, "lr": rate}


WAYS = (
    Way("prompt tuning", "prompt-tuning", (3e-3, 1e-2, 3e-2)),
    Way("prefix tuning", "prefix-tuning", (1e-3, 3e-3, 1e-2)),
    Way("LoRA", "none", (1e-4, 3e-4, 1e-3)),
)


@dataclass(frozen=True, slots=True)
class Result:
    """A result holds what one trained prompt or adapter gives on the test questions."""

    way: str
    rate: float
    seed: int
    accuracy: float  # of the test pairs
    margin: float
    scores: list[int]  # of its answers, by question
    wins: list[float]  # over the plain model's answers: 1, 0.5, 0
    divergence: float  # nats a token
    tokens: float  # of an answer
    seconds: float
    bytes: int


def score(text: str, ended: bool) -> int:
    """Return 0, 1 or 2: one for an answer that begins with Yes or No, one for an answer that ended."""
    return bool(re.match(r"(Yes|No)\b", text)) + ended


@torch.no_grad()
def sampled(
    lm: LanguageModel, method: SoftPrompt, examples: Sequence[Example], seed: int, count: int = 1
) -> list[list[Ids]]:
    """Sample `count` answers to each input at temperature 1, each with its end token if it ended."""
    torch.manual_seed(seed)
    answers: list[list[Ids]] = []
    options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "max_new_tokens": TOKENS}
    for start in range(0, len(examples), ROWS // count):
        batch = collate(examples[start : start + ROWS // count], lm.device, targets=False)
        injection = injection_for(lm, method, batch)
        outputs = lm.generate(batch, injection, num_return_sequences=count, **options).tolist()
        ended = [_ended(lm, ids) for ids in outputs]
        answers += [ended[i : i + count] for i in range(0, len(ended), count)]
    return answers


def _ended(lm: LanguageModel, ids: Sequence[int]) -> Ids:
    end = next((place + 1 for place, token in enumerate(ids) if token in lm.ends), len(ids))
    return tuple(ids[:end])


def scored(lm: LanguageModel, ids: Ids) -> tuple[int, str]:
    """Return the score of an answer, and its text."""
    text = lm.tokenizer.decode(ids, skip_special_tokens=True).strip()
    return score(text, bool(ids) and ids[-1] in lm.ends), text


@torch.no_grad()
def divergence(
    lm: LanguageModel, method: SoftPrompt, examples: Sequence[Example], answers: Sequence[Ids]
) -> float:
    """Compute the mean of KL(tuned || plain) over all tokens of the answers, in nats, in float32."""
    total, tokens = 0.0, 0
    for start in range(0, len(examples), 8):
        batch = collate(examples[start : start + 8], lm.device, targets=False)
        batch = batch.with_targets(answers[start : start + 8])
        tuned = lm.logits(batch, injection_for(lm, method, batch)).float().log_softmax(-1)
        with finetune.without_adapters(lm):
            plain = lm.logits(batch).float().log_softmax(-1)
        each = (tuned.exp() * (tuned - plain)).sum(-1)  # [B, T]
        total += each[batch.target_mask].sum().item()
        tokens += int(batch.target_mask.sum())
    return total / tokens


def pairs_of(
    lm: LanguageModel, encoder: Encoder, questions: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Answer the questions with the plain model; return each with its first answer, and its pair if any."""
    examples = [encoder.encode({"prompt": question}, with_target=False) for question in questions]
    plain, rows = methods.build("none", Setting(lm, ("default",))), []
    for question, answers in zip(questions, sampled(lm, plain, examples, seed, SAMPLES), strict=True):
        ordered = sorted((scored(lm, ids) for ids in answers), key=lambda pair: pair[0])
        row = {"prompt": question, "plain": scored(lm, answers[0])[0]}
        if ordered[0][0] < ordered[-1][0] and ordered[0][1] and ordered[-1][1]:
            row |= {"chosen": ordered[-1][1], "rejected": ordered[0][1]}
        rows.append(row)
    return rows


@dataclass(frozen=True, slots=True)
class Bench:
    """The settings of all runs, which are kept in the folder `out`."""

    data: Path
    out: Path
    model: str
    counts: Sequence[int]  # questions: to train on, dev, test
    seeds: Sequence[int]
    steps: int
    threads: int | None

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Return the questions of a split with the plain model's scores, and a pair where they differ."""
        file = self.out / f"rows-{split}.json"
        if not file.exists():
            lm, place = softprompt.load(self.model), SPLITS.index(split)
            recipe = recipe_from_dict({"data": str(self.data), **self.about(lm)})
            encoder = encoder_of(recipe, lm, template_of(recipe, lm), ("default",))
            first = sum(self.counts[:place])
            questions = questions_in(self.data)[first : first + self.counts[place]]
            file.write_text(json.dumps(pairs_of(lm, encoder, questions, 1000 + place)), encoding="utf-8")
        return json.loads(file.read_text(encoding="utf-8"))

    def about(self, lm: LanguageModel) -> dict[str, Any]:
        """Return the template and the task."""
        chat = bool(getattr(lm.tokenizer, "chat_template", None))
        task = {"kind": "preference", "max_new_tokens": TOKENS}
        return {"template": {"input": ASK, "chat": chat}, "task": task}

    def tuned(self, way: Way, rate: float, seed: int) -> Tuned:
        """Train with a rate and a seed, or open the run if it is finished."""
        lm = softprompt.load(self.model)  # anew for each run, since LoRA changes it
        settings = {**SETTINGS, **way.settings(rate), **self.about(lm)}
        settings |= {"steps": self.steps, "eval_every": self.steps, "seed": seed, "threads": self.threads}
        train, dev = (paired(self.rows(split)) for split in ("train", "dev"))
        output = self.out / f"{way.name} {rate:g} {seed}".replace(" ", "-")
        return softprompt.tune(lm, way.method, train, dev=dev, output=output, **settings)

    def results(self, way: Way) -> list[Result]:
        """Choose the rate on the dev pairs, and measure the runs of all seeds."""
        tried = {rate: dev_key(self.tuned(way, rate, self.seeds[0])) for rate in way.rates}
        best = max(tried, key=tried.__getitem__)
        print(f"{way.name}: {tried}, chosen {best:g}", flush=True)
        return [self.result(way, best, seed) for seed in self.seeds]

    def result(self, way: Way, rate: float, seed: int) -> Result:
        """Measure one run on the test questions, or read what was measured."""
        file = self.out / f"{way.name} {rate:g} {seed}.json"
        if not file.exists():
            measured = result(way, rate, seed, self.tuned(way, rate, seed), self.rows("test"))
            file.write_text(json.dumps(asdict(measured)), encoding="utf-8")
        read = Result(**json.loads(file.read_text(encoding="utf-8")))
        print(summary([read]), flush=True)
        return read


def paired(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows whose answers have different scores."""
    return [row for row in rows if "chosen" in row]


def dev_key(run: Tuned) -> tuple[float, ...]:
    """Return the score on the dev pairs: the accuracy, then the negative loss."""
    return tuple(run.artifact.manifest["training"]["dev_key"])


def result(way: Way, rate: float, seed: int, run: Tuned, questions: Sequence[dict[str, Any]]) -> Result:
    """Let a tuned model answer the test questions, and score its answers."""
    examples = [run.encoder.encode({"prompt": row["prompt"]}, with_target=False) for row in questions]
    answers = [drawn[0] for drawn in sampled(run.lm, run.method, examples, seed)]
    scores = [scored(run.lm, ids)[0] for ids in answers]
    wins = [(s > row["plain"]) + (s == row["plain"]) / 2 for s, row in zip(scores, questions, strict=True)]
    metrics = run.evaluate(paired(questions)).metrics
    return Result(
        way.name,
        rate,
        seed,
        metrics["preference_accuracy"].value,
        metrics["reward_margin"].value,
        scores,
        wins,
        divergence(run.lm, run.method, examples, answers),
        mean(map(len, answers)),
        run.artifact.manifest["training"]["seconds"],
        run.artifact.bytes,
    )


def questions_in(data: Path) -> list[str]:
    """Read the distinct questions, as sentences."""
    lines = (data / "boolq" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    questions = dict.fromkeys(json.loads(line)["question"].strip() for line in lines)
    return [f"{text[0].upper()}{text[1:]}?" for text in questions]


def interval(results: Sequence[Result], draws: int = 2000) -> tuple[float, float, float]:
    """Return the mean of the wins over seeds and questions, and the 95 % interval over questions."""
    wins = np.array([item.wins for item in results]).mean(0)
    drawn = np.random.default_rng(0).integers(0, len(wins), (draws, len(wins)))
    low, high = np.percentile(wins[drawn].mean(1), [2.5, 97.5])
    return float(wins.mean()), float(low), float(high)


def summary(results: Sequence[Result]) -> str:
    """Format the results of one way, over its seeds, as a row of the table."""
    win, low, high = interval(results)

    def over(name: str, form: str) -> str:
        values = [getattr(item, name) for item in results]
        spread = f" ({min(values):{form}} … {max(values):{form}})" if len(values) > 1 else ""
        return f"{mean(values):{form}}{spread}"

    both = mean(s == 2 for item in results for s in item.scores)
    cells = [
        results[0].way,
        f"{results[0].rate:g}",
        f"{100 * win:.0f} % ({100 * low:.0f} … {100 * high:.0f})",
        f"{mean(s for item in results for s in item.scores):.2f}",
        f"{100 * both:.0f} %",
        over("divergence", ".2f"),
        f"{mean(item.divergence * item.tokens for item in results):.1f}",
        over("accuracy", ".2f"),
        over("margin", ".2f"),
        over("tokens", ".1f"),
        f"{results[0].bytes / 1e3:,.0f} kB",
        over("seconds", ".0f"),
    ]
    return f"| {' | '.join(cells)} |"


def table(plain: Sequence[int], results: Sequence[Result]) -> str:
    """Format the table: a row for the plain model, whose scores are given, and one for each way."""
    names = ("", "rate", "win rate", "score", "score 2", "KL a token", "KL an answer", "accuracy", "margin")
    names += ("tokens", "saved", "seconds")
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    share = f"{100 * mean(s == 2 for s in plain):.0f} %"
    lines.append(f"| plain model | | 50 % | {mean(plain):.2f} | {share} | 0 | 0 | | | | | |")
    groups = {item.way: [other for other in results if other.way == item.way] for item in results}
    return "\n".join([*lines, *map(summary, groups.values())])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.preferences",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder that holds boolq/train.jsonl")
    parser.add_argument("--out", type=Path, default=Path("runs/preferences"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--questions", type=int, nargs=3, default=[64, 24, 40], help="train, dev, test")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, help="of torch; by default the physical cores")
    parser.add_argument("--only", choices=[way.name for way in WAYS], help="one way, in a process of its own")
    parser.add_argument("--short", action="store_true", help="everything once, on a tiny model")
    args = parser.parse_args(arguments)
    if args.data is None and not args.short:
        parser.error("--data DIR, the folder that holds boolq/train.jsonl (or --short)")
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        out, data, model = args.out, Path(args.data or folder), "smollm2"
        if args.short:
            out, model = Path(folder) / "out", short(Path(folder))
        started = time.perf_counter()
        out.mkdir(parents=True, exist_ok=True)
        bench = Bench(data, out, model, args.questions, args.seeds, args.steps, args.threads)
        pairs = {split: len(paired(bench.rows(split))) for split in SPLITS}
        print(f"pairs: {pairs}", flush=True)
        results = [item for way in WAYS if args.only in (None, way.name) for item in bench.results(way)]
        place = f"{where()}; {time.perf_counter() - started:.0f} s in this call"
        settings = {**SETTINGS, "steps": args.steps, "questions": args.questions, "pairs": pairs}
        plain = [row["plain"] for row in bench.rows("test")]
        saved = {"where": place, "settings": settings, "plain": plain}
        saved |= {"results": [asdict(item) for item in results]}
        (out / "preferences.json").write_text(json.dumps(saved), encoding="utf-8")
        print(f"{table(plain, results)}\n\n{place}")
    return 0


def short(folder: Path) -> str:
    """Write made-up questions and a tiny model; return the model's folder."""
    (folder / "boolq").mkdir()
    rows = "".join(json.dumps({"question": f"is {i} more than {i % 7}"}) + "\n" for i in range(200))
    (folder / "boolq" / "train.jsonl").write_text(rows, encoding="utf-8")
    return str(tiny.make(folder)[0])


if __name__ == "__main__":
    raise SystemExit(main())
