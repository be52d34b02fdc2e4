"""Test whether `choose --pilot` names a good method in a tenth of the comparison's time.

    python -m benchmarks.comparisons.pilot [--only sst2 mrpc] [--out runs/comparisons]
        [--results docs/comparisons] [--share 0.1]

It uses the comparison's training and dev rows after the comparison has ended. The result is written beside
the published scores (`pilot.json`), for `python -m benchmarks.comparisons.claims`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from softprompt.build import template_of
from softprompt.compare.phases.model_pool import kept
from softprompt.config.load import recipe_from_dict
from softprompt.data.sources import read_rows
from softprompt.methods import option_names
from softprompt.recommend import Requirements, measure, rank
from softprompt.recommend.pilot import Pilot, run_pilot

from .__main__ import say
from .sets import SETS

SHARE = 0.1  # of the seconds of all trials


def main() -> None:
    """Run a pilot on every set that has published scores, or on the sets given."""
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
            result = play(args.out / name, seconds)
            text = json.dumps(record(result, seconds), indent=2) + "\n"
            (args.results / name / "pilot.json").write_text(text, encoding="utf-8")


def seconds_of(contest: Path) -> float:
    """Return the seconds that all of its trials took together."""
    trials = [json.loads(path.read_text(encoding="utf-8")) for path in (contest / "trials").glob("*.json")]
    return sum(trial.get("seconds") or 0.0 for trial in trials)


def play(place: Path, seconds: float) -> Pilot:
    """Run a pilot on a comparison's recipe, with those of its methods that the rules do not exclude."""
    plain = json.loads((place / "recipe.json").read_text(encoding="utf-8"))
    study = json.loads((place / "contest" / "study.json").read_text(encoding="utf-8"))
    plain["train"]["dtype"] = study["dtype"]
    recipe = recipe_from_dict(plain, method_option_names=option_names())
    lm = kept(recipe)
    rows = [*read_rows(recipe.data.train), *read_rows(str(recipe.data.dev))]
    required = Requirements(recipe.model.id, unseen=recipe.compare.unseen is not None)
    ranking = rank(measure(rows, template_of(recipe, lm), lm, required, kind=recipe.task.kind))
    compared = {each["name"] for each in study["contestants"]}  # others have no results to compare with
    ranking = replace(ranking, ranked=tuple(r for r in ranking.ranked if r.candidate.name in compared))
    shutil.rmtree(place / "pilot", ignore_errors=True)
    say(f"{place.name}: a pilot of {seconds:.0f} s")
    plain["compare"] |= {"methods": None}
    plain["train"].pop("cache", None)  # the comparison's finals kept inputs on disk; short trials read few
    return run_pilot(plain, ranking, place / "pilot", seconds, lm=lm, rows=rows)


def record(pilot: Pilot, seconds: float) -> dict[str, Any]:
    """Return what is published: neither rows nor texts."""
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
