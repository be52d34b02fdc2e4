"""What a model with an injection makes of rows: label scores, target log-probabilities, texts.

Labels are scored by their exact log-probability, all their tokens counted. This file does not
train, and does not know where rows or prompts come from.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .._system.progress import task
from ..cache import InputCache
from ..config.schema import Recipe
from ..data.batching import by_tokens
from ..data.collate import Batch, collate
from ..data.encode import Encoder
from ..data.example import Example
from ..injection import Injection
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.context import Context
from ..lm.generation import answering, tokens_of
from ..methods.base import SoftPrompt
from .likelihood import target_nll
from .metrics import METRICS, Score, compute, default_metrics

Progress = Callable[[int, int], None]
BATCH_TOKENS = 1024  # more were slower on a CPU
LOGITS = 2**25  # numbers: 64 MiB in bfloat16


@dataclass(frozen=True, slots=True)
class Record:
    """What came out for one row."""

    input: str
    prediction: str
    references: tuple[str, ...]
    prompt: int
    nll: float  # of the target, nats
    tokens: int  # of the target
    scores: tuple[float, ...] | None = None  # log-probability of each label or choice


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What the model says to one row that is not answered in text, and how far off its target that is."""

    text: str  # a label or choice, tags parted by spaces, or a number
    nll: float  # of the target, nats; NaN where the row has none
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics with 95 % intervals, and the rows behind them."""

    metrics: dict[str, Score]
    records: list[Record] = field(default_factory=list)
    scoring_seconds: float = field(default=0.0, compare=False)  # of scoring the targets, without texts

    @property
    def n(self) -> int:
        return len(self.records)

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> Evaluation:
        """Metrics and intervals as `to_json` gave them; the rows behind them are not kept."""
        ends, rows = said.get("intervals", {}), said.get("rows", {})
        found = {}
        for name, value in said["metrics"].items():
            low, high = ends.get(name, (value, value))
            found[name] = Score(value, low, high, rows.get(name, 0))
        return Evaluation(found)

    def to_json(self) -> dict[str, Any]:
        """`{"metrics": {name: value}, "intervals": {name: [low, high]}, "rows": {name: count}, "n": rows}`.

        `rows` is what each metric counted: a text metric may see fewer rows than `n`.
        """
        return {
            "metrics": {name: score.value for name, score in self.metrics.items()},
            "intervals": {name: [score.low, score.high] for name, score in self.metrics.items()},
            "rows": {name: score.n for name, score in self.metrics.items()},
            "n": self.n,
        }


@dataclass(frozen=True)
class Evaluator:
    """Everything about scoring that does not change between evaluations."""

    lm: LanguageModel
    encoder: Encoder
    metrics: tuple[str, ...] = ()
    max_new_tokens: int = 64
    batch_tokens: int = BATCH_TOKENS  # of inputs and targets, padding included
    generate_options: dict[str, Any] = field(default_factory=dict)

    def run(
        self,
        method: SoftPrompt,
        examples: Sequence[Example],
        *,
        cache: InputCache | None = None,
        text_rows: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """All rows; `cache` is that of these very examples.

        Generating texts costs far more than scoring targets: `text_rows` bounds how many rows (the
        first ones) are generated and count in text metrics; 0 leaves text metrics out. None: all.
        """
        cache = cache or InputCache()
        started = time.perf_counter()
        records = self._records(method, examples, cache, progress)
        seconds = time.perf_counter() - started
        names = list(self.metrics) or default_metrics(self.encoder.kind)
        if self.encoder.kind != "generation":
            return Evaluation(score(names, records), records, seconds)
        written = len(examples) if text_rows is None else min(text_rows, len(examples))
        by_text = [name for name in names if METRICS[name].needs != "nll"] if written else []
        if by_text:
            texts = self._texts(method, examples[:written], cache, progress)
            records[:written] = [replace(r, prediction=t) for r, t in zip(records, texts, strict=False)]
        by_loss = [name for name in names if name not in by_text and METRICS[name].needs == "nll"]
        scores = score(by_loss or ["perplexity"], records) | score(by_text, records[:written])
        found = {name: scores[name] for name in [*names, "perplexity"] if name in scores}
        return Evaluation(found, records, seconds)

    def _records(
        self,
        method: SoftPrompt,
        examples: Sequence[Example],
        cache: InputCache,
        progress: Progress | None,
    ) -> list[Record]:
        made: list[tuple[int, Record]] = []
        weights = [len(e.input_ids) + len(e.target_ids) for e in examples]
        with _counted("scoring rows", weights, progress) as count:
            for indices, record in self._scored(method, examples, cache):
                made += zip(indices, record, strict=True)
                count(indices)
        return [record for _, record in sorted(made, key=lambda pair: pair[0])]

    def _scored(
        self, method: SoftPrompt, examples: Sequence[Example], cache: InputCache
    ) -> Iterator[tuple[list[int], list[Record]]]:
        """Batch by batch: the rows' numbers, and what came out for each."""
        for indices, batch, context, injection in self._batches(method, examples, cache):
            rows = [examples[i] for i in indices]
            if self.encoder.kind == "generation":
                with torch.no_grad():
                    nll = target_nll(self.lm.logits(batch, injection, context), batch).tolist()
                records = [_record(e, "", loss, None) for e, loss in zip(rows, nll, strict=True)]
            else:
                said = answer(self.lm, self.encoder, batch, injection, context, rows)
                records = [_record(e, a.text, a.nll, a.scores) for e, a in zip(rows, said, strict=True)]
            yield indices, records

    def _texts(
        self,
        method: SoftPrompt,
        examples: Sequence[Example],
        cache: InputCache,
        progress: Progress | None,
    ) -> list[str]:
        options = answering(self.lm, self.max_new_tokens, **self.generate_options)
        texts: dict[int, str] = {}
        weights = [len(e.input_ids) + self.max_new_tokens for e in examples]
        with _counted("writing texts", weights, progress) as count:
            for indices in self._orders(examples, [self.max_new_tokens] * len(examples)):
                batch = collate([examples[i] for i in indices], self.lm.device, targets=False)
                batch = cache.fill(batch, indices, method.reads)
                with torch.no_grad():
                    injection = injection_for(self.lm, method, batch)
                out = tokens_of(self.lm.generate(batch, injection, **options)).tolist()
                texts.update(zip(indices, map(self.encoder.decode, out), strict=True))
                count(indices)
        return [texts[i] for i in range(len(examples))]

    def _orders(self, examples: Sequence[Example], targets: Sequence[int]) -> Iterator[list[int]]:
        """Row numbers in batches of like lengths; `targets` are tokens that each row has beyond its input."""
        lengths = [len(e.input_ids) + more for e, more in zip(examples, targets, strict=True)]
        order = sorted(range(len(examples)), key=lambda i: (len(examples[i].input_ids), targets[i]))
        return by_tokens(order, lengths, self.batch_tokens)

    def _batches(
        self, method: SoftPrompt, examples: Sequence[Example], cache: InputCache
    ) -> Iterator[tuple[list[int], Batch, Context | None, Injection]]:
        targets = [max(1, len(e.target_ids)) for e in examples]
        outputs = self.lm.spec.vocab_size if self.lm.head is None else self.lm.head.size
        for together in self._orders(examples, targets):
            for indices in by_tokens(together, targets, LOGITS // outputs):
                batch = collate([examples[i] for i in indices], self.lm.device)
                batch = cache.fill(batch, indices, method.reads)
                with torch.no_grad():
                    injection = injection_for(self.lm, method, batch)
                    context = cache.context(indices) or self.lm.context(batch, injection)
                yield indices, batch, context, injection


@contextlib.contextmanager
def _counted(
    what: str, weights: Sequence[float], also: Progress | None
) -> Iterator[Callable[[Sequence[int]], None]]:
    """Tells of rows that are done; short rows come first, so that time goes by their weights."""
    total, done, share = sum(weights) or 1.0, 0, 0.0
    with task(what, len(weights)) as own:

        def count(rows: Sequence[int]) -> None:
            nonlocal done, share
            done, share = done + len(rows), share + sum(weights[i] for i in rows) / total
            own.at(done, share=share)
            if also:
                also(done, len(weights))

        yield count


def answer(
    lm: LanguageModel,
    encoder: Encoder,
    batch: Batch,
    injection: Injection,
    context: Context | None,
    rows: Sequence[Example],
) -> list[RowAnswer]:
    """The likeliest label or choice of each row, its words' tags, or its number."""
    read = {"token-classification": _tags, "regression": _numbers}.get(encoder.kind, _choices)
    with torch.no_grad():
        return read(lm, encoder, batch, injection, context, rows)


def _choices(lm, encoder, batch, injection, context, rows: Sequence[Example]) -> list[RowAnswer]:
    scores = score_candidates(lm, batch, injection, context, [e.candidates or () for e in rows])
    answers = []
    for example, row in zip(rows, scores, strict=True):
        names = encoder.labels or example.rendered.choices or ()
        best = max(range(len(row)), key=row.__getitem__)
        target = (example.candidates or ()).index(example.target_ids) if example.target_ids else -1
        answers.append(RowAnswer(names[best], -row[target] if target >= 0 else math.nan, tuple(row)))
    return answers


def _tags(lm, encoder, batch, injection, context, rows: Sequence[Example]) -> list[RowAnswer]:
    scores = lm.logits(batch, injection, context).float().log_softmax(-1)  # [B, T, tags], right-aligned
    answers = []
    for example, row in zip(rows, scores, strict=True):
        row = row[len(row) - len(example.places) :]
        names = [encoder.labels[i] for i in row.argmax(-1).tolist()]
        right = torch.tensor(example.target_ids, device=row.device)
        nll = -row.gather(1, right[:, None]).sum().item() if example.target_ids else math.nan
        answers.append(RowAnswer(" ".join(names), nll))
    return answers


def _numbers(lm, encoder, batch, injection, context, rows: Sequence[Example]) -> list[RowAnswer]:
    numbers = lm.logits(batch.with_targets([[0]] * batch.size), injection, context)[:, 0, 0].tolist()
    # of a normal distribution of variance 1 around the number, up to a constant
    off = (
        math.nan if e.value is None else (x - e.value) ** 2 / 2 for x, e in zip(numbers, rows, strict=True)
    )
    return [RowAnswer(f"{number:.6g}", nll) for number, nll in zip(numbers, off, strict=True)]


def score(names: Sequence[str], records: Sequence[Record]) -> dict[str, Score]:
    """Metrics with intervals over records; none for no names."""
    if not names:
        return {}
    return compute(
        names,
        [r.prediction for r in records],
        [r.references for r in records],
        nll=[r.nll for r in records],
        tokens=[r.tokens for r in records],
    )


@torch.no_grad()
def score_candidates(
    lm: LanguageModel,
    batch: Batch,
    injection: Injection,
    context: Context | None,
    candidates: Sequence[Sequence[Sequence[int]]],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[float]]:
    """Log-probability (nats) of each row's candidates, each with all its tokens.

    Candidates of one token, and words at masks, are read off a single set of logits, since no token of
    theirs is fed back; longer ones share the KV of the input and of what follows it.
    """
    longest = max(len(ids) for row in candidates for ids in row)
    if longest == 1 or lm.answers == "mask":
        first = batch.with_targets([[0] * longest] * batch.size)
        logits, at, found = lm.logits(first, injection, context)[:, -longest:], range(longest), []
        for row, scores in zip(candidates, logits, strict=True):
            exact = scores.float().log_softmax(-1)  # [T, V] of one row: a batch's would be large
            found.append([exact[at, ids].sum().item() for ids in row])
        return found
    pairs = [(i, ids) for i, row in enumerate(candidates) for ids in row]
    width = batch.input_ids.shape[1]
    batch, injection, context = lm.advanced(batch, injection, context)
    # as many as neither their columns nor their logits are too large
    limit = min(batch_tokens, LOGITS // lm.spec.vocab_size * (width + longest) // longest)
    flat: list[float] = []
    for numbers in by_tokens(range(len(pairs)), [width + len(ids) for _, ids in pairs], limit):
        part = [pairs[k] for k in numbers]
        rows = torch.tensor([i for i, _ in part], device=lm.device)
        chunk = select(batch, rows).with_targets([ids for _, ids in part])
        one_for_all = all(part.mask.shape[0] == 1 for part in injection.channels().values())
        chosen = injection if one_for_all else injection.fit(batch.size).select(rows)
        logits = lm.logits(chunk, chosen, None if context is None else context.select(rows))
        flat += (-target_nll(logits, chunk)).tolist()
    values = iter(flat)
    return [[next(values) for _ in row] for row in candidates]


def select(batch: Batch, rows: Tensor) -> Batch:
    """The batch's rows with the given indices."""
    return batch.select(rows)


def _record(example: Example, prediction: str, nll: float, scores: tuple[float, ...] | None) -> Record:
    rendered = example.rendered
    return Record(
        rendered.input, prediction, rendered.references, example.prompt, nll, len(example.target_ids), scores
    )


def dev_key(evaluation: Evaluation) -> DevScore:
    """The first metric decides; the dev rows' mean log-loss breaks ties (accuracy moves in steps)."""
    name, score = next(iter(evaluation.metrics.items()))
    records = evaluation.records
    log_loss = sum(r.nll for r in records) / max(1, sum(r.tokens for r in records))
    value = score.value if METRICS[name].higher_is_better else -score.value
    return DevScore((value, -log_loss), name, score.value)


def evaluator_of(recipe: Recipe, lm: LanguageModel, encoder: Encoder) -> Evaluator:
    """How they are scored."""
    return Evaluator(lm, encoder, tuple(recipe.task.metrics or ()), recipe.task.max_new_tokens)


@dataclass(frozen=True, slots=True)
class DevScore:
    """How good the dev rows are now. Higher `key` is better; `shown` is what a person reads."""

    key: tuple[float, ...]
    name: str
    shown: float
