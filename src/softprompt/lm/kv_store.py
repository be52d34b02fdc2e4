"""Rows are decoded together: each is added and removed between steps, and a step is one token for all.

All that a row sees (its prefix, its soft tokens, its input, its answer so far) is stored as keys and values
in one line of a store, without gaps, in order of arrival. Attention does not depend on that order, because
each key contains its position. So a step costs the same under every prompt, and rows under different
prompts are one batch. Lines 0 … B-1 are in use, and are read without a copy. `lm.joining` runs new requests
first. This file knows nothing of requests, prompts' names or sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from ..injection import Injection, LayerKV, Prefix
from .causal import CausalLM
from .injected import Active, Columns
from .joining import Joined
from .visibility import Rule

ANYWHERE = 2**30  # the position of a column that is seen at any distance
LINES, COLUMNS = 8, 64  # the store grows by multiples of these


@final
class Running:
    """The rows that are decoded now, by their lines in the store: 0 … `len` - 1."""

    def __init__(self, lm: CausalLM, most: int = 2**40) -> None:
        """The store has at most `most` columns, lines times their length, or those of one row."""
        lm.refuse("cache")
        self.lm, self.most = lm, most
        self._keys: list[Tensor] = []  # by layer: [lines, kv_heads, columns, head_dim]
        self._values: list[Tensor] = []
        self._places = torch.zeros(0, 0, dtype=torch.long)  # [lines, columns] positions, for windows
        self._absent: dict[int, Tensor] = {}  # by layer: columns that it lacks, [lines, columns] bool
        self._adapters: list[Prefix | None] = []
        self._merged: Prefix | None = None
        self._used: list[int] = []  # columns
        self._ends: list[int] = []  # columns that it will have at most
        self._next: list[int] = []  # position of the next token
        self._lines = self._at = torch.zeros(0, dtype=torch.long)

    def __len__(self) -> int:
        return len(self._used)

    @property
    def bytes(self) -> int:
        """Return the size of the store in bytes."""
        return sum(t.numel() * t.element_size() for t in (*self._keys, *self._values))

    @torch.no_grad()
    def join(self, joined: Joined, which: Sequence[int]) -> None:
        """Add rows, by their numbers, in the next lines, in order; none of them is added where that fails."""
        if not which:
            return
        before, rows = len(self), [joined.rows[i] for i in which]
        try:
            self._ends += [row.columns + row.room for row in rows]
            self._fit(len(self._ends))
            columns = Columns(joined.recorded, joined.mask, positions=joined.positions)
            for i, row in zip(which, rows, strict=True):
                self._fill(len(self), i, [*joined.active.columns, columns])
                self._used.append(row.columns)
                self._next.append(row.positions)
                self._adapters.append(row.injection.adapter)
            self._merge_adapters()
        except BaseException:  # out of memory, say: the running rows continue as before
            for of_rows in (self._ends, self._used, self._next, self._adapters):
                del of_rows[before:]
            raise

    @torch.no_grad()
    def step(self, ids: Sequence[int]) -> Tensor:
        """Feed each row's next token, and return the logits [B, V] of the tokens that follow."""
        self._ends = [max(end, n + 1) for end, n in zip(self._ends, self._used, strict=True)]
        self._fit(len(self))
        device = self.lm.device
        positions = torch.tensor(self._next, device=device)[:, None]
        self._at = torch.tensor(self._used, device=device)
        self._lines = torch.arange(len(self), device=device)
        self._places[self._lines, self._at] = positions[:, 0]
        active = Active(
            adapter=self._merged, kept=_Step(self, positions, self._at), query_positions=positions
        )
        vectors = self.lm.token_inputs(torch.tensor(ids, device=device)[:, None])
        mask = torch.ones_like(positions, dtype=torch.bool)
        logits = self.lm.run(vectors, mask, positions, active)[:, 0]
        self._used = [n + 1 for n in self._used]
        self._next = [n + 1 for n in self._next]
        return logits

    def leave(self, line: int) -> int:
        """Remove a row; the last row takes its line. Return the line that was moved."""
        last = len(self) - 1
        n = self._used[last]
        tensors = [*self._keys, *self._values]
        if line != last:
            for t in tensors:
                t[line, :, :n] = t[last, :, :n]
            for t in (self._places, *self._absent.values()):
                t[line] = t[last]
        end = self._used[line] + 1
        for t in tensors:  # what is masked must be finite all the same
            t[last, :, : max(n, end)] = 0
            t[line, :, n:end] = 0
        lists: Any = (self._used, self._ends, self._next, self._adapters)
        for values in lists:
            values[line] = values[last]
            values.pop()
        self._merge_adapters()
        if not self._used:
            self._keys, self._values, self._absent = [], [], {}
        return last

    def fits(self, rows: int, columns: int) -> bool:
        """Return whether there is room for `rows` more rows of at most `columns` columns each."""
        lines = len(self) + rows
        return lines == 1 or lines * _rounded(max([*self._ends, columns]), COLUMNS) <= self.most

    def _fit(self, lines: int) -> None:
        """Make room for `lines` lines of the length in `_ends`."""
        have = self._places.shape if self._keys else (0, 0)
        columns = _rounded(max(self._ends), COLUMNS)
        if have[0] >= lines and columns <= have[1] <= 2 * columns:
            return
        wide = max(_rounded(lines, LINES), have[0])
        lines = wide if wide * columns <= self.most else lines
        rows, used = len(self), max(self._used, default=0)

        def larger(old: Tensor | None, heads: int, size: int) -> Tensor:
            new = torch.zeros(lines, heads, columns, size, dtype=self.lm.dtype, device=self.lm.device)
            if old is not None:
                new[:rows, :, :used] = old[:rows, :, :used]
            return new

        def wider(old: Tensor) -> Tensor:
            new = torch.zeros(lines, columns, dtype=old.dtype, device=self.lm.device)
            new[:rows, :used] = old[:rows, :used]
            return new

        specs = self.lm.spec.layers
        keys: list[Any] = self._keys or [None] * len(specs)
        values: list[Any] = self._values or [None] * len(specs)
        for site, spec in enumerate(specs):  # one after the other: no more than a layer is held twice
            keys[site] = larger(keys[site], spec.kv_heads, spec.head_dim)
            values[site] = larger(values[site], spec.kv_heads, spec.v_head_dim)
        self._keys, self._values = keys, values
        self._places = wider(self._places)
        self._absent = {site: wider(t) for site, t in self._absent.items()}

    def _fill(self, line: int, row: int, parts: Sequence[Columns]) -> None:
        """Write a row's columns of each part into its line, one part after the other."""
        start = 0
        for absent in self._absent.values():
            absent[line] = False
        for part in parts:
            mask = part.mask[row if part.mask.shape[0] > 1 else 0]
            there = slice(None) if bool(mask.all()) else mask.nonzero()[:, 0]
            end = start + int(mask.sum())
            for site, layer in enumerate(part.layers):
                if layer is None or not bool(part.at(site)[row if part.mask.shape[0] > 1 else 0].any()):
                    if end > start:
                        self._lack(site)[line, start:end] = True
                    continue
                for kept, given in ((self._keys, layer.key), (self._values, layer.value)):
                    values = given[row if given.shape[0] > 1 else 0]
                    kept[site][line, :, start:end] = values[:, there]
            places = None if part.positions is None else part.positions[row][there]
            self._places[line, start:end] = ANYWHERE if places is None else places
            start = end

    def _lack(self, site: int) -> Tensor:
        if site not in self._absent:
            self._absent[site] = torch.zeros_like(self._places, dtype=torch.bool)
        return self._absent[site]

    def _merge_adapters(self) -> None:
        if not any(self._adapters):
            self._merged = None
            return
        rows = [Injection(adapter=adapter) for adapter in self._adapters]
        self._merged = Injection.cat(rows, [1] * len(rows)).adapter


def _rounded(number: int, to: int) -> int:
    return -(-number // to) * to


@final
class _Step:
    """One step sees the store through this `KeyValueStore`."""

    def __init__(self, rows: Running, positions: Tensor, at: Tensor) -> None:
        self.rows, self.positions, self.at = rows, positions, at
        self.width = int(at.max()) + 1
        self._masks: dict[Any, Tensor] = {}  # by rule or window

    def grown(self, site: int, new: LayerKV, window: int | None, rule: Rule | None) -> tuple[LayerKV, Tensor]:
        rows, count = self.rows, len(self.rows)
        key, value = rows._keys[site], rows._values[site]
        key[rows._lines, :, self.at] = new.key[:, :, 0]
        value[rows._lines, :, self.at] = new.value[:, :, 0]
        seen = self._seen(window or 0, rule)
        if site in rows._absent:
            seen = seen & ~rows._absent[site][:count, None, None, : self.width]
        return LayerKV(key[:count, :, : self.width], value[:count, :, : self.width]), seen

    def _seen(self, window: int, rule: Rule | None) -> Tensor:
        name = rule or window
        if name not in self._masks:
            columns = torch.arange(self.width, device=self.at.device)
            seen = (columns <= self.at[:, None])[:, None, None]
            places = self.rows._places[: len(self.rows), : self.width]
            if rule is not None:
                seen = seen & rule.seen(self.positions, places)
            elif window:
                seen = seen & (self.positions - places < window)[:, None, None]
            self._masks[name] = seen
        return self._masks[name]
