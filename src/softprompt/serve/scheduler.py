"""The running batch: who joins it, what a step gives each row, and who leaves.

One thread calls this. It knows nothing of threads, queues or names of prompts: rows come from whoever holds
those that wait, and what becomes of them is told through their answers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import final

import torch

from ..lm import packed
from ..lm.causal import CausalLM
from ..lm.kv_store import PACKED_PADDING, PADDING, Joined, Joining, Running, alike
from .failures import as_failure, line, not_finite, note
from .load import Pace
from .prefix_cache import Reuse
from .request import Reason
from .sampler import choose, likelihoods
from .sequence import RunningSequence

PREFILL = 512  # positions that are read in one turn: rows that run wait no longer than this takes
IDLE = 2 * PREFILL  # the same where none runs yet
ECHO = 128  # the same where logits of all of them are wanted
NOTED = 256  # failures of answers that are remembered, so that those of one request are logged once


@final
class Batching:
    """Rows that run side by side, at most `max_rows` in a store of `max_tokens` columns."""

    def __init__(self, model: CausalLM, max_rows: int, max_tokens: int, reuse: Reuse) -> None:
        self.model, self.max_rows, self.max_tokens, self.reuse = model, max_rows, max_tokens, reuse
        self.rows: list[RunningSequence] = []  # by line
        self.arriving: RunningSequence | None = None  # its input is being read, part by part
        self._joining: list[RunningSequence] = []  # on their way to their first tokens
        self.running = Running(model, max_tokens)
        self.pace = Pace()
        self._packs = packed.suits(model)
        self._noted: deque[tuple[object, str]] = deque(maxlen=NOTED)
        self._counted = dict.fromkeys(("steps", "input_tokens", "output_tokens"), 0)
        self._finished = dict.fromkeys(("stop", "length", "cancelled", "error"), 0)

    def __len__(self) -> int:
        return len(self.rows) + (self.arriving is not None)

    @property
    def is_busy(self) -> bool:
        """Whether anybody is being answered, or about to be."""
        return bool(self.rows or self.arriving or self._joining)

    def numbers(self) -> dict[str, float]:
        """Counters, and what is held."""
        return {
            **{f"{name}_total": float(n) for name, n in self._counted.items()},
            **{f"finished_{reason}_total": float(n) for reason, n in self._finished.items()},
            "kv_bytes": float(self.running.bytes),
            "reuse_bytes": float(self.reuse.bytes),
            "reuse_hits_total": float(self.reuse.hits),
            "reuse_misses_total": float(self.reuse.misses),
        }

    def wait(self, held: int) -> float:
        """Seconds until those that wait now, of `held` in all, have been taken: from 1 to 60."""
        running = list(self.rows)
        so_far = time.monotonic() - min((row.begun for row in running), default=time.monotonic())
        return self.pace.wait(held - len(running), len(running) or self.max_rows, so_far)

    # --- who joins ---

    def choose_next(self, waiting: deque[RunningSequence]) -> None:
        """Takes those who join now, together. One with much to be read begins to arrive."""
        rows, keys = self._joining, set()
        most = PREFILL if self.rows else IDLE
        arriving = [] if self.arriving is None else [self.arriving]
        while waiting:
            row = waiting[0]
            if row.answer.cancelled:
                self.finish(waiting.popleft(), "cancelled")
                continue
            coming = [*arriving, *rows, row]
            full = len(self.rows) + len(coming) > self.max_rows
            if full or not self.running.fits(len(coming), max(r.columns for r in coming)):
                break
            if row.request.echo or row.reads(self.reuse) > PREFILL:
                if not arriving:
                    self.arriving = waiting.popleft()
                    row.begun = time.monotonic()
                break
            # one that may read what another is about to compute comes next
            if sum(r.reads(self.reuse) for r in (*rows, row)) > most or row.key in keys:
                break
            if row.key is not None and row.key not in self.reuse:
                keys.add(row.key)
            row.begun = time.monotonic()
            rows.append(waiting.popleft())

    def admit(self) -> None:
        """Those who join are begun, and run as far as their first tokens."""
        begun: list[tuple[RunningSequence, Joining]] = []
        for row in self._joining:
            try:
                begun.append((row, row.begin(self.reuse)))
            except Exception as error:
                self.fail([row], error)
        batches = alike(begun, PACKED_PADDING if self._packs else PADDING)
        for together in [batches] if self._packs else [[batch] for batch in batches]:
            self._begin(together)
        self._joining = []

    def arrive(self) -> None:
        """The next part of a long input, so that those who run need not wait for the whole of it."""
        row = self.arriving
        if row is None:
            return
        if row.answer.cancelled:
            self.arriving = None
            return self.finish(row, "cancelled")
        try:
            joined = row.read(self.reuse, ECHO if row.request.echo else PREFILL)
        except Exception as error:
            self.arriving = None
            return self.fail([row], error)
        if joined is not None:
            self.arriving = None
            self._join([row], joined)

    def _begin(self, batches: list[list[tuple[RunningSequence, Joining]]]) -> None:
        """In one pass. One that fails does not take the others with it: each is tried alone."""
        begun = [one for batch in batches for one in batch]
        failed: dict[
            str, tuple[list[RunningSequence], Exception]
        ] = {}  # by what is logged: alike for a broken device
        if begun and self._ran(batches, len(begun) == 1, failed):
            return
        for one in begun if len(begun) > 1 else ():
            self._ran([[one]], True, failed)
        for rows, error in failed.values():
            self.fail(rows, error)

    def _ran(
        self,
        batches: list[list[tuple[RunningSequence, Joining]]],
        alone: bool,
        failed: dict[str, tuple[list[RunningSequence], Exception]],
    ) -> bool:
        """Whether they were run as far as their first tokens; `failed` takes one that fails `alone`."""
        try:
            made = [Joined(self.model, [joining for _, joining in batch]) for batch in batches]
            if len(made) == 1:
                made[0].run(self.model)
            else:
                Joined.run_packed(self.model, made)
        except Exception as error:
            if alone:
                failed.setdefault(line(error), ([], error))[0].append(batches[0][0][0])
            return False
        for batch, joined in zip(batches, made, strict=True):
            self._join([row for row, _ in batch], joined)
        return True

    def _join(self, rows: list[RunningSequence], joined: Joined) -> None:
        """Those who are not at their end with their first token take a line."""
        try:
            self._counted["input_tokens"] += sum(len(row.request.input_ids) for row in rows)
            ended = self._take(rows, joined.logits[:, -1])
            for i, row in enumerate(rows):
                if not row.failed:
                    row.share(joined, i, self.reuse)
            staying = [i for i in range(len(rows)) if i not in ended]
            self.running.join(joined, staying)
        except Exception as error:
            self.fail(rows, error)
            return
        self.rows += [rows[i] for i in staying]

    # --- what a step gives ---

    def step(self) -> None:
        """Every row's next token."""
        if not self.rows:
            return
        try:
            logits = self.running.step([row.last for row in self.rows])
            self._counted["steps"] += 1
            ended = self._take(self.rows, logits)
        except Exception as error:
            self.fail(self.rows, error)
            self.end_rows(error)
            return
        for number in sorted(ended, reverse=True):
            self._vacate(number)

    def _take(self, rows: Sequence[RunningSequence], logits: torch.Tensor) -> set[int]:
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
        ended = {i for i, token in enumerate(tokens) if token is None}
        if ended:
            self.fail([rows[i] for i in sorted(ended)], not_finite())
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if token is None:
                continue
            if row.sampling.max_tokens < 1:
                self.finish(row, "length")
                ended.add(i)
                continue
            try:
                reason = row.take(token, likely.get(i))
            except Exception as error:
                self.fail([row], error)
                ended.add(i)
                continue
            self._counted["output_tokens"] += 1
            if reason is not None:
                self.finish(row, reason)
                ended.add(i)
        return ended

    # --- who leaves ---

    def leave_cancelled(self) -> None:
        """Rows that nobody waits for any more."""
        for row in [row for row in self.rows if row.answer.cancelled]:
            self.finish(row, "cancelled")
            self._vacate(self.rows.index(row))

    def finish(self, row: RunningSequence, reason: Reason, error: Exception | None = None) -> None:
        """Its answer is over."""
        if not row.done:
            self._finished[reason] += 1
            if reason in ("stop", "length"):
                self.pace.ended(time.monotonic() - row.begun)
            row.end(reason, None if error is None else as_failure(error))

    def fail(self, rows: Sequence[RunningSequence], error: Exception) -> None:
        """Their answers end with one failure, which is logged once."""
        rows = [row for row in rows if not row.done]
        said = line(error)
        known = [(row.request.group, said) in self._noted for row in rows if row.request.group is not None]
        if rows and (len(known) < len(rows) or not all(known)):
            note(error, len(rows), [row.request.prompt for row in rows])
        self._noted.extend((row.request.group, said) for row in rows)
        for row in rows:
            self.finish(row, "error", error)

    def end_rows(self, error: Exception) -> None:
        """Nobody is answered any more who was being answered; the next ones start anew."""
        for row in self.rows:
            self.finish(row, "error", error)
        self.rows, self.running = [], Running(self.model, self.max_tokens)

    def end_failed(self, error: Exception, waiting: deque[RunningSequence]) -> None:
        """The same after a failure of the engine itself; those who are on their way or wait end too."""
        arriving = [] if self.arriving is None else [self.arriving]
        self.fail([*self.rows, *self._joining, *arriving, *waiting], error)
        self.arriving, self._joining = None, []
        waiting.clear()
        self.end_rows(error)

    def _vacate(self, line: int) -> None:
        self.running.leave(line)
        self.rows[line] = self.rows[-1]
        self.rows.pop()
