"""Run the pieces that have no result yet, then write and print what there is."""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import logging

from benchmarks.command import need_peft
from benchmarks.training.machine import gpu, processor, where
from softprompt.lm import smollm2

from . import PIECES, __doc__, in_short, report, results
from .piece import Piece, Subject
from .results import Result
from .supervise import AGAIN, note, supervise


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where no piece that has run is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10, help="time for all pieces together (10)")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the results (runs/gpu)")
    parser.add_argument(
        "--data", type=Path, help="folder of sets as benchmarks.training takes it; by default made-up rows"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="PIECE", help="names, or how they begin")
    parser.add_argument("--again", action="store_true", help="also the pieces that have a result")
    parser.add_argument("--short", action="store_true", help="everything once, on a tiny model")
    parser.add_argument("--list", action="store_true", help="only print which pieces there are")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    need_peft(parser)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = _settings(args)
    every = in_short(PIECES) if args.short else PIECES
    pieces = [p for p in every if not args.only or any(p.name.startswith(name) for name in args.only)]
    if not pieces:
        parser.error(
            f"--only {' '.join(args.only)} names no piece. fix: one of {', '.join(p.name for p in PIECES)}"
        )
    if args.again and not (args.worker or args.list):
        shutil.rmtree(_working(args.out, settings), ignore_errors=True)
        for piece in pieces:
            results.path(args.out, piece.name).unlink(missing_ok=True)
    left = [] if args.list else [p for p in pieces if p.name not in results.read(args.out, pieces, settings)]
    if args.worker or args.short:
        if _work(left, args, settings) and args.worker:
            return AGAIN
    elif left:
        _supervise(left, args, settings)
    if args.worker:
        return 0
    done = results.read(args.out, every, settings)
    print(report.write(args.out, every, done, _where()))
    faults = [f"{name}: {fault}" for name, result in done.items() for fault in result.faults()]
    if faults:
        print("not as it should be:\n" + "\n".join(faults), file=sys.stderr)
    return bool(faults)


def _work(pieces: Sequence[Piece], args: argparse.Namespace, settings: Mapping[str, Any]) -> bool:
    """Run the pieces that fit into the time; return whether this process cannot continue."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    subject = Subject(_working(args.out, settings), args.data, args.short)
    end = time.monotonic() + 60 * args.minutes
    for piece in pieces:
        if not args.short and time.monotonic() + piece.seconds > end:
            continue  # a shorter one may fit
        note(args.out / "running.json", piece.name)
        if args.short:
            gc.freeze()  # other libraries collect garbage often; half a second each time, of modules alone
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of other libraries
            result = results.attempt(
                piece, subject, time.process_time if args.short else time.perf_counter, settings
            )
        gc.unfreeze()
        results.save(result, args.out)
        note(args.out / "running.json", "")
        for line in result.lines:
            print("  ".join(filter(None, line.cells())), file=sys.stderr, flush=True)
        print(f"{piece.name}: {result.error or 'done'}, {result.seconds:.1f} s", file=sys.stderr, flush=True)
        if result.is_lost:
            return True
    return False


def _supervise(pieces: Sequence[Piece], args: argparse.Namespace, settings: Mapping[str, Any]) -> None:
    kinds = {piece.name: piece.kind for piece in pieces}
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # a Trainer would share each batch among all GPUs

    def command(seconds: float) -> list[str]:
        options = ["--worker", "--minutes", str(seconds / 60), "--out", str(args.out)]
        options += ["--only", *args.only] if args.only else []
        options += ["--data", str(args.data)] if args.data else []
        return [sys.executable, "-m", "benchmarks.gpu", *options]

    def record(name: str, why: str) -> None:
        print(f"{name}: {why}", file=sys.stderr, flush=True)
        results.save(Result(name, kinds[name], (), 0.0, settings, why), args.out)

    limits = {piece.name: piece.limit for piece in pieces}
    supervise(command, args.out / "running.json", limits, record, 60 * args.minutes)


def _where() -> str:
    """Return the machine and versions, and what takes the place of a model that is not installed."""
    missing = (
        "" if smollm2.is_installed() else "; SmolLM2 is not installed: a random model of its shape instead"
    )
    return where() + missing


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return what results depend on: those of others do not count."""
    settings = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")}
    rows = str(args.data.resolve()) if args.data else "made up"
    machine = {"machine": gpu() or processor(), "short": args.short, "rows": rows}
    return {**settings, **machine, "smollm2": smollm2.is_installed()}


def _working(out: Path, settings: Mapping[str, Any]) -> Path:
    """Return the folder of files that pieces need: what they have finished there is of these settings."""
    name = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:12]
    return out / "files" / name


if __name__ == "__main__":
    sys.exit(main())
