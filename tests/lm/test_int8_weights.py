"""int8 weights are those of the model whose weights were rounded by hand, and so are their gradients."""

from __future__ import annotations

import json

import pytest
import torch
from tests.conftest import tiny_model
from torch import nn

import softprompt
from softprompt import methods
from softprompt.artifacts.artifact import MANIFEST
from softprompt.cache.keys import about
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection
from softprompt.lm import decoding, held_weights
from softprompt.lm.apply import injection_for
from softprompt.lm.causal import CausalLM
from softprompt.lm.finetune import unfreeze
from softprompt.lm.int8_weights import Int8Linear
from softprompt.lm.loading import fingerprint
from softprompt.methods.base import Setting
from softprompt.testing.material import tiny_tokenizer
from softprompt.training.prepare import prepare

ROWS = [[5, 9, 2], list(range(3, 30)), [7], [11, 12, 13, 14, 60]]
TARGETS = [[1, 2, 3]] * len(ROWS)
TASK = [{"input": f"sun {i}", "target": ("good", "bad")[i % 2]} for i in range(12)]


@pytest.fixture
def int8(model_folder):
    return softprompt.load(str(model_folder), weights="int8", dtype="float32")


@pytest.fixture
def by_hand():
    """Return the same model with rounded float weights: all but the tokens' table and the head's."""
    tiny = tiny_model("llama")
    for name, layer in tiny.named_modules():
        if type(layer) is nn.Linear and name != "lm_head":
            rows = []
            for row in layer.weight.detach().tolist():
                scale = max(map(abs, row)) / 127
                rows.append([round(number / scale) * scale for number in row])
            layer.weight.data = torch.tensor(rows)
    return CausalLM(tiny, tiny_tokenizer(), "by hand")


def logits(lm, injection=None):
    return lm.logits(batch_of_ids(ROWS, TARGETS), injection)


def test_logits_are_those_of_rounded_weights(int8, by_hand, llama, close):
    with torch.no_grad():
        close(logits(int8), logits(by_hand))
        assert (logits(int8) - logits(llama)).abs().max() > 1e-3  # they are not the plain model's
    kinds = [type(module) for module in int8.model.modules()]
    assert kinds.count(Int8Linear) == 7 * len(int8.spec.layers) and kinds.count(nn.Linear) == 1


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", ["prompt-tuning", "prefix-tuning"])
def test_gradients_of_the_vectors_are_those_of_rounded_weights(name, place, int8, by_hand, close):
    gradients, batch = [], batch_of_ids(ROWS, TARGETS)
    method = methods.build(
        name, Setting(by_hand, ("a",), examples=tuple(map(tuple, ROWS))), {"length": 3, "placement": place}
    )
    for lm in (int8, by_hand):
        method.zero_grad()
        lm.logits(batch, injection_for(lm, method, batch)).log_softmax(-1)[..., 7].sum().backward()
        gradients.append([p.grad.clone() for p in method.parameters() if p.requires_grad])
    for ours, expected in zip(*gradients, strict=True):
        assert expected.abs().max() > 0
        close(ours / expected.abs().max(), expected / expected.abs().max())


def test_no_weight_as_floats_is_kept_for_the_backward_pass(int8):
    kept = []
    vectors = torch.randn(1, 4, int8.spec.hidden_size, requires_grad=True)
    shapes = {tuple(layer.weight.shape) for layer in int8.model.modules() if isinstance(layer, Int8Linear)}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        int8.model(inputs_embeds=vectors)
    assert any(t.dtype == torch.int8 for t in kept)
    assert not any(t.is_floating_point() and tuple(t.shape) in shapes for t in kept)


def test_scales_stay_in_float32_and_an_output_of_zeros_is_zero():
    layer = nn.Linear(6, 3, bias=True)
    with torch.no_grad():
        layer.weight[1] = 0
    converted = Int8Linear(layer, layer.weight).to(torch.bfloat16)
    assert converted.scale.dtype == torch.float32 and converted.bias.dtype == torch.bfloat16
    output = converted(torch.randn(2, 6, dtype=torch.bfloat16))
    assert output.dtype == torch.bfloat16 and torch.equal(output[:, 1], converted.bias[1].expand(2))


def test_in_float16_no_number_leaves_its_range(close):
    """Products of integers exceed float16's largest number, and gradients times a scale its least."""
    plain = nn.Linear(256, 3, bias=False)
    with torch.no_grad():
        plain.weight.copy_(torch.linspace(0.1, 1, 256).expand(3, -1) * torch.tensor([[1], [1e-3], [30]]))
    vectors = torch.full((2, 256), 4.0, requires_grad=True)
    expected = plain(vectors)
    (expected[:, 1] * 1e-2).sum().backward()
    layer = Int8Linear(plain.half(), plain.weight).half()
    ours = vectors.detach().half().requires_grad_()
    output = layer(ours)
    (output[:, 1] * 1e-2).sum().backward()
    close(output.float() / expected, torch.ones(2, 3), 1e-2)
    close(ours.grad.float() / vectors.grad.max(), vectors.grad / vectors.grad.max(), 2e-2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_decoding_is_within_the_precision_of_bfloat16(dtype, model_folder, monkeypatch, close):
    monkeypatch.setattr(held_weights, "LEAST", 0)
    lm = softprompt.load(str(model_folder), weights="int8", dtype=dtype)
    with torch.no_grad():
        plain = lm.logits(batch_of_ids(ROWS[:1], TARGETS[:1])).float()
    held_weights.hold(lm)
    with held_weights.known(lm), torch.no_grad():
        assert any("forward" in vars(m) for m in lm.model.modules() if isinstance(m, Int8Linear))
        held = lm.logits(batch_of_ids(ROWS[:1], TARGETS[:1])).float()
    assert not torch.equal(held, plain)
    close(held, plain, 0.05)


def test_answers_are_decoded(int8):
    rows = [(i, decoding.joining(int8, ids, Injection(), 4)) for i, ids in enumerate(ROWS)]
    for i, tokens in decoding.decode(int8, rows):
        alone = int8.generate(batch_of_ids([ROWS[i]]), max_new_tokens=4, do_sample=False)[0].tolist()
        assert tokens == alone[: len(tokens)]


def test_a_prompt_belongs_to_both_and_a_cache_to_one(int8, model_folder):
    plain = softprompt.load(str(model_folder), dtype="float32")
    assert fingerprint(int8) == fingerprint(plain)
    assert about(int8) != about(plain)


def test_an_artifact_is_opened_as_it_was_trained(model_folder, tmp_path):
    settings = {"task": "classification", "output": tmp_path / "out", "dtype": "float32", "steps": 2}
    softprompt.tune(str(model_folder), "prefix-tuning", TASK, weights="int8", length=2, **settings)
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["base"]["weights"] == "int8" and manifest["base"]["dtype"] == "float32"
    assert manifest["identity"]["dtype"] == "float32 with int8 weights"
    assert softprompt.open_prompt(tmp_path / "out").lm.weights == "int8"
    for weights in ("auto", "float32", "bfloat16"):
        lm = softprompt.open_prompt(tmp_path / "out", weights=weights).lm
        assert lm.weights == weights and lm.dtype == getattr(torch, lm.weights, torch.float32)


def recipe(folder, **train):
    return recipe_from_dict(
        {"model": str(folder), "data": {"train": "rows"}, "task": "classification", "train": train}
    )


def test_a_recipe_has_the_key_where_it_is_set(model_folder):
    assert "weights" not in recipe(model_folder).to_dict()["train"]
    assert recipe(model_folder, weights="int8").to_dict()["train"]["weights"] == "int8"
    assert recipe(model_folder, weights="float32").train.precision == "float32"
    with pytest.raises(SoftPromptError, match="leave out one of the two"):
        recipe(model_folder, weights="float32", dtype="bfloat16")


def test_plain_weights_are_read_from_no_second_form(model_folder, monkeypatch):
    monkeypatch.setattr(held_weights, "LEAST", 0)
    monkeypatch.setattr(held_weights, "is_intel", lambda: False)
    for weights, is_held in (("auto", True), ("float32", False)):
        lm = softprompt.load(str(model_folder), weights=weights, dtype="float32")
        held_weights.hold(lm)
        assert isinstance(held_weights.known(lm), held_weights.HeldWeights) == is_held
    assert softprompt.load(str(model_folder), weights="bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "int4"}, "int8"),
        ({"weights": "float32", "dtype": "bfloat16"}, "say different things"),
        ({"weights": "int8", "device_map": "cpu"}, "device_map"),
        ({"weights": "int8", "shard": True}, "shard"),
        ({"weights": "int8", "quantization_config": {"quant_method": "torchao"}}, "quantization_config"),
    ],
)
def test_what_cannot_be_is_refused(options, words, model_folder):
    with pytest.raises(SoftPromptError, match=words):
        softprompt.load(str(model_folder), **options)


def test_models_that_have_no_int8_weights(tmp_path, llama, int8):
    tiny_model("gpt2").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(SoftPromptError, match="no plain linear layers"):
        softprompt.load(str(tmp_path), weights="int8")
    with pytest.raises(SoftPromptError, match="weights cannot be set for a model in memory"):
        softprompt.load(tiny_model("llama"), tiny_tokenizer(), weights="int8")
    for mode in ("lora", "full"):
        with pytest.raises(SoftPromptError, match=f"base={mode} cannot be combined with weights=int8"):
            unfreeze(int8, mode)


def test_a_loaded_model_keeps_its_weights(model_folder, int8):
    lm = softprompt.load(str(model_folder), dtype="float32")
    with pytest.raises(SoftPromptError, match=r"train\.weights=int8 has no effect"):
        prepare(recipe(model_folder, weights="int8"), lm=lm, rows=TASK)
    assert prepare(recipe(model_folder), lm=int8, rows=TASK).identity()["dtype"].endswith("int8 weights")
