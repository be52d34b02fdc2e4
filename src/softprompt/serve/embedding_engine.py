"""The engine of an encoder computes vectors of texts under any prompts, in batches that mix prompts.

Its thread takes all texts that wait, the oldest requests first, and runs them in batches of texts of about
equal length. A request keeps the version of its prompt that it began with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch

from ..data.batching import by_tokens
from ..data.capacity import Room
from ..data.collate import collate
from ..data.encode import Encoder
from ..data.example import Example
from ..data.task import Limits, ModelSide, Task
from ..data.template import Template
from ..evaluation.row_answers import BATCH_TOKENS
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.contrastive import unit
from ..methods.base import SoftPrompt
from ..methods.side_by_side import SideBySide
from .engine_thread import EngineThread
from .failures import as_failure, not_finite, note
from .registry import Loaded, Registry
from .request import Busy, InvalidRequest, Request, Stopped
from .stream import Answer

AT_ONCE = 4096  # texts that a turn takes at most


@dataclass
class _Texts:
    """One request has these texts, and the future of their vectors."""

    loaded: Loaded | None  # None: under no prompt
    examples: Sequence[Example]
    future: Future = field(default_factory=Future)


@final
class EmbeddingEngine(EngineThread):
    """Computes vectors for the prompts of a registry, many texts at a time."""

    where = ""  # it runs in this process

    def __init__(self, model: LanguageModel, registry: Registry, *, queue: int = 256) -> None:
        super().__init__()
        self.model, self.registry, self.capacity = model, registry, queue
        side = ModelSide("pooled", model.spec.kind, vocabulary=model.vocabulary)
        room = Room(model.spec.context, is_settled=True)
        template = Template("{{ input }}", "{{ input }}", negatives_field="negatives")
        #: Reads texts under no prompt.
        self.plain_texts = Encoder(model.tokenizer, template, Task("embedding"), side, Limits(room=room))
        self._waiting: list[_Texts] = []
        self._running = 0
        self._requests = self._texts = self._batches = 0

    # --- from any thread ---

    def submit(self, request: Request, loaded: Loaded | None = None) -> Answer:
        """Raise InvalidRequest: an encoder writes no text."""
        raise _writes_nothing()

    def classifying(
        self, prompt: str, rows: Sequence[Any], *, scale: float = 1.0, loaded: Loaded | None = None
    ) -> Coroutine[Any, Any, list[dict[str, float]]]:
        """Raise InvalidRequest: the base was loaded for vectors."""
        raise _writes_nothing()

    def embedding(
        self, loaded: Loaded | None, examples: Sequence[Example]
    ) -> Coroutine[Any, Any, list[list[float]]]:
        """Return an awaitable of the vectors of encoded texts, of length 1. Raises Busy and Stopped."""
        texts = _Texts(loaded, examples)
        with self._changed:
            self._check_open()
            if len(self._waiting) >= self.capacity:
                raise Busy(f"{len(self._waiting)} requests wait", fix="ask again later", retry_after=1)
            self._waiting.append(texts)
            self._requests += 1
            self._changed.notify()

        async def vectors() -> list[list[float]]:
            return await asyncio.wrap_future(texts.future)

        return vectors()

    def numbers(self) -> dict[str, float]:
        return {
            "requests_total": float(self._requests),
            "requests_running": float(self._running),
            "requests_waiting": float(len(self._waiting)),
            "texts_total": float(self._texts),
            "batches_total": float(self._batches),
            "prompts_bytes": float(self.registry.bytes),
            "prompts_outdated": float(self.registry.outdated),
        }

    @property
    def _has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def _end_all(self, error: Stopped) -> None:
        for texts in self._waiting:
            if texts.future.set_running_or_notify_cancel():
                texts.future.set_exception(error)
        self._waiting = []

    # --- the engine's thread ---

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._waiting)
                if self._stopped:
                    return
                taken = self._take()
            self._running = len(taken)
            self._answer([texts for texts in taken if texts.future.set_running_or_notify_cancel()])
            self._running = 0

    def _take(self) -> list[_Texts]:
        """Take the oldest requests, at least one, with up to `AT_ONCE` texts; the caller holds the lock."""
        taken, count = [], 0
        while self._waiting and (not taken or count + len(self._waiting[0].examples) <= AT_ONCE):
            taken.append(self._waiting.pop(0))
            count += len(taken[-1].examples)
        return taken

    def _answer(self, taken: list[_Texts]) -> None:
        """Compute the vectors of requests together; where that fails, of each request alone."""
        try:
            results = self._vectors(taken)
        except Exception as error:
            if len(taken) > 1:
                for texts in taken:
                    self._answer([texts])
                return
            for texts in taken:
                note(error, 1, [None if texts.loaded is None else texts.loaded.name])
                texts.future.set_exception(as_failure(error))
            return
        for texts, vectors in zip(taken, results, strict=True):
            texts.future.set_result(vectors)

    @torch.no_grad()
    def _vectors(self, taken: list[_Texts]) -> list[list[list[float]]]:
        """Return the vectors of each request's texts, in their order."""
        rows = [(k, i, e) for k, texts in enumerate(taken) for i, e in enumerate(texts.examples)]
        lengths = [len(example.input_ids) for _, _, example in rows]
        results: list[list[list[float]]] = [[[]] * len(texts.examples) for texts in taken]
        order = sorted(range(len(rows)), key=lengths.__getitem__)
        for numbers in by_tokens(order, lengths, BATCH_TOKENS):
            some = [rows[n] for n in numbers]
            vectors = self._of_batch([(taken[k].loaded, example) for k, _, example in some])
            for (k, i, _), vector in zip(some, vectors, strict=True):
                results[k][i] = vector
        self._texts += len(rows)
        return results

    def _of_batch(self, rows: list[tuple[Loaded | None, Example]]) -> list[list[float]]:
        """Run one batch: its rows may be under different prompts."""
        methods: dict[int, SoftPrompt] = {}
        for loaded, _ in rows:
            if loaded is not None:
                methods.setdefault(id(loaded.tuned.method), loaded.tuned.method)
        places = list(methods)
        plain = [example for loaded, example in rows if loaded is None]
        if plain and places:  # rows without a prompt run apart
            out = iter(self._of_batch([row for row in rows if row[0] is None]))
            others = iter(self._of_batch([row for row in rows if row[0] is not None]))
            return [next(out if loaded is None else others) for loaded, _ in rows]
        batch = collate([example for _, example in rows], self.model.device, targets=False)
        injection = None
        if places:
            joined = SideBySide(list(methods.values()))
            ids = [
                joined.offsets[places.index(id(loaded.tuned.method))] + example.prompt
                for loaded, example in rows
                if loaded is not None
            ]
            batch = replace(batch, prompt_ids=torch.tensor(ids, device=self.model.device))
            injection = injection_for(self.model, joined, batch)
        vectors = unit(self.model.logits(batch, injection)[:, 0])
        self._batches += 1
        if not bool(torch.isfinite(vectors).all()):
            raise not_finite()
        return vectors.cpu().tolist()


def _writes_nothing() -> InvalidRequest:
    return InvalidRequest(
        "this server's model gives vectors of texts, and writes no answers",
        why="it is an encoder",
        fix="send texts to /v1/embeddings",
    )
