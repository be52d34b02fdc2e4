"""A teacher's passes that are killed are not lost."""

from __future__ import annotations

import pytest
import torch

from softprompt.cache import disk_store
from softprompt.cache.folders import CacheFolder
from softprompt.data.example import Example
from softprompt.data.row import row_of
from softprompt.data.template import Rendered


class Passes:
    """Takes the place of a teacher: one number for each input, and a batch for each."""

    content, key = "passes", "stand-in"

    def __init__(self, most: int) -> None:
        self.left, self.computed = most, []

    def name(self, example):
        return f"row{example.input_ids[0]}"

    def tokens(self, example):
        return 1024

    def bytes_needed(self, examples):
        return 8 * len(list(examples))

    def compute(self, examples):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.computed += [e.input_ids[0] for e in examples]
        return [[torch.tensor([e.input_ids[0]])] for e in examples]


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, 3), (3600.0, 0)])
def test_a_killed_build_keeps_what_took_long(seconds, kept, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_store, "SHARD_SECONDS", seconds)
    texts = Rendered("", "", None, None, (), row_of({}, "row"))
    examples = [Example((i, 0), (), 0, texts, None) for i in range(5)]
    place = CacheFolder(tmp_path, 10**9)
    with pytest.raises(KeyboardInterrupt):
        disk_store.open_or_build(place, Passes(3), examples)
    rest, done = Passes(9), []
    store = disk_store.open_or_build(place, rest, examples, progress=lambda n, total: done.append(n))
    assert rest.computed == list(range(kept, 5)) and done == list(range(kept + 1, 6))
    assert [store.row(f"row{i}")[0].item() for i in range(5)] == list(range(5))
