"""The scheduler adds requests to the running batch, takes steps, and removes sequences that end.

One thread calls it. It knows nothing of threads, queues or names of prompts: the engine hands over waiting
sequences, and results go to their answers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import final

import torch

from ..lm import packed
from ..lm.causal import CausalLM
from ..lm.joining import PACKED_PADDING, PADDING, Joined, Joining, alike
from ..lm.kv_store import Running
from .failures import as_failure, line, not_finite, note
from .load import Pace
from .prefix_cache import PrefixCache
from .request import Reason
from .sampler import choose, likelihoods
from .sequence import RunningSequence

PREFILL = 512  # positions that are read in one turn, while running sequences wait
IDLE = 2 * PREFILL  # the same where none runs
ECHO = 128  # the same where logits at all positions are needed
NOTED = 256  # remembered failures, so that the answers of one request log theirs once


@final
class Scheduler:
    """Runs at most `max_rows` sequences side by side, in a store of `max_tokens` columns."""

    def __init__(self, model: CausalLM, max_rows: int, max_tokens: int, prefix_cache: PrefixCache) -> None:
        self.model, self.max_rows, self.max_tokens = model, max_rows, max_tokens
        self.prefix_cache = prefix_cache
        self.rows: list[RunningSequence] = []  # by line of the store
        self.arriving: RunningSequence | None = None  # its long input is read part by part
        self._joining: list[RunningSequence] = []  # those that will get their first tokens next
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
        return bool(self.rows or self.arriving or self._joining)

    def numbers(self) -> dict[str, float]:
        return {
            **{f"{name}_total": float(n) for name, n in self._counted.items()},
            **{f"finished_{reason}_total": float(n) for reason, n in self._finished.items()},
            "kv_bytes": float(self.running.bytes),
            "reuse_bytes": float(self.prefix_cache.bytes),
            "reuse_hits_total": float(self.prefix_cache.hits),
            "reuse_misses_total": float(self.prefix_cache.misses),
        }

    def wait(self, held: int) -> float:
        """Return seconds, from 1 to 60, until those that wait now, of `held` in all, have begun."""
        running = list(self.rows)
        so_far = time.monotonic() - min((row.begun for row in running), default=time.monotonic())
        return self.pace.wait(held - len(running), len(running) or self.max_rows, so_far)

    # --- adding requests ---

    def choose_next(self, waiting: deque[RunningSequence]) -> None:
        """Take the waiting requests that are added now, together. A long input begins to be read in parts."""
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
            if row.request.echo or row.reads(self.prefix_cache) > PREFILL:
                if not arriving:
                    self.arriving = waiting.popleft()
                    row.begun = time.monotonic()
                break
            # a request that can share what another is about to compute waits for the next turn
            if sum(r.reads(self.prefix_cache) for r in (*rows, row)) > most or row.key in keys:
                break
            if row.key is not None and row.key not in self.prefix_cache:
                keys.add(row.key)
            row.begun = time.monotonic()
            rows.append(waiting.popleft())

    def admit(self) -> None:
        begun: list[tuple[RunningSequence, Joining]] = []
        for row in self._joining:
            try:
                begun.append((row, row.begin(self.prefix_cache)))
            except Exception as error:
                self.fail([row], error)
        batches = alike(begun, PACKED_PADDING if self._packs else PADDING)
        for group in [batches] if self._packs else [[batch] for batch in batches]:
            self._begin(group)
        self._joining = []

    def arrive(self) -> None:
        """Read the next part of a long input, so that running sequences do not wait for all of it."""
        row = self.arriving
        if row is None:
            return
        if row.answer.cancelled:
            self.arriving = None
            return self.finish(row, "cancelled")
        try:
            joined = row.read(self.prefix_cache, ECHO if row.request.echo else PREFILL)
        except Exception as error:
            self.arriving = None
            return self.fail([row], error)
        if joined is not None:
            self.arriving = None
            self._join([row], joined)

    def _begin(self, batches: list[list[tuple[RunningSequence, Joining]]]) -> None:
        """Run batches in one pass. If it fails, each request is tried alone, so that only bad ones fail."""
        begun = [pair for batch in batches for pair in batch]
        # by the logged line, which is the same for all where the device is broken
        failed: dict[str, tuple[list[RunningSequence], Exception]] = {}
        if begun and self._ran(batches, len(begun) == 1, failed):
            return
        for pair in begun if len(begun) > 1 else ():
            self._ran([[pair]], True, failed)
        for rows, error in failed.values():
            self.fail(rows, error)

    def _ran(
        self,
        batches: list[list[tuple[RunningSequence, Joining]]],
        alone: bool,
        failed: dict[str, tuple[list[RunningSequence], Exception]],
    ) -> bool:
        """Run batches up to their first tokens; return False on failure, which `failed` notes if `alone`."""
        try:
            joined_batches = [Joined(self.model, [joining for _, joining in batch]) for batch in batches]
            if len(joined_batches) == 1:
                joined_batches[0].run(self.model)
            else:
                Joined.run_packed(self.model, joined_batches)
        except Exception as error:
            if alone:
                failed.setdefault(line(error), ([], error))[0].append(batches[0][0][0])
            return False
        for batch, joined in zip(batches, joined_batches, strict=True):
            self._join([row for row, _ in batch], joined)
        return True

    def _join(self, rows: list[RunningSequence], joined: Joined) -> None:
        """Give requests their first tokens; those that do not end with it get a line in the store."""
        try:
            self._counted["input_tokens"] += sum(len(row.request.input_ids) for row in rows)
            ended = self._take(rows, joined.logits[:, -1])
            for i, row in enumerate(rows):
                if not row.failed:
                    row.share(joined, i, self.prefix_cache)
            staying = [i for i in range(len(rows)) if i not in ended]
            self.running.join(joined, staying)
        except Exception as error:
            self.fail(rows, error)
            return
        self.rows += [rows[i] for i in staying]

    # --- steps ---

    def step(self) -> None:
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
        """Choose each sequence's next token; return the indices of those that end with it."""
        tokens = choose(logits, [row.chooser for row in rows])
        scored = [
            i for i, row in enumerate(rows) if row.sampling.logprobs is not None and tokens[i] is not None
        ]
        likely = {}
        if scored:
            most = max(rows[i].sampling.logprobs or 0 for i in scored)
            chosen = [token for i in scored if (token := tokens[i]) is not None]
            likely = dict(zip(scored, likelihoods(logits[scored], chosen, most), strict=True))
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

    # --- removing sequences ---

    def leave_cancelled(self) -> None:
        for row in [row for row in self.rows if row.answer.cancelled]:
            self.finish(row, "cancelled")
            self._vacate(self.rows.index(row))

    def finish(self, row: RunningSequence, reason: Reason, error: Exception | None = None) -> None:
        if not row.done:
            self._finished[reason] += 1
            if reason in ("stop", "length"):
                self.pace.ended(time.monotonic() - row.begun)
            row.end(reason, None if error is None else as_failure(error))

    def fail(self, rows: Sequence[RunningSequence], error: Exception) -> None:
        """End answers with one failure, which is logged once."""
        rows = [row for row in rows if not row.done]
        text = line(error)
        known = [(row.request.group, text) in self._noted for row in rows if row.request.group is not None]
        if rows and (len(known) < len(rows) or not all(known)):
            note(error, len(rows), [row.request.prompt for row in rows])
        self._noted.extend((row.request.group, text) for row in rows)
        for row in rows:
            self.finish(row, "error", error)

    def end_rows(self, error: Exception) -> None:
        """End all running sequences with an error, and start with an empty store."""
        for row in self.rows:
            self.finish(row, "error", error)
        self.rows, self.running = [], Running(self.model, self.max_tokens)

    def end_failed(self, error: Exception, waiting: deque[RunningSequence]) -> None:
        """End all sequences after a failure of the engine itself, including those that wait."""
        arriving = [] if self.arriving is None else [self.arriving]
        self.fail([*self.rows, *self._joining, *arriving, *waiting], error)
        self.arriving, self._joining = None, []
        waiting.clear()
        self.end_rows(error)

    def _vacate(self, line: int) -> None:
        self.running.leave(line)
        self.rows[line] = self.rows[-1]
        self.rows.pop()
