"""What all contestants stand on: the rows, parted once for all, and the base model.

Rows are parted by one seed and written down (`rows/`), so that every trial, whatever its seed, trains on the
same rows and is measured on the same others. Every row is encoded here, so that a mistake in one is told
before hours of training; but no test row is shown to a model before the settings of all contestants stand.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .._system.files import write_text
from ..config.schema import Recipe, UnseenConfig
from ..data.sources import Row, fingerprint, read_rows
from ..data.spelling import distinct, refuse_twins, same_form
from ..data.split import limit_rows, split_rows
from ..data.template_checks import check_rows
from ..data.values import json_default
from ..errors import SoftPromptError

if TYPE_CHECKING:
    from ..lm.base import LanguageModel
    from .store import Folder

Vectors = Callable[[Sequence[str]], Any]  # texts to their mean token embeddings [N, H]
Rule = Callable[[Sequence[Row]], list[bool]]  # which rows are held out
SPLITS = ("train", "dev", "test", "unseen")


@dataclass(frozen=True)
class Splits:
    """Facts about rows and base that trials are made from."""

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
    # of a generation, in no order: tokens of each row's target, and those cut off the row; for findings
    targets: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)  # what is odd about rows that can be used

    @property
    def measured(self) -> list[str]:
        """Splits that finals are scored on."""
        return [split for split in ("test", "unseen") if self.counts.get(split)]

    @property
    def scored(self) -> list[str]:
        """Splits that there are scores of: those of prompts never seen in training too."""
        return [*self.measured, *(["newcomers"] if self.newcomers else [])]


def lay(recipe: Recipe, lm: LanguageModel, folder: Folder) -> Splits:
    """Part the rows, write them to the folder, and look at the base.

    Raises SoftPromptError for rows that cannot be parted or used.
    """
    from ..build import encoder_of, template_of
    from ..data.labels import distinct_labels
    from ..data.round_trip import end_texts, without_end
    from ..data.row_notes import remarks
    from ..evaluation.metrics import METRICS, default_metrics
    from ..lm.loading import fingerprint as base_fingerprint

    if recipe.compare.growth and recipe.data.prompt_field is None:
        raise SoftPromptError(
            "compare.growth is of tables of prompts, but the rows name no prompts",
            fix="data.prompt_field=COLUMN, the column that names each row's prompt",
        )
    refuse_twins(recipe.task.labels or (), "task.labels")
    parts, unseen = part(recipe, lambda texts: mean_embeddings(lm, texts))
    template = template_of(recipe, lm)
    check_rows(template, parts["train"])
    labels = recipe.task.labels
    if labels is None and recipe.task.kind in ("classification", "token-classification"):
        # rows held out of our own accord may have labels that no other row has
        own = () if recipe.compare.unseen and recipe.compare.unseen.file else parts.get("unseen", ())
        labels = distinct_labels([*parts["train"], *parts.get("newcomers-train", ()), *own], template)
        if not recipe.task.needs_head:
            written = end_texts(lm.tokenizer, (*lm.ends, getattr(lm.tokenizer, "eos_token_id", None)))
            labels = distinct(without_end(label, written) for label in labels)
    later = _prompts(parts["newcomers-train"], recipe) if "newcomers" in parts else []
    targets: dict[str, list[tuple[int, int]]] = {}
    said: dict[str, None] = {}
    seen: dict[str, set[str]] = {}
    for split, rows in parts.items():
        named = later if split.startswith("newcomers") else _prompts(parts["train"], recipe)
        encoder = encoder_of(recipe, lm, template, tuple(named), labels)
        encoded = encoder.encode_rows(rows)
        said |= dict.fromkeys(f"{split} rows: {remark.text}" for remark in remarks(encoder, encoded))
        seen[split] = {text for one in encoded for text in one.rendered.tags or (one.rendered.target,)}
        if recipe.task.kind == "generation":
            targets[split] = [(len(one.target_ids), one.truncated) for one in encoded]
    if labels is not None:
        said |= dict.fromkeys(_untrained(seen))
    parts["train"] = by_turns(parts["train"], recipe, lambda row: template.render(row).target)
    files = dict(parts)
    for count in recipe.compare.curve:
        if count < len(parts["train"]):
            files[f"train-{count}"] = parts["train"][:count]
    for name, rows in files.items():
        lines = (json.dumps(row, ensure_ascii=False, default=json_default) + "\n" for row in rows)
        write_text(folder.rows(name), "".join(lines))
    metrics = list(recipe.task.metrics or default_metrics(recipe.task.kind))
    if unknown := [name for name in metrics if name not in METRICS]:
        raise SoftPromptError(f"unknown metric '{unknown[0]}'", fix="mend task.metrics")
    return Splits(
        lm.name,
        base_fingerprint(lm),
        str(lm.dtype).removeprefix("torch."),
        None if labels is None else list(labels),
        _prompts(parts["train"], recipe),
        metrics,
        {split: fingerprint(rows) for split, rows in parts.items()},
        {split: len(rows) for split, rows in parts.items()},
        unseen,
        later,
        targets,
        list(said),
    )


def _prompts(rows: Sequence[Row], recipe: Recipe) -> list[str]:
    """Their names, in the order in which a run over these rows numbers them."""
    field = recipe.data.prompt_field
    if field is None:
        return ["default"]
    return distinct(str(row[field]) for row in rows if row.get(field) not in (None, ""))


def _untrained(seen: Mapping[str, set[str]]) -> list[str]:
    """What is said of labels (by split) that no training row has, though rows to score have them."""
    trained = seen["train"] | seen.get("newcomers-train", set())
    new = sorted(set().union(*seen.values()) - trained)
    if not new:
        return []
    shown = ", ".join(map(repr, new[:5])) + (", …" if len(new) > 5 else "")
    return [f"no training row has {shown}, which rows to score have: no prompt can learn to answer so"]


def by_turns(rows: Sequence[Row], recipe: Recipe, target: Callable[[Row], str]) -> list[Row]:
    """A seeded order in which prompts, and labels, take turns: the first rows show as many as they can."""
    field, labelled = recipe.data.prompt_field, recipe.task.kind == "classification"
    shuffled = limit_rows(rows, len(rows), recipe.train.seed)
    seen: Counter[tuple] = Counter()
    turns = []
    for row in shuffled:
        kind = None if field is None else str(row.get(field)), target(row) if labelled else None
        seen[kind] += 1
        turns.append(seen[kind])
    return [row for _, row in sorted(zip(turns, shuffled, strict=True), key=lambda pair: pair[0])]


def part(recipe: Recipe, vectors: Vectors) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """The rows by split (`unseen` only where there are some), and how the unseen ones were found."""
    from ..build import kinds_in, template_of

    data, how, seed = recipe.data, recipe.compare, recipe.train.seed
    key, kinds = template_of(recipe).render_input, kinds_in(recipe)
    rows = read_rows(data.train)
    check_rows(template_of(recipe), rows, say=lambda text: None)  # else the split is blamed; notes come later
    dev = None if data.dev is None else read_rows(data.dev, split="dev")
    test = None if data.test is None else read_rows(data.test, split="test")
    held: list[Row] = []
    about: dict[str, Any] = {"how": None, "detail": None}
    if how.unseen is not None and how.unseen.file is not None:
        held = read_rows(how.unseen.file, split="test")
        about = {"how": "file", "detail": how.unseen.file}
    elif how.unseen is not None:
        is_held, about = _rule(rows, how.unseen, seed, key, vectors)
        # of whatever files there are, so that seen and unseen are apart in all of them
        for part in (test, dev, rows):
            marks = is_held(part) if part else []
            held += [row for row, mark in zip(part or [], marks, strict=True) if mark]
            if part:
                part[:] = [row for row, mark in zip(part, marks, strict=True) if not mark]
    if test is None:
        rows, test = split_rows(rows, how.test_fraction, seed, key=key, kinds=kinds)
    rows = limit_rows(rows, data.limit, seed, kinds=kinds)
    if dev is None:
        rows, dev = split_rows(rows, data.dev_fraction, seed, key=key, kinds=kinds)
    parts = {
        "train": rows,
        "dev": limit_rows(dev, data.dev_limit, seed),
        "test": limit_rows(test, how.test_limit, seed),
        "unseen": limit_rows(held, how.test_limit, seed),
    }
    if how.unseen is None:
        del parts["unseen"]
    elif how.unseen.field is not None and how.unseen.field == data.prompt_field:
        del parts["unseen"]  # their prompts are not there to answer them
        few, rest = newcomers(held, how.unseen.field, how.newcomer_rows, seed)
        parts |= {"newcomers-train": few, "newcomers": limit_rows(rest, how.test_limit, seed)}
    empty = [split for split, rows in parts.items() if len(rows) < 2]
    if empty:
        raise SoftPromptError(
            f"there are {len(parts[empty[0]])} {empty[0]} rows after parting",
            why="a comparison needs at least two of each kind",
            fix="give more rows, or files of their own: data.dev, data.test, compare.unseen",
        )
    return parts, about


def newcomers(rows: Sequence[Row], field: str, count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Of each prompt, `count` rows to tune it on (half of its rows at most), and the others to score it on.

    Raises SoftPromptError for a prompt of one row.
    """
    few, rest = [], []
    for name in distinct(str(row[field]) for row in rows):
        own = [row for row in rows if same_form(str(row[field])) == same_form(name)]
        if len(own) < 2:
            raise SoftPromptError(
                f"the prompt '{name}' has one row",
                why="held out, it is tuned on some rows and scored on others",
                fix="give it more rows, or name other prompts: compare.unseen.values",
            )
        own = limit_rows(own, len(own), seed)
        taken = min(count, len(own) // 2)
        few, rest = [*few, *own[:taken]], [*rest, *own[taken:]]
    return few, rest


def _rule(
    rows: Sequence[Row], how: UnseenConfig, seed: int, key: Callable[[Row], str], vectors: Vectors
) -> tuple[Rule, dict[str, Any]]:
    """Which rows are held out, and by what."""
    if how.field is not None:
        name = how.field
        found = [str(row[name]) for row in rows if row.get(name) not in (None, "")]
        if not found:
            raise SoftPromptError(
                f"no row has the field '{name}' that compare.unseen names",
                why=f"fields of the first row: {', '.join(rows[0])}",
                fix="name a field of the rows",
            )
        values = how.values or _share_of_values(found, how.share, seed)
        if missing := [value for value in values if value not in found]:
            known = sorted(set(found))
            raise SoftPromptError(
                f"no row has {name} = {missing[0]}",
                why=f"{len(known)} values, the first: {', '.join(known[:10])}",
                fix="mend compare.unseen.values",
            )
        chosen = set(values)
        return (lambda part: [str(row.get(name)) in chosen for row in part]), {
            "how": "field",
            "detail": f"{name}: {', '.join(values)}",
        }
    return _clusters(rows, how, seed, key, vectors)


def _share_of_values(found: Sequence[str], share: float, seed: int) -> list[str]:
    """Values drawn until they hold about that share of the rows; one at least, and not all."""
    names = sorted(set(found))
    if len(names) < 2:
        raise SoftPromptError(
            f"all rows have the same value '{names[0]}'",
            why="nothing can be held out by it",
            fix="name another field, or clusters: compare.unseen=auto",
        )
    held, count = [], 0
    for name in limit_rows([{"name": n} for n in names], len(names) - 1, seed):
        held.append(name["name"])
        count += found.count(name["name"])
        if count >= share * len(found):
            break
    return held


def _clusters(
    rows: Sequence[Row], how: UnseenConfig, seed: int, key: Callable[[Row], str], vectors: Vectors
) -> tuple[Rule, dict[str, Any]]:
    """Whole clusters of the inputs, from the smallest up, until about `share` of the rows is held out."""
    import numpy as np
    from sklearn.cluster import KMeans

    assert how.clusters is not None
    texts = [key(row) for row in rows]
    if len(set(texts)) < how.clusters:
        raise SoftPromptError(
            f"{len(set(texts))} different inputs cannot make {how.clusters} clusters",
            fix=f"compare.unseen.clusters={max(2, len(set(texts)) // 10)}",
        )
    model: Any = KMeans(how.clusters, n_init=10, random_state=seed)  # type: ignore[arg-type]
    sizes = np.bincount(model.fit_predict(vectors(texts)), minlength=how.clusters)
    held, count = [], 0
    for cluster in np.argsort(sizes, kind="stable")[:-1]:
        if held and count + sizes[cluster] / 2 > how.share * len(rows):
            break
        held.append(int(cluster))
        count += int(sizes[cluster])

    def is_held(part: Sequence[Row]) -> list[bool]:
        return [int(label) in held for label in model.predict(vectors([key(row) for row in part]))]

    detail = f"{len(held)} of {how.clusters} clusters of mean token embeddings, {count} rows"
    return is_held, {"how": "clusters", "detail": detail}


def mean_embeddings(lm: LanguageModel, texts: Sequence[str]) -> Any:
    """Mean token embedding of each text [N, H], scaled to length 1, as numpy."""
    import numpy as np
    import torch

    found = []
    for text in texts:
        ids = torch.tensor(lm.text_ids(text) or [0], device=lm.device)
        with torch.no_grad():
            found.append(lm.embed(ids).float().mean(0).cpu().numpy())
    vectors = np.stack(found).astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def to_json(ground: Splits) -> dict[str, Any]:
    """Plain values; `Ground(**…)` gives it back."""
    return asdict(ground)
