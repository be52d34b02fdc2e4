"""Compare the same methods on each data set; completed runs are skipped.

    python -m benchmarks.comparisons --data DIR [--only sst2 mrpc] [--out runs/comparisons]
        [--publish docs/comparisons] [--samples docs/samples] [--workers N] [--threads N]

`DIR` holds a folder for each set (sst2, bible_style, …) with train.jsonl, validation.jsonl and test.jsonl.
A killed command resumes when it is given again. `--publish` copies the scores, without text of rows, for
`python -m benchmarks.comparisons.claims`; `--samples` writes the reports of sets whose rows may be shown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from softprompt.compare.report.limits import unmeasurable
from softprompt.compare.report.read import comparison

from . import rows
from .sets import SETS, recipe


def main() -> None:
    """Run the sets one after another."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--out", type=Path, default=Path("runs/comparisons"))
    parser.add_argument("--publish", type=Path, help="copy results.jsonl to this folder")
    parser.add_argument("--samples", type=Path, help="write reports with rows to this folder")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--threads", type=int, help="of each worker; by default cores / workers")
    args = parser.parse_args()
    for name in args.only:
        folder = run(name, args.data, args.out, args.workers, args.threads)
        places = {args.data: "DIR", args.out: "runs/comparisons"}
        if args.publish:
            publish(folder, args.publish / name, places)
        if args.samples and SETS[name].shown is not None:
            sample(folder, args.samples / f"{name}.html", places)


def run(name: str, data: Path, out: Path, workers: int | None = None, threads: int | None = None) -> Path:
    """Run one comparison and return its folder."""
    import softprompt
    from softprompt.compare.experiment import Hooks

    place = out / name
    files = rows.write(SETS[name].parts(data), place / "data")
    plain = recipe(name, files, place)
    plain["train"]["threads"] = threads
    (place / "recipe.json").write_text(json.dumps(plain, indent=2), encoding="utf-8")
    hooks = Hooks(
        on_stage=lambda text: say(f"{name}: {text}"),
        on_record=lambda record, was_there: was_there or say(_progress(record)),
    )
    done = softprompt.compare_methods(plain, place / "contest", workers=workers, hooks=hooks)
    return Path(done.folder)


def publish(folder: Path, to: Path, places: dict[Path, str]) -> None:
    """Copy a comparison's aggregates to a folder that `softprompt report` reads.

    Scores of single rows are left out: they are nine tenths of the file, and only the finding that a split
    cannot measure quality needs them. Older comparisons lack that finding; it is written here.
    """
    result = comparison(folder)
    lines = _without_paths(folder, places)
    kept = [line for line in lines if json.loads(line)["kind"] != "example"]
    stated = {split for finding in result.findings for split in finding.splits}
    for split in sorted({score.split for score in result.scores} - stated):
        if evidence := unmeasurable(result, split):
            kept.append(json.dumps(_cannot_measure(split, evidence), ensure_ascii=False))
    _write(to, kept)


def _cannot_measure(split: str, evidence: str) -> dict[str, Any]:
    text = f"the {split} rows cannot measure quality: nearly all of them ask for one label"
    finding = {"kind": "finding", "level": "warning", "contestant": None, "what": text}
    return finding | {"evidence": evidence, "command": None, "splits": [split]}


def _without_paths(folder: Path, places: dict[Path, str]) -> list[str]:
    """Return the lines of results.jsonl, with a public name in place of each local folder."""
    text = (folder / "results.jsonl").read_text(encoding="utf-8")
    for place, name in places.items():
        for local in (str(place.resolve()), str(place)):
            text = text.replace(local, name)
    return text.splitlines()


def _write(to: Path, lines: list[str]) -> None:
    to.mkdir(parents=True, exist_ok=True)
    (to / "results.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def sample(folder: Path, to: Path, places: dict[Path, str]) -> None:
    """Write the report with its rows, as a user sees it, without local folders."""
    from softprompt.compare import report

    with tempfile.TemporaryDirectory() as scratch:
        _write(Path(scratch), _without_paths(folder, places))
        shutil.copy(folder / "examples.jsonl", scratch)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(report.write(Path(scratch)), to)


def _progress(record: dict) -> str:
    dev = ", ".join(f"{key} {value:.3f}" for key, value in (record.get("dev") or {}).items() if value)
    run = f"{record['phase']} {record['contestant']} {record.get('settings') or ''}"
    return f"  {run} seed {record.get('seed')}: {record['status']} {dev}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
