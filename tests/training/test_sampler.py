"""Batches by tokens: as many rows as fit, every row once an epoch, a function of (seed, epoch) alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from softprompt.data.batching import by_tokens
from softprompt.training.sampler import BatchSampler, row_lengths

LENGTHS = [1 + (i * 37) % 61 for i in range(300)]


@pytest.mark.parametrize("limit", [1, 40, 200, 10**6])
def test_batches_hold_what_fits(limit):
    order = sorted(range(300), key=LENGTHS.__getitem__)
    batches = list(by_tokens(order, LENGTHS, limit))
    assert [row for batch in batches for row in batch] == order
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        longest = max(LENGTHS[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= limit
        if following is not None:  # the next row had no room
            assert (len(batch) + 1) * max(longest, LENGTHS[following[0]]) > limit


def test_batches_of_unsorted_rows_count_their_longest():
    assert list(by_tokens([0, 1, 2, 3], [2, 9, 2, 2], 18)) == [[0, 1], [2, 3]]
    assert list(by_tokens([], [], 5)) == []


@pytest.mark.parametrize("tokens", [1, 64, 500, 10**6])
def test_every_row_once_an_epoch(tokens):
    order, step = BatchSampler(LENGTHS, 8, seed=1, batch_tokens=tokens), 0
    for epoch in range(3):
        rows: list[int] = []
        for expected in order.epoch(epoch):
            batch = order.batch(step)
            assert batch == expected
            assert len(batch) == 1 or len(batch) * max(LENGTHS[i] for i in batch) <= tokens
            rows, step = rows + batch, step + 1
        assert sorted(rows) == list(range(300))


def test_seed_and_epoch_decide():
    asked, fresh = (BatchSampler(LENGTHS, 8, seed=3, batch_tokens=200) for _ in range(2))
    forward = [asked.batch(step) for step in range(150)]
    assert [fresh.batch(step) for step in reversed(range(150))] == forward[::-1]
    first = asked.per_epoch
    assert forward[:20] != forward[first : first + 20]
    assert BatchSampler(LENGTHS, 8, seed=4, batch_tokens=200).batch(0) != forward[0]


def test_little_is_padding():
    """Nearly as little as if all rows were sorted, and far less than as they come."""

    def padded(batches) -> int:
        return sum(len(batch) * max(LENGTHS[i] for i in batch) for batch in batches)

    made = BatchSampler(LENGTHS, 8, seed=0, batch_tokens=200).epoch(0)
    in_order = list(by_tokens(range(300), LENGTHS, 200))
    assert padded(made) - sum(LENGTHS) < (padded(in_order) - sum(LENGTHS)) / 3
    assert len(made) < len(in_order)


def test_targets_count_by_tokens_alone():
    about = {"target_ids": (4, 5), "rejected_ids": (), "answer_tokens": 2}
    rows = [SimpleNamespace(input_ids=(1, 2, 3), lengths=((3, 2),), **about)]
    assert row_lengths(rows) == [3] and row_lengths(rows, 100) == [5]
