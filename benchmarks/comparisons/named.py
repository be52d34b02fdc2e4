"""Name a method by the dev rows of a comparison's finals: the best that a pilot can reach.

    python -m benchmarks.comparisons.named [--out runs/comparisons] [--results docs/comparisons]

Each seed names a trained method twice: by the metric on the dev rows, and as a pilot does (`best_first`: by
log-loss among those within a standard error of the best). `claims` defines when a method is good.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompt.compare.report.read import comparison
from softprompt.compare.report.schema import Comparison
from softprompt.recommend.pilot_order import PilotTrial, best_first, standard_error

from .claims import is_good


def main() -> None:
    """Print a line for each set, and the sums."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/comparisons"))
    parser.add_argument("--results", type=Path, default=Path("docs/comparisons"))
    args = parser.parse_args()
    sums = [0, 0, 0]
    for path in sorted(args.results.glob("*/results.jsonl")):
        result, name = comparison(path.parent), path.parent.name
        finals = read(args.out / name / "contest")
        if finals:
            counts = [sum(ways) for ways in zip(*good(result, finals), strict=True)]
            print(f"{name}: by the metric {counts[0]} of {len(finals)} seeds, as a pilot {counts[1]}")
            sums = [a + b for a, b in zip(sums, (*counts, len(finals)), strict=True)]
    print(f"in all: by the metric {sums[0]} of {sums[2]}, as a pilot {sums[1]}")


def read(contest: Path) -> dict[int, list[PilotTrial]]:
    """Return the finals by seed, as trials of a pilot; empty if the comparison was not run here."""
    finals: dict[int, list[PilotTrial]] = defaultdict(list)
    study = contest / "study.json"
    if not study.exists():
        return {}
    rows = json.loads(study.read_text(encoding="utf-8"))["rows"]["dev"]
    for path in sorted((contest / "trials").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("phase") == "final" and record["status"] == "done":
            finals[record["seed"]].append(_played(record, rows))
    return dict(finals)


def _played(record: dict[str, Any], dev_rows: int) -> PilotTrial:
    value, log_loss = record["dev_key"]
    return PilotTrial(
        record["contestant"],
        settings={},
        rows=record["rows"],
        steps=record["steps"],
        seconds=0.0,
        artifact_bytes=None,
        status="done",
        score=value,
        noise=standard_error(value, dev_rows),
        key=(value, log_loss),
    )


def good(result: Comparison, finals: Mapping[int, Sequence[PilotTrial]]) -> list[tuple[bool, bool]]:
    """Return for each seed whether the methods named by the metric, and as a pilot does, are good."""
    results = []
    for played in finals.values():
        named = max(played, key=lambda trial: trial.key[0]), best_first(played)[0]
        by_metric, as_pilot = (is_good(result, trial.contestant) for trial in named)
        results.append((by_metric, as_pilot))
    return results


if __name__ == "__main__":
    main()
