"""What is made of tuned prompts, compared with transformers' own cache, real tokens and the definitions."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch
from transformers import DynamicCache

import softprompt
from softprompt.artifacts import arithmetic, inspect, warm_start
from softprompt.artifacts import artifact as artifacts
from softprompt.artifacts import compose as composition
from softprompt.artifacts.manifest import text_of
from softprompt.build import start_of
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, LayerKV, Prefix, SoftTokens
from softprompt.methods import build

A, B, INPUT, TARGET = [9, 3, 60], [77, 12, 41, 8], [5, 17, 80, 33], [11, 12, 50]
ROWS = [{"input": word, "target": ("good", "bad")[i % 2]} for i, word in enumerate(["sun", "mud", "ox"] * 4)]
STYLED = [{**row, "style": ("joke", "fact")[i // 6]} for i, row in enumerate(ROWS)]
TRAIN = {"steps": 2, "batch_size": 4, "dtype": "float32", "lr": 0.3}


def mask(length: int) -> torch.Tensor:
    return torch.ones(1, length, dtype=torch.bool)


def soft(vectors: torch.Tensor) -> SoftTokens:
    return SoftTokens(vectors[None], mask(vectors.shape[0]))


def injected(place: str, part: SoftTokens | Prefix) -> Injection:
    channels: dict[str, Any] = {place: part}
    return Injection(**channels)


def drawn(lm, length: int, seed: int) -> Prefix:
    """A random prefix."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 2, length, lm.spec.layers[0].head_dim)
    layers = [LayerKV(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator))]
    layers += [layer.map(lambda t: t.flip(0) + 0.1) for layer in layers * (len(lm.spec.layers) - 1)]
    return Prefix(tuple(layers), mask(length))


def numbers(injection: Injection) -> list[torch.Tensor]:
    found = []
    for _, part in sorted(injection.channels().items()):
        if isinstance(part, SoftTokens):
            found.append(part.vectors)
        else:
            for layer in part.layers:
                if layer is not None:
                    found += [t for t in (layer.key, layer.value, layer.gate) if t is not None]
    return found


def same(one: Injection, other: Injection) -> bool:
    return set(one.channels()) == set(other.channels()) and all(
        torch.equal(a, b) for a, b in zip(numbers(one), numbers(other), strict=True)
    )


@pytest.fixture
def batch(rows_to_batch):
    return rows_to_batch([INPUT, [8]], [TARGET, [4]])


# --- side by side ---


@pytest.mark.parametrize("place", ["before", "after"])
def test_soft_tokens_side_by_side_are_read_in_order(llama, batch, rows_to_batch, close, place):
    """Prompts that are the embeddings of two texts: together they are the two texts, one after the other."""
    a, b = (injected(place, soft(llama.embed(torch.tensor(text)))) for text in (A, B))
    inputs = [A + B + row if place == "before" else row + A + B for row in (INPUT, [8])]
    words = llama.logits(rows_to_batch(inputs, [TARGET, [4]]))
    both = arithmetic.concatenate([a, b], llama)
    close(llama.logits(batch, both)[batch.target_mask], words[batch.target_mask])
    other = llama.logits(batch, arithmetic.concatenate([b, a], llama))
    assert (other - llama.logits(batch, both))[batch.target_mask].abs().max() > 1e-3


def alone(lm, ids: list[int], start: int):
    """KV of a text by the plain transformers model, its tokens at positions start, start + 1, …"""
    cache: Any = DynamicCache()
    positions = torch.arange(start, start + len(ids))[None]
    with torch.no_grad():
        lm.model(input_ids=torch.tensor([ids]), position_ids=positions, past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def after_cache(lm, *parts):
    """Logits at INPUT's last token and on, by the plain transformers model over a seeded cache."""
    cache = DynamicCache()
    for part in parts:
        for index, (key, value) in enumerate(part):
            cache.update(key, value, index)
    start, ids = cache.get_seq_length(), INPUT + TARGET[:-1]
    positions = torch.arange(start, start + len(ids))[None]
    with torch.no_grad():
        out = lm.model(input_ids=torch.tensor([ids]), position_ids=positions, past_key_values=cache)
    return out.logits[:, len(INPUT) - 1 :]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_attention_sees_the_union_of_both_prefixes(lms, family, rows_to_batch, close):
    """Each prefix is the KV of a text that was read alone; transformers reads both from its own cache."""
    lm = lms(family)
    first, second, third = (
        Injection(kv_before=Prefix(lm.kv_of(ids), mask(len(ids)))) for ids in (A, B, [20, 21])
    )
    single = rows_to_batch([INPUT], [TARGET])
    both = lm.logits(single, arithmetic.concatenate([first, second], lm))
    parts = alone(lm, A, 0), alone(lm, B, len(A)), alone(lm, [20, 21], len(A) + len(B))
    close(both, after_cache(lm, *parts[:2]), 1e-4)
    close(
        lm.logits(single, arithmetic.concatenate([first, second, third], lm)), after_cache(lm, *parts), 1e-4
    )
    still = [torch.cat([a, b], 2) for a, b in zip(numbers(first), numbers(second), strict=True)]
    moved = numbers(arithmetic.concatenate([first, second], lm))
    assert not torch.allclose(still[0], moved[0]) and torch.equal(still[1], moved[1])  # keys move, values not


def test_an_infix_is_concatenated_too(llama, rows_to_batch, close):
    """With an input of one token, what is placed after it has the place of a prefix."""
    one = rows_to_batch([[33]], [TARGET])
    prefixes = [drawn(llama, length, seed=length) for length in (2, 3)]
    before, after = (
        llama.logits(one, arithmetic.concatenate([injected(place, p) for p in prefixes], llama))
        for place in ("kv_before", "kv_after")
    )
    close(before, after)
    assert (before - llama.logits(one, Injection(kv_before=prefixes[1]))).abs().max() > 1e-3


def test_different_kinds_stand_beside_each_other(llama, setting, perturb, batch, close):
    tokens, prefix = soft(llama.embed(torch.tensor(A))), drawn(llama, 2, 0)
    adapter = perturb(build("llama-adapter", setting(llama), {"length": 2}))(torch.tensor([0])).adapter
    parts = [Injection(after=tokens), Injection(kv_after=prefix), Injection(adapter=adapter)]
    made = arithmetic.concatenate(parts, llama)
    expected = llama.logits(batch, Injection(after=tokens, kv_after=prefix, adapter=adapter))
    assert torch.equal(llama.logits(batch, made), expected)
    with pytest.raises(SoftPromptError, match="two gated adapters"):
        arithmetic.concatenate([parts[2], parts[2]], llama)


def test_prefixes_in_other_layers_are_refused(llama):
    whole = drawn(llama, 2, 0)
    upper = Injection(kv_after=Prefix((None, *whole.layers[1:]), whole.mask))
    for operation in (arithmetic.concatenate, arithmetic.average):
        with pytest.raises(SoftPromptError, match=r"cannot be concatenated|no average"):
            operation([Injection(kv_after=whole), upper], llama)


def test_keys_that_cannot_move_are_refused(llama, monkeypatch):
    monkeypatch.setattr(llama, "_rotations", (None,) * 3)
    prefix = Injection(kv_before=drawn(llama, 2, 0))
    with pytest.raises(SoftPromptError, match="cannot be moved"):
        arithmetic.concatenate([prefix, prefix], llama)


# --- averaged ---


def prompts(lm, setting, perturb, name: str, seed: int = 0) -> Injection:
    method = perturb(build(name, setting(lm), {"length": 3}), seed=seed)
    return method(torch.tensor([0])).map_rows(torch.detach)


KINDS = ("prompt-tuning", "prefix-tuning", "llama-adapter")


@pytest.mark.parametrize("name", KINDS)
def test_the_average_of_a_prompt_with_itself_is_itself(llama, setting, perturb, name):
    prompt = prompts(llama, setting, perturb, name)
    assert same(arithmetic.average([prompt] * 3, llama), prompt)


@pytest.mark.parametrize("name", KINDS)
def test_the_average_is_half_the_sum(llama, setting, perturb, close, name):
    one, two = (prompts(llama, setting, perturb, name, seed) for seed in (0, 1))
    for a, b, mean in zip(
        numbers(one), numbers(two), numbers(arithmetic.average([one, two], llama)), strict=True
    ):
        close(mean, (a + b) / 2, 1e-6)
        assert not torch.equal(a, b)


def test_other_shapes_have_no_average(llama):
    tokens, more = (Injection(after=soft(torch.zeros(n, 32))) for n in (2, 3))
    for other in (more, Injection(before=tokens.after), Injection(kv_after=drawn(llama, 2, 0))):
        with pytest.raises(SoftPromptError, match="no average") as error:
            arithmetic.average([tokens, other], llama)
        assert "after 2" in error.value.why


# --- at another strength ---


@pytest.mark.parametrize("name", KINDS)
def test_strength_one_is_the_prompt(llama, setting, perturb, name):
    prompt = prompts(llama, setting, perturb, name)
    assert same(arithmetic.scale(prompt, 1.0, llama), prompt)


def test_a_gate_at_strength_zero_is_the_plain_model(llama, setting, perturb, batch, close):
    prompt = prompts(llama, setting, perturb, "llama-adapter")
    plain, trained = llama.logits(batch), llama.logits(batch, prompt)
    close(llama.logits(batch, arithmetic.scale(prompt, 0.0, llama)), plain)
    assert (trained - plain).abs().max() > 1e-3
    *vectors, gate = numbers(prompt)  # one layer is adapted
    *kept, half_open = numbers(arithmetic.scale(prompt, 0.5, llama))
    close(half_open.tanh(), gate.tanh() / 2, 1e-6)
    assert all(torch.equal(a, b) for a, b in zip(vectors, kept, strict=True))
    # and it arrives at the ends without a jump
    close(llama.logits(batch, arithmetic.scale(prompt, 1e-6, llama)), plain, 1e-4)
    close(llama.logits(batch, arithmetic.scale(prompt, 1 - 1e-6, llama)), trained, 1e-4)
    with pytest.raises(SoftPromptError, match="gates cannot be 1e"):
        arithmetic.scale(prompt, 1e6, llama)


@pytest.mark.parametrize("strength", [0.0, 0.4, 2.0])
def test_a_prefix_at_a_strength_speaks_softer_and_draws_as_much(llama, rows_to_batch, close, strength):
    """transformers' own cache with the same keys, and values times s."""
    texts = alone(llama, A, 0)
    prefix = Injection(kv_before=Prefix(llama.kv_of(A), mask(len(A))))
    single = rows_to_batch([INPUT], [TARGET])
    expected = after_cache(llama, [(key, strength * value) for key, value in texts])
    made = llama.logits(single, arithmetic.scale(prefix, strength, llama))
    close(made, expected, 1e-4)
    assert (made - llama.logits(single)).abs().max() > 1e-3  # at 0 too: silent columns still draw attention


@pytest.mark.parametrize("place", ["before", "after"])
def test_soft_tokens_at_strength_zero_are_the_nearest_words(
    llama, rows_to_batch, batch, close, place, monkeypatch
):
    monkeypatch.setattr(arithmetic, "CHUNK", 17)  # several parts
    table = llama.embed(torch.arange(llama.spec.vocab_size))
    vectors = table[torch.tensor(A)] + 0.3 * torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    near = [min(range(101), key=lambda i: (v - table[i]).norm().item()) for v in vectors]
    inputs = [near + row if place == "before" else row + near for row in (INPUT, [8])]
    words = llama.logits(rows_to_batch(inputs, [TARGET, [4]]))
    prompt = injected(place, soft(vectors))
    made = llama.logits(batch, arithmetic.scale(prompt, 0.0, llama))
    close(made[batch.target_mask], words[batch.target_mask])
    assert (made - llama.logits(batch, prompt))[batch.target_mask].abs().max() > 1e-3
    (half,) = numbers(arithmetic.scale(prompt, 0.5, llama))
    close(half[0], (table[torch.tensor(near)] + vectors) / 2, 1e-6)


@pytest.mark.parametrize("strength", [-0.5, float("nan"), float("inf")])
def test_a_strength_without_meaning(strength):
    with pytest.raises(SoftPromptError, match="no meaning"):
        composition.scaling(strength)


# --- as artifacts ---


@pytest.fixture(scope="module")
def lm(model_folder):
    return softprompt.load(str(model_folder), dtype="float32")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, lm):
    """Tuned on one base: two prompts (`a`, `b`), a prefix, and a table of two prompts (`styled`)."""
    home = tmp_path_factory.mktemp("tuned")
    for name, method, seed in (
        ("a", "prompt-tuning", 0),
        ("b", "prompt-tuning", 1),
        ("p", "prefix-tuning", 0),
    ):
        options = {"length": 3}
        softprompt.tune(
            lm,
            method,
            ROWS,
            task="classification",
            output=home / name,
            options=options,
            seed=seed,
            **TRAIN,
        )
    task = {"kind": "generation", "max_new_tokens": 4}
    given = {"task": task, "prompt_field": "style", "options": {"length": 2}, **TRAIN}
    softprompt.tune(lm, "prompt-tuning", STYLED, output=home / "styled", **given)
    return home


def vectors(folder, prompt: str = "default") -> torch.Tensor:
    return warm_start.vectors(str(folder), prompt)["after"]


def test_written_opened_and_used(lm, folders, tmp_path):
    out = tmp_path / "both"
    made = softprompt.concatenate([folders / "a", folders / "b"], out, lm)
    assert torch.equal(vectors(out), torch.cat([vectors(folders / "a"), vectors(folders / "b")]))
    again = softprompt.open_prompt(out)
    inputs = [row["input"] for row in ROWS]
    assert set(again.generate(inputs)) <= {"good", "bad"} and again.generate(inputs) == made.generate(inputs)
    assert again.evaluate(ROWS).metrics["accuracy"].n == len(ROWS)
    manifest = json.loads((out / artifacts.MANIFEST).read_text())
    assert manifest["method"] == "composition" and manifest["options"]["operation"] == "concatenate"
    assert [source["folder"] for source in manifest["sources"]] == [str(folders / "a"), str(folders / "b")]
    stored = json.loads((folders / "b" / artifacts.MANIFEST).read_text())["files"]["prompt.safetensors"]
    assert manifest["sources"][1]["sha256"] == stored["sha256"]
    card = (out / "README.md").read_text()
    assert str(folders / "a") in card and stored["sha256"][:16] in card and "trained parameters" not in card
    found = inspect.inspect(made.artifact, lm, start_of=start_of)
    assert (
        len(found.prompts[0].soft["after"]) == 6
        and found.no_start == "it was made of other prompts, not trained"
    )
    with pytest.raises(SoftPromptError, match="composed of other prompts") as error:
        made.artifact.method(lm, trainable=True)
    assert "init=artifact" in error.value.fix


def test_prompts_of_a_table_are_named(lm, folders, tmp_path):
    styled = folders / "styled"
    mild = softprompt.scale(f"{styled}:joke", 1.0, tmp_path / "same", lm)
    assert torch.equal(vectors(tmp_path / "same"), vectors(styled, "joke"))
    assert mild.generate("sun") == softprompt.open_prompt(styled, lm).generate("sun", prompt="joke")
    mean = softprompt.average([f"{styled}:joke", f"{styled}:fact"], tmp_path / "mean", lm)
    joke, fact = vectors(styled, "joke"), vectors(styled, "fact")
    assert torch.allclose(vectors(mean.artifact.path), (joke + fact) / 2)
    with pytest.raises(SoftPromptError, match="holds 2 prompts") as error:
        composition.open_source(styled)
    assert error.value.fix.endswith("styled:joke")
    with pytest.raises(SoftPromptError, match="did you mean 'joke'"):
        composition.open_source(f"{styled}:jok")


def test_a_folder_with_a_colon_is_a_folder(folders, tmp_path):
    odd = tmp_path / "one:two"
    shutil.copytree(folders / "styled", odd)
    assert composition.open_source(f"{odd}:fact").prompt == "fact"
    assert composition.open_source(f"{odd}:fact").artifact.path == odd


def test_compositions_compose(lm, folders, tmp_path):
    softprompt.concatenate([folders / "a", folders / "p"], tmp_path / "mixed", lm)
    injection = composition.open_source(tmp_path / "mixed").injection(lm)
    assert set(injection.channels()) == {"after", "kv_after"}
    more = softprompt.concatenate([tmp_path / "mixed", folders / "b"], tmp_path / "more", lm)
    assert more.generate("sun") in ("good", "bad")
    assert more.artifact.manifest["sources"][0]["method"] == "composition"
    with pytest.raises(SoftPromptError, match="several kinds"):
        warm_start.vectors(str(tmp_path / "mixed"), "default")


def test_what_is_refused(lm, folders, tmp_path, new_lm):
    def refused(words: str, call) -> None:
        with pytest.raises(SoftPromptError, match=words):
            call(tmp_path / "out")
        assert not (tmp_path / "out").exists()

    a, b = folders / "a", folders / "b"
    refused("takes 2 prompts or more", lambda out: softprompt.average([a], out, lm))
    refused("another base model", lambda out: softprompt.average([a, b], out, new_lm("llama", seed=5)))
    refused("no tuned prompt", lambda out: softprompt.average([a, folders / "none"], out, lm))
    for method, base, words in (
        ("generated-prompt", "frozen", "from the input"),
        ("prompt-tuning", "full", "together with its base"),
        ("none", "lora", "together with its base"),
    ):
        folder = tmp_path / f"{method}-{base}"
        copy = shutil.copytree(a, folder)
        manifest = json.loads((copy / artifacts.MANIFEST).read_text())
        manifest["base"]["mode"], manifest["method"] = base, method
        if method == "generated-prompt":
            trained = softprompt.tune(
                lm, method, ROWS, output=tmp_path / "gen", options={"length": 2}, **TRAIN
            )
            folder = trained.artifact.path
        else:
            (copy / artifacts.MANIFEST).write_text(text_of(manifest))
        refused(words, lambda out, folder=folder: softprompt.scale(folder, 0.5, out, lm))
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    with pytest.raises(SoftPromptError, match="is not empty"):
        softprompt.average([a, b], full, lm)
    assert (full / "thesis.txt").read_text() == "mine"
