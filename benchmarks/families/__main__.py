"""Run the checks on every family, each in its own process, and count the outcomes."""

from __future__ import annotations

import argparse
import collections
import contextlib
import fnmatch
import json
import multiprocessing
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from transformers import logging

from . import checks, small

ORDER = (
    "exact",
    "exact or refused",
    "refused",
    "wrong",
    "traceback",
    "not made",
    "no answer",
    "another case",
)


def main() -> int:
    """Return 1 if a family is wrong or ends in a traceback."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("cases", nargs="*", help="causal:llama, seq2seq:t5, encoder:bert, …; patterns too")
    parser.add_argument("--limit", type=float, default=180, help="seconds for one family")
    parser.add_argument("--json", help="also write every result to this file, one family a line")
    parser.add_argument("--all", action="store_true", help="show exact checks too")
    args = parser.parse_args()
    names = list(small.cases())
    patterns = args.cases or ["*"]
    chosen = [n for n in names if any(fnmatch.fnmatch(n, p) or n.endswith(f":{p}") for p in patterns)]
    counts: collections.Counter[str] = collections.Counter()
    torch.set_num_threads(1)
    for name in chosen:
        began = time.monotonic()
        results = _in_process(name, args.limit)
        overall = summary(results)
        counts[overall] += 1
        print(f"{name}: {overall} ({time.monotonic() - began:.0f} s)", flush=True)
        for result in results:
            if args.all or result.verdict != "exact":
                print(f"    {result.check}: {result.verdict}: {result.detail}", flush=True)
        if args.json:
            with open(args.json, "a", encoding="utf-8") as file:
                listed = [{"check": r.check, "found": r.verdict, "detail": r.detail} for r in results]
                file.write(json.dumps({"case": name, "found": overall, "results": listed}) + "\n")
    print(f"{len(chosen)} families: " + ", ".join(f"{counts[k]} {k}" for k in ORDER if counts[k]))
    return int(bool(counts["wrong"] or counts["traceback"]))


def summary(results: list[checks.Result]) -> str:
    """Return the worst outcome of a family."""
    verdicts = {r.verdict for r in results}
    for worst in ("traceback", "wrong", "no answer", "not made"):
        if worst in verdicts:
            return worst
    if results and results[0].check == "load":
        return results[0].verdict
    return "exact or refused" if "refused" in verdicts else "exact"


def _in_process(case: str, limit: float) -> list[checks.Result]:
    context: Any = multiprocessing.get_context("fork")  # transformers is imported once
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(case, theirs))
    process.start()
    theirs.close()
    results: list[checks.Result] = []
    end = time.monotonic() + limit
    while mine.poll(max(0.0, end - time.monotonic())):
        try:
            results.append(mine.recv())
        except EOFError:
            break
    else:
        results.append(checks.Result("time", "no answer", f"not done in {limit:.0f} s"))
    process.kill()
    process.join()
    return results or [checks.Result("process", "no answer", "it ended without a word")]


def _work(case: str, pipe: Any) -> None:
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for result in _results(case):
        pipe.send(result)
    pipe.close()


def _results(case: str) -> Iterator[checks.Result]:
    """Check a family that `softprompt.load` would load as this case; else yield what it would do."""
    try:
        model = small.build(case)
    except Exception as error:
        with contextlib.suppress(Exception):  # of the configuration, too
            if why := small.loaded_as(case):
                yield _elsewhere(why)
                return
        yield checks.Result("make", "not made", f"{type(error).__name__}: {str(error).strip()[:250]}")
        return
    if why := small.loaded_as(case, model.config):
        yield _elsewhere(why)
    else:
        yield from checks.run(case.split(":")[0], model)


def _elsewhere(why: str) -> checks.Result:
    return checks.Result("load", "another case" if why.startswith("loaded as") else "refused", why)


if __name__ == "__main__":
    sys.exit(main())
