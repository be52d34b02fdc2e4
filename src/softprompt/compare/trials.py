"""A trial is one thing to run, as plain values, named by a hash of everything that decides its result.

So a trial that ran once is found again by any later call, and a changed recipe, row or model makes another
trial. The places of files, the number of processes and the other candidates decide nothing, and are not part
of the name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ..config.schema import Recipe
from .candidates import Candidate
from .records.phase import PhaseName
from .records.store import Folder
from .records.types import About
from .splits import Splits

FORMAT = 1  # raised when the same trial would have another result, or its record another content


@dataclass(frozen=True)
class Trial:
    """A trial holds all that a worker needs. `about` is what its phase needs beyond the recipe."""

    id: str
    contestant: str
    phase: PhaseName
    recipe: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)  # what was searched, by dotted name
    seed: int | None = None
    rows: int | None = None
    about: About = field(default_factory=About)


@dataclass(frozen=True)
class Table:
    """A table that is trained: its prompts, and those of them that are scored in it."""

    prompts: tuple[str, ...]
    watched: tuple[str, ...]


class Trials:
    """Makes the trials of one comparison: of these rows, this base, in this folder."""

    def __init__(self, folder: Folder, splits: Splits) -> None:
        self.folder, self.splits = folder, splits

    def training(
        self,
        contestant: Candidate,
        phase: PhaseName,
        settings: Mapping[str, Any],
        seed: int,
        rows: int | None = None,
    ) -> Trial:
        """Train with these settings on all training rows, or on the first `rows` of them."""
        recipe = self._placed(contestant.with_settings(settings, **{"train.seed": seed}), rows)
        hashes = {"train": self.splits.hashes["train"], "dev": self.splits.hashes["dev"], "first": rows}
        count = rows or self.splits.counts["train"]
        return self._tuned(phase, contestant, recipe, settings, seed, About(), hashes, count)

    def reference(self, contestant: Candidate, seed: int) -> Trial:
        """Score a reference, which trains nothing, on the dev rows."""
        return self._of_reference(contestant, "reference", "dev", seed)

    def score(self, contestant: Candidate, split: str, final: Trial | None, seed: int) -> Trial:
        """Score a final trial (None: a reference) on a split that no training saw."""
        if final is None:
            return self._of_reference(contestant, "score", split, seed)
        text_rows = contestant.recipe.compare.text_rows
        about: About = {"split": split, "final": final.id, "text_rows": text_rows}
        return self._of_final("score", final, about, split, self.splits.counts[split])

    def measure(self, final: Trial, about: About) -> Trial:
        """Measure control and serving of a final trial."""
        return self._of_final("measure", final, {"final": final.id, **about}, "test", None)

    def growth(self, contestant: Candidate, settings: Mapping[str, Any], seed: int, table: Table) -> Trial:
        """Train a table of some of the prompts, with as many steps for each as in a final trial."""
        train = contestant.recipe.train
        share = len(table.prompts) / len(self.splits.prompts)
        steps, batch = scaled(train.steps, train.batch_size, share)
        changes = {"train.seed": seed, "train.steps": steps, "train.batch_size": batch}
        recipe = self._placed(contestant.with_settings(settings, **changes))
        about: About = {
            "prompts": list(table.prompts),
            "watched": list(table.watched),
            "text_rows": contestant.recipe.compare.text_rows,
        }
        hashes = {split: self.splits.hashes[split] for split in ("train", "dev", "test")}
        return self._tuned("growth", contestant, recipe, settings, seed, about, hashes)

    def newcomer(
        self, contestant: Candidate, settings: Mapping[str, Any], seed: int, final: Trial | None
    ) -> Trial:
        """Tune prompts that no training saw on a few rows, beside a final trial (None: a reference)."""
        about: About = {"split": "newcomers", "train": "newcomers-train"}
        hashes = {split: self.splits.hashes[split] for split in ("newcomers", "newcomers-train")}
        if final is None:
            return self._of_reference(contestant, "newcomer", "newcomers", seed, about, hashes)
        rows = self.splits.counts["newcomers-train"]
        batch = max(1, min(contestant.recipe.train.batch_size, rows))
        changes = {"train.seed": seed, "train.batch_size": batch}
        recipe = self._placed(contestant.with_settings(settings, **changes))
        about |= {"final": final.id, "text_rows": contestant.recipe.compare.text_rows}
        return self._tuned("newcomer", contestant, recipe, settings, seed, about, hashes)

    def _of_final(self, phase: PhaseName, final: Trial, about: About, split: str, count: int | None) -> Trial:
        """Look at the prompt of a final trial on the rows of a split."""
        id = self._id(phase, None, {**about, "rows": self.splits.hashes[split]})
        return Trial(id, final.contestant, phase, final.recipe, final.settings, final.seed, count, about)

    def _tuned(
        self,
        phase: PhaseName,
        contestant: Candidate,
        recipe: Recipe,
        settings: Mapping[str, Any],
        seed: int,
        about: About,
        hashes: Mapping[str, Any],
        count: int | None = None,
    ) -> Trial:
        """Tune a prompt of its own."""
        id = self._id(phase, recipe, {**about, "rows": hashes})
        recipe = recipe.model_copy(update={"output": str(self.folder.artifact(id))})
        return Trial(id, contestant.name, phase, recipe.to_dict(), dict(settings), seed, count, about)

    def _of_reference(
        self,
        contestant: Candidate,
        phase: PhaseName,
        split: str,
        seed: int,
        more: About | None = None,
        hashes: Mapping[str, str] | None = None,
    ) -> Trial:
        recipe = contestant.recipe
        seeded = recipe.train.model_copy(update={"seed": seed})
        recipe = self._placed(recipe.model_copy(update={"train": seeded}))
        about: About = {
            "split": split,
            "reference": contestant.name,
            "text_rows": contestant.recipe.compare.text_rows,
        }
        about |= cast(About, contestant.options)
        about |= more or {}
        hashes = hashes or {"train": self.splits.hashes["train"], split: self.splits.hashes[split]}
        id = self._id(phase, recipe, {**about, "rows": hashes})
        count = self.splits.counts[split]
        return Trial(
            id, contestant.name, phase, recipe.to_dict(), dict(contestant.options), seed, count, about
        )

    def _placed(self, recipe: Recipe, rows: int | None = None) -> Recipe:
        """Return the recipe on this comparison's own rows, with its labels and dtype."""
        train = "train" if rows is None else f"train-{rows}"
        data = {"train": str(self.folder.rows(train)), "dev": str(self.folder.rows("dev")), "test": None}
        dtype = "float32" if recipe.base.mode == "full" or recipe.task.needs_head else self.splits.dtype
        if recipe.train.weights in ("float32", "bfloat16"):  # plain weights have a precision of their own
            dtype = recipe.train.precision
        return recipe.untracked().model_copy(
            update={
                "data": recipe.data.model_copy(update={**data, "limit": None, "dev_limit": None}),
                "task": recipe.task.model_copy(update={"labels": self.splits.labels}),
                "train": recipe.train.model_copy(update={"dtype": dtype, "threads": None, "apart": False}),
                "compare": type(recipe.compare)(),
            }
        )

    def _id(self, phase: PhaseName, recipe: Recipe | None, decides: Mapping[str, Any]) -> str:
        """Return 16 hex digits of what decides a trial; of the recipe, without the places of its rows."""
        whole: dict[str, Any] = {"format": FORMAT, "phase": phase, "base": self.splits.base, **decides}
        if recipe is not None:
            places = {"train": "train", "dev": "dev", "test": None}
            neutral = recipe.model_copy(update={"data": recipe.data.model_copy(update=places)})
            whole["recipe"] = neutral.fingerprint()
        text = json.dumps(whole, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def scaled(steps: int, batch_size: int, share: float) -> tuple[int, int]:
    """Return the steps and the rows a step of a table that has this share of the prompts.

    Each prompt takes part in as many steps, with as many rows in each, as in the whole table: the batch
    shrinks with the table and, where it would be less than a row, the number of steps does.
    """
    rows = batch_size * share
    batch = max(1, round(rows))
    return max(1, round(steps * rows / batch)), batch
