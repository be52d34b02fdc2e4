"""A text is distilled: the teacher answers requests, vectors learn from that, and the loss is measured."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .._system.files import write_text
from .._system.progress import follower
from ..artifacts.artifact import MANIFEST
from ..config.schema import Recipe
from ..page.blocks import Table
from ..page.notebook import fragment
from ..training.leakage import leakage_of
from ..training.output_folder import check_room
from ..training.run import Hooks, Run
from ..tuned import Tuned
from . import vectors
from .effect import check_effect
from .elapsed import Elapsed
from .measure import Figures, measure
from .report_blocks import becomes, ways_table
from .seeds import as_kept, train_seeds
from .ways import NONE, TEXT, VECTORS
from .work import Arguments, begin

REPORT = "distill.json"


@dataclass(frozen=True, repr=False)
class Distilled:
    """The tuned vectors, and what is left of the text's effect with them."""

    run: Run  # of the seed whose vectors are kept
    comparison: Figures
    folder: Path  # of the teacher's answers and the report
    runs: tuple[Run, ...] = ()  # of all seeds, the kept one first
    curve: tuple[vectors.Point, ...] = ()  # the share by the number of vectors, where that was left open

    @property
    def tuned(self) -> Tuned:
        """Return the prompt on its base model."""
        prepared = self.run.prepared
        return Tuned(prepared.lm, self.run.artifact, prepared.method, prepared.encoder, prepared.recipe)

    @property
    def share(self) -> tuple[float, float, float]:
        """Return the share of the text's effect that the vectors keep, and its 95 % interval."""
        return self.comparison.share

    def __repr__(self) -> str:
        return f"{self.comparison.headline}\n{self._saving}"

    def _repr_html_(self) -> str:
        figures = self.comparison
        samples = Table(
            "Requests that were kept apart",
            ["request", TEXT, VECTORS, NONE],
            [[sample[name] for name in ("request", TEXT, VECTORS, NONE)] for sample in figures.samples],
        )
        table = ways_table("Against the answers with the text", figures.ways)
        return fragment(figures.headline, [self._saving], [table, samples])

    @property
    def _saving(self) -> str:
        figures = self.comparison
        tokens = becomes(figures.text_tokens, figures.soft_tokens)
        return f"{tokens}, in {self.run.artifact.path}"

    def report(self) -> dict[str, Any]:
        """Return all figures, as `distill.json` holds them."""
        manifest = self.run.artifact.manifest
        return {
            "artifact": str(self.run.artifact.path),
            "model": manifest["base"]["name"],
            "method": manifest["method"],
            **{key: manifest[key] for key in ("command", "versions") if key in manifest},
            "vectors": self.run.prepared.recipe.method.options().get("length"),
            **self.comparison.to_json(),
            **({"curve": [point.to_json() for point in self.curve]} if self.curve else {}),
        }


def distil(
    recipe: Recipe,
    given: Arguments,
    *,
    hooks: Hooks | None = None,
    restart: bool = False,
    overwrite: bool = False,
    price_hour: float | None = None,
) -> Distilled:
    """Distil the text of the recipe's teacher into vectors, and measure them on requests kept apart.

    The teacher's answers are kept in `OUTPUT-distill/requests.jsonl`, and used again by the next call.
    `price_hour` is what an hour of this machine costs: the report then has prices too.
    Raises SoftPromptError for a text or requests that cannot be used, and for a text that changes nothing.
    """
    hooks, folder, started = hooks or Hooks(), Path(f"{recipe.output}-distill"), time.perf_counter()
    anew = {"restart": restart, "overwrite": overwrite}
    work = begin(recipe, given, hooks=hooks, check_room=partial(_check_room, **anew))
    recipe, lm = work.recipe, work.lm
    with Elapsed(folder, recipe, since=started, **anew) as elapsed:
        if follower() is not None and (restart or overwrite or not (Path(recipe.output) / MANIFEST).exists()):
            hooks.stage("measuring how long it will take …")
            hooks.stage(f"it takes {work.expected()}")
        written, (train, dev, test) = work.answered(hooks)
        options: dict[str, Any] = {"lm": lm, "rows": train, "dev_rows": dev, "check": check_effect}
        options |= {"hooks": hooks, **anew}
        if work.lengths:
            runs, curve = vectors.train_candidates(recipe, work.lengths, seconds=work.seconds, **options)
        else:
            runs, curve = train_seeds(recipe, work.seeds, **options), []
        was_finished = all(run.was_finished for run in runs)  # then this call has trained nothing
        took = elapsed.stop(count=not was_finished)
    if was_finished:
        took = seconds_before(folder / REPORT) or took or sum(run.outcome.seconds for run in runs)
    else:
        (folder / REPORT).unlink(missing_ok=True)  # it is of the vectors that were there before
    hooks.stage("measuring on the requests that were kept apart")
    comparison = measure(
        runs,
        test,
        folder,
        seconds=took,
        answered=(sum(bool(row["complete"]) for row in written), len(written)),
        leakage=leakage_of(runs[0]),
        price_hour=price_hour,
    )
    result = Distilled(runs[0], comparison, folder, tuple(runs), tuple(curve))
    write_text(folder / REPORT, json.dumps(result.report(), indent=2, ensure_ascii=False) + "\n")
    return result


def _check_room(recipe: Recipe, *, restart: bool, overwrite: bool) -> None:
    """Raise SoftPromptError where the output folder holds another result than one of this recipe's runs."""
    kept = vectors.as_kept(recipe) if vectors.is_auto(recipe) else as_kept(recipe)
    check_room(kept, restart=restart, overwrite=overwrite)


def seconds_before(report: Path) -> float | None:
    """Return the seconds that an earlier report says; None without one."""
    if not report.exists():
        return None
    return json.loads(report.read_text(encoding="utf-8")).get("seconds")
