"""All results are written as one JSON object and one Markdown table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.training.line import COLUMNS, Line

from .piece import Piece
from .results import Result

MOST = 160  # characters of an error in the table


def write(folder: Path, pieces: Sequence[Piece], results: Mapping[str, Result], where: str) -> str:
    """Write gpu.json and gpu.md, and return the Markdown."""
    done = [results[piece.name] for piece in pieces if piece.name in results]
    left = [piece.name for piece in pieces if piece.name not in results]
    values = {
        "where": where,
        "pieces": [
            {
                "piece": result.piece,
                "kind": result.kind,
                "seconds": round(result.seconds, 1),
                "error": result.error,
                "trace": result.trace,
                "lines": [line.to_json() for line in result.lines],
            }
            for result in done
        ],
        "not_run": left,
    }
    (folder / "gpu.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    text = f"{where}\n\n{table(done)}\n"
    if left:
        text += f"\nNot run yet: {', '.join(left)}. The same command continues with these.\n"
    (folder / "gpu.md").write_text(text, encoding="utf-8")
    return text


def table(results: Sequence[Result]) -> str:
    """Format one table: a row for each line of each piece, and one for each error."""
    rows: list[Sequence[str]] = [("piece", *COLUMNS[1:]), ["---"] * len(COLUMNS)]
    for result in results:
        rows += [replace(line, measure=result.piece).cells() for line in result.lines]
        if result.error:
            failed = Line(result.piece, "–", None, None, "", wrong=result.error[:MOST])
            rows.append(failed.cells())
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
