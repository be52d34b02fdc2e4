"""Where vectors start: at the model's own scale, and where they are asked to."""

from __future__ import annotations

import pytest
import torch

from softprompt import methods
from softprompt.errors import SoftPromptError
from softprompt.methods import init
from softprompt.methods.base import PrefixLayers, flatten


def soft(setting, length, kind, **more):
    return init.soft_tokens(setting, length, kind, more.get("text"), more.get("artifact"))


def kv(setting, length, kind, **more):
    places = PrefixLayers.choose(setting.lm.spec, "all", "before")
    return init.prefix(setting, places, length, kind, more.get("text"), more.get("artifact"))


def rows_in(vectors: torch.Tensor, table: torch.Tensor) -> list[int]:
    """The row of `table` that each vector is, exactly."""
    found = []
    for vector in vectors:
        (index,) = (table == vector).all(1).nonzero()[:, 0].tolist()
        found.append(index)
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_random_is_at_the_models_scale(lms, setting, family):
    """N(0, 1) would be five times too large here, and a hundred times on some models."""
    lm = lms(family)
    table = lm.embed(torch.arange(101))
    vectors = soft(setting(lm, examples=(tuple(range(101)),), examples_by_prompt={}), 200, "random")[0]
    assert vectors.std() / table.std() == pytest.approx(1, abs=0.1)
    assert (vectors.mean(0) - table.mean(0)).abs().max() < 4 * table.std() / 200**0.5 + 0.05
    keys, values = kv(setting(lm), 200, "random")
    real_keys, real_values = flatten(lm.kv_of(list(range(100))))
    assert keys[0].std() / real_keys.std() == pytest.approx(1, abs=0.2)
    assert values[0].std() / real_values.std() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("scale", [0.02, 1.0, 5.0])
def test_random_follows_another_scale(new_lm, setting, scale):
    lm = new_lm("llama")
    with torch.no_grad():
        lm.model.model.embed_tokens.weight.mul_(scale / 0.2)
    assert soft(setting(lm), 300, "random").std().item() == pytest.approx(scale, rel=0.2)


def test_vocab_takes_tokens_of_each_prompts_own_rows(llama, setting):
    table = llama.embed(torch.arange(101))
    given = setting(llama)
    vectors = soft(given, 30, "vocab")
    for prompt, rows in given.examples_by_prompt.items():
        assert set(rows_in(vectors[prompt], table)) <= {i for row in rows for i in row}
    bare = setting(llama, examples=(), examples_by_prompt={})
    assert len(set(rows_in(soft(bare, 60, "vocab")[0], table))) > 20  # of the whole vocabulary


def test_text_labels_and_context(llama, setting):
    table = llama.embed(torch.arange(101))
    given = setting(llama)
    words = llama.text_ids("ab c")
    assert rows_in(soft(given, 3, "text", text="ab c")[1], table) == words[:3]
    assert rows_in(soft(given, 7, "text", text="ab c")[0], table) == [*words, *words[:3]]  # repeated
    assert rows_in(soft(given, 8, "labels")[0], table) == llama.text_ids(" good bad")[:8]
    context = rows_in(soft(given, 18, "context")[1], table)
    first, second = given.examples_by_prompt[1]
    assert context in ([*first, *second], [*second, *first])


def test_prefix_starts_as_the_text(llama, setting, close):
    keys, values = kv(setting(llama), 4, "text", text="word")
    reference = flatten(llama.kv_of(llama.text_ids("word")))
    close(keys[0], reference[0][0])
    close(values[1], reference[1][0])
    assert keys.shape == (2, 4, 3 * 2 * 8)


def test_same_seed_same_start(llama, setting):
    for kind in ("random", "vocab", "context"):
        a, b, other = (soft(setting(llama, seed=seed), 6, kind) for seed in (1, 1, 2))
        assert torch.equal(a, b)
        assert kind == "context" or not torch.equal(a, other)
        assert not torch.equal(a[0], a[1])  # prompts do not start alike
    for name in methods.METHODS:
        a = methods.build(name, setting(llama)).state_dict()
        torch.randn(3)  # whatever was drawn in between
        b = methods.build(name, setting(llama)).state_dict()
        assert all(torch.equal(a[key], b[key]) for key in a), name


def test_building_leaves_the_global_generator_alone(llama, setting):
    torch.manual_seed(5)
    expected = torch.randn(2)
    for name in methods.METHODS:
        torch.manual_seed(5)
        methods.build(name, setting(llama))
        assert torch.equal(torch.randn(2), expected), name


def test_artifact_starts_from_another_prompt(llama, setting):
    stored = {"after": torch.arange(3 * 32.0).reshape(3, 32)}
    given = setting(llama, read_prompt=lambda path, name: stored)
    vectors = soft(given, 5, "artifact", artifact="x")
    assert torch.equal(vectors[0], torch.cat([stored["after"], stored["after"][:2]]))
    assert torch.equal(soft(given, 2, "artifact", artifact="x")[1], stored["after"][:2])
    with pytest.raises(SoftPromptError, match="no prefix"):
        kv(given, 2, "artifact", artifact="x")
    keys, values = torch.randn(2, 48), torch.randn(2, 48)
    given = setting(llama, read_prompt=lambda path, name: {"keys": keys, "values": values})
    assert torch.equal(kv(given, 2, "artifact", artifact="x")[1][0], values)
    with pytest.raises(SoftPromptError, match="no soft tokens"):
        soft(given, 2, "artifact", artifact="x")
    with pytest.raises(SoftPromptError, match="needs a path"):
        soft(given, 2, "artifact")


def test_empty_text_is_refused(llama, setting):
    with pytest.raises(SoftPromptError):
        soft(setting(llama), 2, "text", text="")


def test_flatten_and_unflatten(llama):
    layers = llama.kv_of([5, 6, 7])
    keys, values = flatten(layers)
    assert keys.shape == (1, 3, 48)
    for a, b in zip(
        PrefixLayers.choose(llama.spec, "all", "before").unflatten(keys, values), layers, strict=True
    ):
        assert torch.equal(a.key, b.key) and torch.equal(a.value, b.value)
    assert torch.equal(keys[0, 1, 16:24], layers[1].key[0, 0, 1])  # layer 1, head 0 of the second vector
