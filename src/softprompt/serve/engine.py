"""The engine: requests become rows of one running batch, whatever prompt each is under.

One thread takes turns: rows that were cancelled leave, requests that wait join as far as there is room, and
every row takes a step. Any thread may submit. What is loaded for a request is held by it, so it goes on
under the version that it began with.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, final

import torch

from ..errors import SoftPromptError
from ..lm.frozen import FrozenLM
from ..lm.running import Joined, Joining, Running, alike
from ..memory import free_memory
from .answer import Answer
from .classify import classified
from .registry import Loaded, Registry
from .request import Busy, InvalidRequest, Request, Stopped
from .reuse import Reuse
from .row import Row
from .sampling import choose, likelihoods

PREFILL = 512  # positions that are read in one turn: rows that run wait no longer than this takes
IDLE = 2 * PREFILL  # the same where none runs yet
ECHO = 128  # the same where logits of all of them are wanted
MEMORY = 0.4  # of what is free, for the rows that run


@final
class Engine:
    """Answers requests for the prompts of a registry, many at a time."""

    def __init__(
        self,
        model: FrozenLM,
        registry: Registry,
        *,
        max_rows: int = 64,
        max_tokens: int | None = None,
        queue: int = 256,
        cache_bytes: int = 2**29,
    ) -> None:
        """`max_rows` at once, in a store of `max_tokens` columns (None: by the memory that is free).

        `queue` requests may wait. `cache_bytes` hold keys and values that requests share. Raises
        SoftPromptError for a model whose keys and values do not stand for its input.
        """
        self.model, self.registry = model, registry
        self.max_rows, self.queue = max_rows, queue
        size = model.spec.kv_numbers_per_token * model.dtype.itemsize
        self.max_tokens = max_tokens or int(MEMORY * free_memory(str(model.device)) / size)
        self.reuse = Reuse(cache_bytes)
        self._running = Running(model, self.max_tokens)
        self._rows: list[Row] = []  # by line
        self._waiting: deque[Row] = deque()
        self._arriving: Row | None = None  # its input is being read, part by part
        self._jobs: deque[tuple[Callable[[], Any], Future]] = deque()
        self._changed = threading.Condition()
        self._closing = self._stopped = False
        self._thread: threading.Thread | None = None
        self._ends = _end_tokens(model)
        self._counted = dict.fromkeys(("requests", "steps", "input_tokens", "output_tokens"), 0)
        self._finished = dict.fromkeys(("stop", "length", "cancelled", "error"), 0)

    # --- from any thread ---

    def start(self) -> None:
        """Begin to answer."""
        self._closing = self._stopped = False
        self._thread = threading.Thread(target=self._loop, name="softprompt-engine", daemon=True)
        self._thread.start()

    def stop(self, *, drain: float = 0) -> None:
        """Take no more; what is not answered within `drain` seconds ends with an error."""
        with self._changed:
            self._closing = True
        until = time.monotonic() + drain
        while time.monotonic() < until and self._busy:
            time.sleep(0.01)
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._end_all(Stopped("the server has stopped", fix="ask again later"))

    def submit(self, request: Request, loaded: Loaded | None = None) -> Answer:
        """Raises Busy, Stopped, UnknownPrompt, BrokenPrompt and InvalidRequest.

        `loaded` is the prompt's version that the request was rendered for; None: the one on disk now.
        """
        self._check_room()
        if loaded is None and request.prompt is not None:
            loaded = self.registry.get(request.prompt)
        answer = Answer(request)
        row = Row(self.model, answer, loaded, self._ends)
        if row.columns > self.max_tokens:
            raise InvalidRequest(
                f"{row.columns} columns of keys and values do not fit the server's memory",
                why=f"it was given room for {self.max_tokens}",
                fix="shorten the input, or lower max_tokens",
            )
        with self._changed:
            self._check_room()
            self._waiting.append(row)
            self._counted["requests"] += 1
            self._changed.notify()
        return answer

    def classify(
        self,
        prompt: str,
        rows: Sequence[str | Mapping[str, Any]],
        *,
        scale: float = 1.0,
        loaded: Loaded | None = None,
    ) -> list[dict[str, float]]:
        """Probabilities of each row's labels (or choices) under a classification prompt. Waits for them."""
        loaded = loaded or self.registry.get(prompt)
        return [found for job in classified(self.model, loaded, rows, scale) for found in self._do(job)]

    def numbers(self) -> dict[str, float]:
        """Counters, and what is going on now."""
        return {
            **{f"{name}_total": float(n) for name, n in self._counted.items()},
            **{f"finished_{reason}_total": float(n) for reason, n in self._finished.items()},
            "requests_running": float(len(self._rows) + (self._arriving is not None)),
            "requests_waiting": float(len(self._waiting)),
            "kv_bytes": float(self._running.bytes),
            "reuse_bytes": float(self.reuse.bytes),
            "reuse_hits_total": float(self.reuse.hits),
            "reuse_misses_total": float(self.reuse.misses),
            "prompts_bytes": float(self.registry.bytes),
        }

    @property
    def _busy(self) -> bool:
        return bool(self._rows or self._waiting or self._jobs or self._arriving)

    def _check_room(self) -> None:
        if self._closing:
            raise Stopped("the server is stopping", fix="ask another one, or again later")
        if len(self._waiting) >= self.queue:
            raise Busy(
                f"{len(self._waiting)} requests wait already", fix="ask again a little later", retry_after=1.0
            )

    def _do(self, job: Callable[[], Any]) -> Any:
        """The job's result, done by the engine's thread between two steps."""
        future: Future = Future()
        with self._changed:
            self._check_room()
            self._jobs.append((job, future))
            self._changed.notify()
        return future.result()

    # --- the engine's thread ---

    def _loop(self) -> None:
        with torch.no_grad():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self._busy)
                    if self._stopped:
                        break
                self.turn()

    def turn(self) -> None:
        """Whatever can be done now, and one step."""
        self._leave([row for row in self._rows if row.answer.cancelled], "cancelled")
        if self._jobs:
            job, future = self._jobs.popleft()
            try:
                future.set_result(job())
            except Exception as error:
                future.set_exception(error)
        self._admit()
        if self._rows:
            self._step()

    def _admit(self) -> None:
        """Those who wait join, in their order, as many as there is room for."""
        if self._arriving is not None:
            self._arrive(self._arriving)
        begun: list[tuple[Row, Joining]] = []
        for row in self._next():
            try:
                begun.append((row, row.begin(self.reuse)))
            except Exception as error:
                self._finish(row, "error", error)
        for together in alike(begun):
            self._begin(together)

    def _begin(self, begun: list[tuple[Row, Joining]]) -> None:
        """They are run as far as their first token. One that fails does not take the others with it."""
        rows = [row for row, _ in begun]
        try:
            joined = Joined(self.model, [joining for _, joining in begun])
        except Exception as error:
            if len(rows) == 1:
                self._finish(rows[0], "error", error)
                return
            for one in begun:
                self._begin([one])
            return
        self._join(rows, joined)

    def _arrive(self, row: Row) -> None:
        """The next part of a long input, so that those who run need not wait for the whole of it."""
        if row.answer.cancelled:
            self._arriving = None
            return self._finish(row, "cancelled")
        try:
            joined = row.read(self.reuse, ECHO if row.request.echo else PREFILL)
        except Exception as error:
            self._arriving = None
            return self._finish(row, "error", error)
        if joined is not None:
            self._arriving = None
            self._join([row], joined)

    def _next(self) -> list[Row]:
        """Those who join now, together. One with much to be read begins to arrive."""
        rows: list[Row] = []
        keys = set()
        most = PREFILL if self._rows else IDLE
        arriving = [] if self._arriving is None else [self._arriving]
        with self._changed:
            while self._waiting:
                row = self._waiting[0]
                if row.answer.cancelled:
                    self._finish(self._waiting.popleft(), "cancelled")
                    continue
                coming = [*arriving, *rows, row]
                full = len(self._rows) + len(coming) > self.max_rows
                if full or not self._running.fits(len(coming), max(r.columns for r in coming)):
                    break
                if row.request.echo or row.reads(self.reuse) > PREFILL:
                    if not arriving:
                        self._arriving = self._waiting.popleft()
                    break
                # one that may read what another is about to compute comes next
                if sum(r.reads(self.reuse) for r in (*rows, row)) > most or row.key in keys:
                    break
                if row.key is not None and row.key not in self.reuse:
                    keys.add(row.key)
                rows.append(self._waiting.popleft())
        return rows

    def _join(self, rows: list[Row], joined: Joined) -> None:
        """Those who are not at their end with their first token take a line."""
        try:
            self._counted["input_tokens"] += sum(len(row.request.input_ids) for row in rows)
            ended = self._take(rows, joined.logits[:, -1])
            for i, row in enumerate(rows):
                if not row.failed:
                    row.share(joined, i, self.reuse)
            staying = [i for i in range(len(rows)) if i not in ended]
            self._running.join(joined, staying)
        except Exception as error:
            for row in rows:
                self._finish(row, "error", error)
            return
        self._rows += [rows[i] for i in staying]

    def _step(self) -> None:
        try:
            logits = self._running.step([row.last for row in self._rows])
            self._counted["steps"] += 1
            ended = self._take(self._rows, logits)
        except Exception as error:
            self._end_all(_of_model(error))
            return
        for line in sorted(ended, reverse=True):
            self._vacate(line)

    def _take(self, rows: Sequence[Row], logits: torch.Tensor) -> set[int]:
        """Each row's next token; the numbers of the rows that end with it."""
        tokens = choose(logits, [row.chooser for row in rows])
        telling = [
            i for i, row in enumerate(rows) if row.sampling.logprobs is not None and tokens[i] is not None
        ]
        likely = {}
        if telling:
            most = max(rows[i].sampling.logprobs or 0 for i in telling)
            chosen = [token for i in telling if (token := tokens[i]) is not None]
            likely = dict(zip(telling, likelihoods(logits[telling], chosen, most), strict=True))
        ended = set()
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if token is None:
                self._finish(row, "error", _not_finite())
                ended.add(i)
                continue
            if row.sampling.max_tokens < 1:
                self._finish(row, "length")
                ended.add(i)
                continue
            reason = row.take(token, likely.get(i))
            self._counted["output_tokens"] += 1
            if reason is not None:
                self._finish(row, reason)
                ended.add(i)
        return ended

    def _leave(self, rows: Sequence[Row], reason) -> None:
        for row in rows:
            self._finish(row, reason)
            self._vacate(self._rows.index(row))

    def _vacate(self, line: int) -> None:
        self._running.leave(line)
        self._rows[line] = self._rows[-1]
        self._rows.pop()

    def _finish(self, row: Row, reason, error: Exception | None = None) -> None:
        if not row.done:
            self._finished[reason] += 1
            row.end(reason, None if error is None else _of_model(error))

    def _end_all(self, error: SoftPromptError) -> None:
        """Nobody is answered any more who was being answered; the next ones start anew."""
        for row in self._rows:
            self._finish(row, "error", error)
        self._rows, self._running = [], Running(self.model, self.max_tokens)
        if not self._stopped:
            return
        if self._arriving is not None:
            self._finish(self._arriving, "error", error)
            self._arriving = None
        while self._waiting:
            self._finish(self._waiting.popleft(), "error", error)
        while self._jobs:
            self._jobs.popleft()[1].set_exception(error)


def _end_tokens(lm: FrozenLM) -> frozenset[int]:
    """Those that `generate` ends at, and the tokenizer's own."""
    config: Any = lm.model.generation_config
    own = config.eos_token_id
    found = own if isinstance(own, list) else [own]
    return frozenset(int(i) for i in (*found, getattr(lm.tokenizer, "eos_token_id", None)) if i is not None)


def _not_finite() -> SoftPromptError:
    return SoftPromptError(
        "the model's numbers for this request are not finite",
        why="the prompt drives it out of its range",
        fix="use another prompt, a lower strength, or dtype=float32",
    )


def _of_model(error: Exception) -> SoftPromptError:
    if isinstance(error, SoftPromptError):
        return error
    return SoftPromptError(
        "the model failed on this request", why=f"{type(error).__name__}: {error}".splitlines()[0]
    )
