"""Put a server in its own process under load: errors, wrong answers, times, memory.

Clients request prompts of every kind and the plain model, with inputs and answers of many lengths, and some
hang up. The answers to a quarter of the requests were computed before, each alone, by transformers' own
`generate`; the other requests are new.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import linear_regression, median, quantiles

import psutil
import torch

from benchmarks.training.line import Line
from softprompt import api
from softprompt.data.collate import batch_of_ids
from softprompt.lm.apply import injection_for
from softprompt.serve.detokenizer import Detokenizer

from .bench import Bench
from .clients import Asked, Seen, run
from .process import served

METHODS = ("prompt-tuning", "prefix-tuning", "generated-prefix")
KINDS = [(method, place) for method in METHODS for place in ("before", "after")]
CHECKED = 0.25  # of the requests
FLAT = 1.01  # resident memory at the end, as a share of that after the first minutes
FIRST = 600.0  # seconds in which memory may grow, or half of a shorter run
EACH = 0.2  # seconds between two readings


def measure(bench: Bench) -> Iterator[Line]:
    """Measure requests a second, times of first tokens and whole answers, and memory."""
    names = []
    for i in range(bench.clients):
        method, place = KINDS[i % len(KINDS)]
        options = {"length": 1 + i % bench.length, "placement": place, "init": "random"}
        names.append(bench.publish(f"load/{i}", method, options, i))
    plain = Path(bench.lm.name).name
    known = [alone(bench, new_request(bench, name), plain) for name in (*names, plain)] if bench.exact else []
    draw = random.Random(1)

    def next_one() -> Asked:
        if known and draw.random() < CHECKED:
            return draw.choice(known)
        return new_request(bench, draw.choice((*names, plain)))

    with served(bench, bench.folder) as server, Memory(server.pid) as memory:
        seen = run(server.url, bench.clients, bench.seconds, next_one)
    yield from lines(bench, seen, memory)


def new_request(bench: Bench, model: str) -> Asked:
    """Draw a new request of a random length."""
    draw, inputs = bench.draw, bench.inputs
    ids = bench.ids(draw.randint(max(1, inputs[0] // 2), inputs[-1]))
    return Asked(model, ids, draw.randint(max(1, bench.tokens // 4), bench.tokens))


@torch.no_grad()
def alone(bench: Bench, request: Asked, plain: str) -> Asked:
    """Add the right answer, computed for one row without engine or server."""
    lm, batch, injection = bench.lm, batch_of_ids([request.ids], device=bench.lm.device), None
    if request.model != plain:
        injection = injection_for(lm, api.open_prompt(bench.folder / request.model, lm).method, batch)
    nothing = lm.spec.vocab_size  # no token ends it
    output = lm.generate(
        batch, injection, do_sample=False, max_new_tokens=request.tokens, eos_token_id=nothing
    )
    text = Detokenizer(lm.tokenizer)  # broken characters differ if decoded at once
    return replace(request, alone="".join(map(text.add, output[0].tolist())) + text.rest())


def lines(bench: Bench, seen: Seen, memory: Memory) -> Iterator[Line]:
    """Yield the results."""
    case = f"{bench.clients} clients, {bench.clients} prompts and the plain model, {seen.seconds:.0f} s"
    faults = [f"{len(seen.errors)} errors, the first: {seen.errors[0]}"] if seen.errors else []
    if seen.wrong:
        faults.append(f"{len(seen.wrong)} of {seen.checked} not as alone, the first: {seen.wrong[0]}")
    if bench.exact and not seen.checked:
        faults.append("no answer was checked")
    note = f"{len(seen.whole)} answers, {seen.checked} checked, {seen.left} clients left; "
    note += f"{len(seen.errors)} errors, {len(seen.wrong)} wrong; {seen.tokens / seen.seconds:.0f} tokens/s"
    rate = len(seen.whole) / seen.seconds
    yield Line("load", case, rate, None, "requests/s", note=note, wrong="; ".join(faults))
    for case, times in (("first token", seen.first), ("whole answer", seen.whole)):
        if len(times) > 1:
            late = 1000 * quantiles(times, n=100)[-1]
            yield Line("load", case, late, 1000 * median(times), "ms (99 % / median)")
    yield memory.line()


class Memory:
    """Records the resident bytes of a process from a thread."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)
        self.seen: list[tuple[float, float]] = []  # (seconds, MB)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            try:
                self.seen.append((time.perf_counter(), self.process.memory_info().rss / 1e6))
            except psutil.Error:  # it has ended, which the clients report
                return
            if self._ended.wait(EACH):
                return

    def line(self) -> Line:
        """Compare the last minute with the last of the first ten (medians), and note the sizes between."""
        if len(self.seen) < 4:
            return Line("load", "memory", None, None, "MB (end / first)", goal=FLAT, at_most=True)
        begun, ended = self.seen[0][0], self.seen[-1][0]
        part = min(FIRST, (ended - begun) / 2)
        marks = [begun + part * i for i in range(1, int((ended - begun) / part))] + [ended]
        sizes = [self._before(mark, part / 10) for mark in marks]
        late = [(at, mb) for at, mb in self.seen if at >= marks[0]]
        slope = 60 * linear_regression([at for at, _ in late], [mb for _, mb in late]).slope
        start, most = self.seen[0][1], max(mb for _, mb in self.seen)
        note = f"{start:,.0f} MB at the start, {most:,.0f} at most; every {part / 60:.3g} minutes "
        note += ", ".join(f"{mb:,.0f}" for mb in sizes) + f"; since the first {slope:+.2f} MB a minute"
        end, first = sizes[-1], sizes[0]
        return Line(
            "load", "memory", end, first, "MB (end / first)", end / first, FLAT, at_most=True, note=note
        )

    def _before(self, mark: float, seconds: float) -> float:
        """Return the median of the `seconds` before a mark, or the last size before them if there is none."""
        until = [(at, mb) for at, mb in self.seen if at <= mark]
        return median([mb for at, mb in until if at > mark - seconds] or [until[-1][1]])
