"""Whether `choose --pilot` names a good method in a tenth of the time that the whole comparison took.

    python -m benchmarks.comparisons.pilot [--only sst2 mrpc] [--out runs/comparisons]
        [--results docs/comparisons] [--share 0.1]

It plays on the rows that the comparison learned from and chose by, after the comparison has ended, and what
it named is written beside the published scores (`pilot.json`), for `python -m benchmarks.comparisons.claims`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from softprompt.build import template_of
from softprompt.compare.model_pool import kept
from softprompt.config.load import recipe_from_dict
from softprompt.data.sources import read_rows
from softprompt.methods import option_names
from softprompt.recommend import Requirements, measure, rank
from softprompt.recommend.pilot import Pilot, run_pilot

from .__main__ import say
from .sets import SETS

SHARE = 0.1  # of the seconds of all trials


def main() -> None:
    """Play on every set that has published scores, or on those named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--out", type=Path, default=Path("runs/comparisons"))
    parser.add_argument("--results", type=Path, default=Path("docs/comparisons"))
    parser.add_argument("--share", type=float, default=SHARE, help=f"of the comparison's seconds ({SHARE:g})")
    args = parser.parse_args()
    for name in args.only:
        if (args.results / name / "results.jsonl").exists():
            seconds = args.share * seconds_of(args.out / name / "contest")
            found = play(args.out / name, seconds)
            told = json.dumps(record(found, seconds), indent=2) + "\n"
            (args.results / name / "pilot.json").write_text(told, encoding="utf-8")


def seconds_of(contest: Path) -> float:
    """That its trials took, whenever they were run."""
    trials = [json.loads(path.read_text(encoding="utf-8")) for path in (contest / "trials").glob("*.json")]
    return sum(trial.get("seconds") or 0.0 for trial in trials)


def play(place: Path, seconds: float) -> Pilot:
    """A pilot on a comparison's own recipe, of those of its methods that the rules leave."""
    plain = json.loads((place / "recipe.json").read_text(encoding="utf-8"))
    study = json.loads((place / "contest" / "study.json").read_text(encoding="utf-8"))
    plain["train"]["dtype"] = study["dtype"]
    recipe = recipe_from_dict(plain, method_option_names=option_names())
    lm = kept(recipe)
    rows = [*read_rows(recipe.data.train), *read_rows(str(recipe.data.dev))]
    required = Requirements(recipe.model, unseen=recipe.compare.unseen is not None)
    ranking = rank(measure(rows, template_of(recipe, lm), lm, required, kind=recipe.task.kind))
    compared = {one["name"] for one in study["contestants"]}  # of others nothing is known to hold it against
    ranking = replace(ranking, ranked=tuple(r for r in ranking.ranked if r.candidate.name in compared))
    shutil.rmtree(place / "pilot", ignore_errors=True)
    say(f"{place.name}: a pilot of {seconds:.0f} s")
    plain["compare"] |= {"methods": None}
    plain["train"].pop("cache", None)  # the comparison's finals kept inputs on disk; short trials read few
    return run_pilot(plain, ranking, place / "pilot", seconds, lm=lm, rows=rows)


def record(pilot: Pilot, seconds: float) -> dict[str, Any]:
    """What is published: no row, no text."""
    return {
        "named": pilot.order[0].contestant,
        "metric": pilot.metric,
        "seconds": round(seconds, 1),
        "took": round(pilot.seconds, 1),
        "order": [asdict(trial) for trial in pilot.order],
        "unplayed": list(pilot.unplayed),
    }


if __name__ == "__main__":
    main()
