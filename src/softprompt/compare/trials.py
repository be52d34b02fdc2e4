"""A trial: one thing to run, as plain values, named by a hash of everything that decides what comes out.

So what was run once is found again, whoever asks for it, and a changed recipe, row or model is another trial.
Where the files lie, how many processes run and what else is compared decide nothing, and are not in the name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..config.schema import Recipe
from .candidates import Candidate
from .splits import Splits
from .store import Folder

FORMAT = 1  # raised when the same trial would come out otherwise, or its record holds something else
Phase = Literal["reference", "search", "final", "curve", "score", "measure", "growth", "newcomer"]


@dataclass(frozen=True)
class Trial:
    """What a worker needs to run it. `about` is what its phase needs beyond the recipe."""

    id: str
    contestant: str
    phase: Phase
    recipe: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)  # what was searched, by dotted name
    seed: int | None = None
    rows: int | None = None
    about: dict[str, Any] = field(default_factory=dict)


class Trials:
    """Makes the trials of one comparison: of these rows, this base, in this folder."""

    def __init__(self, folder: Folder, ground: Splits) -> None:
        self.folder, self.ground = folder, ground

    def training(
        self,
        contestant: Candidate,
        phase: Phase,
        settings: Mapping[str, Any],
        seed: int,
        rows: int | None = None,
    ) -> Trial:
        """Train with these settings on all training rows, or so many of them."""
        recipe = self.placed(contestant.with_settings(settings, **{"train.seed": seed}), rows)
        of_rows = {"train": self.ground.hashes["train"], "dev": self.ground.hashes["dev"], "first": rows}
        id = self._id(phase, recipe, {"rows": of_rows})
        recipe = recipe.model_copy(update={"output": str(self.folder.artifact(id))})
        count = rows or self.ground.counts["train"]
        return Trial(id, contestant.name, phase, recipe.to_dict(), dict(settings), seed, count)

    def reference(self, contestant: Candidate, seed: int) -> Trial:
        """What trains nothing, on the dev rows."""
        return self._of_reference(contestant, "reference", "dev", seed)

    def score(self, contestant: Candidate, split: str, final: Trial | None, seed: int) -> Trial:
        """A final trial (None: a reference) on a split that no training saw."""
        if final is None:
            return self._of_reference(contestant, "score", split, seed)
        about = {"split": split, "final": final.id, "text_rows": contestant.recipe.compare.text_rows}
        id = self._id("score", None, {**about, "rows": self.ground.hashes[split]})
        count = self.ground.counts[split]
        return Trial(id, contestant.name, "score", final.recipe, final.settings, final.seed, count, about)

    def measure(self, contestant: Candidate, final: Trial, what: Mapping[str, Any]) -> Trial:
        """Control and serving of a final trial."""
        about = {"final": final.id, **what}
        id = self._id("measure", None, {**about, "rows": self.ground.hashes["test"]})
        return Trial(id, contestant.name, "measure", final.recipe, final.settings, final.seed, None, about)

    def growth(self, contestant: Candidate, settings: Mapping[str, Any], seed: int, table: Table) -> Trial:
        """A table of some of the prompts, with as many steps for each as in a final trial."""
        train = contestant.recipe.train
        share = len(table.prompts) / len(self.ground.prompts)
        steps, batch = scaled(train.steps, train.batch_size, share)
        long = {"train.seed": seed, "train.steps": steps, "train.batch_size": batch}
        recipe = self.placed(contestant.with_settings(settings, **long))
        about = {
            "prompts": list(table.prompts),
            "watched": list(table.watched),
            "text_rows": contestant.recipe.compare.text_rows,
        }
        hashes = {split: self.ground.hashes[split] for split in ("train", "dev", "test")}
        return self._tuned("growth", contestant, recipe, settings, seed, about, hashes)

    def newcomer(
        self, contestant: Candidate, settings: Mapping[str, Any], seed: int, final: Trial | None
    ) -> Trial:
        """Prompts that no training saw, tuned on a few rows beside a final trial's (None: a reference)."""
        about = {"split": "newcomers", "train": "newcomers-train"}
        hashes = {part: self.ground.hashes[part] for part in about.values()}
        if final is None:
            return self._of_reference(contestant, "newcomer", "newcomers", seed, about, hashes)
        rows = self.ground.counts["newcomers-train"]
        batch = max(1, min(contestant.recipe.train.batch_size, rows))
        recipe = self.placed(
            contestant.with_settings(settings, **{"train.seed": seed, "train.batch_size": batch})
        )
        about |= {"final": final.id, "text_rows": contestant.recipe.compare.text_rows}
        return self._tuned("newcomer", contestant, recipe, settings, seed, about, hashes)

    def _tuned(
        self,
        phase: Phase,
        contestant: Candidate,
        recipe: Recipe,
        settings: Mapping[str, Any],
        seed: int,
        about: Mapping[str, Any],
        hashes: Mapping[str, str],
    ) -> Trial:
        """A trial with a prompt of its own, on rows that `about` picks."""
        id = self._id(phase, recipe, {**about, "rows": hashes})
        recipe = recipe.model_copy(update={"output": str(self.folder.artifact(id))})
        return Trial(id, contestant.name, phase, recipe.to_dict(), dict(settings), seed, None, dict(about))

    def placed(self, recipe: Recipe, rows: int | None = None) -> Recipe:
        """The recipe on this comparison's own rows, with what was found out of them and of the base."""
        train = "train" if rows is None else f"train-{rows}"
        data = {"train": str(self.folder.rows(train)), "dev": str(self.folder.rows("dev")), "test": None}
        dtype = "float32" if recipe.base.mode == "full" or recipe.task.needs_head else self.ground.dtype
        return recipe.model_copy(
            update={
                "data": recipe.data.model_copy(update={**data, "limit": None, "dev_limit": None}),
                "task": recipe.task.model_copy(update={"labels": self.ground.labels}),
                "train": recipe.train.model_copy(update={"dtype": dtype, "threads": None, "apart": False}),
                "compare": type(recipe.compare)(),
            }
        )

    def _of_reference(
        self,
        contestant: Candidate,
        phase: Phase,
        split: str,
        seed: int,
        more: Mapping[str, Any] | None = None,
        hashes: Mapping[str, str] | None = None,
    ) -> Trial:
        recipe = self.placed(changed_seed(contestant.recipe, seed))
        about = {
            "split": split,
            "reference": contestant.name,
            "text_rows": contestant.recipe.compare.text_rows,
            **contestant.options,
            **(more or {}),
        }
        hashes = hashes or {"train": self.ground.hashes["train"], split: self.ground.hashes[split]}
        id = self._id(phase, recipe, {**about, "rows": hashes})
        count = self.ground.counts[split]
        return Trial(
            id, contestant.name, phase, recipe.to_dict(), dict(contestant.options), seed, count, about
        )

    def _id(self, phase: Phase, recipe: Recipe | None, decides: Mapping[str, Any]) -> str:
        """16 hex digits of what decides a trial; a recipe without the places of its rows."""
        whole: dict[str, Any] = {"format": FORMAT, "phase": phase, "base": self.ground.base, **decides}
        if recipe is not None:
            places = {"train": "train", "dev": "dev", "test": None}
            neutral = recipe.model_copy(update={"data": recipe.data.model_copy(update=places)})
            whole["recipe"] = neutral.fingerprint()
        text = json.dumps(whole, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with another seed."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})


@dataclass(frozen=True)
class Table:
    """One to be trained: its prompts, and those of them that are scored in it."""

    prompts: tuple[str, ...]
    watched: tuple[str, ...]


def scaled(steps: int, batch_size: int, share: float) -> tuple[int, int]:
    """Steps and rows a step of a table that has this share of the prompts.

    Each prompt takes part in as many steps, with as many rows in each, as in the whole table: the batch
    shrinks with the table and, where it would be less than a row, the number of steps does.
    """
    rows = batch_size * share
    batch = max(1, round(rows))
    return max(1, round(steps * rows / batch)), batch
