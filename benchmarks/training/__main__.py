"""Run the measures, print a table, and fail where a result is wrong."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from transformers import logging

from softprompt.errors import SoftPromptError

from . import MEASURES, __doc__, tiny
from .line import Line, markdown, table
from .machine import where
from .options import Options, add_to


def run(options: Options, names: list[str]) -> list[Line]:
    """The lines of the measures, each told to stderr as it comes; one that leaves none is wrong."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lines: list[Line] = []
    for name in names:
        found: list[Line] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for line in MEASURES[name](options):
                    found.append(line)
                    print("  ".join(filter(None, line.cells())), file=sys.stderr, flush=True)
            except SoftPromptError as error:
                found.append(_none(name, str(error)))
        lines += found or [_none(name, "no line came of it")]
    return lines


def _none(name: str, why: str) -> Line:
    return Line(name, "–", None, None, "", wrong=why)


def main(arguments: list[str] | None = None) -> int:
    """0 where every result is right, however fast or slow."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES), metavar="MEASURE")
    parser.add_argument("--short", action="store_true", help="everything once, on a tiny model")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object")
    form.add_argument("--markdown", action="store_true", help="the tables of docs/performance.md")
    add_to(parser)
    args = parser.parse_args(arguments)
    if importlib.util.find_spec("peft") is None:
        parser.error("PEFT is not installed. fix: pip install 'softprompt[lora]'")
    if args.data is None and not args.short:
        parser.error("--data is missing. fix: name the folder with sst2/, ag_news/ and boolq/, or --short")
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        options = Options.of(args)
        if args.short:
            options = options.in_short(*tiny.make(Path(folder)))
        lines = run(options, args.only)
    if args.json:
        found = [line.to_json() for line in lines]
        print(json.dumps({"where": where(), "options": options.to_json(), "lines": found}))
    elif args.markdown:
        print(f"{where()}\n\n{markdown(lines)}")
    else:
        print(f"{where()}\n\n{table(lines)}")
    wrong = [f"{line.measure}, {line.case}: {line.fault}" for line in lines if line.fault]
    if wrong:
        print("not as it should be:\n" + "\n".join(wrong), file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
