"""What is kept for generated prompts is named by all that it depends on, and counted to the byte."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from softprompt.cache import Cache, InputFeatures, KeyValues, memory_store
from softprompt.data.collate import collate
from softprompt.lm import finetune
from softprompt.lm.features import is_constant, read
from softprompt.methods.base import Reads

HIDDEN = Reads("hidden", layer=2)


@pytest.fixture
def encoder(encoder_folder):
    return Reads("encoder", encoder=encoder_folder)


@pytest.fixture
def worded(encoded):
    """Rows with texts, two of them alike."""
    rows = [*encoded((5, 2, 9)), *encoded((5,))]
    for row, text in zip(rows, ("sun", "a longer text", "rain", "sun"), strict=True):
        row.rendered = SimpleNamespace(input=text)
    return rows


@pytest.mark.parametrize("kind", ["hidden", "encoder"])
def test_rows_are_what_is_read(llama, worded, encoder, close, kind):
    kept = InputFeatures(llama, HIDDEN if kind == "hidden" else encoder)
    store = memory_store.build(kept, worded, batch_tokens=10)
    found = Cache(kept, store, worded).batch([2, 0, 3])
    fresh = read(llama, collate([worded[i] for i in (2, 0, 3)]), kept.reads)
    for row, mask, values, real in zip(found.values, found.mask, fresh.values, fresh.mask, strict=True):
        close(row[mask], values[real])
        assert not row[~mask].any()
    assert torch.equal(found.values[1], found.values[2])
    once = {kept.name(e): e for e in worded}.values()
    assert len(once) == 3 and store.bytes == kept.bytes_needed(once)
    assert sum(map(kept.tokens, once)) * (32 if kind == "hidden" else 24) * 4 == store.bytes


def test_an_input_is_computed_once(llama, encoded, monkeypatch):
    """Features are the same in memory and on disk, for any list of examples that holds the row."""
    rows, seen = [*encoded((4, 6)), *encoded((4, 6, 3))], []
    original = llama.prefill

    def counted(batch, *how):
        seen.append(batch.size)
        return original(batch, *how)

    monkeypatch.setattr(llama, "prefill", counted, raising=False)
    store = memory_store.build(KeyValues(llama), rows)
    assert sum(seen) == 3 and store.bytes == KeyValues(llama).bytes_needed(rows[2:])


def test_names(new_lm, llama, encoder, worded, tmp_path):
    """Another layer, weight or encoder has another folder; a row is named by its ids, or its text."""
    from transformers import AutoModel, AutoTokenizer

    nudged, other = new_lm("llama"), tmp_path / "other"
    with torch.no_grad():
        nudged.model.get_input_embeddings().weight[12, 3] += 1
    model = AutoModel.from_pretrained(encoder.encoder)
    with torch.no_grad():
        next(iter(model.parameters()))[3, 1] += 1
    model.save_pretrained(other)
    AutoTokenizer.from_pretrained(encoder.encoder).save_pretrained(other)
    kinds = [
        InputFeatures(llama, HIDDEN),
        InputFeatures(llama, Reads("hidden", layer=1)),
        InputFeatures(nudged, HIDDEN),
        InputFeatures(llama, encoder),
        InputFeatures(llama, Reads("encoder", encoder=str(other))),
        KeyValues(llama),
    ]
    assert len({kept.key for kept in kinds}) == len(kinds)
    assert InputFeatures(nudged, encoder).key == kinds[3].key  # whatever the base
    assert InputFeatures(new_lm("llama"), HIDDEN).key == kinds[0].key
    by_ids, by_text = kinds[0], kinds[3]
    assert by_ids.name(worded[0]) == by_ids.name(worded[3]) != by_ids.name(worded[1])
    worded[3].input_ids = (1, 2)
    assert by_ids.name(worded[0]) != by_ids.name(worded[3])
    assert by_text.name(worded[0]) == by_text.name(worded[3])


def test_what_is_a_constant(new_lm, encoder):
    lm = new_lm("llama")
    assert is_constant(lm, HIDDEN) and is_constant(lm, encoder)
    assert not is_constant(lm, Reads("embeddings"))  # a look-up
    finetune.unfreeze(lm, "full")
    assert is_constant(lm, encoder) and not is_constant(lm, HIDDEN)
