"""Rows are scored under a method: log-likelihoods of targets, answers, and generated texts.

This file does not train, and does not know where rows or prompts come from.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from .. import methods
from .._system.progress import task
from .._system.world import ALONE, World
from ..cache import InputCache
from ..config.schema import Recipe
from ..config.sections.task import TaskConfig
from ..data.batching import by_tokens
from ..data.collate import Batch, collate
from ..data.encode import Encoder
from ..data.example import Example
from ..injection import Injection
from ..lm import finetune
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.context import Context
from ..lm.generation import answering
from ..methods.base import Setting, SoftPrompt
from . import pairs, reranking, retrieval
from .likelihood import target_nll, teacher_divergence
from .metrics import METRICS, default_metrics
from .records import Evaluation, Record, from_teacher, score
from .row_answers import BATCH_TOKENS, LOGITS, answer
from .writing import written

Progress = Callable[[int, int], None]
FROM_LOGITS = ("nll", "teacher")  # what a metric may need that takes no texts


@dataclass(frozen=True)
class Evaluator:
    """Scores rows; its fields are what does not change between evaluations."""

    lm: LanguageModel
    encoder: Encoder
    metrics: tuple[str, ...] = ()
    max_new_tokens: int = 64
    batch_tokens: int = BATCH_TOKENS  # of inputs and targets, padding included
    generate_options: dict[str, Any] = field(default_factory=dict)
    beta: float = 0.1  # of a preference task
    scale: float = 20.0  # of an embedding task
    query: str | None = None  # of a reranker: the field of a row's query
    base_mode: str = "frozen"  # how the base was trained
    world: World = ALONE  # the processes that score the rows together, a share of the batches each

    def run(
        self,
        method: SoftPrompt,
        examples: Sequence[Example],
        *,
        cache: InputCache | None = None,
        text_rows: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Score all rows under a method; `cache`, where given, holds the inputs of exactly these examples.

        Generating texts costs far more than scoring targets. `text_rows` is how many rows (the first ones)
        are generated and counted in text metrics; 0 leaves text metrics out, None generates all rows.
        """
        cache = cache or InputCache()
        if self.encoder.kind == "preference":
            if self.base_mode == "full" and any(e.reference is None for e in examples):
                raise pairs.no_reference()
            examples = self.with_references(examples, cache)
        started = time.perf_counter()
        records = self._records(method, examples, cache, progress)
        seconds = time.perf_counter() - started
        if self.query is not None:
            records = reranking.with_ranks(records, examples, self.query)
        taught, is_scored = bool(from_teacher(records)), self.encoder.task.score_range is not None
        names = list(self.metrics) or default_metrics(
            self.encoder.kind, taught=taught, scored=is_scored, reranks=self.query is not None
        )
        if self.encoder.kind != "generation":
            return Evaluation(score(names, records), records, seconds)
        count = len(examples) if text_rows is None else min(text_rows, len(examples))
        by_text = [name for name in names if METRICS[name].needs not in FROM_LOGITS] if count else []
        if by_text:
            texts = self._texts(method, examples[:count], cache, progress)
            records[:count] = [replace(r, prediction=t) for r, t in zip(records, texts, strict=False)]
        by_loss = [name for name in names if name not in by_text and METRICS[name].needs in FROM_LOGITS]
        scores = score(by_loss or ["perplexity"], records) | score(by_text, records[:count])
        results = {name: scores[name] for name in [*names, "perplexity"] if name in scores}
        return Evaluation(results, records, seconds)

    def with_references(self, examples: Sequence[Example], cache: InputCache) -> list[Example]:
        """Add what the base model gives both answers of each pair without the prompt; some may have it.

        `cache` is as in `run`.
        """
        if all(example.reference is not None for example in examples):
            return list(examples)
        references: dict[int, tuple[float, float]] = {}
        plain = methods.build("none", Setting(self.lm, self.encoder.prompts))
        weights = [len(e.input_ids) + e.answer_tokens for e in examples]
        with (
            _counted("reference model", weights, None, self.world.size) as count,
            finetune.without_adapters(self.lm),
        ):
            for indices, batch, context, injection in self._batches(plain, examples, cache):
                rows = [examples[i] for i in indices]
                scored = pairs.log_probabilities(self.lm, batch, injection, context, rows)
                references.update(zip(indices, scored, strict=True))
                count(indices)
        references = self.world.joined(references)
        return [replace(example, reference=references[i]) for i, example in enumerate(examples)]

    def _records(
        self,
        method: SoftPrompt,
        examples: Sequence[Example],
        cache: InputCache,
        progress: Progress | None,
    ) -> list[Record]:
        if self.encoder.kind == "embedding":
            return self._embedded(method, examples, progress)
        records: dict[int, Record] = {}
        weights = [len(e.input_ids) + e.answer_tokens for e in examples]
        with _counted("scoring rows", weights, progress, self.world.size) as count:
            for indices, batch, context, injection in self._batches(method, examples, cache):
                rows = [examples[i] for i in indices]
                records.update(zip(indices, self._scored(rows, batch, context, injection), strict=True))
                count(indices)
        records = self.world.joined(records)
        return [records[i] for i in range(len(examples))]

    def _embedded(
        self, method: SoftPrompt, examples: Sequence[Example], progress: Progress | None
    ) -> list[Record]:
        texts, rows = retrieval.distinct(examples)
        weights = [float(len(text.input_ids)) for text in texts]
        with _counted("embedding texts", weights, progress, 1) as count:
            vectors = retrieval.vectors_of(self.lm, method, texts, self.batch_tokens, count)
        if self.encoder.task.score_range is not None:
            return retrieval.scored(examples, rows, vectors)
        return retrieval.ranked(examples, texts, rows, vectors, self.scale)

    def _scored(
        self, rows: Sequence[Example], batch: Batch, context: Context | None, injection: Injection
    ) -> list[Record]:
        if self.encoder.kind == "preference":
            scored = pairs.log_probabilities(self.lm, batch, injection, context, rows)
            return [_pair_record(e, scores, self.beta) for e, scores in zip(rows, scored, strict=True)]
        if self.encoder.kind != "generation":
            answers = answer(self.lm, self.encoder, batch, injection, context, rows)
            return [_record(e, a.text, a.nll, a.scores) for e, a in zip(rows, answers, strict=True)]
        with torch.no_grad():
            logits = self.lm.logits(batch, injection, context)
            nll = target_nll(logits, batch).tolist()
            records = [_record(e, "", loss, None) for e, loss in zip(rows, nll, strict=True)]
            if batch.teacher_ids is None:
                return records
            divergences, agreed = (sums.tolist() for sums in teacher_divergence(logits, batch))
        known = zip(records, divergences, agreed, strict=True)
        return [replace(record, divergence=d, agreed=same) for record, d, same in known]

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
        with _counted("writing texts", weights, progress, self.world.size) as count:
            batches = self.world.share([*self._orders(examples, [self.max_new_tokens] * len(examples))])
            for indices, outputs in written(self.lm, method, examples, batches, options, cache=cache):
                texts.update(zip(indices, map(self.encoder.decode, outputs), strict=True))
                count(indices)
        texts = self.world.joined(texts)
        return [texts[i] for i in range(len(examples))]

    def _orders(self, examples: Sequence[Example], targets: Sequence[int]) -> Iterator[list[int]]:
        """Yield row numbers in batches of similar lengths; `targets` are a row's tokens beyond its input."""
        lengths = [len(e.input_ids) + more for e, more in zip(examples, targets, strict=True)]
        order = sorted(range(len(examples)), key=lambda i: (len(examples[i].input_ids), targets[i]))
        return by_tokens(order, lengths, self.batch_tokens)

    def _batches(
        self, method: SoftPrompt, examples: Sequence[Example], cache: InputCache
    ) -> Iterator[tuple[list[int], Batch, Context | None, Injection]]:
        targets = [max(1, *map(len, e.answers)) for e in examples]
        outputs = self.lm.spec.vocab_size if self.lm.head is None else self.lm.head.size
        for together in self.world.share([*self._orders(examples, targets)]):
            for indices in by_tokens(together, targets, LOGITS // outputs):
                batch = collate([examples[i] for i in indices], self.lm.device)
                batch = cache.fill(batch, indices, method.reads)
                with torch.no_grad():
                    injection = injection_for(self.lm, method, batch)
                    context = cache.context(indices) or self.lm.context(batch, injection)
                yield indices, batch, context, injection


@contextlib.contextmanager
def _counted(
    name: str, weights: Sequence[float], also: Progress | None, processes: int
) -> Iterator[Callable[[Sequence[int]], None]]:
    """Report rows that are done. Short rows come first, so the share of time is the share of weights.

    Of several processes, each is taken to be as far as this one.
    """
    total, done, share = sum(weights) or 1.0, 0, 0.0
    with task(name, len(weights)) as reported:

        def count(rows: Sequence[int]) -> None:
            nonlocal done, share
            done = min(len(weights), done + processes * len(rows))
            share = min(1.0, share + processes * sum(weights[i] for i in rows) / total)
            reported.at(done, share=share)
            if also:
                also(done, len(weights))

        yield count


def _record(example: Example, prediction: str, nll: float, scores: tuple[float, ...] | None) -> Record:
    rendered = example.rendered
    return Record(
        rendered.input, prediction, rendered.references, example.prompt, nll, len(example.target_ids), scores
    )


def _pair_record(example: Example, scores: pairs.Pair, beta: float) -> Record:
    record = _record(example, "", -scores[0], None)
    return replace(record, rewards=pairs.rewards(scores, example, beta))


def ranking(task: TaskConfig) -> dict[str, bool]:
    """Return what `default_metrics` and `check_metrics` must know of a task beside its kind."""
    return {"scored": task.score is not None, "reranks": task.query is not None}


def evaluator_of(recipe: Recipe, lm: LanguageModel, encoder: Encoder) -> Evaluator:
    """Return the evaluator of a recipe's task."""
    task = recipe.task
    return Evaluator(
        lm,
        encoder,
        tuple(task.metrics or ()),
        task.max_new_tokens,
        beta=task.beta,
        scale=task.scale,
        query=task.query,
        base_mode=recipe.base.mode,
    )
