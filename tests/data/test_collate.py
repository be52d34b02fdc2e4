"""Inputs of a batch are split into what all begin with, and the rest."""

from __future__ import annotations

import pytest

from softprompt.data.collate import batch_of_ids

ROWS = {
    "none": [[1, 2, 3], [2, 2, 3]],
    "some, of unlike lengths": [[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 8, 9, 10]],
    "one is all beginning": [[5, 6, 7], [5, 6, 7, 8]],
    "all alike": [[5, 6, 7], [5, 6, 7]],
    "of one token": [[5], [5, 6]],
    "alike again further on": [[5, 1, 7, 8], [5, 2, 7, 8]],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_shared_tokens_and_the_rest(rows):
    batch = batch_of_ids(rows)
    columns = list(zip(*(row[:-1] for row in rows), strict=False))  # each keeps one at least
    count = next((i for i, ids in enumerate(columns) if len(set(ids)) > 1), len(columns))
    assert batch.shared_tokens() == count
    rest = batch.without_first(count)
    found = [ids[mask].tolist() for ids, mask in zip(rest.input_ids, rest.input_mask, strict=True)]
    assert found == [row[count:] for row in rows]
    assert rest.input_mask[:, -1].all()
