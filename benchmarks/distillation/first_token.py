"""It measures a served request's time to its first token, behind a text and behind 64 vectors.

Tokens and vectors are random: no time depends on their content. Four ways take turns: the vectors; a text
that is new each time; a text that all requests repeat, which the server may keep; and no text. A request
asks for one token. The server is our own, in a process of its own, or the one at --url (a vLLM server or its
gateway) that serves a base model and a prompt of 64 vectors.
"""

from __future__ import annotations

import json
import random
import statistics
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.serving.bench import Bench as Serving
from benchmarks.serving.process import served

from .bench import Bench, Result, errors, table, whole

TEXT, INPUT, VECTORS = 1500, 32, 64  # tokens of the text and of a request; vectors
REQUESTS, AT_ONCE = 32, 8  # of each way; at once, under load
WAYS = ("vectors", "new text", "repeated text", "no text")
OWN, OTHER = "embedded", "given"


def names(bench: Bench) -> list[str]:
    """Return the names of the servers: our own, and the one that is given."""
    return [OWN, *([OTHER] if bench.url else [])]


def measure(bench: Bench) -> list[Result]:
    """Measure each server."""
    return [
        bench.once(f"first-token-{name}", partial(_own if name == OWN else _other, bench))
        for name in bench.chosen(names(bench))
    ]


def report(results: Sequence[Result]) -> str:
    """Format the medians in milliseconds, and the ratios to the vectors."""
    rows = []
    for r in whole(results):
        for load, medians in r["medians"].items():
            cells = [f"{1000 * medians[way]:.0f}" for way in WAYS]
            ratios = [f"{medians[way] / medians['vectors']:.1f}" for way in WAYS[1:3]]
            rows.append((r["server"], load, *cells, *ratios, len(r["all"][load]["vectors"])))
    header = ("server", "requests at once", *(f"{way}, ms" for way in WAYS))
    header += ("new text / vectors", "repeated text / vectors", "requests")
    others = (
        "" if any(r["server"] == OTHER for r in results) else "vLLM was left out: --url URL measures a server"
    )
    return "\n\n".join(filter(None, [table(header, rows), others, errors(results)]))


def _own(bench: Bench) -> Result:
    folder = bench.out / "runs" / "first-token"
    folder.mkdir(parents=True, exist_ok=True)
    serving = Serving(bench.lm, folder, clients=AT_ONCE)
    options = {"length": 4 if bench.short else VECTORS, "placement": "before", "init": "random"}
    serving.publish("vectors", "prefix-tuning", options)
    with served(serving, folder) as server:
        return {"server": OWN, **_timed(bench, server.url)}


def _other(bench: Bench) -> Result:
    return {"server": OTHER, "url": bench.url, **_timed(bench, str(bench.url))}


def _timed(bench: Bench, url: str) -> Result:
    """Time all ways in turns, one request at a time and several at once."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as reply:
        models = json.load(reply)["data"]
    base = next(model["id"] for model in models if not model.get("parent"))
    prompt = next(model["id"] for model in models if model.get("parent"))
    draw, known = random.Random(0), min(bench.lm.spec.vocab_size, len(bench.lm.tokenizer))
    length, count = (40, 2) if bench.short else (TEXT, REQUESTS)

    def ids(tokens: int) -> list[int]:
        return [draw.randrange(5, known - 1) for _ in range(tokens)]

    repeated = ids(length)
    ahead = {"new text": lambda: ids(length), "repeated text": lambda: repeated}

    def times(way: str, number: int) -> list[float]:
        requests = [[*ahead.get(way, list)(), *ids(INPUT)] for _ in range(number)]
        ask = partial(_first_token, url, prompt if way == "vectors" else base)
        with ThreadPoolExecutor(number) as pool:
            return list(pool.map(ask, requests))

    seconds = {}
    for number in (1, AT_ONCE):
        every: dict[str, list[float]] = {way: [] for way in WAYS}
        for turn in range(-(-count // number) + 1):
            for way in WAYS:
                taken = times(way, number)
                every[way] += taken if turn else []  # the first turn warms the server up
        seconds[str(number)] = every
    medians = {
        load: {way: statistics.median(values) for way, values in every.items()}
        for load, every in seconds.items()
    }
    return {"medians": medians, "all": seconds, "text_tokens": length}


def _first_token(url: str, model: str, ids: Sequence[int]) -> float:
    """Return the seconds of a request for one token. Raises RuntimeError where it is not answered."""
    body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0, "ignore_eos": True}
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as reply:
        answer = json.load(reply)
    taken = time.perf_counter() - started
    if answer["usage"]["completion_tokens"] != 1 or answer["usage"]["prompt_tokens"] < len(ids):
        raise RuntimeError(f"not answered: {answer}")
    return taken
