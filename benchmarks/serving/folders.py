"""Time a server on a tree of very many artifacts: its start, its list, and the first request for one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx

from benchmarks.training.line import Line

from .bench import Bench
from .process import served

WIDE = 1000  # artifacts in a folder
LINKS = 20_000  # names of one file: file systems have a limit
PAGE = 100


def measure(bench: Bench) -> Iterator[Line]:
    """Measure milliseconds of a new server, beside those with a folder of one artifact."""
    few, many = (bench.folder.with_name(name) for name in ("few", "many"))
    plant(bench, few, 1)
    plant(bench, many, bench.artifacts)
    last = f"{(bench.artifacts - 1) // WIDE}/{bench.artifacts - 1}"
    single, all_of_them = ask(bench, few, "0/0", 1), ask(bench, many, last, bench.artifacts)
    for step in single:
        yield Line(
            "folders",
            f"{bench.artifacts:,} artifacts: {step}",
            1000 * all_of_them[step],
            1000 * single[step],
            "ms (many / one)",
        )


def plant(bench: Bench, folder: Path, count: int) -> None:
    """Create `count` artifacts, `WIDE` in a folder, as hard links to the files of a few."""
    source = Path()
    for i in range(count):
        if i % LINKS == 0:
            source = bench.folder / bench.publish(
                f"seeds/{i // LINKS}", "prompt-tuning", {"length": bench.length, "init": "random"}
            )
        at = folder / str(i // WIDE) / str(i)
        at.mkdir(parents=True)
        for file in os.scandir(source):
            os.link(file.path, at / file.name)


def ask(bench: Bench, folder: Path, name: str, count: int) -> dict[str, float]:
    """Return the seconds of each request. Raises RuntimeError if one has a wrong answer."""
    with served(bench, folder) as server, httpx.Client(base_url=server.url, timeout=300) as http:
        times = {"from the command to the first request": server.seconds}

        def timed(step: str, path: str, body: dict[str, Any] | None = None) -> Any:
            started = time.perf_counter()
            reply = http.get(path) if body is None else http.post(path, json=body)
            times[step] = time.perf_counter() - started
            if reply.status_code != 200:
                raise RuntimeError(f"{path}: {reply.status_code} {reply.text[:200]}")
            return reply.json()

        timed("a first request of any kind", "/health")
        page = timed(f"first page of the list ({PAGE})", f"/v1/models?limit={PAGE}")["data"]
        request = {"model": name, "prompt": [*bench.ids(bench.inputs[0])], "max_tokens": 1}
        timed("first request for one, one token", "/v1/completions", request)
        timed("the next for the same", "/v1/completions", request)
        chosen = timed("search for one name", f"/v1/models?search={name}&limit=1")["data"]
        whole = timed("the whole list", "/v1/models")["data"]
        if (len(page), len(whole)) != (min(PAGE, count + 1), count + 1) or [m["id"] for m in chosen] != [
            name
        ]:
            raise RuntimeError(f"{folder}: {len(page)} and {len(whole)} listed of {count} and the base model")
    return times
