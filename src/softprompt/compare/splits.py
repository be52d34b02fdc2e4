"""The rows are split once for all candidates, and the base model is looked at.

One seed splits the rows, and each split is written to `rows/`, so that every trial, whatever its seed,
trains on the same rows and is measured on the same others. Every row is encoded here, so that a mistake in
one is reported before hours of training; but no model sees a test row before the settings of all candidates
are chosen.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._system.files import write_text
from ..config.identity import CONFIGURATION
from ..config.schema import Recipe
from ..data.sources import Row, fingerprint
from ..data.spelling import distinct, refuse_twins
from ..data.split import limit_rows
from ..data.template_checks import check_rows
from ..data.values import json_default
from ..errors import SoftPromptError
from .held_out import all_splits, mean_embeddings

if TYPE_CHECKING:
    from ..lm.base import LanguageModel
    from .records.store import Folder


@dataclass(frozen=True)
class Splits:
    """The facts about rows and base that trials are made from."""

    model: str
    base: dict[str, str]  # fingerprint
    dtype: str
    labels: list[str] | None
    prompts: list[str]
    metrics: list[str]  # the first decides
    hashes: dict[str, str]  # by split
    counts: dict[str, int]
    unseen: dict[str, Any] = field(default_factory=lambda: {"how": None, "detail": None})
    newcomers: list[str] = field(default_factory=list)  # prompts that no training sees
    # of a generation: the tokens of each row's target, and those cut off the row; for findings
    targets: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)  # oddities of rows that can be used

    @property
    def measured(self) -> list[str]:
        """Return the splits that finals are scored on."""
        return [split for split in ("test", "unseen") if self.counts.get(split)]

    @property
    def scored(self) -> list[str]:
        """Return all splits with scores: also that of prompts never seen in training."""
        return [*self.measured, *(["newcomers"] if self.newcomers else [])]


def lay(recipe: Recipe, lm: LanguageModel, folder: Folder) -> Splits:
    """Split the rows, write them to the folder, and look at the base.

    Raises SoftPromptError for rows that cannot be split or used.
    """
    from ..build import encoder_of, template_of
    from ..data.labels import distinct_labels
    from ..data.recipe_rows import query_of
    from ..data.round_trip import end_texts, without_end
    from ..data.row_notes import remarks
    from ..data.split import shared_queries
    from ..evaluation.evaluator import ranking
    from ..evaluation.metrics import check_metrics, default_metrics
    from ..lm.loading import fingerprint as base_fingerprint

    if recipe.compare.growth and recipe.data.prompt_field is None:
        raise SoftPromptError(
            "compare.growth trains tables of prompts, but the rows name no prompts",
            fix="data.prompt_field=COLUMN, the column that names each row's prompt",
        )
    refuse_twins(recipe.task.labels or (), "task.labels")
    parts, unseen = all_splits(recipe, lambda texts: mean_embeddings(lm, texts))
    template = template_of(recipe, lm)
    check_rows(template, parts["train"])
    labels = recipe.task.labels
    if labels is None and recipe.task.kind in ("classification", "token-classification"):
        # rows that were held out from these may have labels that no other row has
        from_file = recipe.compare.unseen is not None and recipe.compare.unseen.file is not None
        held = () if from_file else parts.get("unseen", ())
        labels = distinct_labels([*parts["train"], *parts.get("newcomers-train", ()), *held], template)
        if not recipe.task.needs_head:
            written = end_texts(lm.tokenizer, (*lm.ends, getattr(lm.tokenizer, "eos_token_id", None)))
            labels = distinct(without_end(label, written) for label in labels)
    later = _prompts(parts["newcomers-train"], recipe) if "newcomers" in parts else []
    targets: dict[str, list[tuple[int, int]]] = {}
    notes: dict[str, None] = {}
    seen: dict[str, set[str]] = {}
    for split, rows in parts.items():
        named = later if split.startswith("newcomers") else _prompts(parts["train"], recipe)
        encoder = encoder_of(recipe, lm, template, tuple(named), labels)
        encoded = encoder.encode_rows(rows)
        notes |= dict.fromkeys(f"{split} rows: {remark.text}" for remark in remarks(encoder, encoded))
        seen[split] = {text for row in encoded for text in row.rendered.tags or (row.rendered.target,)}
        if recipe.task.kind == "generation":
            targets[split] = [(len(row.target_ids), row.truncated) for row in encoded]
    if labels is not None:
        notes |= dict.fromkeys(_untrained(seen))
    named = {"training": parts["train"]} | {name: parts.get(name, []) for name in ("dev", "test", "unseen")}
    notes |= dict.fromkeys(shared_queries(named, query_of(recipe)))
    parts["train"] = by_turns(parts["train"], recipe, lambda row: template.render(row).target)
    files = dict(parts)
    for count in recipe.compare.curve:
        if count < len(parts["train"]):
            files[f"train-{count}"] = parts["train"][:count]
    for name, rows in files.items():
        lines = (json.dumps(row, ensure_ascii=False, default=json_default) + "\n" for row in rows)
        write_text(folder.rows(name), "".join(lines))
    metrics = list(recipe.task.metrics or default_metrics(recipe.task.kind, **ranking(recipe.task)))
    check_metrics(metrics, recipe.task.kind, **ranking(recipe.task))
    return Splits(
        model=lm.name,
        # the ids of trials are hashes of it: those of earlier versions stay the same
        base={part: value for part, value in base_fingerprint(lm).items() if part != CONFIGURATION},
        dtype=str(lm.dtype).removeprefix("torch."),
        labels=None if labels is None else list(labels),
        prompts=_prompts(parts["train"], recipe),
        metrics=metrics,
        hashes={split: fingerprint(rows) for split, rows in parts.items()},
        counts={split: len(rows) for split, rows in parts.items()},
        unseen=unseen,
        newcomers=later,
        targets=targets,
        remarks=list(notes),
    )


def _prompts(rows: Sequence[Row], recipe: Recipe) -> list[str]:
    """Return the names of the prompts, in the order in which a run over these rows numbers them."""
    field = recipe.data.prompt_field
    if field is None:
        return ["default"]
    return distinct(str(row[field]) for row in rows if row.get(field) not in (None, ""))


def _untrained(seen: Mapping[str, set[str]]) -> list[str]:
    """Return a note on labels (by split) that rows to score have, but no training row."""
    trained = seen["train"] | seen.get("newcomers-train", set())
    new = sorted(set().union(*seen.values()) - trained)
    if not new:
        return []
    shown = ", ".join(map(repr, new[:5])) + (", …" if len(new) > 5 else "")
    return [f"no training row has {shown}, which rows to score have: no prompt can learn to answer so"]


def by_turns(rows: Sequence[Row], recipe: Recipe, target: Callable[[Row], str]) -> list[Row]:
    """Order the rows by seed so that prompts and labels take turns, and few rows show many of them."""
    field, labelled = recipe.data.prompt_field, recipe.task.kind == "classification"
    shuffled = limit_rows(rows, len(rows), recipe.train.seed)
    seen: Counter[tuple] = Counter()
    turns = []
    for row in shuffled:
        kind = None if field is None else str(row.get(field)), target(row) if labelled else None
        seen[kind] += 1
        turns.append(seen[kind])
    return [row for _, row in sorted(zip(turns, shuffled, strict=True), key=lambda pair: pair[0])]
