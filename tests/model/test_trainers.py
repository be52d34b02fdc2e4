"""The trainer of transformers takes an attached model, and does what a loop written by hand does."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import tiny_model, tiny_tokenizer
from tests.model.by_hand import (
    INPUTS,
    TARGETS,
    arguments,
    collate_with,
    logged,
    mean_loss,
    mean_loss_in_bfloat16,
    new_model,
    rows,
    same_vectors,
    trained_by_hand,
)
from transformers import Trainer

import softprompt
from softprompt.data.collate import batch_of_ids
from softprompt.lm.apply import injection_for
from softprompt.lm.causal import CausalLM
from softprompt.model import attach

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True},
    ],
    ids=["plain", "accumulated", "checkpointed"],
)
@pytest.mark.parametrize("config", ["after", "prefix"])
def test_transformers_trainer(tmp_path, changes, config):
    chosen = {
        "after": softprompt.PromptTuning(length=3, placement="after"),
        "prefix": softprompt.PrefixTuning(length=3, placement="before", init="random"),
    }[config]
    model, twin = new_model(chosen), new_model(chosen)
    lm = CausalLM(tiny_model("llama"), None, "llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    collator = collate_with(model)
    trainer = Trainer(model, arguments(tmp_path, **changes), train_dataset=rows(), data_collator=collator)
    trainer.train()
    losses = trained_by_hand(twin, lambda: mean_loss(lm, twin.soft_prompt, INPUTS, TARGETS))
    assert logged(trainer) == pytest.approx(losses, abs=1e-5)
    same_vectors(model, twin)
    for name, tensor in model.state_dict().items():
        assert name.startswith("soft_prompt.") or torch.equal(tensor, before[name])
    model.save_pretrained(tmp_path / "saved")
    assert softprompt.SoftPromptModel.from_pretrained(model.detach(), tmp_path / "saved", tiny_tokenizer())


def test_a_run_is_resumed_from_a_checkpoint(tmp_path):
    whole, first, second = new_model(), new_model(), new_model()
    kept = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "per_device_train_batch_size": 4}
    collator = collate_with(whole)
    Trainer(
        whole, arguments(tmp_path / "whole", **kept), train_dataset=rows(), data_collator=collator
    ).train()
    stopped = arguments(tmp_path / "run", **kept)
    trainer = Trainer(first, stopped, train_dataset=rows(), data_collator=collator)
    trainer.train()
    checkpoint = tmp_path / "run" / "checkpoint-2"
    assert softprompt.open_prompt(
        checkpoint, first.plain and CausalLM(tiny_model("llama"), tiny_tokenizer(), "llama")
    )
    resumed = Trainer(second, stopped, train_dataset=rows(), data_collator=collator)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    same_vectors(second, whole, 0.0)


def test_bfloat16_is_the_loop_in_autocast(tmp_path):
    """The loop has the same products in bfloat16."""
    model, twin = new_model(), new_model()
    trainer = Trainer(
        model, arguments(tmp_path, bf16=True), train_dataset=rows(), data_collator=collate_with(model)
    )
    trainer.train()
    lm = CausalLM(tiny_model("llama"), None, "llama")
    losses = trained_by_hand(twin, lambda: mean_loss_in_bfloat16(lm, twin.soft_prompt, INPUTS, TARGETS))
    assert logged(trainer) == pytest.approx(losses, abs=1e-5)
    same_vectors(model, twin)


def test_a_mixed_table_of_prompts(tmp_path):
    names = ("joke", "fact")
    config = softprompt.PromptTuning(length=2, placement="before")
    model = attach(tiny_model("llama"), tiny_tokenizer(), config, prompts=names)
    twin = attach(tiny_model("llama"), tiny_tokenizer(), config, prompts=names)
    data = [{**row, "prompts": number % 2} for number, row in enumerate(rows())]
    Trainer(model, arguments(tmp_path), train_dataset=data, data_collator=collate_with(model)).train()
    lm = CausalLM(tiny_model("llama"), None, "llama")
    batch = batch_of_ids(INPUTS, TARGETS, [number % 2 for number in range(len(INPUTS))])

    def loss():
        logits = lm.logits(batch, injection_for(lm, twin.soft_prompt, batch))
        taken = torch.log_softmax(logits, -1).gather(2, batch.target_ids[:, :, None])[:, :, 0]
        return -taken[batch.target_mask].mean()

    trained_by_hand(twin, loss)
    same_vectors(model, twin)
