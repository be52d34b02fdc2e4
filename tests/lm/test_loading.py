"""`load`: what cannot be loaded says why; a fingerprint knows the base whatever its precision."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import softprompt
from softprompt.errors import SoftPromptError
from softprompt.lm import finetune
from softprompt.lm.loading import fingerprint, load


def fails(call) -> SoftPromptError:
    with pytest.raises(SoftPromptError) as caught:
        call()
    assert caught.value.fix
    return caught.value


@pytest.fixture
def broken(model_folder, tmp_path):
    """A copy of the model's folder to damage."""
    return shutil.copytree(model_folder, tmp_path / "model")


def test_load_a_folder(model_folder):
    lm = softprompt.load(str(model_folder), dtype="float32")
    assert lm.name == str(model_folder) and lm.dtype == torch.float32 and lm.is_frozen
    assert lm.text_ids("a b") == [64, 94, 65]
    assert lm.spec.family == "llama"


def test_unknown_names():
    assert "did you mean 'smollm2'" in fails(lambda: load("smolm2")).what
    assert "no GGUF file" in fails(lambda: load("/nowhere/model.gguf")).what


def test_folder_without_a_model(tmp_path):
    error = fails(lambda: load(str(tmp_path)))
    assert str(tmp_path) in error.what and "config.json" in error.why + error.fix


def test_folder_without_weights(broken):
    (broken / "model.safetensors").unlink()
    assert "model.safetensors" in fails(lambda: load(str(broken))).why


def test_damaged_weights(broken):
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot load" in fails(lambda: load(str(broken))).what


def test_missing_weights_are_not_made_up(broken):
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    name = next(key for key in weights if "v_proj" in key)
    save_file({k: t for k, t in weights.items() if k != name}, broken / "model.safetensors", {"format": "pt"})
    assert name in fails(lambda: load(str(broken))).why
    weights[name] = weights[name][:3]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    assert "cannot load" in fails(lambda: load(str(broken))).what


def test_unknown_architecture(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "nonsense", "architectures": []}))
    assert "nonsense" in fails(lambda: load(str(broken))).why


def t5_folder(path, tokenizer, **changes):
    from transformers import T5Config, T5ForConditionalGeneration

    shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 101}
    model = T5ForConditionalGeneration(T5Config(**shape, **changes))
    model.generation_config.decoder_start_token_id = changes.get("decoder_start_token_id")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def test_a_family_without_a_text_model(broken):
    """One that hears or sees: transformers knows it, but has no model of it that answers in text alone."""
    (broken / "config.json").write_text(json.dumps({"model_type": "vit"}))
    error = fails(lambda: load(str(broken)))
    assert error.why == "transformers has no AutoModelForCausalLM for its configuration, ViTConfig"


def test_encoder_decoder(tmp_path, llama):
    t5_folder(tmp_path, llama.tokenizer, decoder_start_token_id=0)
    lm = load(str(tmp_path), dtype="float32")
    assert lm.spec.kind == "encoder-decoder"
    assert [layer.stack for layer in lm.spec.layers] == ["encoder", "decoder", "cross"]


def test_encoder_decoder_without_a_start(tmp_path, llama):
    t5_folder(tmp_path, llama.tokenizer, decoder_start_token_id=None)
    error = fails(lambda: load(str(tmp_path)))
    assert "which token its decoder starts with" in error.what and "decoder_start_token_id" in error.fix


def test_text_needs_a_tokenizer(new_lm):
    lm = new_lm("llama")
    lm.tokenizer = None
    assert "without a tokenizer" in fails(lambda: lm.text_ids("a")).what


def test_fingerprint_is_the_same_in_another_precision(model_folder):
    full, half = (load(str(model_folder), dtype=kind) for kind in ("float32", "bfloat16"))
    assert half.dtype == torch.bfloat16
    assert fingerprint(full) == fingerprint(half) == fingerprint(load(str(model_folder), dtype="float32"))


def test_fingerprint_stays_while_a_run_changes_settings(new_lm):
    lm = new_lm("llama")
    before = fingerprint(lm)
    lm.set_gradient_checkpointing(True)
    assert fingerprint(lm) == before
    finetune.unfreeze(lm, "lora", rank=2)
    assert fingerprint(lm) == before


def test_fingerprint_knows_other_bases(lms, new_lm):
    own = fingerprint(lms("llama"))
    other = fingerprint(new_lm("llama", seed=1))
    assert {part for part in own if own[part] != other[part]} == {"weights"}
    lm = new_lm("llama")
    assert fingerprint(lm) == own
    with torch.no_grad():
        lm.model.model.norm.weight[3] += 0.1
    assert fingerprint(lm)["weights"] != own["weights"]
    lm.tokenizer.add_tokens(["<new>"])
    assert fingerprint(lm)["tokenizer"] != own["tokenizer"]
    assert fingerprint(new_lm("llama", rms_norm_eps=1e-3))["config"] != own["config"]
