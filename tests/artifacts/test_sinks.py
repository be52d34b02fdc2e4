"""Prefixes made alone are joined: one attention sink is kept, and keys move as the model moves them."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import rotate_half

import softprompt
from softprompt.artifacts import arithmetic, artifact
from softprompt.artifacts.sinks import one_sink, starts_with_sink
from softprompt.injection import Injection, Prefix

A, B, C = [1, 12, 13, 14], [1, 9, 10], [1, 20]  # each text begins with the same token, the sink
INPUT, TARGET = [30, 31, 32], [40, 41]


def untrained(lm, ids) -> Injection:
    return Injection(kv_before=Prefix(lm.kv_of(ids), torch.ones(1, len(ids), dtype=torch.bool)))


def turned_by_hand(model, key, delta: int):
    """Rotate keys [1, heads, P, D] by `delta` positions with the model's own rotary function."""
    cos, sin = model.model.rotary_emb(key, torch.full((1, key.shape[2]), delta))
    return key * cos[:, None] + rotate_half(key) * sin[:, None]


def reference(lm, texts):
    """Logits over a cache of texts that were read alone at 0, without all but one first token."""
    cache, start = DynamicCache(), 0
    for number, ids in enumerate(texts):
        alone = DynamicCache()
        with torch.no_grad():
            lm.model(input_ids=torch.tensor([ids]), past_key_values=alone)
        first = 1 if number else 0
        for index, layer in enumerate(alone.layers):
            key = turned_by_hand(lm.model, layer.keys, start - first)
            cache.update(key[:, :, first:], layer.values[:, :, first:], index)
        start += len(ids) - first
    ids = INPUT + TARGET[:-1]
    with torch.no_grad():
        positions = torch.arange(start, start + len(ids))[None]
        out = lm.model(input_ids=torch.tensor([ids]), position_ids=positions, past_key_values=cache)
    return out.logits[:, len(INPUT) - 1 :]


def test_joined_prefixes_equal_a_cache_that_is_rotated_by_hand(llama, rows_to_batch, close):
    parts = [untrained(llama, ids) for ids in (A, B, C)]
    batch = rows_to_batch([INPUT], [TARGET])
    joined = arithmetic.concatenate(one_sink(parts, [True] * 3), llama)
    assert joined.kv_before is not None and joined.kv_before.mask.shape[1] == len(A + B + C) - 2
    close(llama.logits(batch, joined), reference(llama, [A, B, C]), 1e-4)
    for other in (
        arithmetic.concatenate(parts, llama),
        arithmetic.concatenate(one_sink(parts, [True] * 3), llama, keep_positions=True),
    ):
        assert (llama.logits(batch, other) - reference(llama, [A, B, C])).abs().max() > 1e-3


def test_a_prefix_without_a_sink_is_whole(llama):
    plain, first, second = (untrained(llama, ids) for ids in (A, B, C))
    lengths = [part.kv_before.mask.shape[1] for part in one_sink([plain, first, second], [False, True, True])]
    assert lengths == [4, 3, 1]
    only_sink = untrained(llama, [1])
    assert not one_sink([first, only_sink], [True, True])[1].channels()


def test_keys_without_rotation_stay(lms):
    lm = lms("gpt2")
    parts = [untrained(lm, ids) for ids in (A, B)]
    joined = arithmetic.concatenate(one_sink(parts, [True, True]), lm).kv_before
    layer, first, second = (part.layers[0] for part in (joined, *(p.kv_before for p in parts)))
    assert torch.equal(layer.key, torch.cat([first.key, second.key[:, :, 1:]], 2))


@pytest.fixture(scope="module")
def folders(lms, tmp_path_factory):
    home, lm = tmp_path_factory.mktemp("alone"), lms("llama")
    rows = [{"input": f"say {i}", "target": "yes"} for i in range(8)]
    for name, freeze in (("a", True), ("b", True), ("c", False)):
        options = {"length": 3, "placement": "before", "freeze_first": freeze}
        softprompt.tune(lm, "prefix-tuning", rows, output=home / name, options=options, steps=1)
    return home


def test_the_manifest_says_which_prompts_start_with_the_sink(lms, folders, tmp_path):
    lm = lms("llama")
    options = []
    for name, given, settings in (
        ("one", "ab", {}),
        ("kept", "ab", {"keep_sinks": True}),
        ("none", "ac", {}),
        ("still", "ab", {"keep_positions": True}),
    ):
        out = tmp_path / name
        softprompt.concatenate([folders / given[0], folders / given[1]], out, lm, **settings)
        options.append(json.loads((out / artifact.MANIFEST).read_text())["options"])
    assert [o["length"] for o in options] == [5, 6, 6, 5]
    assert all(map(starts_with_sink, options)) and options[3]["keep_positions"] is True
    again = softprompt.concatenate([tmp_path / "one", folders / "b"], tmp_path / "again", lm)
    assert again.artifact.manifest["options"]["length"] == 7
