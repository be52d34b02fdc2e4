"""Batches are formed by the tokens that they fill, padding included, and not by their number of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def by_tokens(order: Iterable[int], lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Yield batches of rows, in `order`, whose padded tokens (rows × the longest) are at most `limit`.

    `lengths` are the tokens of all rows. A row that is longer than the limit is a batch of its own.
    """
    batch: list[int] = []
    longest = 0
    for row in order:
        longest = max(longest, lengths[row])
        if batch and (len(batch) + 1) * longest > limit:
            yield batch
            batch, longest = [], lengths[row]
        batch.append(row)
    if batch:
        yield batch
