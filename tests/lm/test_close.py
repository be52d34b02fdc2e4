"""A closed model is what it was before it was loaded: every weight, every attribute, every setting."""

from __future__ import annotations

import contextlib
import copy
import gc
import sys
import weakref
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, GenerationConfig, PreTrainedModel

from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, Prefix, SoftTokens
from softprompt.lm import attachment
from softprompt.lm.causal import CausalLM
from softprompt.lm.encoder import EncoderLM
from softprompt.lm.families import ENCODERS, FAMILIES, tiny
from softprompt.lm.heads import Head
from softprompt.lm.seq2seq import Seq2SeqLM

INPUTS, TARGETS, PLACES = [[5, 17, 80], [42, 9]], [[11, 12], [90, 4]], [[0, 1], [0, 1]]


def wrap(model, family: str):
    kind = Seq2SeqLM if model.config.is_encoder_decoder else EncoderLM if family in ENCODERS else CausalLM
    return kind(model, None, family)


def snapshot(model) -> dict[str, Any]:
    """All that can be seen of a model; objects by identity, tensors by identity and by their bytes."""
    seen: dict[str, Any] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            seen |= {f"{name}.{key}[{part}]": each for part, each in inner}
            seen[f"{name}.{key}"] = value
        seen[f"{name} has"] = sorted(vars(module))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        seen[f"{name} data"] = (tensor.requires_grad, tensor.dtype, tensor.detach().clone())
    configs = [*attachment.configurations(model), getattr(model, "generation_config", None)]
    for number, config in enumerate(configs):
        seen |= {f"config {number} {key}": value for key, value in vars(config or object).items()}
    return seen


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    def same(a: Any, b: Any) -> bool:
        if isinstance(a, tuple) and isinstance(b, tuple) and a and isinstance(a[-1], torch.Tensor):
            return a[:-1] == b[:-1] and torch.equal(a[-1], b[-1])
        return a is b or (isinstance(a, (list, int, float, str)) and type(a) is type(b) and a == b)

    names = before.keys() | after.keys()
    return sorted(n for n in names if n not in before or n not in after or not same(before[n], after[n]))


def use(lm) -> None:
    """A step of training, text, a cached forward pass, and a gradient with checkpointing, with vectors."""
    batch = batch_of_ids(INPUTS, TARGETS, places=PLACES)
    soft = SoftTokens(
        lm.embed(torch.tensor([[9, 10]])).detach().requires_grad_(True), torch.ones(1, 2).bool()
    )
    injection = Injection(before=soft)
    kinds = [injection]
    if "prefix" not in lm.spec.limits:
        kinds.append(Injection(kv_before=Prefix(lm.kv_like([9, 10]), torch.ones(1, 2).bool())))
        lm.project_kv(0, lm.attention_inputs([9, 10])[0][None])
    for each in kinds:
        loss = lm.logits(batch, each).float().square().mean()
        if each is injection:
            loss.backward()
        if lm.spec.kind != "encoder":
            lm.generate(batch, each, max_new_tokens=2, do_sample=False)
        if "cache" not in lm.spec.limits:
            lm.logits(batch, each, lm.prefill(batch, each))
    if lm.checkpointable_layers:
        with contextlib.suppress(SoftPromptError):  # some families refuse it
            lm.set_gradient_checkpointing(True)
        lm.logits(batch, injection).float().square().mean().backward()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_closed_model_is_what_it_was(family):
    model = tiny(family).train()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    before = snapshot(model)
    lm = wrap(model, family)
    assert differences(before, snapshot(model))  # it does change the model
    use(lm)
    lm.close()
    assert not differences(before, snapshot(model))


def test_settings_attention_and_other_kinds_of_use():
    """What the families above do not meet: a head, a static cache, attributes of the caller's own."""
    model = tiny("llama")
    model.generation_config = GenerationConfig(repetition_penalty=1.3, eos_token_id=7)
    model.model.layers[0].forward = model.model.layers[0].forward
    before = snapshot(model)
    with CausalLM(model, None, "llama", attention="eager") as lm:
        use(lm)
        lm.generate(batch_of_ids(INPUTS), max_new_tokens=2, cache_implementation="static")
    assert not differences(before, snapshot(model))
    model.config.pad_token_id = None
    before = snapshot(model)
    CausalLM(model, None, "llama", Head("sequence", 2)).close()
    assert not differences(before, snapshot(model))


def test_what_others_changed_meanwhile_stays():
    model = tiny("llama")
    with CausalLM(model, None, "llama") as lm:
        lm.model.generation_config = chosen = GenerationConfig(top_k=3)
        lm.model.config.note = "mine"
        with torch.no_grad():
            lm.model.lm_head.weight.zero_()
    assert model.generation_config is chosen and model.config.note == "mine"
    assert not model.lm_head.weight.any()


def test_the_last_of_several_gives_the_model_back():
    model = tiny("gemma3n_text")
    before = snapshot(model)
    first, second = CausalLM(model, None, "first"), CausalLM(model, None, "second")
    expected = second.logits(batch_of_ids(INPUTS, TARGETS))
    first.close()
    assert torch.equal(second.logits(batch_of_ids(INPUTS, TARGETS)), expected)
    second.close()
    assert not differences(before, snapshot(model))


def test_a_copy_has_its_own_model():
    model = tiny("gemma3n_text")
    before = snapshot(model)
    lm = CausalLM(model, None, "gemma")
    other = copy.deepcopy(lm)
    expected = lm.logits(batch_of_ids(INPUTS, TARGETS))
    lm.close()
    assert not differences(before, snapshot(model))
    use(other)
    assert torch.equal(other.logits(batch_of_ids(INPUTS, TARGETS)), expected)
    copied = other.model
    CausalLM(copied, None, "again").close()
    assert torch.equal(other.logits(batch_of_ids(INPUTS, TARGETS)), expected)
    other.close()
    assert vars(copied).keys() == vars(model).keys()
    assert attachment.attached(copied) is None


def test_a_refused_model_is_given_back():
    model = tiny("llama")
    before = snapshot(model)
    model.lm_head.forward = lambda hidden: hidden.detach() @ model.lm_head.weight.detach().T
    with pytest.raises(SoftPromptError, match="no gradient comes back"):
        CausalLM(model, None, "llama")
    del model.lm_head.forward
    assert not differences(before, snapshot(model))


@pytest.mark.parametrize("family", ["llama", "t5", "bert"])
def test_a_closed_one_refuses(family):
    lm = wrap(tiny(family), family)
    batch = batch_of_ids(INPUTS, TARGETS, places=PLACES)
    lm.close()
    lm.close()
    for call in (
        lambda: lm.logits(batch),
        lambda: lm.embed(batch.input_ids),
        lambda: lm.hidden(batch.input_ids, batch.input_mask, 1),
        lambda: lm.kv_of([5]),
        lambda: lm.project_kv(0, torch.zeros(1, 1, 32)),
        lambda: lm.set_gradient_checkpointing(True),
        lambda: lm.model,
        *([lambda: lm.generate(batch)] if family != "bert" else []),
        *([lambda: lm.prefill(batch)] if family == "llama" else []),
    ):
        with pytest.raises(SoftPromptError, match=f"'{family}' was closed"):
            call()


def test_nothing_is_left_of_a_model_that_nobody_holds():
    model = tiny("llama")
    lm, dead = CausalLM(model, None, "llama"), weakref.ref(model)
    use(lm)
    gc.disable()
    try:
        del model, lm
        assert dead() is None  # its memory is not freed late
    finally:
        gc.enable()


def of_transformers() -> dict[tuple[str, str], Any]:
    """The attributes of everything global that a model runs through, by identity."""
    owners: list[Any] = [
        *(module for name, module in sys.modules.items() if name.split(".")[0] == "transformers"),
        *(torch, torch.nn.functional, torch.nn.Module, torch.Tensor, GenerationConfig, PreTrainedModel),
        *(type(module) for module in tiny("llama").modules()),
    ]
    seen = {(str(owner), name): value for owner in owners for name, value in vars(owner).items()}
    for table in (AttentionInterface(), AttentionMaskInterface()):
        seen |= {(type(table).__name__, name): table[name] for name in table}
    return seen


def test_only_three_names_are_registered_in_transformers():
    plain = tiny("llama")
    plain.set_attn_implementation("sdpa")  # transformers remembers on the class that this family can
    before = of_transformers()
    with CausalLM(tiny("llama"), None, "llama") as lm:
        use(lm)
    after = of_transformers()
    assert [name for name in before.keys() | after.keys() if before.get(name) is not after.get(name)] == []
    ours = {
        name
        for name, value in after.items()
        if str(getattr(value, "__module__", "")).startswith("softprompt")
    }
    tables = ("AttentionInterface", "AttentionMaskInterface")
    names = ("softprompt_sdpa", "softprompt_eager", "softprompt_packed")
    assert ours == {(table, name) for table in tables for name in names}
