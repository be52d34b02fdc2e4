"""Splits the rows of a recipe into training, dev, test and unseen rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..config.schema import Recipe
from ..config.sections.compare import UnseenConfig
from ..data.sources import Row, read_rows
from ..data.spelling import distinct, same_form
from ..data.split import limit_rows, split_rows
from ..data.template_checks import check_rows
from ..errors import SoftPromptError

if TYPE_CHECKING:
    from ..lm.base import LanguageModel

Vectors = Callable[[Sequence[str]], Any]  # from texts to their mean token embeddings [N, H]
Rule = Callable[[Sequence[Row]], list[bool]]  # which rows are held out


def all_splits(recipe: Recipe, vectors: Vectors) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Return the rows by split (`unseen` only if there are some), and how the unseen ones were chosen.

    Raises SoftPromptError for rows that cannot be split or used.
    """
    from ..build import template_of
    from ..data.recipe_rows import kinds_in, query_of, same_side

    data, config, seed = recipe.data, recipe.compare, recipe.train.seed
    key, kinds, query = template_of(recipe).render_input, kinds_in(recipe), query_of(recipe)
    rows = read_rows(data.train)
    check_rows(
        template_of(recipe), rows, say=lambda text: None
    )  # else the split would be blamed; notes come later
    dev = None if data.dev is None else read_rows(data.dev, split="dev")
    test = None if data.test is None else read_rows(data.test, split="test")
    held: list[Row] = []
    about: dict[str, Any] = {"how": None, "detail": None}
    if config.unseen is not None and config.unseen.file is not None:
        held = read_rows(config.unseen.file, split="test")
        about = {"how": "file", "detail": config.unseen.file}
    elif config.unseen is not None:
        is_held, about = _rule(rows, config.unseen, seed, key, vectors)
        # of all files that there are, so that none has seen and unseen rows
        for part in filter(None, (test, dev, rows)):
            marks = is_held(part)
            held += [row for row, mark in zip(part, marks, strict=True) if mark]
            part[:] = [row for row, mark in zip(part, marks, strict=True) if not mark]
    if test is None:
        rows, test = split_rows(rows, config.test_fraction, seed, key=same_side(recipe), kinds=kinds)
    rows = limit_rows(rows, data.limit, seed, kinds=kinds, together=query)
    if dev is None:
        rows, dev = split_rows(rows, data.dev_fraction, seed, key=same_side(recipe), kinds=kinds)
    parts = {
        "train": rows,
        "dev": limit_rows(dev, data.dev_limit, seed, together=query),
        "test": limit_rows(test, config.test_limit, seed, together=query),
        "unseen": limit_rows(held, config.test_limit, seed, together=query),
    }
    if config.unseen is None:
        del parts["unseen"]
    elif config.unseen.field is not None and config.unseen.field == data.prompt_field:
        del parts["unseen"]  # no prompt is trained that could answer them
        few, rest = newcomers(held, config.unseen.field, config.newcomer_rows, seed)
        scored = limit_rows(rest, config.test_limit, seed, together=query)
        parts |= {"newcomers-train": few, "newcomers": scored}
    empty = [split for split, rows in parts.items() if len(rows) < 2]
    if empty:
        raise SoftPromptError(
            f"there are {len(parts[empty[0]])} {empty[0]} rows after splitting",
            why="a comparison needs at least two of each kind",
            fix="give more rows, or files of their own: data.dev, data.test, compare.unseen",
        )
    return parts, about


def newcomers(rows: Sequence[Row], field: str, count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Split each prompt's rows into `count` rows to tune it on (at most half of its rows) and rows to score.

    Raises SoftPromptError for a prompt of one row.
    """
    few, rest = [], []
    for name in distinct(str(row[field]) for row in rows):
        of_prompt = [row for row in rows if same_form(str(row[field])) == same_form(name)]
        if len(of_prompt) < 2:
            raise SoftPromptError(
                f"the prompt '{name}' has one row",
                why="held out, it is tuned on some rows and scored on others",
                fix="give it more rows, or name other prompts: compare.unseen.values",
            )
        of_prompt = limit_rows(of_prompt, len(of_prompt), seed)
        taken = min(count, len(of_prompt) // 2)
        few, rest = [*few, *of_prompt[:taken]], [*rest, *of_prompt[taken:]]
    return few, rest


def _rule(
    rows: Sequence[Row], config: UnseenConfig, seed: int, key: Callable[[Row], str], vectors: Vectors
) -> tuple[Rule, dict[str, Any]]:
    """Return the rule by which rows are held out, and its description."""
    if config.field is None:
        return _clusters(rows, config, seed, key, vectors)
    name = config.field
    present = [str(row[name]) for row in rows if row.get(name) not in (None, "")]
    if not present:
        raise SoftPromptError(
            f"no row has the field '{name}' that compare.unseen names",
            why=f"fields of the first row: {', '.join(rows[0])}",
            fix="name a field of the rows",
        )
    values = config.values or _share_of_values(present, config.share, seed)
    if missing := [value for value in values if value not in present]:
        known = sorted(set(present))
        raise SoftPromptError(
            f"no row has {name} = {missing[0]}",
            why=f"{len(known)} values, the first: {', '.join(known[:10])}",
            fix="correct compare.unseen.values",
        )
    about = {"how": "field", "detail": f"{name}: {', '.join(values)}"}
    return (lambda part: [str(row.get(name)) in values for row in part]), about


def _share_of_values(present: Sequence[str], share: float, seed: int) -> list[str]:
    """Draw values until they hold about that share of the rows; at least one, and not all."""
    names = sorted(set(present))
    if len(names) < 2:
        raise SoftPromptError(
            f"all rows have the same value '{names[0]}'",
            why="nothing can be held out by it",
            fix="name another field, or clusters: compare.unseen=auto",
        )
    held, count = [], 0
    for row in limit_rows([{"name": n} for n in names], len(names) - 1, seed):
        held.append(row["name"])
        count += present.count(row["name"])
        if count >= share * len(present):
            break
    return held


def _clusters(
    rows: Sequence[Row], config: UnseenConfig, seed: int, key: Callable[[Row], str], vectors: Vectors
) -> tuple[Rule, dict[str, Any]]:
    """Hold out whole clusters of the inputs, the smallest first, about `share` of the rows."""
    import numpy as np
    from sklearn.cluster import KMeans

    assert config.clusters is not None
    texts = [key(row) for row in rows]
    if len(set(texts)) < config.clusters:
        raise SoftPromptError(
            f"{len(set(texts))} different inputs cannot make {config.clusters} clusters",
            fix=f"compare.unseen.clusters={max(2, len(set(texts)) // 10)}",
        )
    model: Any = KMeans(config.clusters, n_init=10, random_state=seed)  # type: ignore[arg-type]
    sizes = np.bincount(model.fit_predict(vectors(texts)), minlength=config.clusters)
    held, count = [], 0
    for cluster in np.argsort(sizes, kind="stable")[:-1]:
        if held and count + sizes[cluster] / 2 > config.share * len(rows):
            break
        held.append(int(cluster))
        count += int(sizes[cluster])

    def is_held(part: Sequence[Row]) -> list[bool]:
        return [int(label) in held for label in model.predict(vectors([key(row) for row in part]))]

    detail = f"{len(held)} of {config.clusters} clusters of mean token embeddings, {count} rows"
    return is_held, {"how": "clusters", "detail": detail}


def mean_embeddings(lm: LanguageModel, texts: Sequence[str]) -> Any:
    """Return the mean token embedding of each text [N, H], scaled to length 1, as numpy."""
    import numpy as np
    import torch

    means = []
    for text in texts:
        ids = torch.tensor(lm.text_ids(text) or [0], device=lm.device)
        with torch.no_grad():
            means.append(lm.embed(ids).float().mean(0).cpu().numpy())
    vectors = np.stack(means).astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
