"""TRL's trainers take an attached model, and do what their papers' formulas say, written by hand."""

from __future__ import annotations

import sys

import pytest
import torch
from tests.conftest import tiny_model, tiny_tokenizer
from tests.model.by_hand import (
    INPUTS,
    STEPS,
    TARGETS,
    answers,
    arguments,
    dataset,
    log_probability,
    logged,
    mean_loss,
    new_model,
    same_vectors,
    texts,
    trained_by_hand,
)
from torch.nn.functional import logsigmoid

import softprompt
from softprompt import SoftPromptError
from softprompt.data.collate import batch_of_ids
from softprompt.lm.apply import injection_for
from softprompt.lm.causal import CausalLM

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.slow


def base():
    return CausalLM(tiny_model("llama"), None, "llama")


def test_trl_sft(tmp_path):
    model, twin = new_model(), new_model()
    data = dataset(prompt=texts(INPUTS), completion=answers()[0])
    trainer = trl.SFTTrainer(
        model,
        args=arguments(tmp_path, trl.SFTConfig, max_length=32, gradient_checkpointing=False),
        train_dataset=data,
        processing_class=tiny_tokenizer(),
    )
    trainer.train()
    lm, end = base(), tiny_tokenizer().eos_token_id
    targets = [[*target, end] for target in TARGETS]
    losses = trained_by_hand(twin, lambda: mean_loss(lm, twin.soft_prompt, INPUTS, targets))
    assert logged(trainer) == pytest.approx(losses, abs=1e-5)
    same_vectors(model, twin)


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
    lm = base()
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
    losses = trained_by_hand(twin, lambda: dpo_loss(lm, twin.soft_prompt, 0.3))
    assert logged(trainer) == pytest.approx(losses, abs=1e-5)
    same_vectors(model, twin)
    shared = {p.data_ptr() for p in reference.parameters()}
    assert shared == {p.data_ptr() for n, p in model.named_parameters() if not n.startswith("soft_prompt.")}


def kto_loss(lm, method, beta):
    """Ethayarajh et al. 2024, equation 8: the baseline is the KL of other rows' answers, never below 0."""
    end = tiny_tokenizer().eos_token_id
    targets = [[*row, end] for row in TARGETS]
    others = [targets[-1], *targets[:-1]]
    with torch.no_grad():
        reference = log_probability(lm, None, INPUTS, targets)
        moved = log_probability(lm, method, INPUTS, others) - log_probability(lm, None, INPUTS, others)
        baseline = moved.mean().clamp(min=0)
    reward = log_probability(lm, method, INPUTS, targets) - reference
    wanted = torch.tensor([1.0, -1.0] * 4)
    return (1 - torch.sigmoid(beta * wanted * (reward - baseline))).mean()


def test_trl_kto_is_the_loop_of_its_formula(tmp_path):
    model, twin = new_model(), new_model()
    trainer = trl.KTOTrainer(
        model,
        ref_model=model.reference(),
        args=arguments(tmp_path, trl.KTOConfig, max_length=32, gradient_checkpointing=False, beta=0.3),
        train_dataset=dataset(prompt=texts(INPUTS), completion=answers()[0], label=[True, False] * 4),
        processing_class=tiny_tokenizer(),
    )
    trainer.train()
    lm = base()
    losses = trained_by_hand(twin, lambda: kto_loss(lm, twin.soft_prompt, 0.3))
    assert logged(trainer) == pytest.approx(losses, abs=1e-5)
    same_vectors(model, twin)


def reward(completion_ids, **_):
    return [float(sum(ids) % 11) for ids in completion_ids]


def grpo_loss(lm, method, seen, beta):
    """Shao et al. 2024, equations 3 and 4, with TRL's two changes: a mean over all tokens of the step (DAPO),
    and the ratio in front of the KL as well (DeepSeek-V3.2), which is 1 and has a gradient.
    """
    asked, answered = (
        [
            row[real.bool()].tolist()
            for row, real in zip(seen[f"{part}_ids"], seen[f"{part}_mask"], strict=True)
        ]
        for part in ("prompt", "completion")
    )
    rewards, advantages = torch.tensor(reward(answered)), torch.zeros(len(asked))
    for prompt in asked:  # the rows are shuffled; a group is the answers to one prompt
        group = torch.tensor([other == prompt for other in asked])
        advantages[group] = (rewards[group] - rewards[group].mean()) / (rewards[group].std() + 1e-4)
    batch = batch_of_ids(asked, answered)

    def of_tokens(injection):
        logits = lm.logits(batch, injection).float()
        return torch.log_softmax(logits, -1).gather(2, batch.target_ids[:, :, None])[:, :, 0]

    policy = of_tokens(injection_for(lm, method, batch))
    with torch.no_grad():
        reference = of_tokens(None)
    ratio = torch.exp(policy - policy.detach())
    kl = torch.exp(reference - policy) - (reference - policy) - 1
    return (ratio * (beta * kl - advantages[:, None]) * batch.target_mask).sum() / batch.target_mask.sum()


@pytest.mark.parametrize(("beta", "placement"), [(0.0, "after"), (0.5, "before")])
def test_trl_grpo_is_the_loop_of_its_formula(tmp_path, beta, placement):
    config = softprompt.PromptTuning(length=3, placement=placement)
    model, twin = new_model(config), new_model(config)
    trainer = softprompt.GRPOTrainer(
        model,
        reward_funcs=reward,
        args=arguments(
            tmp_path,
            trl.GRPOConfig,
            num_generations=4,
            max_completion_length=5,
            beta=beta,
            gradient_checkpointing=False,
        ),
        train_dataset=dataset(prompt=texts(INPUTS)),
        processing_class=tiny_tokenizer(),
    )
    seen, compute = [], trainer._compute_loss

    def recorded(model, inputs):
        seen.append(dict(inputs))
        return compute(model, inputs)

    trainer._compute_loss = recorded
    trainer.train()
    lm, batches = base(), iter(seen)
    losses = trained_by_hand(twin, lambda: grpo_loss(lm, twin.soft_prompt, next(batches), beta))
    assert len(seen) == STEPS and trainer.args.beta == trainer.beta == beta
    assert logged(trainer) == pytest.approx(losses, abs=1e-5)
    same_vectors(model, twin)
    if beta:
        shared = {p.data_ptr() for p in trainer.ref_model.parameters()}
        own = {p.data_ptr() for name, p in model.named_parameters() if not name.startswith("soft_prompt.")}
        assert shared == own and max(logged(trainer)) > 1e-3


def test_references_and_detached_models_are_the_base_after_a_trainer_too(tmp_path, close):
    """TRL replaces the model's forward, and a reference that took it over would have the vectors."""
    model = new_model(softprompt.PromptTuning(length=3, placement="before"))
    ids = torch.tensor(INPUTS[:1])
    with model.plain():
        expected = model(input_ids=ids).logits
    trl.SFTTrainer(
        model,
        args=arguments(tmp_path, trl.SFTConfig, max_length=32),
        train_dataset=dataset(prompt=texts(INPUTS), completion=answers()[0]),
        processing_class=tiny_tokenizer(),
    )
    trl.trainer.utils.add_fused_lm_head(model)
    reference = model.reference()
    close(reference(input_ids=ids).logits, expected)
    assert (model(input_ids=ids).logits - expected).abs().max() > 1e-3
    fused = reference(input_ids=ids, labels=ids, fused_lm_head=True).log_probs[:, -3:]
    close(fused, torch.log_softmax(expected[:, :-1], -1).gather(2, ids[:, 1:, None])[:, :, 0])
    close(model.detach()(input_ids=ids).logits, expected)  # TRL's forward is still on it


def of_kind(kind, tmp_path, model, reference=None, *, home=trl, **settings):
    """A DPO or KTO trainer with precomputed log-probabilities of the reference."""
    columns = {"completion": answers()[0], "label": [True, False] * 4}
    if kind == "DPO":
        columns = dict(zip(("chosen", "rejected"), answers(), strict=True))
    return getattr(home, f"{kind}Trainer")(
        model,
        ref_model=reference,
        args=arguments(
            tmp_path,
            getattr(trl, f"{kind}Config"),
            max_length=32,
            gradient_checkpointing=False,
            beta=0.3,
            max_steps=1,
            **settings,
        ),
        train_dataset=dataset(prompt=texts(INPUTS), **columns),
        processing_class=tiny_tokenizer(),
    )


@pytest.mark.parametrize("kind", ["DPO", "KTO"])
@pytest.mark.parametrize("early", [True, False])
def test_the_trainers_of_softprompt_have_the_reference_of_the_formula(kind, early, tmp_path):
    """Where TRL reads the reference off the model, the first loss is log 2 (DPO) or a half (KTO)."""
    trainer = of_kind(kind, tmp_path, new_model(), home=softprompt, precompute_ref_log_probs=early)
    trainer.train()
    loss = {"DPO": dpo_loss, "KTO": kto_loss}[kind](base(), new_model().soft_prompt, 0.3)
    assert logged(trainer) == pytest.approx([loss.item()], abs=1e-5)


@pytest.mark.parametrize("kind", ["DPO", "KTO"])
def test_a_reference_with_vectors_is_refused(kind, tmp_path):
    with pytest.raises(SoftPromptError, match="would have the vectors") as error:
        of_kind(kind, tmp_path, new_model(), precompute_ref_log_probs=True).train()
    assert "ref_model=model.reference()" in error.value.fix
    model = new_model()
    trainer = of_kind(kind, tmp_path, model, model.reference(), precompute_ref_log_probs=True)
    trainer.train()
    loss = {"DPO": dpo_loss, "KTO": kto_loss}[kind](base(), new_model().soft_prompt, 0.3)
    assert logged(trainer) == pytest.approx([loss.item()], abs=1e-5)
    with pytest.raises(SoftPromptError, match="nothing to copy"):
        of_kind(kind, tmp_path, new_model(), home=softprompt, sync_ref_model=True)


@pytest.mark.parametrize(("setting", "message"), [({"sync_ref_model": True}, "nothing to copy")])
def test_settings_that_need_a_second_copy_are_refused(tmp_path, setting, message):
    args = arguments(tmp_path, trl.GRPOConfig, beta=0.1, num_generations=4, **setting)
    with pytest.raises(SoftPromptError, match=message):
        softprompt.GRPOTrainer(new_model(), reward, args)


def test_without_trl_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "softprompt.model.trl_trainers", raising=False)
    with pytest.raises(SoftPromptError, match="needs TRL") as error:
        softprompt.GRPOTrainer  # noqa: B018
    assert error.value.fix == "pip install 'softprompt[trl]'"
