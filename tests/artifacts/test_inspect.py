"""What `inspect` computes, compared with definitions written out here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from softprompt.artifacts import inspect, warm_start
from softprompt.build import start_of
from softprompt.config.load import recipe_from_dict
from softprompt.data.sources import read_rows
from softprompt.training.prepare import prepare
from softprompt.training.tune import tune

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss"]


@pytest.fixture(scope="module")
def make(tmp_path_factory, new_lm):
    """`make(method, **options)`: an artifact after one step, and a fresh copy of its base model."""

    def build(method: str, base: str = "frozen", **options):
        folder = tmp_path_factory.mktemp("inspected")
        rows = [
            {"input": w, "target": ("good", "bad")[i % 2], "p": "ab"[i // 4]} for i, w in enumerate(WORDS)
        ]
        text = "".join(
            f'{{"input": "{r["input"]}", "target": "{r["target"]}", "p": "{r["p"]}"}}\n' for r in rows
        )
        (folder / "rows.jsonl").write_text(text)
        recipe = recipe_from_dict(
            {
                "model": "tiny",
                "data": {"train": "rows.jsonl", "prompt_field": "p", "dev_fraction": 0.25},
                "task": {"kind": "classification"},
                "method": {"name": method, **options},
                "base": base,
                "train": {"steps": 1, "warmup": 0.0, "lr": 0.05},
                "output": str(folder / "out"),
            },
            folder,
        )
        assert read_rows(recipe.data.train)
        return tune(prepare(recipe, lm=new_lm())).artifact, new_lm()

    return build


def test_nearest_tokens_by_cosine_and_distance(llama, monkeypatch):
    monkeypatch.setattr(inspect, "CHUNK", 17)  # several parts
    table = llama.embed(torch.arange(llama.spec.vocab_size)).float()
    vectors = torch.stack([3 * table[40], table[7] + 0.01])
    (first, second) = inspect.nearest_tokens(llama, vectors, 4)
    assert first[0][0].id == 40 and first[0][0].value == pytest.approx(1.0)
    assert second[1][0].id == 7
    cosine = torch.nn.functional.cosine_similarity(vectors[:, None], table[None], dim=-1)
    distance = (vectors[:, None] - table[None]).norm(dim=-1)
    for i, (by_cosine, by_distance) in enumerate((first, second)):
        assert [near.id for near in by_cosine] == cosine[i].argsort(descending=True)[:4].tolist()
        assert [near.id for near in by_distance] == distance[i].argsort()[:4].tolist()
        assert [near.value for near in by_distance] == pytest.approx(
            distance[i].sort()[0][:4].tolist(), abs=1e-4
        )


def test_soft_tokens_norms_movement_and_similarity(make):
    artifact, lm = make("prompt-tuning", length=3)
    found = inspect.inspect(artifact, lm, top=2, start_of=start_of)
    vectors = torch.stack([warm_start.vectors(str(artifact.path), name)["after"] for name in "ab"])
    assert [report.name for report in found.prompts] == ["a", "b"] and found.no_start is None
    for i, report in enumerate(found.prompts):
        soft = report.soft["after"]
        assert [v.norm for v in soft] == pytest.approx(vectors[i].norm(dim=-1).tolist())
        # AdamW's first step moves each number by the learning rate
        assert [v.moved for v in soft] == pytest.approx([0.05 * 32**0.5] * 3, rel=1e-2)
        assert all(len(v.by_cosine) == len(v.by_distance) == 2 for v in soft)
    flat = vectors.flatten(1)
    expected = torch.nn.functional.cosine_similarity(flat[0], flat[1], dim=0).item()
    assert found.similarity is not None and found.similarity[0][1] == pytest.approx(expected, abs=1e-5)
    norms = lm.embed(torch.arange(lm.spec.vocab_size)).float().norm(dim=-1)
    assert found.usual_norm == pytest.approx(norms.quantile(0.5).item())


def test_prefix_norms_by_layer(make):
    artifact, lm = make("prefix-tuning", length=4, values_only=True)
    (report,) = inspect.inspect(artifact, lm, names=["b"], start_of=start_of).prompts
    layers = report.layers["kv_after"]
    tensors = warm_start.vectors(str(artifact.path), "b")
    keys = tensors["keys"].unflatten(-1, (3, -1)).norm(dim=-1).mean(0)  # [layers]
    assert [layer.key for layer in layers] == pytest.approx(keys.tolist())
    assert all(layer.key_moved == 0 and layer.value_moved > 0 for layer in layers)
    assert all(layer.usual_key > 0 and layer.gate is None for layer in layers)


def test_generated_prompts_show_their_static_part(make):
    artifact, lm = make("generated-prefix", length=2)
    found = inspect.inspect(artifact, lm, start_of=start_of)
    assert found.generated and len(found.prompts[0].layers["kv_after"]) == 3


def test_gates_are_shown(make):
    artifact, lm = make("llama-adapter", length=2)
    (layers,) = inspect.inspect(artifact, lm, names=["a"], start_of=start_of).prompts[0].layers.values()
    assert all(layer.gate == pytest.approx(torch.tensor(0.05).tanh().item(), rel=0.05) for layer in layers)


def test_a_base_trained_alone_holds_no_vectors(make):
    artifact, lm = make("none", base="lora")
    found = inspect.inspect(artifact, lm, start_of=start_of)
    assert found.similarity is None and not found.prompts[0].soft and not found.prompts[0].layers


def test_start_is_not_known_when_rows_changed_or_went(make):
    artifact, lm = make("prompt-tuning", length=2)
    rows = artifact.path.parent / "rows.jsonl"
    rows.write_text(rows.read_text().replace("sun", "moon"))
    found = inspect.inspect(artifact, lm, start_of=start_of)
    assert found.no_start == "the training rows changed since it was trained"
    assert found.prompts[0].soft["after"][0].moved is None
    rows.unlink()
    assert "no file" in (inspect.inspect(replace(artifact), lm, start_of=start_of).no_start or "")
