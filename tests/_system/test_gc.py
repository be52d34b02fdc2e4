"""The collector rests in a block, and only there."""

from __future__ import annotations

import gc

import pytest

from softprompt._system.gc import RARELY, rare_collection


@pytest.fixture(autouse=True)
def restored():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_rarely_and_then_as_before():
    gc.set_threshold(700, 10, 10)
    with pytest.raises(KeyError), rare_collection():
        assert gc.get_threshold() == (RARELY, 10, 10)
        raise KeyError
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("threshold", [0, 10 * RARELY])
def test_a_user_who_wants_it_rarer_still_has_it(threshold):
    gc.set_threshold(threshold, 10, 10)
    with rare_collection():
        assert gc.get_threshold()[0] == threshold
