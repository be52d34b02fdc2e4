"""Run the measures, print a table, and fail if a result is wrong."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.command import need_peft, parser_of, run, tell

from . import MEASURES, __doc__, tiny
from .machine import where
from .options import Options, add_to


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every result is right, however fast or slow."""
    parser = parser_of("python -m benchmarks.training", __doc__, MEASURES, "docs/performance.md")
    add_to(parser)
    args = parser.parse_args(arguments)
    need_peft(parser)
    if args.data is None and not args.short:
        parser.error("--data is missing. fix: name the folder with sst2/, ag_news/ and boolq/, or --short")
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        options = Options.of(args)
        if args.short:
            options = options.in_short(*tiny.make(Path(folder)))
        lines = run(MEASURES, args.only, options)
    return tell(lines, args, where(), options=options.to_json())


if __name__ == "__main__":
    sys.exit(main())
