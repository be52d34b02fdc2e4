"""Run both versions in turns, and print a table of medians."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.command import parser_of, run, tell
from benchmarks.training import tiny
from benchmarks.training.line import Line
from benchmarks.training.machine import where

from . import __doc__

HERE = Path(__file__).parents[2]
GOALS = {"answers": 3.0, "steps": 1.5, "demo": 3.0}
SHORT = 0.03  # share of the rows and steps in the short form


@dataclass(frozen=True)
class Sides:
    """The folder of the earlier version, and how both are run."""

    earlier: Path
    repeats: int
    share: float
    clock: str
    model: str
    is_short: bool


def measure(kind: str, sides: Sides) -> Iterator[Line]:
    """Yield a line for each case of a kind of work: this version beside the earlier one, in turns."""
    seconds: dict[str, dict[str, list[float]]] = {}
    for _ in range(sides.repeats):
        for side, root in (("theirs", sides.earlier), ("ours", HERE)):
            for case, took in _seconds(root, kind, sides).items():
                seconds.setdefault(case, {}).setdefault(side, []).append(took)
                print(f"{case}, {side}: {took:.3g} s", file=sys.stderr, flush=True)
    scale, unit = (1000, "ms") if kind == "steps" else (1, "s")
    for case, taken in seconds.items():
        ours, theirs = median(taken["ours"]), median(taken["theirs"])
        ratios = [a / b for a, b in zip(taken["theirs"], taken["ours"], strict=True)]
        note = f"ratios of {sides.repeats} turns: {', '.join(f'{ratio:.2f}' for ratio in ratios)}"
        goal = GOALS[kind]
        yield Line(f"{kind}-then", case, scale * ours, scale * theirs, unit, theirs / ours, goal, note=note)


def _seconds(root: Path, kind: str, sides: Sides) -> dict[str, float]:
    """Run a kind of work in a process with the modules of a folder; return the seconds of its cases."""
    path = os.pathsep.join(str(root / part) for part in ("src", "examples", "."))
    share = sides.share if kind == "demo" else SHORT if sides.is_short else 1.0
    work = [sys.executable, str(Path(__file__).with_name("work.py")), kind, str(share), sides.clock]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [*work, sides.model], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{root} failed in '{kind}':\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


#: Every measure, in the order of docs/performance.md.
MEASURES = {f"{kind}-then": partial(measure, kind) for kind in GOALS}


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if both versions ran, however fast or slow."""
    parser = parser_of("python -m benchmarks.earlier", __doc__, MEASURES, "docs/performance.md")
    parser.add_argument("earlier", type=Path, help="a worktree of the earlier commit")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side (default 3)")
    parser.add_argument("--share", type=float, default=0.2, help="of the demo's rows and steps (0.2)")
    parser.add_argument("--cpu", action="store_true", help="processor time, for a machine with other work")
    args = parser.parse_args(arguments)
    if not (args.earlier / "src/softprompt").is_dir():  # else its processes would import what is installed
        fix = f"git worktree add --detach {args.earlier} COMMIT"
        parser.error(f"{args.earlier} is no worktree of this repository. fix: {fix}")
    clock = "process_time" if args.cpu else "perf_counter"
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.make(Path(folder))[0] if args.short else "smollm2"
        share, repeats = (SHORT, 1) if args.short else (args.share, args.repeats)
        sides = Sides(args.earlier.resolve(), repeats, share, clock, str(model), args.short)
        lines = run(MEASURES, args.only, sides)
    kind = "processor time" if args.cpu else "wall-clock time"
    return tell(lines, args, f"{where()}; one thread on both sides; {kind}")


if __name__ == "__main__":
    sys.exit(main())
