"""What `export` writes gives the same logits in the real PEFT, or is refused with the reason."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from softprompt import methods
from softprompt.artifacts.interop import foreign
from softprompt.artifacts.interop import peft as interop
from softprompt.artifacts.interop.peft import files, layout
from softprompt.artifacts.interop.peft.writing import check_channels, to_adapter
from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, Prefix, SoftTokens
from softprompt.methods.materialised import Materialised

from ...conftest import tiny_model

peft = pytest.importorskip("peft")

SOFT = [
    ("prompt-tuning", False, "PROMPT_TUNING"),
    ("p-tuning", True, "PROMPT_TUNING"),
    ("residual-prompt-tuning", True, "PROMPT_TUNING"),
    ("multitask-prompt-tuning", True, "PROMPT_TUNING"),
]
KV = [
    ({}, False, "PREFIX_TUNING"),
    ({"values_only": True}, False, "PREFIX_TUNING"),
    ({"freeze_first": True}, False, "CARTRIDGE"),
    ({"reparameterize": True, "middle": 8}, True, "PREFIX_TUNING"),
]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize(("method", "materialise", "kind"), SOFT)
def test_soft_prompts(
    family, method, materialise, kind, lms, artifact_of, our_logits, peft_logits, in_peft, same, tmp_path
):
    lm = lms(family)
    artifact = artifact_of(lm, method, ("joke", "fact"), length=4, placement="before")
    out = tmp_path / "adapter"
    assert interop.export(artifact, lm, out, prompt="fact", materialise=materialise).kind == kind
    model = in_peft(tiny_model(family), out)
    same(our_logits(lm, artifact, 1), peft_logits(model), our_logits(lm, None))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize(("options", "materialise", "kind"), KV)
def test_prefixes(
    family, options, materialise, kind, lms, artifact_of, our_logits, peft_logits, in_peft, same, tmp_path
):
    lm = lms(family)
    artifact = artifact_of(lm, "prefix-tuning", ("joke", "fact"), length=5, placement="before", **options)
    out = tmp_path / "adapter"
    adapter = interop.export(artifact, lm, out, prompt="fact", materialise=materialise)
    assert adapter.kind == kind and not adapter.notes
    model = in_peft(tiny_model(family), out)
    same(our_logits(lm, artifact, 1), peft_logits(model), our_logits(lm, None))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_task_of_a_multitask_prompt(
    family, lms, artifact_of, our_logits, peft_logits, in_peft, same, tmp_path
):
    lm = lms(family)
    names = ("joke", "fact", "old")
    artifact = artifact_of(lm, "multitask-prompt-tuning", names, length=4, placement="before", rank=2)
    adapter = interop.export(artifact, lm, tmp_path / "all")
    assert "0 is joke, 1 is fact, 2 is old" in adapter.notes[0]
    model = in_peft(tiny_model(family), tmp_path / "all")
    for task in range(3):
        theirs = peft_logits(model, task_ids=torch.full((2,), task))
        same(our_logits(lm, artifact, task), theirs, our_logits(lm, None))
    interop.export(artifact, lm, tmp_path / "one", prompt="old")
    model = in_peft(tiny_model(family), tmp_path / "one")
    same(
        our_logits(lm, artifact, 2), peft_logits(model, task_ids=torch.zeros(2).long()), our_logits(lm, None)
    )


def test_generation_in_peft_goes_on_as_here(lms, artifact_of, in_peft, tmp_path):
    lm = lms("llama")
    for method in ("prompt-tuning", "prefix-tuning"):
        artifact = artifact_of(lm, method, length=4, placement="before")
        interop.export(artifact, lm, tmp_path / method)
        ids = [5, 61, 7, 88]
        options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
        ours = lm.generate(batch_of_ids([ids]), artifact.method(lm)(torch.tensor([0])), **options)
        model = in_peft(tiny_model("llama"), tmp_path / method)
        row = torch.tensor([ids])
        theirs = model.generate(input_ids=row, attention_mask=torch.ones_like(row), **options)
        assert theirs[0, len(ids) :].tolist() == ours[0].tolist()


def test_a_prefix_of_one_layer_size_is_packed_as_peft_unpacks_it(lms):
    """Row 2l the keys of layer l, 2l + 1 its values; the keys moved by P, which leaves their norms alone."""
    lm = lms("qwen3")
    layers = perturbed_layers(lm, 3)
    rows = layout.pack(lm, layers).view(3, 6, 2, 16)
    for index, layer in enumerate(layers):
        assert torch.equal(rows[:, 2 * index + 1].transpose(0, 1), layer.value[0])
        norms = rows[:, 2 * index].transpose(0, 1).norm(dim=-1)
        assert torch.allclose(norms, layer.key[0].norm(dim=-1), atol=1e-5)
        assert not torch.allclose(rows[:, 2 * index].transpose(0, 1), layer.key[0], atol=1e-2)


def perturbed_layers(lm, length):
    layers = lm.kv_of(list(range(3, 3 + length)))
    return tuple(layer.map(lambda t: t + 0.3 * torch.randn(t.shape)) for layer in layers)


def test_why_absolute_positions_are_refused(
    lms, artifact_of, our_logits, peft_logits, in_peft, monkeypatch, tmp_path
):
    """Written all the same, it is another prompt in PEFT, unless real tokens get their positions back."""
    lm = lms("gpt2")
    artifact = artifact_of(lm, "prefix-tuning", length=4, placement="before")
    with pytest.raises(SoftPromptError, match="cannot be converted between") as error:
        interop.export(artifact, lm, tmp_path / "refused")
    assert "position P in PEFT and at 0 here" in str(error.value) and "prompt-tuning" in error.value.fix
    assert not (tmp_path / "refused").exists()
    monkeypatch.setattr(layout, "shared_layer", lambda lm: lm.spec.layers[0])
    interop.export(artifact, lm, tmp_path / "forced")
    model = in_peft(tiny_model("gpt2"), tmp_path / "forced")
    ours = our_logits(lm, artifact)
    shifted, natural = peft_logits(model), peft_logits(model, position_ids=torch.arange(9)[None] - 4)
    for mine, other, same in zip(ours, shifted, natural, strict=True):
        assert (mine - other).abs().max() > 0.5 > 1e-4 > (mine - same).abs().max()


def test_llama_adapter_with_equal_gates(lms, artifact_of, our_logits, peft_logits, in_peft, same, tmp_path):
    lm = lms("llama")
    artifact = artifact_of(lm, "llama-adapter", length=4, top_layers=2)
    with pytest.raises(SoftPromptError, match="cannot hold the gates"):
        interop.export(artifact, lm, tmp_path / "adapter")
    state = load_file(artifact.path / "state.safetensors")
    state["gates"] = torch.tensor([0.4, -0.7])[None, :, None].repeat(1, 1, 4)
    options = {"length": 4, "top_layers": 2}
    equal = foreign.save(tmp_path / "equal", lm, "llama-adapter", options, state, ("default",), "a test")
    assert interop.export(equal, lm, tmp_path / "adapter").kind == "ADAPTION_PROMPT"
    model = in_peft(tiny_model("llama"), tmp_path / "adapter")
    same(our_logits(lm, equal), peft_logits(model), our_logits(lm, None))
    with pytest.raises(SoftPromptError, match="leave out --materialise"):
        interop.export(equal, lm, tmp_path / "other", materialise=True)


@pytest.mark.parametrize(
    ("family", "changes", "why"),
    [
        ("qwen3", {}, "llama and mistral only"),
        ("gpt2", {}, "llama and mistral only"),
        ("llama", {"attention_bias": True}, "adds twice"),
        ("llama", {"head_dim": 16}, "hidden size / heads"),
    ],
)
def test_llama_adapters_elsewhere_are_refused(family, changes, why, new_lm, artifact_of, tmp_path):
    lm = new_lm(family, **changes)
    artifact = artifact_of(lm, "llama-adapter", length=4, top_layers=2)
    with pytest.raises(SoftPromptError, match=why):
        interop.export(artifact, lm, tmp_path / "adapter")


@pytest.mark.parametrize("method", ["p-tuning", "residual-prompt-tuning", "prefix-tuning"])
def test_networks_need_the_users_word(method, lms, artifact_of, tmp_path):
    options = {"reparameterize": True, "middle": 8} if method == "prefix-tuning" else {}
    artifact = artifact_of(lms("llama"), method, length=4, placement="before", **options)
    with pytest.raises(SoftPromptError) as error:
        interop.export(artifact, lms("llama"), tmp_path / "adapter")
    assert "--materialise" in error.value.fix and not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("materialise", [False, True])
@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning", "prefix-tuning"])
def test_vectors_after_the_input_are_refused(method, materialise, lms, artifact_of, tmp_path):
    artifact = artifact_of(lms("llama"), method, length=4, placement="after")
    with pytest.raises(SoftPromptError) as error:
        interop.export(artifact, lms("llama"), tmp_path / "adapter", materialise=materialise)
    assert "after the input" in error.value.what and "placement=before" in error.value.fix


def test_generated_prompts_several_channels_and_nothing_are_refused(lms, setting):
    lm = lms("llama")
    for name in ("generated-prompt", "generated-prefix"):
        method = methods.build(name, setting(lm), {"length": 3, "placement": "before"})
        with pytest.raises(SoftPromptError, match="generated from the input"):
            to_adapter(method, lm, {"joke": 0})
    with pytest.raises(SoftPromptError, match="nothing to export"):
        check_channels(methods.build("none", setting(lm)), 0, lm)
    mask = torch.ones(1, 3, dtype=torch.bool)
    soft, prefix = SoftTokens(torch.zeros(1, 3, 32), mask), Prefix(perturbed_layers(lm, 3), mask)
    with pytest.raises(SoftPromptError, match="before and kv_before in one adapter"):
        to_adapter(Materialised([Injection(before=soft, kv_before=prefix)]), lm, {"joke": 0})
    some = Prefix((None, *prefix.layers[1:]), mask)
    with pytest.raises(SoftPromptError, match="in 2 of 3 layers"):
        to_adapter(Materialised([Injection(kv_before=some)]), lm, {"joke": 0})


def test_many_prompts_a_trained_base_and_a_full_folder_are_refused(lms, artifact_of, tmp_path):
    lm = lms("llama")
    artifact = artifact_of(lm, "prompt-tuning", ("joke", "fact"), length=3, placement="before")
    with pytest.raises(SoftPromptError, match="2 prompts: joke, fact"):
        interop.export(artifact, lm, tmp_path / "adapter")
    interop.export(artifact, lm, tmp_path / "adapter", prompt="joke")
    with pytest.raises(SoftPromptError, match="already holds an adapter"):
        interop.export(artifact, lm, tmp_path / "adapter", prompt="fact")
    artifact.manifest["base"]["mode"] = "lora"
    with pytest.raises(SoftPromptError, match="base=lora"):
        interop.export(artifact, lm, tmp_path / "other", prompt="joke")


def test_a_sliding_window_is_noted(new_lm, artifact_of, our_logits, peft_logits, in_peft, close, tmp_path):
    """Within the window both give the same; beyond it PEFT's prefix is forgotten, and the note says so."""
    window = {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 0}
    lm = new_lm("qwen3", **window)
    artifact = artifact_of(lm, "prefix-tuning", length=3, placement="before")
    (note,) = interop.export(artifact, lm, tmp_path / "adapter").notes
    assert "window of 7 tokens" in note
    ours = our_logits(lm, artifact)[0]
    theirs = peft_logits(in_peft(tiny_model("qwen3", **window), tmp_path / "adapter"))[0]
    close(ours[:4], theirs[:4])  # 3 vectors and 4 tokens
    assert (ours[4:] - theirs[4:]).abs().amax(-1).min() > 1e-2


def test_the_config_is_what_peft_writes_itself(lms, artifact_of, tmp_path):
    """Every entry of ours is one that PEFT writes for the same sizes, with the same value."""
    lm = lms("qwen3")
    written = {}
    for method, theirs in (
        ("prompt-tuning", peft.PromptTuningConfig),
        ("prefix-tuning", peft.PrefixTuningConfig),
    ):
        artifact = artifact_of(lm, method, length=4, placement="before")
        interop.export(artifact, lm, tmp_path / method)
        config = theirs(task_type="CAUSAL_LM", num_virtual_tokens=4)
        peft.get_peft_model(tiny_model("qwen3"), config).save_pretrained(tmp_path / f"their-{method}")
        ours, written[method] = (
            json.loads((tmp_path / name / files.CONFIG).read_text()) for name in (method, f"their-{method}")
        )
        assert ours.pop("base_model_name_or_path") == "tiny-qwen3"
        assert len(ours) > 8 and ours.items() <= written[method].items()
