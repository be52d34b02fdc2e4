"""Trainers of transformers and TRL take an attached model, and do what a loop written by hand does."""

from __future__ import annotations

import warnings

import pytest
import torch
from tests.conftest import tiny_model, tiny_tokenizer
from torch.nn.functional import logsigmoid
from transformers import Trainer, TrainingArguments

import softprompt
from softprompt.data.collate import batch_of_ids
from softprompt.lm.apply import injection_for
from softprompt.lm.causal import CausalLM
from softprompt.model import attach

pytestmark = pytest.mark.slow

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


def new_model(config=None):
    return attach(
        tiny_model("llama"), tiny_tokenizer(), config or softprompt.PromptTuning(length=3, placement="after")
    )


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


def mean_loss(lm, method, inputs, targets):
    """The loss written by hand: the mean over all target tokens, from the engine's logits."""
    batch = batch_of_ids(inputs, targets)
    logits = lm.logits(batch, injection_for(lm, method, batch)).float()
    taken = torch.log_softmax(logits, -1).gather(2, batch.target_ids[:, :, None])[:, :, 0]
    return -taken[batch.target_mask].mean()


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


def collate_with(model):
    from transformers import DataCollatorForSeq2Seq

    return DataCollatorForSeq2Seq(tiny_tokenizer(), label_pad_token_id=-100)


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


def test_bfloat16_autocast_moves_the_vectors_the_same_way(tmp_path):
    model, twin = new_model(), new_model()
    start = [p.detach().clone() for p in model.soft_prompt.parameters()]
    trainer = Trainer(
        model, arguments(tmp_path, bf16=True), train_dataset=rows(), data_collator=collate_with(model)
    )
    trainer.train()
    lm = CausalLM(tiny_model("llama"), None, "llama")
    losses = trained_by_hand(twin, lambda: mean_loss(lm, twin.soft_prompt, INPUTS, TARGETS))
    assert logged(trainer) == pytest.approx(losses, rel=2e-2)
    moved = [p.detach() - s for p, s in zip(model.soft_prompt.parameters(), start, strict=True)]
    expected = [p.detach() - s for p, s in zip(twin.soft_prompt.parameters(), start, strict=True)]
    for one, other in zip(moved, expected, strict=True):
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.95


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


def dataset(**columns):
    from datasets import Dataset

    return Dataset.from_dict(columns)


def texts(ids):
    return [tiny_tokenizer().decode(row) for row in ids]


def answers():
    return texts(TARGETS), texts([[70 + i, 71] for i in range(len(TARGETS))])


def test_trl_sft(tmp_path):
    trl = pytest.importorskip("trl")
    model, twin = new_model(), new_model()
    data = dataset(prompt=texts(INPUTS), completion=answers()[0])
    trainer = trl.SFTTrainer(
        model,
        args=arguments(tmp_path, trl.SFTConfig, max_length=32, gradient_checkpointing=False),
        train_dataset=data,
        processing_class=tiny_tokenizer(),
    )
    trainer.train()
    lm, end = CausalLM(tiny_model("llama"), None, "llama"), tiny_tokenizer().eos_token_id
    targets = [[*target, end] for target in TARGETS]
    losses = trained_by_hand(twin, lambda: mean_loss(lm, twin.soft_prompt, INPUTS, targets))
    assert logged(trainer) == pytest.approx(losses, abs=1e-5)
    same_vectors(model, twin)


def log_probability(lm, method, inputs, targets):
    """Of each row's target, with the vectors or, without a method, by the base alone: [rows]."""
    batch = batch_of_ids(inputs, targets)
    logits = lm.logits(batch, injection_for(lm, method, batch) if method is not None else None).float()
    taken = torch.log_softmax(logits, -1).gather(2, batch.target_ids[:, :, None])[:, :, 0]
    return (taken * batch.target_mask).sum(1)


def dpo_loss(lm, method, beta):
    """Rafailov et al. 2023, equation 7; the reference is the base without vectors."""
    end = tiny_tokenizer().eos_token_id
    chosen = [[*row, end] for row in TARGETS]
    rejected = [[70 + i, 71, end] for i in range(len(TARGETS))]
    with torch.no_grad():
        reference = log_probability(lm, None, INPUTS, chosen) - log_probability(lm, None, INPUTS, rejected)
    policy = log_probability(lm, method, INPUTS, chosen) - log_probability(lm, method, INPUTS, rejected)
    return -logsigmoid(beta * (policy - reference)).mean()


def test_trl_dpo_has_the_gradient_of_the_formula(tmp_path):
    trl = pytest.importorskip("trl")
    model, twin = new_model(), new_model()
    chosen, rejected = answers()
    reference = model.reference()
    trainer = trl.DPOTrainer(
        model,
        ref_model=reference,
        args=arguments(tmp_path, trl.DPOConfig, max_length=32, gradient_checkpointing=False, beta=0.3),
        train_dataset=dataset(prompt=texts(INPUTS), chosen=chosen, rejected=rejected),
        processing_class=tiny_tokenizer(),
    )
    lm = CausalLM(tiny_model("llama"), None, "llama")
    expected = dpo_loss(lm, twin.soft_prompt, 0.3)
    expected.backward()
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for one, other in zip(model.soft_prompt.parameters(), twin.soft_prompt.parameters(), strict=True):
        assert (one.grad - other.grad).abs().max() <= 1e-6 * max(1.0, float(other.grad.abs().max()))
    twin.zero_grad()
    trainer.train()
    trained_by_hand(twin, lambda: dpo_loss(lm, twin.soft_prompt, 0.3))
    same_vectors(model, twin)
    shared = {p.data_ptr() for p in reference.parameters()}
    assert shared == {p.data_ptr() for n, p in model.named_parameters() if not n.startswith("soft_prompt.")}


def test_trl_kto_and_grpo_train_the_vectors_alone(tmp_path):
    trl = pytest.importorskip("trl")
    kto, grpo = new_model(), new_model(softprompt.PromptTuning(length=3, placement="before"))
    start = {id(m): [p.detach().clone() for p in m.soft_prompt.parameters()] for m in (kto, grpo)}
    base = {name: tensor.clone() for name, tensor in tiny_model("llama").state_dict().items()}
    trl.KTOTrainer(
        kto,
        ref_model=kto.reference(),
        args=arguments(tmp_path / "kto", trl.KTOConfig, max_length=32, gradient_checkpointing=False),
        train_dataset=dataset(prompt=texts(INPUTS), completion=answers()[0], label=[True, False] * 4),
        processing_class=tiny_tokenizer(),
    ).train()
    trl.GRPOTrainer(
        grpo,
        reward_funcs=lambda completions, **_: [float(len(set(text))) for text in completions],
        args=arguments(
            tmp_path / "grpo",
            trl.GRPOConfig,
            num_generations=4,
            max_completion_length=5,
            gradient_checkpointing=False,
        ),
        train_dataset=dataset(prompt=texts(INPUTS)),
        processing_class=tiny_tokenizer(),
    ).train()
    for model in (kto, grpo):
        pairs = zip(model.soft_prompt.parameters(), start[id(model)], strict=True)
        assert any((p - before).abs().max() > 1e-4 for p, before in pairs)
        assert all(
            torch.equal(tensor, base[name]) for name, tensor in model.state_dict().items() if name in base
        )
