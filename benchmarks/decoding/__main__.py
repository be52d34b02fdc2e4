"""Run the measures, print a table, and fail if a result is wrong."""

from __future__ import annotations

import sys

import torch

from benchmarks.command import parser_of, run, tell
from benchmarks.training import clock
from benchmarks.training.machine import where

from . import MEASURES, __doc__
from .subject import Subject


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every result is right, however fast or slow."""
    parser = parser_of("python -m benchmarks.decoding", __doc__, MEASURES, "docs/performance.md")
    parser.add_argument("--rows", type=int, default=60, help="rows that are answered (default 60)")
    parser.add_argument("--repeats", type=int, default=3, help="how often a product or a step is timed")
    parser.add_argument("--precision", nargs="+", choices=["float32", "bfloat16"], help="default: both")
    parser.add_argument("--cpu", action="store_true", help="processor time, for a machine with other work")
    parser.add_argument("--threads", type=int, help="default: torch's own number")
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.cpu:
        clock.use_processor_time()
    precisions = args.precision or ["float32", "bfloat16"]
    subject = Subject(
        9 if args.short else args.rows, 1 if args.short else args.repeats, precisions, args.short
    )
    kind = "processor time" if args.cpu else "wall-clock time"
    return tell(run(MEASURES, args.only, subject), args, f"{where()}; {kind}")


if __name__ == "__main__":
    sys.exit(main())
