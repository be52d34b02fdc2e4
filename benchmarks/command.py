"""What the commands that measure share: their options, running measures, and telling what came of them."""

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
    """With the options that every such command has; `page` holds its tables."""
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
    """Ends the command where PEFT is not installed."""
    if importlib.util.find_spec("peft") is None:
        parser.error("PEFT is not installed. fix: pip install 'softprompt[lora]'")


def run(
    measures: Measures[Subject],
    names: Sequence[str],
    subject: Subject,
    wrong: tuple[type[Exception], ...] = (SoftPromptError,),
) -> list[Line]:
    """The lines of the measures, each told to stderr as it comes.

    A measure that leaves none, or ends with an error of the kinds in `wrong`, is wrong.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lines: list[Line] = []
    for name in names:
        found: list[Line] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries beside us
            try:
                for line in measures[name](subject):
                    found.append(line)
                    print("  ".join(filter(None, line.cells())), file=sys.stderr, flush=True)
            except wrong as error:
                found.append(_none(name, str(error) or type(error).__name__))
        lines += found or [_none(name, "no line came of it")]
    return lines


def tell(lines: Sequence[Line], args: argparse.Namespace, where: str, **more: Any) -> int:
    """Print them as the arguments say, with `more` in JSON; 1 where one is wrong."""
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
