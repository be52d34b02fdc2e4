"""The benchmark commands share their options, the loop over measures, and the output."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from transformers import logging

from softprompt.errors import SoftPromptError

from .training.line import Line, markdown, table

Subject = TypeVar("Subject")
Measures = Mapping[str, Callable[[Subject], Iterable[Line]]]


def parser_of(prog: str, doc: str | None, measures: Iterable[str], page: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has; `page` is the docs page with its tables."""
    names = list(measures)
    parser = argparse.ArgumentParser(
        prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="MEASURE")
    parser.add_argument("--short", action="store_true", help="everything once, on a tiny model")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object")
    form.add_argument("--markdown", action="store_true", help=f"the tables of {page}")
    return parser


def need_peft(parser: argparse.ArgumentParser) -> None:
    """End the command if PEFT is not installed."""
    if importlib.util.find_spec("peft") is None:
        parser.error("PEFT is not installed. fix: pip install 'softprompt[lora]'")


def run(
    measures: Measures[Subject],
    names: Sequence[str],
    subject: Subject,
    wrong: tuple[type[Exception], ...] = (SoftPromptError,),
) -> list[Line]:
    """Run the measures and return their lines; each is printed to stderr when it is ready.

    A measure without lines, or one that ends with an error of the kinds in `wrong`, is wrong.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lines: list[Line] = []
    for name in names:
        measured: list[Line] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of other libraries
            try:
                for line in measures[name](subject):
                    measured.append(line)
                    print("  ".join(filter(None, line.cells())), file=sys.stderr, flush=True)
            except wrong as error:
                measured.append(_none(name, str(error) or type(error).__name__))
        lines += measured or [_none(name, "it gave no result")]
    return lines


def tell(lines: Sequence[Line], args: argparse.Namespace, where: str, **more: Any) -> int:
    """Print the lines in the requested format, with `more` in JSON; return 1 if a line is wrong."""
    if args.json:
        print(json.dumps({"where": where, **more, "lines": [line.to_json() for line in lines]}))
    else:
        print(f"{where}\n\n{markdown(lines) if args.markdown else table(lines)}")
    wrong = [f"{line.measure}, {line.case}: {line.fault}" for line in lines if line.fault]
    if wrong:
        print("not as it should be:\n" + "\n".join(wrong), file=sys.stderr)
    return bool(wrong)


def _none(name: str, why: str) -> Line:
    return Line(name, "–", None, None, "", wrong=why)
