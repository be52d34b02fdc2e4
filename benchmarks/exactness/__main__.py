"""Run every case, print a table, and fail if softprompt's side is not as it should be."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import warnings
from dataclasses import asdict
from datetime import date

import torch
from rich.console import Console
from rich.table import Table
from transformers import logging

from benchmarks.command import need_peft
from benchmarks.training.machine import processor

from . import CASES
from .rows import Outcome, Row

COLUMNS = ("case", "measured", "PEFT", "softprompt", "allowed")


def run() -> list[Row]:
    """Run every case in order, without the libraries' warnings."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [case() for case in CASES]
    finally:
        logging.set_verbosity(verbosity)


def where() -> str:
    """Describe the machine, the versions and the date."""
    packages = ("softprompt", "peft", "transformers", "torch")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return f"{processor()}, {os.cpu_count()} cores, float32; Python {platform.python_version()}, " + (
        f"{', '.join(versions)}; {date.today()}"
    )


def markdown(rows: list[Row]) -> str:
    """Format the table of docs/exactness.md."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(row: Row) -> tuple[str, str, str, str, str]:
    """Format a row."""
    return row.case, row.measured, shown(row.peft), shown(row.ours), shown(row.allowed)


def shown(value: Outcome) -> str:
    """Format a count as it is, and a share with two digits."""
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if value == int(value) else f"{value:.1e}" if value < 0.01 else f"{value:.2f}"


def main() -> int:
    """Return 0 if every number of softprompt's side is within its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exactness", description=__doc__)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object")
    form.add_argument("--markdown", action="store_true", help="the table of docs/exactness.md")
    options = parser.parse_args()
    need_peft(parser)
    torch.set_num_threads(1)  # the models are tiny
    rows = run()
    if options.json:
        print(json.dumps({"where": where(), "rows": [asdict(row) | {"holds": row.holds} for row in rows]}))
    elif options.markdown:
        print(f"{where()}\n\n{markdown(rows)}")
    else:
        table = Table(*COLUMNS, title=where())
        for row in rows:
            table.add_row(*cells(row), style=None if row.holds else "bold red")
        Console().print(table)
    wrong = [row.case for row in rows if not row.holds]
    if wrong:
        print(f"not as it should be: {', '.join(wrong)}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
