"""Run every case, print a table, and fail where our side is not what it should be."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import warnings
from dataclasses import asdict
from datetime import date
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import logging

from . import CASES
from .rows import Found, Row

COLUMNS = ("case", "measured", "PEFT", "softprompt", "allowed")


def run() -> list[Row]:
    """Every case, in order, without the libraries' own chatter."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [case() for case in CASES]
    finally:
        logging.set_verbosity(verbosity)


def where() -> str:
    """Machine, versions and date."""
    packages = ("softprompt", "peft", "transformers", "torch")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return f"{_processor()}, {os.cpu_count()} cores, float32; Python {platform.python_version()}, " + (
        f"{', '.join(versions)}; {date.today()}"
    )


def markdown(rows: list[Row]) -> str:
    """The table of docs/exactness.md."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(row: Row) -> tuple[str, str, str, str, str]:
    """A row as texts."""
    return row.case, row.measured, shown(row.peft), shown(row.ours), shown(row.allowed)


def shown(found: Found) -> str:
    """A count as it is, a share with two digits."""
    if isinstance(found, str):
        return found
    return f"{found:.0f}" if found == int(found) else f"{found:.1e}" if found < 0.01 else f"{found:.2f}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> int:
    """0 where every number of ours is within what is allowed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exactness", description=__doc__)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object")
    form.add_argument("--markdown", action="store_true", help="the table of docs/exactness.md")
    options = parser.parse_args()
    if importlib.util.find_spec("peft") is None:
        parser.error("PEFT is not installed. fix: pip install 'softprompt[lora]'")
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
