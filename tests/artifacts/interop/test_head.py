"""A prompt with its head goes to PEFT, whose own loading gives the same logits."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import tiny_tokenizer
from tests.model.test_heads import with_head

import softprompt
from softprompt import SoftPromptError
from softprompt.artifacts import artifact as artifacts
from softprompt.artifacts.interop import peft as interop
from softprompt.build import saved_base
from softprompt.model import attach

peft = pytest.importorskip("peft")


def attached(folder, config, **more):
    """A model with a prompt and a head whose weights are far from their start, saved in `folder`/out."""
    model = attach(with_head(folder / "base", **more), tiny_tokenizer(), config)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(folder / "out")
    return model


def export(folder, **options):
    opened = artifacts.load(folder / "out")
    return interop.export(opened, saved_base(opened), folder / "adapter", **options)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", [softprompt.PromptTuning, softprompt.PrefixTuning])
def test_a_decoder_with_a_head(method, frozen, tmp_path, close):
    from transformers import AutoModelForSequenceClassification

    config = method(length=3, placement="before")
    model = attached(tmp_path, config, head="sequence", family="llama", frozen=frozen)
    assert any("num_labels=3" in note for note in export(tmp_path).notes)
    torch.manual_seed(7)  # the head that PEFT replaces is drawn
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    base.config.pad_token_id = 0
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert isinstance(theirs, peft.PeftModelForSequenceClassification)
    ids = torch.arange(5, 25).view(2, 10)
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    close(theirs(**call).logits, model(**call).logits)
    with model.plain():
        assert (theirs(**call).logits - model(**call).logits).abs().max() > 0.1
    if not frozen:
        saved = interop.files.read(tmp_path / "adapter").tensors["base_model.score.weight"]
        assert (saved - base.score.original_module.weight).abs().max() > 0.1


CARTRIDGE = softprompt.PrefixTuning(length=3, placement="before", freeze_first=True)


def test_a_cartridge_with_a_head_is_written_as_vectors_alone(tmp_path):
    attached(tmp_path, CARTRIDGE, head="sequence", family="llama")
    with pytest.raises(SoftPromptError, match="a head beside CARTRIDGE") as error:
        export(tmp_path)
    assert error.value.fix == "add --materialise" and not (tmp_path / "adapter").exists()
    assert export(tmp_path, materialise=True).kind == "PREFIX_TUNING"


@pytest.mark.parametrize("method", [softprompt.PromptTuning, softprompt.PrefixTuning])
def test_an_encoder_with_a_head_is_refused(method, tmp_path):
    attached(tmp_path, method(length=3, placement="before"), head="sequence", family="bert")
    with pytest.raises(SoftPromptError, match="cannot be written for PEFT") as error:
        export(tmp_path)
    assert "off a head of an encoder" in error.value.why and not (tmp_path / "adapter").exists()
