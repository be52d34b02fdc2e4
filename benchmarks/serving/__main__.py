"""Run the measures, print a table, and fail if an answer is wrong."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.command import need_peft, parser_of, run, tell
from benchmarks.training import tiny
from benchmarks.training.machine import where
from softprompt.errors import SoftPromptError
from softprompt.lm.loading import load

from . import MEASURES, __doc__
from .bench import Bench


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every answer is right, however fast or slow."""
    parser = parser_of("python -m benchmarks.serving", __doc__, MEASURES, "docs/serving.md")
    parser.add_argument("--model", default="smollm2", help="alias or folder of the base model (smollm2)")
    parser.add_argument("--dtype", default="auto", help="precision; answers are compared in float32 (auto)")
    parser.add_argument("--prompts", type=int, default=32, help="prompts, and requests at once (32)")
    parser.add_argument("--length", type=int, default=16, help="vectors of a prompt (16)")
    parser.add_argument("--inputs", type=int, nargs="+", default=[16, 64], help="tokens of an input (16 64)")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of an answer (32)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (5)")
    parser.add_argument("--clients", type=int, default=64, help="clients, and prompts, under load (64)")
    parser.add_argument("--minutes", type=float, default=10, help="under load (10)")
    parser.add_argument("--artifacts", type=int, default=100_000, help="in one tree (100,000)")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its default")
    cpu = "seconds of the processor instead of the clock's, for a machine that others use"
    parser.add_argument("--cpu", action="store_true", help=cpu)
    args = parser.parse_args(arguments)
    need_peft(parser)
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        if args.short:
            model, _ = tiny.make(Path(folder))
            lm = load(str(model), dtype="float32")
            bench = Bench(
                lm, Path(folder) / "prompts", 4, 3, (5, 9), 4, 1, clients=6, seconds=2, artifacts=1001
            )
        else:
            lm = load(args.model, dtype=args.dtype)
            sizes = (args.prompts, args.length, tuple(args.inputs), args.tokens, args.repeats)
            clock = time.process_time if args.cpu else time.perf_counter
            bench = Bench(
                lm, Path(folder) / "prompts", *sizes, args.clients, 60 * args.minutes, args.artifacts, clock
            )
        bench.folder.mkdir()
        # an engine that fails counts as a wrong answer
        lines = run(MEASURES, args.only, bench, (SoftPromptError, RuntimeError))
    return tell(lines, args, f"{where()}; {lm.dtype}")


if __name__ == "__main__":
    sys.exit(main())
