"""Any base: a hub id with transformers' options, a model in memory, a quantized or an offloaded one."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from tests.conftest import tiny_model, tiny_tokenizer
from tests.lm.test_close import differences, snapshot

import softprompt
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, LayerKV, Prefix
from softprompt.lm import checkpoint
from softprompt.lm.loading import fingerprint, load

ROWS = [{"input": f"q{i}", "target": "ab"} for i in range(6)]
SMALL = {"length": 2, "steps": 2, "max_new_tokens": 3, "progress": False}


def fails(call, *parts) -> SoftPromptError:
    with pytest.raises(SoftPromptError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.fix
    return caught.value


def manifest(folder):
    return json.loads((folder / "softprompt.json").read_text())


@pytest.fixture
def folder(model_folder):
    return str(model_folder)


def test_the_page_runs(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "base-models.md"
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    assert [kind for kind, _ in blocks] == ["python", "yaml"]
    exec(blocks[0][1], {"MODEL": folder})
    monkeypatch.setenv("MY_TOKEN", "secret")
    recipe = recipe_from_dict({**yaml.safe_load(blocks[1][1]), "data": "rows.jsonl"})
    assert recipe.model.token == "secret" and recipe.train.dtype == "bfloat16"


# --- what is passed on to transformers ---


@pytest.fixture
def recorded(monkeypatch, model_folder):
    """Replaces the hub: `owner/name` is the folder, and what each `from_pretrained` is given is kept."""
    calls = {}

    def standing_in(kind, name):
        real = kind.from_pretrained

        def from_pretrained(path, **options):
            if path != "owner/name":
                return real(path, **options)
            calls[name] = dict(options)
            kept = {k: v for k, v in options.items() if k not in ("revision", "token", "device_map")}
            result = real(str(model_folder), **kept)
            if name == "config":
                result._commit_hash = "c0ffee"
            return result

        monkeypatch.setattr(kind, "from_pretrained", from_pretrained)

    from transformers import AutoModelForCausalLM

    standing_in(checkpoint.AutoTokenizer, "tokenizer")
    standing_in(checkpoint.AutoConfig, "config")
    standing_in(AutoModelForCausalLM, "model")
    return calls


def test_options_reach_every_from_pretrained(recorded):
    options = {"revision": "v1", "token": "hf_secretsecret", "trust_remote_code": True}
    lm = load("owner/name", **options, dtype=torch.bfloat16, attn_implementation="eager")
    for part in ("tokenizer", "config", "model"):
        assert options.items() <= recorded[part].items(), part
    assert recorded["model"]["dtype"] == torch.bfloat16 == lm.dtype
    assert recorded["model"]["attn_implementation"] == "eager"
    assert lm.origin.revision == "c0ffee" and lm.origin.trust_remote_code
    load("owner/name")
    assert all(recorded[part]["trust_remote_code"] is False for part in recorded)
    assert not {"revision", "token", "quantization_config"} & set(recorded["model"])


def test_a_recipe_says_how_its_model_is_loaded_and_the_artifact_remembers(recorded, tmp_path, monkeypatch):
    from softprompt.cli import main

    monkeypatch.setenv("MY_TOKEN", "a-secret-of-mine")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "r.yaml").write_text(
        "model: {id: owner/name, revision: v1, token: $MY_TOKEN, dtype: float32, trust_remote_code: true}\n"
        "data: rows.jsonl\nmethod: {name: prefix-tuning, length: 2}\ntrain: {steps: 2}\noutput: out\n"
        "task: {max_new_tokens: 3}\n"
    )
    recipe = str(tmp_path / "r.yaml")
    assert main(["tune", recipe, "model.attn_implementation=eager", "model.token=hf_1234567890abc"]) == 0
    assert recorded["model"]["revision"] == "v1" and recorded["model"]["token"] == "hf_1234567890abc"
    written = manifest(tmp_path / "out")
    about = {"revision": "c0ffee", "attn_implementation": "eager", "trust_remote_code": True}
    assert about.items() <= written["base"].items() and written["base"]["dtype"] == "float32"
    assert written["recipe"]["model"]["revision"] == "v1" and "token" not in written["recipe"]["model"]
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.name != "r.yaml":
            content = file.read_bytes()
            assert b"a-secret-of-mine" not in content and b"hf_1234567890abc" not in content, file
    # opening: the same revision; the artifact's word does not make code run
    recorded.clear()
    softprompt.open_prompt(tmp_path / "out")
    assert recorded["model"]["revision"] == "c0ffee" and recorded["model"]["attn_implementation"] == "eager"
    assert recorded["model"]["trust_remote_code"] is False
    softprompt.open_prompt(tmp_path / "out", trust_remote_code=True, token="t")
    assert recorded["model"]["trust_remote_code"] is True and recorded["config"]["token"] == "t"
    assert main(["generate", str(tmp_path / "out"), "q1", "--trust-remote-code"]) == 0
    assert recorded["model"]["trust_remote_code"] is True and recorded["model"]["revision"] == "c0ffee"
    other = load(tiny_model("llama", seed=1), tiny_tokenizer())
    other.origin = replace(other.origin, revision="beef")
    error = fails(lambda: softprompt.open_prompt(tmp_path / "out", other), "another base model")
    assert "trained on revision c0ffee, and this is beef" in error.why


def test_the_token_counts_in_no_comparison_of_runs(tmp_path):
    plain = recipe_from_dict({"model": {"id": "a/b"}, "data": "x"})
    secret = recipe_from_dict({"model": {"id": "a/b", "token": "abc"}, "data": "x"})
    assert secret.fingerprint() == plain.fingerprint() and secret.to_dict() == plain.to_dict()
    assert plain.to_dict()["model"] == "a/b" and "abc" not in repr(secret)
    assert secret.with_settings({"lr": 0.1}).model.token == "abc"
    named = secret.with_settings({"model": "c/d"})
    assert named.to_dict()["model"] == "c/d" and named.model.token is None


# --- a model in memory ---


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_model_in_memory(attention, folder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention
    ).train()
    before = snapshot(model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lm = softprompt.load(model, tokenizer)
    assert lm.model is model and model.config._attn_implementation == f"softprompt_{attention}"
    assert fingerprint(lm) == fingerprint(load(folder, dtype="float32"))
    tuned = softprompt.tune(lm, "prefix-tuning", ROWS, output=tmp_path / "out", **SMALL)
    again = softprompt.open_prompt(tmp_path / "out")  # from the folder that the model names
    assert again.generate("q1") == tuned.generate("q1")
    lm.close()
    assert not differences(before, snapshot(model))
    attached = softprompt.attach(model, tokenizer, softprompt.PrefixTuning(length=2))
    assert model.config._attn_implementation == f"softprompt_{attention}"
    attached.save_pretrained(tmp_path / "attached")
    assert (
        manifest(tmp_path / "attached")["base"]["fingerprint"]
        == manifest(tmp_path / "out")["base"]["fingerprint"]
    )
    attached.detach()
    assert not differences(before, snapshot(model))


def test_tune_takes_a_model_in_memory(tmp_path):
    model = tiny_model("llama")
    before = snapshot(model)
    fails(lambda: softprompt.tune(model, "prefix-tuning", ROWS, output=tmp_path / "no", **SMALL), "tokenizer")
    assert not differences(before, snapshot(model)) and not (tmp_path / "no").exists()
    tuned = softprompt.tune(
        model, "prefix-tuning", ROWS, tokenizer=tiny_tokenizer(), output=tmp_path / "out", **SMALL
    )
    answer = tuned.generate("q1")
    tuned.lm.close()
    assert not differences(before, snapshot(model))
    fails(
        lambda: softprompt.open_prompt(tmp_path / "out"), "was in memory", "softprompt.load(model, tokenizer)"
    )
    assert softprompt.open_prompt(tmp_path / "out", load(model, tiny_tokenizer())).generate("q1") == answer


def test_options_without_an_effect_are_refused(folder, tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    fails(lambda: load(model, tokenizer, revision="x", dtype="float32"), "revision and dtype", "in memory")
    fails(lambda: load(folder, tokenizer), "tokenizer")
    fails(lambda: load(folder, revision="main"), "revision='main' has no effect", "leave revision out")
    fails(lambda: load(folder, device="cpu", device_map="auto"), "device_map")
    fails(lambda: load(folder, attention="sdpa", attn_implementation="eager"), "one setting")
    lm = load(folder, dtype="float32")
    fails(
        lambda: softprompt.tune(lm, "prefix-tuning", ROWS, output=tmp_path, revision="x", **SMALL), "revision"
    )
    fails(lambda: load(torch.nn.Linear(2, 2)), "torch.Linear")
    fails(lambda: load(folder, dtype="float8"), "unknown dtype 'float8'", "bfloat16")
    assert load(folder, dtype=torch.float16).dtype == torch.float16


# --- quantized ---

INT8 = {"quant_method": "torchao", "quant_type": "Int8WeightOnlyConfig"}


def prefix_gradient(lm):
    """Return the gradient of a loss with respect to a random prefix's keys, one tensor a layer."""
    torch.manual_seed(0)
    layers = [
        LayerKV(*(torch.randn(1, s.kv_heads, 2, d).requires_grad_() for d in (s.head_dim, s.v_head_dim)))
        for s in lm.spec.layers
    ]
    prefix = Prefix(tuple(layers), torch.ones(1, 2, dtype=torch.bool))
    logits = lm.logits(batch_of_ids([[3, 4, 5]], [[6, 7]]), Injection(kv_before=prefix))
    logits.square().mean().backward()
    return [layer.key.grad for layer in layers]


def test_a_quantized_base_has_the_gradient_of_its_dequantized_copy(folder, tmp_path):
    pytest.importorskip("torchao")
    lm = load(folder, dtype="float32", quantization_config=INT8)
    plain = tiny_model("llama")
    with torch.no_grad():
        for name, weight in lm.model.state_dict().items():
            own = weight.dequantize() if type(weight).__module__.startswith("torchao") else weight
            plain.state_dict()[name].copy_(own)
    plain.config.eos_token_id = lm.model.config.eos_token_id
    copy = load(plain, lm.tokenizer)
    for a, b in zip(prefix_gradient(lm), prefix_gradient(copy), strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_a_quantized_base_is_quantized_again_on_opening(folder, tmp_path):
    torchao = pytest.importorskip("torchao.quantization")
    from transformers import TorchAoConfig

    given = TorchAoConfig(torchao.Int8WeightOnlyConfig())
    options = {
        "quantization_config": given,
        "dtype": "float32",
        "cache": "disk",
        "cache_folder": str(tmp_path),
    }
    tuned = softprompt.tune(folder, "prompt-tuning", ROWS, output=tmp_path / "out", **options, **SMALL)
    again = softprompt.open_prompt(tmp_path / "out")
    weights = again.lm.model.model.layers[0].mlp.up_proj.weight
    assert type(weights).__name__ == "Int8Tensor" and again.generate("q1") == tuned.generate("q1")
    assert (
        again.evaluate(ROWS).metrics["perplexity"].value == tuned.evaluate(ROWS).metrics["perplexity"].value
    )
    full = {**options, "base": "full", "steps": 1, "progress": False}
    call = lambda: softprompt.tune(folder, "none", ROWS, output=tmp_path / "full", **full)  # noqa: E731
    fails(call, "quantized weights")
    whole = load(folder, dtype="float32")
    fails(lambda: softprompt.open_prompt(tmp_path / "out", whole), "another base model", "weights")


def test_a_quantized_base_without_a_gradient_is_refused(folder):
    """Replaces kernels that only run forward."""
    model = tiny_model("llama")
    model.is_quantized = True
    model.model.norm.register_forward_hook(lambda module, inputs, output: output.detach())
    error = fails(lambda: load(model, tiny_tokenizer()), "no gradient comes back")
    assert "without quantization" in error.fix


def test_a_model_of_a_gguf_file_is_not_quantized():
    from types import SimpleNamespace

    from softprompt.lm.quantization import of_model

    for method, answer in (("gguf", None), ("torchao", {"quant_method": "torchao"})):
        config = SimpleNamespace(quantization_config={"quant_method": method})
        assert of_model(SimpleNamespace(is_quantized=True, config=config)) == answer


def test_mistakes_in_a_quantization(folder):
    fails(lambda: load(folder, quantization_config="int8"), "str", "BitsAndBytesConfig")
    fails(lambda: load(folder, quantization_config={"load_in_4bit": True, "quant_typo": 1}), "quant_typo")
    fails(lambda: load(folder, quantization_config={"quant_method": "magic"}), "magic")
    fails(
        lambda: load(folder, quantization_config=INT8 | {"quant_type": "Int8WeightOnlyConfi"}), "did you mean"
    )


# --- device_map ---


def test_device_map(folder, tmp_path):
    pytest.importorskip("accelerate")
    plain = load(folder, dtype="float32")
    lm = load(folder, dtype="float32", device_map="auto")
    assert fingerprint(lm) == fingerprint(plain)
    for a, b in zip(prefix_gradient(lm), prefix_gradient(plain), strict=True):
        assert torch.equal(a, b)


def test_weights_on_disk(folder, tmp_path):
    """accelerate's hooks bring each layer in as it runs: vectors are put in all the same."""
    accelerate = pytest.importorskip("accelerate")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain = load(folder, dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{i}": "disk" for i in range(model.config.num_hidden_layers)}
    model = accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path / "off"))
    assert any(parameter.is_meta for parameter in model.parameters())
    lm = load(model, AutoTokenizer.from_pretrained(folder))
    assert fingerprint(lm) == fingerprint(plain) and lm.device.type == "cpu"
    for a, b in zip(prefix_gradient(lm), prefix_gradient(plain), strict=True):
        assert torch.equal(a, b)
    tuned = softprompt.tune(lm, "prefix-tuning", ROWS, output=tmp_path / "a", cache="disk",
                            cache_folder=str(tmp_path), **SMALL)  # fmt: skip
    other = softprompt.tune(plain, "prefix-tuning", ROWS, output=tmp_path / "b", **SMALL)
    assert tuned.generate("q1") == other.generate("q1")


def test_layers_that_run_on_several_devices_are_refused_in_training(folder, tmp_path, monkeypatch):
    """Replaces two GPUs: a hook that says where a layer runs."""
    from types import SimpleNamespace

    lm = load(folder, dtype="float32")
    for number, layer in enumerate(lm.model.model.layers[:2]):
        layer._hf_hook = SimpleNamespace(execution_device=number)
    call = lambda: softprompt.tune(lm, "prefix-tuning", ROWS, output=tmp_path / "out", **SMALL)  # noqa: E731
    fails(call, "2 devices (cuda:0, cuda:1)", 'device_map={"": 0}')
    assert not (tmp_path / "out").exists()


# --- what the hub says ---

GATED = "You are trying to access a gated repo.\nMake sure to have access to it.\n401 Client Error."
REVISION = (
    "nope is not a valid git identifier (branch name, tag name or commit id) that exists for this model"
)
PRIVATE = (
    "a/b is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'"
)
LIBRARY = (
    "Using `bitsandbytes` 4-bit quantization requires bitsandbytes: `pip install -U bitsandbytes>=0.46.1`"
)


@pytest.mark.parametrize(
    ("text", "why", "fix"),
    [
        (GATED, "let in", "hf auth login"),
        (REVISION, "no revision 'nope'", "a branch, a tag or a commit"),
        (PRIVATE, "no model of that name", "hf auth login"),
        (LIBRARY, "requires bitsandbytes", "pip install bitsandbytes"),
    ],
)
def test_what_cannot_be_loaded_says_why(text, why, fix, monkeypatch):
    def refuse(*_, **__):
        raise OSError(text)

    monkeypatch.setattr(checkpoint.AutoTokenizer, "from_pretrained", refuse)
    error = fails(lambda: load("a/b", revision="nope", token="wrong"), "cannot load model 'a/b'")
    assert why in error.why and fix in error.fix and "wrong" not in str(error)


# --- code of a checkpoint ---

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class MineConfig(LlamaConfig):
    model_type = "mine"

class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
"""


@pytest.fixture
def with_code(model_folder, tmp_path, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    place = shutil.copytree(model_folder, tmp_path / "mine")
    config = json.loads((place / "config.json").read_text())
    config |= {"model_type": "mine", "architectures": ["MineForCausalLM"]}
    config["auto_map"] = {"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.MineForCausalLM"}
    (place / "config.json").write_text(json.dumps(config))
    (place / "mine.py").write_text(CODE)
    return str(place)


def test_code_runs_only_where_the_user_says_so(with_code, tmp_path):
    fails(lambda: load(with_code, dtype="float32"), "code of its own", "trust_remote_code=True")
    out = tmp_path / "out"
    fails(lambda: softprompt.tune(with_code, "prefix-tuning", ROWS, output=out, **SMALL), "trust_remote_code")
    tuned = softprompt.tune(with_code, "prefix-tuning", ROWS, output=out, trust_remote_code=True, **SMALL)
    assert manifest(out)["base"]["trust_remote_code"] is True
    fails(lambda: softprompt.open_prompt(out), "an artifact cannot allow", "trust_remote_code=True")
    opened = softprompt.open_prompt(out, trust_remote_code=True)
    assert type(opened.lm.model).__name__ == "MineForCausalLM"
    assert opened.generate("q1") == tuned.generate("q1")
