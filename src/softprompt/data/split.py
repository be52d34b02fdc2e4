"""Rows are chosen and split by a seed: some of them to train on, and some held out to measure on.

A row's `kinds` are what the training rows must show at least once: its label, its prompt. Where a choice
would leave the training rows without one of them, another row is chosen.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeVar

from softprompt.data.row import canonical, short
from softprompt.errors import SoftPromptError

R = TypeVar("R", bound=Mapping[str, Any])
Kinds = Callable[[Mapping[str, Any]], Iterable[Hashable]]


def limit_rows(
    rows: Sequence[R],
    limit: int | None,
    seed: int,
    *,
    kinds: Kinds | None = None,
    together: Callable[[R], Hashable] | None = None,
) -> list[R]:
    """Return the first `limit` rows of a seeded shuffle, so that a smaller limit is a part of a larger one.

    A kind that is missing among them takes, with its first row, the place of the last row that can be spared.
    With `together`, rows with the same value of it are all among them or none is: as many groups as fit, one
    at least, and groups that show a kind first.
    """
    if limit is None:
        return list(rows)
    if together is not None:
        return _whole_groups(rows, limit, seed, together, kinds or (lambda row: ()))
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    chosen, rest = order[:limit], order[limit:]
    if kinds is not None and rest:
        chosen = _with_every_kind(chosen, rest, lambda index: set(kinds(rows[index])))
    return [rows[i] for i in chosen]


def _whole_groups(
    rows: Sequence[R], limit: int, seed: int, together: Callable[[R], Hashable], kinds: Kinds
) -> list[R]:
    groups: dict[Hashable, list[R]] = {}
    for row in rows:
        groups.setdefault(together(row), []).append(row)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    seen: set[Hashable] = set()
    first, rest = [], []
    for group in order:
        shown = {kind for row in group for kind in kinds(row)}
        (rest if shown <= seen else first).append(group)
        seen |= shown
    chosen: list[R] = []
    for group in [*first, *rest]:
        if chosen and len(chosen) + len(group) > limit:
            break
        chosen += group
    return chosen


def _with_every_kind(
    chosen: list[int], rest: Sequence[int], kinds_of: Callable[[int], set[Hashable]]
) -> list[int]:
    kinds = {index: kinds_of(index) for index in chosen}
    counts = Counter(kind for group in kinds.values() for kind in group)
    added: list[int] = []
    for index in rest:
        wanted = kinds_of(index)
        if all(counts[kind] for kind in wanted):
            continue
        spare = next((i for i in reversed(chosen) if all(counts[kind] > 1 for kind in kinds[i])), None)
        if spare is None:
            continue
        chosen.remove(spare)
        counts.subtract(kinds[spare])
        counts.update(wanted)
        added.append(index)
    return [*chosen, *added]


def split_rows(
    rows: Sequence[R],
    fraction: float,
    seed: int,
    *,
    key: Callable[[R], Hashable] | None = None,
    kinds: Kinds | None = None,
) -> tuple[list[R], list[R]]:
    """Return (train, dev): about `fraction` of the rows as dev, at least one; both in the rows' order.

    Rows of equal `key` (default: identical rows) stay on one side, so that no dev row is trained on;
    `key=template.render_input` keeps rows of the same input together. Every kind has a training row. The
    result depends on the rows, the fraction and the seed only. Raises SoftPromptError where no split leaves a
    row on both sides.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(key(row) if key else canonical(row), []).append(index)
    if len(groups) < 2:
        same = len(rows) > 1
        reason = (
            f"they all have the same input, {short(next(iter(groups)))}"
            if same and key
            else "they are all equal"
        )
        raise SoftPromptError(
            f"cannot carve a dev set out of {len(rows)} row(s)",
            why=(f"{reason}; " if same else "")
            + "it needs at least two different rows, one to train on and one to measure on",
            fix="look at template.input, or name a dev file: data.dev=FILE"
            if same and key
            else "add rows, or name a dev file: data.dev=FILE",
        )
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    wanted = max(1, round(len(rows) * fraction))
    left = _Left([list(kinds(row)) for row in rows] if kinds else [[] for _ in rows])
    dev: set[int] = set()
    for group in order:
        fits = len(dev) + len(group) <= wanted and len(dev) + len(group) < len(rows)
        if fits and left.can_spare(group):
            left.take(group)
            dev.update(group)
    if not dev:  # every group that can be spared is larger than the share
        spare = [group for group in order if left.can_spare(group)]
        if not spare:
            raise SoftPromptError(
                f"cannot carve a dev set out of {len(rows)} row(s)",
                why=f"each holds the only row of a label or a prompt ({left.only_in(order)}); rows of "
                "the same input are one",
                fix="add rows of the same labels and prompts, or name a dev file: data.dev=FILE",
            )
        dev.update(min(spare, key=len))
    train = [row for index, row in enumerate(rows) if index not in dev]
    return train, [row for index, row in enumerate(rows) if index in dev]


class _Left:
    """Counts the rows of each kind that are left to train on."""

    def __init__(self, kinds: Sequence[Sequence[Hashable]]) -> None:
        self._kinds = kinds
        self._counts = Counter(kind for row in kinds for kind in set(row))

    def can_spare(self, group: Sequence[int]) -> bool:
        """Return whether every kind has a row outside the group."""
        return all(self._counts[kind] > count for kind, count in self._of(group).items())

    def take(self, group: Sequence[int]) -> None:
        """Remove the rows of a group."""
        self._counts.subtract(self._of(group))

    def only_in(self, groups: Sequence[Sequence[int]], shown: int = 3) -> str:
        """Return the first kinds whose rows are all in one group, as text."""
        kinds = [kind for group in groups for kind, n in self._of(group).items() if self._counts[kind] == n]
        names = [str(kind[-1] if isinstance(kind, tuple) else kind) for kind in kinds]
        return ", ".join(map(repr, names[:shown])) + (", …" if len(names) > shown else "")

    def _of(self, group: Sequence[int]) -> Counter[Hashable]:
        return Counter(kind for index in group for kind in set(self._kinds[index]))


def shared_queries(
    parts: Mapping[str, Sequence[Mapping[str, Any]]], query: Callable[[Mapping[str, Any]], str] | None
) -> list[str]:
    """Return a remark for each two parts of the rows, by name, that have queries of a reranker in common.

    Rows of one file are split by their queries; those of several files may share some. `query` is None for
    tasks that have none.
    """
    queries = {} if query is None else {name: {query(row) for row in rows} for name, rows in parts.items()}
    return [
        f"{len(both)} of {len(queries[later])} queries of the {later} rows are also queries of the {earlier} "
        "rows, so scores may be better than those of new queries: keep each query in one file"
        for earlier, later in combinations(queries, 2)
        if (both := queries[earlier] & queries[later])
    ]
