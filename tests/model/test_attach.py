"""An attached model gives the engine's numbers in the caller's columns, and is given back as it was."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
import typing

import numpy as np
import pytest
import torch
from tests.conftest import HEADS, encoder_tokenizer, tiny_model, tiny_tokenizer
from transformers import LlamaForCausalLM

import softprompt
from softprompt import SoftPromptError, methods
from softprompt.artifacts import artifact as artifacts
from softprompt.data.collate import batch_of_ids
from softprompt.lm import attachment, families, finetune
from softprompt.lm.apply import injection_for
from softprompt.lm.causal import CausalLM
from softprompt.lm.encoder import EncoderLM
from softprompt.lm.seq2seq import Seq2SeqLM
from softprompt.methods.base import Setting
from softprompt.methods.typed_options import CONFIGS
from softprompt.model import SoftPromptModel, attach

INPUTS, TARGETS = [[5, 6, 7, 8], [12, 13], [20, 21, 22]], [[9, 10, 11], [14, 15], [23, 24]]
PROMPTS = ("joke", "fact")
DECODERS = [*families.DECODERS, *families.LENGTHS, *families.KINDS]


def padded(rows, side, fill=0):
    """Rows of one width, padded at a side."""
    width = max(map(len, rows))
    gaps = [[fill] * (width - len(row)) for row in rows]
    return torch.tensor(
        [gap + list(row) if side == "left" else list(row) + gap for row, gap in zip(rows, gaps, strict=True)]
    )


def causal_batch(side):
    """`input_ids`, `attention_mask` and `labels` as a trainer's collator makes them."""
    rows = [a + b for a, b in zip(INPUTS, TARGETS, strict=True)]
    labels = [[-100] * len(a) + b for a, b in zip(INPUTS, TARGETS, strict=True)]
    return {
        "input_ids": padded(rows, side),
        "attention_mask": padded([[1] * len(row) for row in rows], side),
        "labels": padded(labels, side, -100),
    }


def engine(model, family):
    kind = (
        Seq2SeqLM
        if family in families.ENCODER_DECODERS
        else EncoderLM
        if family in families.ENCODERS
        else CausalLM
    )
    return kind(model, None, family)


def loss_of(logits, targets):
    """The mean over all target tokens, written out. Logits [batch, T, V] are right-aligned."""
    parts = []
    for row, target in zip(logits, targets, strict=True):
        parts.append(
            -torch.log_softmax(row[-len(target) :].float(), -1).gather(1, torch.tensor(target)[:, None])
        )
    return torch.cat(parts).mean()


def configurations(lm):
    """A soft prompt and a prefix at both places, as far as the model takes them."""
    yield softprompt.PromptTuning(length=3, placement="before")
    yield softprompt.PromptTuning(length=3, placement="after")
    if "prefix" not in lm.spec.limits:
        yield softprompt.PrefixTuning(length=2, placement="before", init="random")
        yield softprompt.PrefixTuning(length=2, placement="after", init="random")


@pytest.mark.parametrize("family", DECODERS)
def test_every_decoder_gives_the_engines_logits(family, perturb, close):
    if families.tiny(family).config.is_encoder_decoder:
        pytest.skip("an encoder-decoder model: see below")
    lm = engine(families.tiny(family), family)
    for config in configurations(lm):
        try:
            model = attach(families.tiny(family), None, config, prompts=PROMPTS)
        except SoftPromptError as error:  # the engine refuses the same
            with pytest.raises(SoftPromptError, match=re.escape(error.what)):
                methods.build(config.name, Setting(lm, PROMPTS), config.options())
            continue
        perturb(model.soft_prompt)
        batch = batch_of_ids(INPUTS, TARGETS, [0, 1, 0])
        injection = injection_for(lm, model.soft_prompt, batch)
        try:
            expected = lm.logits(batch, injection)
        except SoftPromptError as error:
            with pytest.raises(SoftPromptError, match=re.escape(error.what)):
                model(**causal_batch("left"), prompts=[0, 1, 0])
            continue
        for side in ("left", "right"):
            call = causal_batch(side)
            if lm.spec.batching != "any":
                with pytest.raises(SoftPromptError, match="one batch"):
                    model(**call, prompts=[0, 1, 0])
                call = {
                    name: tensor[:1, -7:] if side == "left" else tensor[:1, :7]
                    for name, tensor in call.items()
                }
                close(model(**call, prompts=[0]).logits[:, 3:6], expected[:1], 2e-5)
                continue
            output = model(**call, prompts=["joke", "fact", "joke"])
            assert output.logits.shape[:2] == call["input_ids"].shape
            close(output.loss, loss_of(expected, TARGETS), 1e-5)
            for row, (ids, target) in enumerate(zip(INPUTS, TARGETS, strict=True)):
                start = int(call["attention_mask"][row].argmax()) + len(ids) - 1
                close(output.logits[row, start : start + len(target)], expected[row, -len(target) :], 2e-5)


@pytest.mark.parametrize("method", CONFIGS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_method_gives_the_engines_loss(method, side, perturb, close):
    options = {"top_layers": 2} if method == "llama-adapter" else {}
    model = attach(
        tiny_model("llama"), tiny_tokenizer(), CONFIGS[method](length=3, **options), prompts=PROMPTS
    )
    perturb(model.soft_prompt)
    lm, batch = engine(tiny_model("llama"), "llama"), batch_of_ids(INPUTS, TARGETS, [0, 1, 0])
    expected = loss_of(lm.logits(batch, injection_for(lm, model.soft_prompt, batch)), TARGETS)
    output = model(**causal_batch(side), prompts=torch.tensor([0, 1, 0]))
    close(output.loss, expected, 1e-5)
    output.loss.backward()
    gradients = [p.grad for p in model.soft_prompt.parameters() if p.requires_grad]
    assert all(g is not None for g in gradients) and any(bool(g.abs().sum() > 0) for g in gradients)
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("soft_prompt."))


@pytest.mark.parametrize("family", families.ENCODER_DECODERS)
@pytest.mark.parametrize("placement", ["before", "after", "decoder"])
def test_every_encoder_decoder_gives_the_engines_loss(family, placement, perturb, close):
    lm = engine(families.tiny(family), family)
    if placement == "decoder" and "decoder" in lm.spec.limits:
        with pytest.raises(SoftPromptError):
            attach(families.tiny(family), None, softprompt.PromptTuning(length=3, placement=placement))(
                input_ids=torch.tensor(INPUTS[:1]), labels=torch.tensor(TARGETS[:1])
            )
        return
    model = attach(families.tiny(family), None, softprompt.PromptTuning(length=3, placement=placement))
    perturb(model.soft_prompt)
    batch = batch_of_ids(INPUTS, TARGETS)
    injection = injection_for(lm, model.soft_prompt, batch)
    expected = loss_of(lm.logits(batch, injection), TARGETS)
    mask = padded([[1] * len(row) for row in INPUTS], "right")
    begin = list(lm._begin)  # what the decoder starts with; some families would shift it out of the labels
    output = model(
        input_ids=padded(INPUTS, "right"),
        attention_mask=mask,
        decoder_input_ids=padded([begin + target[:-1] for target in TARGETS], "right"),
        labels=padded([[-100] * (len(begin) - 1) + target for target in TARGETS], "right", -100),
    )
    close(output.loss, expected, 1e-5)


@pytest.mark.parametrize("head", [None, "sequence", "tokens"])
@pytest.mark.parametrize("placement", ["before", "after"])
def test_an_encoder_gives_the_engines_logits(head, placement, new_encoder, perturb, close):
    lm = new_encoder("bert", head)
    base = families.tiny("bert", 0, HEADS[head])
    model = attach(base, encoder_tokenizer(), softprompt.PromptTuning(length=3, placement=placement))
    perturb(model.soft_prompt)
    rows = [[97, 5, 6, 7, 98], [97, 9, 98]]
    places = [[1, 2], [0, 1]]
    batch = batch_of_ids(rows, [[0, 0], [0, 0]], places=places)
    expected = lm.logits(batch, injection_for(lm, model.soft_prompt, batch))
    mask = padded([[1] * len(row) for row in rows], "right")
    logits = model(input_ids=padded(rows, "right"), attention_mask=mask).logits
    if head != "sequence":
        logits = torch.stack([logits[row, columns] for row, columns in enumerate(places)])
    close(logits.reshape(expected.shape), expected, 1e-5)


@pytest.mark.parametrize("placement", ["before", "after"])
@pytest.mark.parametrize("config", [softprompt.PromptTuning, softprompt.PrefixTuning])
def test_generate_gives_what_the_engine_gives(config, placement, perturb):
    model = attach(
        tiny_model("llama"), None, config(length=3, placement=placement, init="random"), prompts=PROMPTS
    )
    perturb(model.soft_prompt)
    lm, batch = engine(tiny_model("llama"), "llama"), batch_of_ids(INPUTS, None, [1, 0, 1])
    new = lm.generate(batch, injection_for(lm, model.soft_prompt, batch), max_new_tokens=5, do_sample=False)
    ids, mask = padded(INPUTS, "left"), padded([[1] * len(row) for row in INPUTS], "left")
    prompts = ["fact", "joke", "fact"]
    whole = model.generate(ids, attention_mask=mask, prompts=prompts, max_new_tokens=5, do_sample=False)
    assert torch.equal(whole[:, : ids.shape[1]], ids) and torch.equal(whole[:, ids.shape[1] :], new)
    several = model.generate(
        input_ids=ids,
        attention_mask=mask,
        prompts=prompts,
        max_new_tokens=5,
        num_beams=2,
        num_return_sequences=2,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert several.sequences.shape[0] == 6 and several.scores


def test_states_of_an_encoder_without_vectors_are_computed_anew():
    model = attach(families.tiny("t5"), None, softprompt.PromptTuning(length=3))
    ids = torch.tensor(INPUTS[:1])
    states = model.get_encoder()(ids)
    expected = model.generate(ids, max_new_tokens=3)
    assert torch.equal(model.generate(ids, encoder_outputs=states, max_new_tokens=3), expected)


def test_plain_and_reference_are_the_base(close):
    base = tiny_model("llama")
    call = {name: tensor for name, tensor in causal_batch("left").items() if name != "labels"}
    expected = copy.deepcopy(base)(**call).logits
    model = attach(base, None, softprompt.PromptTuning(length=3, placement="before"))
    assert (model(**call).logits - expected).abs().max() > 1e-3
    with model.plain() as plain:
        close(plain(**call).logits, expected)
    twin = model.reference()
    close(twin(**call).logits, expected)
    assert not isinstance(twin, SoftPromptModel)
    assert twin.get_input_embeddings().weight is model.get_input_embeddings().weight


def test_detach_gives_the_model_back(perturb):
    from tests.lm.test_close import differences, snapshot

    model = tiny_model("llama").train()
    before, kind = snapshot(model), type(model)
    attached = attach(model, None, softprompt.PrefixTuning(length=3))
    assert attached is model and isinstance(model, SoftPromptModel) and isinstance(model, kind)
    model(**causal_batch("left")).loss.backward()
    model.generate(torch.tensor(INPUTS[:1]), max_new_tokens=2)
    assert model.detach() is model and type(model) is kind
    assert not differences(before, snapshot(model))
    attach(model, None, softprompt.PromptTuning(length=2)).detach()
    assert not differences(before, snapshot(model))


def test_a_method_that_does_not_suit_leaves_the_model_alone():
    from tests.lm.test_close import differences, snapshot

    model = families.tiny("mamba")
    before = snapshot(model)
    with pytest.raises(SoftPromptError):
        attach(model, None, softprompt.PrefixTuning(length=3))
    assert attachment.attached(model) is None and not differences(before, snapshot(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": None}, "which prompt each row uses"),
        ({"prompts": ["joke", "fats", "joke"]}, "fact"),
        ({"prompts": ["joke"]}, "1 prompts are given for 3 rows"),
        ({"prompts": [0, 2, 0]}, "unknown prompt"),
        ({"labels": None}, "does not say where the input ends"),
        ({"labels": None, "input_lengths": [4, 9, 3]}, "do not fit the rows"),
        ({"labels": "all"}, "has no input"),
        ({"labels": torch.tensor([0, 1, 0])}, r"labels have the shape \[3\]"),
        ({"input_ids": torch.tensor([1, 2])}, r"input_ids have the shape \[2\]"),
        ({"input_ids": None}, "needs input_ids"),
        ({"position_ids": "packed"}, "position_ids"),
        ({"attention_mask": "4d"}, "packed sequences"),
    ],
)
def test_mistakes_in_a_batch_are_errors(change, message):
    model = attach(
        tiny_model("llama"), None, softprompt.PromptTuning(length=3, placement="after"), prompts=PROMPTS
    )
    call = {**causal_batch("right"), "prompts": ["joke", "fact", "joke"]}
    odd = {
        "all": call["input_ids"],
        "packed": torch.tensor([[0, 1, 2, 0, 1, 2, 3]] * 3),
        "4d": torch.ones(3, 1, 7, 7),
    }
    call |= {
        name: odd.get(value, value) if isinstance(value, str) else value for name, value in change.items()
    }
    with pytest.raises(SoftPromptError, match=message) as error:
        model(**call)
    assert error.value.fix or "unknown" in str(error.value)


@pytest.mark.parametrize(
    "prompts",
    [
        [True, False, True],
        [0.0, 1.0, 0.0],
        [None, "joke", "fact"],
        True,
        1.0,
        {"joke", "fact", "x"},
        torch.tensor([True, False, True]),
        torch.tensor([[0], [1], [0]]),
        torch.tensor(0.0),
    ],
)
def test_what_is_neither_a_name_nor_a_number_is_no_prompt(prompts):
    model = attach(
        tiny_model("llama"), None, softprompt.PromptTuning(length=3, placement="before"), prompts=PROMPTS
    )
    with pytest.raises(SoftPromptError, match="do not say which prompt"):
        model(**causal_batch("right"), prompts=prompts)


def test_numbers_of_prompts_may_be_scalars_of_torch_and_numpy(close):
    model = attach(
        tiny_model("llama"), None, softprompt.PromptTuning(length=3, placement="before"), prompts=PROMPTS
    )
    call = causal_batch("right")
    expected = model(**call, prompts=["fact"] * 3).logits
    for prompts in (1, torch.tensor(1), np.int64(1), np.array([1, 1, 1]), [np.int64(1), torch.tensor(1), 1]):
        close(model(**call, prompts=prompts).logits, expected)


def sequence_model(tmp_path, seed):
    """A decoder whose checkpoint has no classification head; the head is drawn from the seed."""
    from transformers import AutoModelForSequenceClassification

    if not (tmp_path / "base").exists():
        tiny_model("llama").save_pretrained(tmp_path / "base")
    torch.manual_seed(seed)
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2)
    base.config.pad_token_id = 0
    return base


def labelled():
    return {
        "input_ids": padded(INPUTS, "right"),
        "attention_mask": padded([[1] * len(r) for r in INPUTS], "right"),
    }


@pytest.mark.parametrize("placement", ["before", "after"])
def test_a_head_without_a_checkpoint_is_trained_and_saved(placement, tmp_path, close):
    config = softprompt.PromptTuning(length=3, placement=placement)
    model = attach(sequence_model(tmp_path, 1), tiny_tokenizer(), config)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sorted(trained) == ["score.weight", "soft_prompt.table"]
    optimizer = torch.optim.SGD(trained.values(), lr=0.5)
    model(**labelled(), labels=torch.tensor([0, 1, 0])).loss.backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in trained.values())
    optimizer.step()
    expected = model(**labelled()).logits
    model.save_pretrained(tmp_path / "saved", is_main_process=True)
    again = SoftPromptModel.from_pretrained(sequence_model(tmp_path, 2), tmp_path / "saved", tiny_tokenizer())
    close(again(**labelled()).logits, expected, 1e-6)
    assert [name for name, p in again.named_parameters() if p.requires_grad] == list(trained)
    for row, ids in enumerate(INPUTS):  # the whole row is the input, so a batch changes nothing
        close(again(input_ids=torch.tensor([ids])).logits[0], expected[row], 1e-5)
    next(again.model.parameters()).requires_grad_(True)
    with pytest.raises(SoftPromptError, match="1 weights of the base would be trained"):
        again(**labelled())


def test_a_head_of_the_checkpoint_stays_frozen(tmp_path):
    from transformers import AutoModelForSequenceClassification

    sequence_model(tmp_path, 1).save_pretrained(tmp_path / "whole")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    model = attach(base, tiny_tokenizer(), softprompt.PromptTuning(length=3))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["soft_prompt.table"]


def test_a_head_is_not_trained_in_bfloat16(tmp_path):
    with pytest.raises(SoftPromptError, match="trained in bfloat16"):
        attach(sequence_model(tmp_path, 1).bfloat16(), tiny_tokenizer(), softprompt.PromptTuning(length=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "no names"),
        ({"prompts": "joke"}, r'prompts=\["joke"\]'),
        ({"prompts": ["a", ""]}, "'' is no name"),
        ({"prompts": [1, 2]}, "1 is no name"),
        ({"prompts": ["a", "a"]}, "twice"),
        ({"prompts": ["a", "a "]}, "look the same"),
        ({"template": {"inputt": "x"}}, "did you mean 'input'"),
        ({"template": {"input": "{{ a"}}, "template.input"),
        ({"tokenizer": "gpt2"}, "no tokenizer"),
        ({"method": "none"}, "nothing to train"),
    ],
)
def test_arguments_that_no_artifact_can_hold_are_errors(change, message):
    from tests.lm.test_close import differences, snapshot

    base = tiny_model("llama")
    before = snapshot(base)
    with pytest.raises(SoftPromptError, match=message):
        attach(base, **{"tokenizer": tiny_tokenizer(), "method": softprompt.PromptTuning(length=3), **change})
    assert not differences(before, snapshot(base))


def test_a_model_that_is_loaded_takes_no_prompt_until_it_is_closed():
    base = tiny_model("llama")
    lm = softprompt.load(base, tiny_tokenizer())
    with pytest.raises(SoftPromptError, match="belongs to a loaded one"):
        attach(base, tiny_tokenizer(), softprompt.PromptTuning(length=3))
    lm.close()
    attach(base, tiny_tokenizer(), softprompt.PromptTuning(length=3))


def test_the_prompt_keeps_its_precision():
    model = attach(
        tiny_model("llama"), tiny_tokenizer(), softprompt.PromptTuning(length=3, placement="before")
    )
    table, before = model.soft_prompt.table, model.soft_prompt.table.detach().clone()
    for change in (lambda: model.half(), lambda: model.to(torch.bfloat16), lambda: model.float()):
        change()
        assert model.soft_prompt.table is table and torch.equal(table, before)
    assert model.to(torch.bfloat16)(**causal_batch("left")).logits.dtype == torch.bfloat16


def test_a_call_gives_a_tuple_where_it_should(close):
    model = attach(tiny_model("llama"), None, softprompt.PromptTuning(length=3, placement="before"))
    loss, logits, *_ = model(**causal_batch("left"), return_dict=False)
    output = model(**causal_batch("left"))
    close(loss, output.loss)
    close(logits, output.logits)


def test_a_prompt_is_not_saved_over_a_file(tmp_path):
    (tmp_path / "taken").write_text("x")
    model = attach(tiny_model("llama"), tiny_tokenizer(), softprompt.PromptTuning(length=3))
    for name in ("taken", "taken/inside"):
        with pytest.raises(SoftPromptError):
            model.save_pretrained(tmp_path / name)


def test_a_head_that_load_refuses_is_refused():
    from tests.lm.test_close import differences, snapshot
    from transformers import LlamaForTokenClassification

    base = LlamaForTokenClassification(tiny_model("llama").config)
    before = snapshot(base)
    with pytest.raises(SoftPromptError, match="cannot tag words"):
        attach(base, None, softprompt.PromptTuning(length=3))
    assert not differences(before, snapshot(base))


def test_saving_does_not_hash_the_base_again(tmp_path, monkeypatch):
    from softprompt.artifacts.interop import foreign
    from softprompt.lm.loading import fingerprint

    model = attach(tiny_model("llama"), tiny_tokenizer(), softprompt.PromptTuning(length=3))
    monkeypatch.setattr(foreign, "fingerprint", None)
    model.save_pretrained(tmp_path)
    lm = CausalLM(tiny_model("llama"), tiny_tokenizer(), "llama")
    assert artifacts.load(tmp_path).manifest["base"]["fingerprint"] == fingerprint(lm)


def test_a_base_that_was_changed_is_recorded_as_it_is_now(tmp_path):
    """Otherwise the prompt would be accepted on a base that it was not trained on."""
    model = attach(tiny_model("llama"), tiny_tokenizer(), softprompt.PromptTuning(length=3))
    with torch.no_grad():
        model.model.embed_tokens.weight.add_(0.5)
    model.save_pretrained(tmp_path)
    with pytest.raises(SoftPromptError, match="weights differ"):
        softprompt.SoftPromptModel.from_pretrained(tiny_model("llama"), tmp_path, tiny_tokenizer())
    changed = model.detach()
    again = softprompt.SoftPromptModel.from_pretrained(changed, tmp_path, tiny_tokenizer())
    assert again is changed and isinstance(again, softprompt.SoftPromptModel)


def test_a_name_is_loaded(model_folder, tmp_path):
    """`attach` takes what `load` takes; a model in memory takes no options of loading."""
    model = attach(str(model_folder), None, softprompt.PromptTuning(length=3), dtype="float32")
    assert isinstance(model, softprompt.SoftPromptModel) and model.dtype == torch.float32
    ids = torch.tensor([[5, 6, 7]])
    base = LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    with model.plain(), torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, base(input_ids=ids).logits)
    with pytest.raises(SoftPromptError, match="revision cannot be set"):
        attach(base, None, revision="main")


def test_a_base_with_lora_weights_of_an_earlier_run_is_refused():
    base = tiny_model("llama")
    lm = softprompt.load(base, tiny_tokenizer())
    finetune.unfreeze(lm, "lora", rank=2, alpha=2, targets=None)
    lm.close()
    with pytest.raises(SoftPromptError, match="carries LoRA weights already"):
        attach(base, tiny_tokenizer(), softprompt.PromptTuning(length=3))


def test_other_mistakes_are_errors():
    model = attach(tiny_model("llama"), None, softprompt.PromptTuning(length=3, placement="before"))
    with pytest.raises(SoftPromptError, match="already"):
        attach(model, None, softprompt.PromptTuning(length=3))
    with pytest.raises(SoftPromptError, match="already"):
        softprompt.load(model, tiny_tokenizer())
    with pytest.raises(SoftPromptError, match="no model"):
        attach(torch.nn.Linear(2, 2), None, softprompt.PromptTuning(length=3))
    call = causal_batch("left")
    next(model.parameters()).requires_grad_(True)
    with pytest.raises(SoftPromptError, match="would be trained"):
        model(**call)
    next(model.parameters()).requires_grad_(False)
    model(**call)
    model.model.layers[1].mlp.up_proj = torch.nn.Linear(32, 48, bias=False)  # as LoRA replaces a layer
    with pytest.raises(SoftPromptError, match=r"would be trained \(model.layers.1.mlp.up_proj.weight"):
        model(**call)
    model.requires_grad_(False)
    with torch.no_grad(), model.plain():
        cache = model(**call, use_cache=True).past_key_values
    with pytest.raises(SoftPromptError, match="cache"):
        model(**call, past_key_values=cache)


def test_input_lengths_stand_for_labels(close):
    model = attach(tiny_model("llama"), None, softprompt.PromptTuning(length=3, placement="after"))
    call = causal_batch("left")
    expected = model(**call).logits
    del call["labels"]
    close(model(**call, input_lengths=[4, 2, 3]).logits, expected)


@pytest.mark.parametrize("method", CONFIGS)
def test_a_configuration_has_its_methods_options(method):
    config, build = CONFIGS[method], methods.find(method).build
    known = {name: p.default for name, p in inspect.signature(build).parameters.items() if name != "setting"}
    assert {field.name: field.default for field in dataclasses.fields(config)} == known
    hints = typing.get_type_hints(build)
    assert {name: hint for name, hint in typing.get_type_hints(config).items() if name != "name"} == {
        name: hints[name] for name in known
    }
    assert config().options() == {} and getattr(softprompt, config.__name__) is config


def test_every_method_that_trains_has_a_configuration():
    assert set(CONFIGS) == set(methods.METHODS) - {"none"}


def test_what_is_saved_is_an_artifact(tmp_path, perturb, close):
    base, tokenizer = tiny_model("llama"), tiny_tokenizer()
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = attach(base, tokenizer, softprompt.PrefixTuning(length=3, placement="before"), prompts=PROMPTS)
    perturb(model.soft_prompt)
    ids = torch.tensor([tokenizer("What a film!")["input_ids"]])
    expected = model.generate(ids, prompts="fact", max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    call = {**causal_batch("left"), "prompts": ["joke", "fact", "joke"]}
    loss = model(**call).loss
    model.save_pretrained(tmp_path / "mood")
    lm = softprompt.load(str(tmp_path / "base"), dtype="float32")
    tuned = softprompt.open_prompt(tmp_path / "mood", lm)
    assert tuned.generate("What a film!", prompt="fact", max_new_tokens=6) == tokenizer.decode(expected)
    model.detach()
    again = SoftPromptModel.from_pretrained(base, tmp_path / "mood", tokenizer)
    close(again(**call).loss, loss, 1e-6)
    again(**call).loss.backward()
    assert any(p.grad is not None for p in again.soft_prompt.parameters())


def test_what_tune_made_is_attached(tmp_path, model_folder):
    rows = [{"input": f"row {i}", "target": "good"} for i in range(8)]
    softprompt.tune(
        str(model_folder),
        "prompt-tuning",
        rows,
        output=tmp_path / "run",
        length=3,
        steps=2,
        placement="before",
    )
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model_folder)
    model = SoftPromptModel.from_pretrained(base, tmp_path / "run", tiny_tokenizer())
    model(**causal_batch("left")).loss.backward()
    assert [p.grad is not None for p in model.soft_prompt.parameters()] == [True]


def test_a_module_of_ones_own_is_trained_and_saved(monkeypatch, tmp_path, close):
    from tests.methods.test_from_module import Mine

    monkeypatch.setattr(methods.METHODS, "_registered", {})
    mine = Mine()
    model = attach(tiny_model("llama"), tiny_tokenizer(), mine)
    call = causal_batch("left")
    loss = model(**call).loss
    loss.backward()
    assert model.soft_prompt is mine and mine.vectors.grad is not None
    model.save_pretrained(tmp_path)
    again = SoftPromptModel.from_pretrained(tiny_model("llama"), tmp_path, tiny_tokenizer())
    close(again(**call).loss, loss, 1e-6)
    assert again.soft_prompt is not mine and isinstance(again.soft_prompt, Mine)


@pytest.mark.parametrize(
    ("method", "fix"),
    [
        (softprompt.PrefixTuning, r"write PrefixTuning\(…\)"),
        (3, "give a name"),
        ({"name": "none"}, "give a name"),
    ],
)
def test_what_is_no_method_is_refused(method, fix, tmp_path):
    base = tiny_model("llama")
    before = set(vars(base))
    lm = softprompt.load(tiny_model("llama"), tiny_tokenizer())
    rows = [{"input": "a", "target": "b"}, {"input": "c", "target": "d"}]
    for call in (
        lambda: softprompt.attach(base, tiny_tokenizer(), method),
        lambda: softprompt.tune(lm, method, rows, output=tmp_path / "out", steps=1),
    ):
        with pytest.raises(SoftPromptError, match="is no method") as error:
            call()
        assert re.search(fix, error.value.fix)
    assert set(vars(base)) == before and not list(tmp_path.iterdir())
