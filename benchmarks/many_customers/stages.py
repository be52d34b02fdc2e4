"""Customers are cut, trained in one run, compared with alone, listed and served; one more is added."""

from __future__ import annotations

import random
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx

from benchmarks.serving.bench import answers
from benchmarks.serving.process import served
from softprompt.config.load import load_recipe
from softprompt.serve.engine import Engine
from softprompt.serve.registry import Registry
from softprompt.serve.request import Request, Sampling
from softprompt.training.sweep import prepare_prompts
from softprompt.training.tune import tune_many

from . import cut
from .setup import Setup, command, interval, right

TOKENS = 8  # of a served answer
TOGETHER = 200  # requests that are sent at once


def cut_rows(setup: Setup) -> dict[str, Any]:
    """Cut the rows of all customers."""
    tasks = cut.tasks_in(setup.data)
    held = cut.write(setup.rows, [cut.customer(tasks, i, setup.seed) for i in range(setup.count)])
    return {**held, "labels_of_tasks": {task.name: len(task.train) for task in tasks}}


def train(setup: Setup) -> dict[str, Any]:
    """Train all customers in one run: a run that was stopped is resumed."""
    recipe = setup.recipe(setup.rows, setup.prompts)
    started = time.perf_counter()
    runs = command("tune", recipe)["runs"]
    seconds = time.perf_counter() - started
    sizes = [file.stat().st_size for file in setup.prompts.rglob("*") if file.is_file()]
    accuracy = [run["metrics"]["accuracy"] for run in runs]
    plain = [run["plain"]["metrics"]["accuracy"] for run in runs]
    return {
        "command": f"softprompt tune {shlex.quote(str(recipe))}",
        "prompts": len(runs),
        "train_seconds": seconds,
        "resumed": sum(1 for run in runs if run["resumed_from"] or run["was_finished"]),
        "dev_accuracy": interval(accuracy),
        "dev_accuracy_plain": interval(plain),
        "bytes": sum(sizes),
        "not_finished": sum(run["stopped"] not in ("finished", "early") for run in runs),
    }


def alone(setup: Setup) -> dict[str, Any]:
    """Train some customers again, each in a run of its own, and compare the answers on their test rows."""
    held, folder = setup.held(setup.rows), setup.out / "alone"
    results = []
    for name in sorted(random.Random(setup.seed).sample(sorted(held), min(setup.drawn, len(held)))):
        rows = _only(setup, name)
        recipe = load_recipe(setup.recipe(rows, folder), [])
        tune_many(prepare_prompts(recipe, lm=setup.lm()))
        ours, theirs = (right(setup, place / name, held[name]) for place in (setup.prompts, folder))
        differences = [float(a) - float(b) for a, b in zip(ours, theirs, strict=True)]
        results.append(
            {"customer": name, "one_run": sum(ours) / len(ours), "alone": sum(theirs) / len(theirs)}
            | {"rows": len(ours), "difference": interval(differences)}
        )
    inside = [r["difference"]["low"] <= 0 <= r["difference"]["high"] for r in results]
    return {
        "customers": results,
        "within_noise": sum(inside),
        "difference": interval([r["one_run"] - r["alone"] for r in results]),
    }


def _only(setup: Setup, name: str) -> Path:
    """Write the rows of one customer into a folder of their own, and return it."""
    folder = setup.out / "one" / name
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev"):
        lines = (setup.rows / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        text = "".join(line for line in lines if f'"customer": "{name}"' in line)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def listed(setup: Setup) -> dict[str, Any]:
    """Time the list of a new server, at the first request and at the next."""
    about = SimpleNamespace(lm=setup.lm("float32"), clients=8)
    with served(about, setup.prompts) as server, httpx.Client(base_url=server.url, timeout=300) as http:  # type: ignore[arg-type]
        times = []
        for _ in range(3):
            started = time.perf_counter()
            listed = http.get("/v1/models").json()["data"]
            times.append(time.perf_counter() - started)
    names = {model["id"] for model in listed}
    expected = set(setup.held(setup.rows))
    return {
        "listed": len(names & expected),
        "missing": len(expected - names),
        "first_seconds": times[0],
        "next_seconds": min(times[1:]),
        "start_seconds": server.seconds,
    }


def serve(setup: Setup) -> dict[str, Any]:
    """Send requests for all prompts mixed, and each alone: in float32 the tokens must be equal."""
    lm, held = setup.lm("float32"), setup.held(setup.rows)
    registry, draw = Registry(setup.prompts, lm), random.Random(setup.seed)
    names = sorted(held)
    chosen = [names[i % len(names)] for i in range(setup.requests)]
    draw.shuffle(chosen)
    requests = []
    for name in chosen:
        example = registry.get(name).encoder.encode(draw.choice(held[name]), with_target=False)
        requests.append(Request(name, tuple(example.input_ids), Sampling(max_tokens=TOKENS)))
    engine = Engine(lm, registry)
    engine.start()
    try:
        mixed, mixed_seconds = _answered(engine, requests, TOGETHER)
        single, single_seconds = _answered(engine, requests, 1)
        plain = [Request(None, each.input_ids, each.sampling) for each in requests]
        without, _ = _answered(engine, plain, TOGETHER)
    finally:
        engine.stop()
    return {
        "requests": len(requests),
        "prompts": len(set(chosen)),
        "wrong": sum(a != b for a, b in zip(mixed, single, strict=True)),
        "other_than_plain": sum(a != b for a, b in zip(mixed, without, strict=True)),
        "mixed_seconds": mixed_seconds,
        "one_by_one_seconds": single_seconds,
    }


def _answered(engine: Engine, requests: Sequence[Request], together: int) -> tuple[list[list[int]], float]:
    started, results = time.perf_counter(), []
    for start in range(0, len(requests), together):
        results += answers(engine, requests[start : start + together])
    return results, time.perf_counter() - started


def add(setup: Setup) -> dict[str, Any]:
    """Add a customer to the folder by one command, in a process of its own; no other file may change."""
    new = cut.customer(cut.tasks_in(setup.data), setup.count, setup.seed)
    name, rows = new["train"][0]["customer"], setup.out / "one" / "added"
    cut.write(rows, [new])
    recipe, before = setup.recipe(setup.rows, setup.prompts), _stamps(setup.prompts, name)
    places = [f"data.{split}={(rows / f'{split}.jsonl').resolve()}" for split in ("train", "dev")]
    arguments = ["tune", str(recipe), *places, "--overwrite"]
    started = time.perf_counter()
    run = "import sys; from softprompt.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", run, *arguments, "--json"], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:] + done.stdout[-2000:])
    return {
        "command": f"softprompt {shlex.join(arguments)}",
        "rows": len(new["train"]),
        "added_seconds": seconds,
        "others_changed": before != _stamps(setup.prompts, name),
        "served": Registry(setup.prompts, setup.lm("float32")).holds(name),
    }


def _stamps(folder: Path, without: str) -> Mapping[str, tuple[int, int]]:
    files = [f for f in folder.rglob("*") if f.is_file() and without not in f.relative_to(folder).parts]
    return {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in files}
