"""What the real PEFT saved gives the same logits here; and there and back again changes nothing."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MistralConfig, MistralForCausalLM

from softprompt.artifacts import artifact as artifacts
from softprompt.artifacts import warm_start
from softprompt.artifacts.interop import peft as interop
from softprompt.artifacts.interop.peft import files
from softprompt.errors import SoftPromptError
from softprompt.lm.causal import CausalLM

from ...conftest import GROUPED, SIZES, tiny_model, tiny_tokenizer

peft = pytest.importorskip("peft")

LENGTH = 4
SOFT = {
    "prompt": peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH),
    "p-mlp": peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, encoder_hidden_size=8
    ),
    "p-lstm": peft.PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=LENGTH,
        encoder_hidden_size=8,
        encoder_reparameterization_type="LSTM",
    ),
}
KV = {
    "prefix": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH),
    "projected": peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, prefix_projection=True, encoder_hidden_size=8
    ),
    "cartridge": peft.CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, num_frozen_tokens=1),
    "cartridge-free": peft.CartridgeConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, num_frozen_tokens=0
    ),
    "cartridge-two": peft.CartridgeConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, num_frozen_tokens=2
    ),
}
MULTITASK = peft.MultitaskPromptTuningConfig(
    task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, num_tasks=3, num_ranks=2
)


@pytest.fixture
def saved(tmp_path):
    """`saved(base, config)`: a PEFT model with random vectors, and the folder it saved."""

    def make(base, config, change=lambda model: None):
        torch.manual_seed(3)
        base = tiny_model(base) if isinstance(base, str) else base
        model = peft.get_peft_model(base, copy.deepcopy(config)).eval()  # PEFT fills it in
        change(model)
        model.save_pretrained(tmp_path / "theirs")
        return model, tmp_path / "theirs"

    return make


@pytest.mark.parametrize(
    ("changes", "words"),
    [  # each as wide as the model's own: 3 layers of 2 heads of 8
        ({"num_key_value_heads": 1, "head_dim": 16}, "heads 1, the model 2; numbers a head 16, the model 8"),
        ({"num_key_value_heads": 4, "head_dim": 4}, "heads 4, the model 2; numbers a head 4, the model 8"),
        ({"num_hidden_layers": 1, "num_key_value_heads": 2, "head_dim": 24}, "layers 1, the model 3"),
    ],
)
@pytest.mark.parametrize("config", ["prefix", "cartridge-free"])
def test_a_prefix_of_another_shape_is_refused(config, changes, words, saved, lms, new_lm, tmp_path):
    _, folder = saved(new_lm("llama", **changes).model, KV[config])
    with pytest.raises(SoftPromptError, match="another shape") as error:
        interop.import_adapter(folder, lms("llama"), tmp_path / "ours")
    assert words in str(error.value)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("config", SOFT)
def test_soft_prompts(family, config, saved, lms, our_logits, peft_logits, same, tmp_path):
    lm = lms(family)
    model, folder = saved(family, SOFT[config])
    theirs = peft_logits(model)  # before the encoder is gone
    imported = interop.import_adapter(folder, lm, tmp_path / "ours", prompts=["mine"])
    assert imported.artifact.manifest["method"] == "prompt-tuning" and imported.artifact.prompts == ("mine",)
    same(our_logits(lm, imported.artifact), theirs, our_logits(lm, None))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("config", KV)
def test_prefixes(family, config, saved, lms, our_logits, peft_logits, same, tmp_path):
    lm = lms(family)
    model, folder = saved(family, KV[config])
    imported = interop.import_adapter(folder, lm, tmp_path / "ours")
    manifest = imported.artifact.manifest
    assert manifest["method"] == "prefix-tuning"
    assert manifest["options"]["freeze_first"] == (config in ("cartridge", "cartridge-two"))
    assert bool(imported.notes) == (config == "cartridge-two")
    same(our_logits(lm, imported.artifact), peft_logits(model), our_logits(lm, None))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_multitask_prompts(family, saved, lms, our_logits, peft_logits, close, tmp_path):
    lm = lms(family)

    def grow(model):  # PEFT draws the factors at 0.02, and their product vanishes
        with torch.no_grad():
            encoder = model.prompt_encoder["default"]
            encoder.prefix_task_cols.mul_(40)
            encoder.prefix_task_rows.mul_(40)

    model, folder = saved(family, MULTITASK, grow)
    imported = interop.import_adapter(folder, lm, tmp_path / "ours")
    assert imported.artifact.prompts == ("task-0", "task-1", "task-2")
    found = [our_logits(lm, imported.artifact, task) for task in range(3)]
    for task, ours in enumerate(found):
        theirs = peft_logits(model, task_ids=torch.full((2,), task))
        for a, b, other in zip(ours, theirs, found[task - 1], strict=True):
            close(a, b)
            assert (a - other).abs().max() > 1e-2


def gated(model):
    for name, parameter in model.named_parameters():
        if name.endswith("adaption_gate"):
            parameter.data.fill_(0.3 if ".1." in name else -0.8)


def tiny_mistral():
    torch.manual_seed(0)
    config = MistralConfig(**SIZES, **GROUPED, initializer_range=0.2, sliding_window=None)
    return MistralForCausalLM(config).eval()


@pytest.mark.parametrize("build", [lambda: tiny_model("llama"), tiny_mistral], ids=["llama", "mistral"])
def test_adaption_prompts(build, saved, our_logits, peft_logits, same, tmp_path):
    lm = CausalLM(build(), tiny_tokenizer(), "tiny")
    config = peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=LENGTH, adapter_layers=2)
    model, folder = saved(build(), config, gated)
    imported = interop.import_adapter(folder, lm, tmp_path / "ours")
    assert imported.artifact.manifest["method"] == "llama-adapter"
    same(our_logits(lm, imported.artifact), peft_logits(model), our_logits(lm, None))
    interop.export(imported.artifact, lm, tmp_path / "back")
    there, back = (load_file(path / files.WEIGHTS) for path in (folder, tmp_path / "back"))
    assert set(there) == set(back)
    assert all(torch.allclose(there[name], back[name], atol=1e-6) for name in there)


def test_a_gate_beyond_tanh_is_refused(saved, lms, tmp_path):
    def wide(model):
        gated(model)
        for name, parameter in model.named_parameters():
            if ".2." in name and name.endswith("adaption_gate"):
                parameter.data.fill_(1.5)

    config = peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=LENGTH, adapter_layers=2)
    _, folder = saved("llama", config, wide)
    with pytest.raises(SoftPromptError, match=r"a gate of the adapter is 1\.5"):
        interop.import_adapter(folder, lms("llama"), tmp_path / "ours")


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("config", [*SOFT, *KV, "multitask"])
def test_there_and_back(family, config, saved, lms, tmp_path):
    """PEFT to ours to PEFT: soft prompts to the bit, prefixes to the rounding of two rotations."""
    lm = lms(family)
    _, folder = saved(family, MULTITASK if config == "multitask" else (SOFT | KV)[config])
    imported = interop.import_adapter(folder, lm, tmp_path / "ours")
    interop.export(imported.artifact, lm, tmp_path / "back")
    there, back = (load_file(path / files.WEIGHTS) for path in (folder, tmp_path / "back"))
    assert set(there) == set(back)
    for name in there:
        if config in KV:
            assert torch.allclose(there[name], back[name], atol=2e-6, rtol=0)
        else:
            assert torch.equal(there[name], back[name])


@pytest.mark.parametrize("method", ["prompt-tuning", "multitask-prompt-tuning", "prefix-tuning"])
def test_ours_there_and_back(method, lms, artifact_of, tmp_path):
    lm = lms("qwen3")
    artifact = artifact_of(lm, method, ("mine",), length=3, placement="before")
    interop.export(artifact, lm, tmp_path / "adapter")
    imported = interop.import_adapter(tmp_path / "adapter", lm, tmp_path / "again", prompts=["mine"])
    a, b = (load_file(path.path / "state.safetensors") for path in (artifact, imported.artifact))
    assert set(a) == set(b) and a
    assert all(torch.allclose(a[name], b[name], atol=2e-6, rtol=0) for name in a)
    kept = ("method", "prompts", "base")
    assert {k: artifact.manifest[k] for k in kept} == {k: imported.artifact.manifest[k] for k in kept}


def test_an_imported_prompt_is_an_artifact_like_any(saved, lms, tmp_path):
    """It verifies, opens, generates, trains on, and says where it comes from."""
    import softprompt

    lm = lms("llama")
    _, folder = saved("llama", KV["prefix"])
    interop.import_adapter(folder, lm, tmp_path / "ours")
    artifact = artifacts.load(tmp_path / "ours")
    card = (artifact.path / "README.md").read_text()
    assert "imported from | PEFT PREFIX_TUNING" in card and "training rows" not in card
    assert warm_start.vectors(str(artifact.path), "default")["keys"].shape == (LENGTH, 48)
    trainable = artifact.method(lm, trainable=True)
    assert sum(p.numel() for p in trainable.parameters()) == LENGTH * 96
    tuned = softprompt.open_prompt(tmp_path / "ours", lm)
    assert isinstance(tuned.generate("hello", max_new_tokens=3), str) and tuned.metrics == {}


def test_gpt2_prefixes_are_refused(saved, lms, tmp_path):
    _, folder = saved("gpt2", KV["prefix"])
    with pytest.raises(SoftPromptError, match="position P in PEFT and at 0 here"):
        interop.import_adapter(folder, lms("gpt2"), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_pickles_damage_and_absence_are_refused(saved, lms, tmp_path):
    lm = lms("llama")

    def refusal():
        with pytest.raises(SoftPromptError) as error:
            interop.import_adapter(tmp_path / "theirs", lm, tmp_path / "ours")
        assert not (tmp_path / "ours").exists()
        return str(error.value)

    assert "no PEFT adapter" in refusal()
    _, folder = saved("llama", SOFT["prompt"])
    config, weights = folder / files.CONFIG, folder / files.WEIGHTS
    tensors = load_file(weights)
    save_file({"prompt_embeddings": tensors["prompt_embeddings"] * float("nan")}, weights)
    assert "not finite" in refusal()
    weights.write_bytes(b"x")
    assert "damaged" in refusal()
    weights.unlink()
    assert "no adapter_model.safetensors" in refusal()
    # a pickle that would leave a mark if anybody opened it
    (folder / files.PICKLE).write_bytes(
        b"cos\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR."
    )
    assert "pickle" in refusal() and not (tmp_path / "run").exists()
    config.write_text("{")
    assert "damaged" in refusal()
    config.write_text("{}")
    assert "names no peft_type" in refusal()


def test_what_does_not_fit_is_refused(saved, lms, new_lm, tmp_path):
    _, folder = saved("llama", SOFT["prompt"])
    config, weights = folder / files.CONFIG, folder / files.WEIGHTS
    output = json.loads(config.read_text())

    def refusal(lm=None, prompts=(), tensors=None, **changes):
        config.write_text(json.dumps(output | changes))
        if tensors:
            save_file(tensors, weights)
        with pytest.raises(SoftPromptError) as error:
            interop.import_adapter(folder, lm or lms("llama"), tmp_path / "ours", prompts=prompts)
        return str(error.value)

    table = load_file(weights)["prompt_embeddings"]
    assert "4 × 32" in refusal(new_lm("llama", hidden_size=16))
    assert "2 names for 1 prompts" in refusal(prompts=["a", "b"])
    assert "type LORA" in refusal(peft_type="LORA")
    assert "SEQ_CLS" in refusal(task_type="SEQ_CLS")
    assert "says 4 × 2 (num_transformer_submodules)" in refusal(num_transformer_submodules=2)
    assert "prefix_task_cols" in refusal(peft_type="MULTITASK_PROMPT_TUNING")
    assert "any × 96" in refusal(peft_type="PREFIX_TUNING")
    assert "for layers []" in refusal(peft_type="ADAPTION_PROMPT")
    extra = {"prompt_embeddings": table, "base_model.model.embed_tokens.weight": table + 1}
    assert "more than its vectors" in refusal(tensors=extra)


def test_the_base_is_named_or_asked_for(saved, tmp_path):
    _, folder = saved("llama", SOFT["prompt"])
    with pytest.raises(SoftPromptError, match="names no base model"):
        interop.base_name(folder)
    config = folder / files.CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "some/model"}))
    assert interop.base_name(folder) == "some/model"
