"""Loops written by hand, which the trainers' tests compare with: rows, losses by their formulas, AdamW."""

from __future__ import annotations

import warnings

import torch
from tests.conftest import tiny_model, tiny_tokenizer
from transformers import TrainingArguments

import softprompt
from softprompt.data.collate import batch_of_ids
from softprompt.lm.apply import injection_for
from softprompt.model import attach

INPUTS = [
    [5, 6, 7, 8],
    [12, 13],
    [20, 21, 22],
    [30, 31, 32, 33, 34],
    [40, 41],
    [50, 51, 52, 53],
    [9, 8],
    [3, 4, 5],
]
TARGETS = [[9, 10, 11], [14, 15], [23, 24, 25, 26], [35], [42, 43, 44], [54, 55], [7, 6, 5], [60, 61]]
STEPS, LR = 3, 1e-2


def new_model(config=None, prompts=("default",)):
    config = config or softprompt.PromptTuning(length=3, placement="after")
    return attach(tiny_model("llama"), tiny_tokenizer(), config, prompts=prompts)


def rows():
    labels = [[-100] * len(a) + b for a, b in zip(INPUTS, TARGETS, strict=True)]
    return [{"input_ids": a + b, "labels": c} for a, b, c in zip(INPUTS, TARGETS, labels, strict=True)]


def arguments(tmp_path, kind=TrainingArguments, **changes):
    usual = {
        "output_dir": str(tmp_path),
        "max_steps": STEPS,
        "per_device_train_batch_size": len(INPUTS),
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0,
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "bf16": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return kind(**usual | changes)


def mean_loss(lm, method, inputs, targets, prompts=None):
    """The loss written by hand: the mean over all target tokens, from the engine's logits."""
    batch = batch_of_ids(inputs, targets, prompts)
    logits = lm.logits(batch, injection_for(lm, method, batch)).float()
    taken = torch.log_softmax(logits, -1).gather(2, batch.target_ids[:, :, None])[:, :, 0]
    return -taken[batch.target_mask].mean()


def mean_loss_in_bfloat16(*given):
    """The same loss under torch's autocast, as trainers with `bf16` compute it."""
    with torch.autocast("cpu", torch.bfloat16):
        return mean_loss(*given)


def trained_by_hand(model, loss, steps=STEPS):
    """AdamW as trainers set it, on the vectors alone; returns the losses."""
    optimizer = torch.optim.AdamW(model.soft_prompt.parameters(), lr=LR, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def logged(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def same_vectors(a, b, limit=1e-5):
    for one, other in zip(a.soft_prompt.parameters(), b.soft_prompt.parameters(), strict=True):
        assert (one - other).abs().max() <= limit


def collate_with(model):
    from transformers import DataCollatorForSeq2Seq

    return DataCollatorForSeq2Seq(tiny_tokenizer(), label_pad_token_id=-100)


def dataset(**columns):
    from datasets import Dataset

    return Dataset.from_dict(columns)


def texts(ids):
    return [tiny_tokenizer().decode(row) for row in ids]


def answers():
    return texts(TARGETS), texts([[70 + i, 71] for i in range(len(TARGETS))])


def log_probability(lm, method, inputs, targets, prompts=None):
    """Of each row's target, with the vectors or, without a method, by the base alone: [rows]."""
    batch = batch_of_ids(inputs, targets, prompts)
    logits = lm.logits(batch, injection_for(lm, method, batch) if method is not None else None)
    taken = torch.log_softmax(logits, -1).gather(2, batch.target_ids[:, :, None])[:, :, 0]
    return (taken * batch.target_mask).sum(1)
