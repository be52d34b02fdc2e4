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
from softprompt.model.trl_calls import check_trainer

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


def dpo_loss(lm, method, beta, prompts=None):
    """Rafailov et al. 2023, equation 7; the reference is the base without vectors."""
    end = tiny_tokenizer().eos_token_id
    chosen = [[*row, end] for row in TARGETS]
    rejected = [[70 + i, 71, end] for i in range(len(TARGETS))]
    with torch.no_grad():
        reference = log_probability(lm, None, INPUTS, chosen) - log_probability(lm, None, INPUTS, rejected)
    policy, against = (log_probability(lm, method, INPUTS, each, prompts) for each in (chosen, rejected))
    policy = policy - against
    return -logsigmoid(beta * (policy - reference)).mean()


def test_trl_dpo_has_the_gradient_of_the_formula(tmp_path):
    """In float64, where the order of sums is no matter. TRL's own log-probabilities are float32."""
    exact, exact_twin = new_model(), new_model()
    for each in (exact, exact_twin):
        each.double().soft_prompt.double()
    columns = dict(zip(("chosen", "rejected"), answers(), strict=True))
    usual = {"max_length": 32, "gradient_checkpointing": False, "beta": 0.3}
    of_rows = {
        "train_dataset": dataset(prompt=texts(INPUTS), **columns),
        "processing_class": tiny_tokenizer(),
    }
    trainer = trl.DPOTrainer(exact, args=arguments(tmp_path, trl.DPOConfig, **usual), **of_rows)
    expected = dpo_loss(CausalLM(tiny_model("llama").double(), None, "llama"), exact_twin.soft_prompt, 0.3)
    expected.backward()
    loss = trainer.compute_loss(exact, next(iter(trainer.get_train_dataloader())))
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for one, other in zip(exact.soft_prompt.parameters(), exact_twin.soft_prompt.parameters(), strict=True):
        assert other.grad.abs().max() > 0.1 and (one.grad - other.grad).abs().max() <= 1e-6
    model, twin, lm = new_model(), new_model(), base()
    trainer = trl.DPOTrainer(model, args=arguments(tmp_path, trl.DPOConfig, **usual), **of_rows)
    trainer.train()
    losses = trained_by_hand(twin, lambda: dpo_loss(lm, twin.soft_prompt, 0.3))
    assert logged(trainer) == pytest.approx(losses, abs=1e-5)
    same_vectors(model, twin)


def kto_loss(lm, method, beta, prompts=None):
    """Ethayarajh et al. 2024, equation 8: the baseline is the KL of other rows' answers, never below 0."""
    end = tiny_tokenizer().eos_token_id
    targets = [[*row, end] for row in TARGETS]
    others = [targets[-1], *targets[:-1]]
    with torch.no_grad():
        reference = log_probability(lm, None, INPUTS, targets)
        moved = log_probability(lm, method, INPUTS, others, prompts)
        baseline = (moved - log_probability(lm, None, INPUTS, others)).mean().clamp(min=0)
    reward = log_probability(lm, method, INPUTS, targets, prompts) - reference
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


def numbered(asked, answered, prompts):
    """A batch in which every second input uses the second prompt of a table of two."""
    return batch_of_ids(asked, answered, [INPUTS.index(row) % prompts for row in asked])


def grpo_loss(lm, method, seen, beta, prompts=("default",)):
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
    batch = numbered(asked, answered, len(prompts))

    def of_tokens(injection):
        logits = lm.logits(batch, injection).float()
        return torch.log_softmax(logits, -1).gather(2, batch.target_ids[:, :, None])[:, :, 0]

    policy = of_tokens(injection_for(lm, method, batch))
    with torch.no_grad():
        reference = of_tokens(None)
    ratio = torch.exp(policy - policy.detach())
    kl = torch.exp(reference - policy) - (reference - policy) - 1
    return (ratio * (beta * kl - advantages[:, None]) * batch.target_mask).sum() / batch.target_mask.sum()


@pytest.mark.parametrize(
    ("home", "beta", "placement"), [(trl, 0.0, "after"), (trl, 0.5, "before"), (softprompt, 0.5, "after")]
)
def test_trl_grpo_is_the_loop_of_its_formula(tmp_path, home, beta, placement):
    config = softprompt.PromptTuning(length=3, placement=placement)
    model, twin = new_model(config), new_model(config)
    trainer = home.GRPOTrainer(
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
@pytest.mark.parametrize(
    ("home", "early"), [(trl, False), (trl, True), (softprompt, False), (softprompt, True)]
)
def test_without_a_reference_it_is_the_base_that_is_in_memory(kind, home, early, tmp_path):
    """If the reference had the vectors, the first loss would be log 2 (DPO) or a half (KTO)."""
    model = new_model()
    trainer = of_kind(kind, tmp_path, model, home=home, precompute_ref_log_probs=early)
    own = {p.data_ptr() for name, p in model.named_parameters() if not name.startswith("soft_prompt.")}
    if trainer.ref_model is not None:
        assert {p.data_ptr() for p in trainer.ref_model.parameters()} == own
    assert (trainer.ref_model is None) == (early and home is trl)
    trainer.train()
    loss = {"DPO": dpo_loss, "KTO": kto_loss}[kind](base(), new_model().soft_prompt, 0.3)
    assert logged(trainer) == pytest.approx([loss.item()], abs=1e-5)


def test_a_model_without_a_prompt_has_the_reference_that_trl_loads(tmp_path, monkeypatch):
    of_kind("DPO", tmp_path, new_model())  # TRL's trainers share references from now on
    plain, loaded = tiny_model("llama"), tiny_model("llama")
    monkeypatch.setattr(type(plain), "from_pretrained", lambda *args, **kwargs: loaded)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *args, **kwargs: plain.config)
    plain.config.architectures = ["LlamaForCausalLM"]
    assert of_kind("DPO", tmp_path, plain).ref_model is loaded


@pytest.mark.parametrize("kind", ["DPO", "KTO"])
@pytest.mark.parametrize("given", [True, False])
def test_a_reference_that_follows_is_refused(kind, given, tmp_path):
    model = new_model()
    for home in (trl, softprompt):
        with pytest.raises(SoftPromptError, match="nothing to copy"):
            of_kind(
                kind, tmp_path, model, model.reference() if given else None, home=home, sync_ref_model=True
            )


@pytest.mark.parametrize("kind", ["SFT", "DPO", "KTO"])
def test_a_table_of_prompts_is_trained_by_a_column_of_names(kind, tmp_path):
    names, config = ("joke", "fact"), softprompt.PromptTuning(length=2, placement="before")
    model, twin = new_model(config, names), new_model(config, names)
    chosen, rejected = answers()
    columns = {"chosen": chosen, "rejected": rejected} if kind == "DPO" else {"completion": chosen}
    columns |= {"label": [True, False] * 4} if kind == "KTO" else {}
    trainer = getattr(trl, f"{kind}Trainer")(
        model,
        args=arguments(
            tmp_path,
            getattr(trl, f"{kind}Config"),
            max_length=32,
            remove_unused_columns=False,
            **({} if kind == "SFT" else {"beta": 0.3}),
        ),
        train_dataset=dataset(prompt=texts(INPUTS), prompts=[*names] * 4, **columns),
        processing_class=tiny_tokenizer(),
    )
    with pytest.raises(SoftPromptError, match="does not say which prompt"):
        trainer.train()
    trainer.data_collator = softprompt.PromptCollator(trainer.data_collator, model)
    trainer.train()
    lm, numbers = base(), [0, 1] * 4
    targets = [[*target, tiny_tokenizer().eos_token_id] for target in TARGETS]
    loss = {
        "SFT": lambda: mean_loss(lm, twin.soft_prompt, INPUTS, targets, numbers),
        "DPO": lambda: dpo_loss(lm, twin.soft_prompt, 0.3, numbers),
        "KTO": lambda: kto_loss(lm, twin.soft_prompt, 0.3, numbers),
    }[kind]
    losses = trained_by_hand(twin, loss)
    assert logged(trainer) == pytest.approx(losses, abs=1e-5)
    same_vectors(model, twin)


def grpo(tmp_path, model, home=softprompt, *, prompts=("joke", "fact"), column="prompt_name", **settings):
    rows = {"prompt": texts(INPUTS)} | ({column: [*prompts] * 4} if prompts else {})
    usual = {"num_generations": 4, "max_completion_length": 5, "gradient_checkpointing": False}
    return home.GRPOTrainer(
        model,
        reward_funcs=settings.pop("reward_funcs", reward),
        args=arguments(tmp_path, trl.GRPOConfig, **usual | settings),
        train_dataset=dataset(**rows),
        processing_class=tiny_tokenizer(),
        **({} if column == "prompt_name" else {"prompt_column": column}),
    )


def recording(trainer):
    """What TRL computes each loss of, after it has shuffled and cut the rows."""
    seen, compute = [], trainer._compute_loss
    trainer._compute_loss = lambda model, inputs: seen.append(dict(inputs)) or compute(model, inputs)
    return seen


@pytest.mark.parametrize(
    ("beta", "placement", "column"), [(0.5, "before", "voice"), (0.0, "after", "prompt_name")]
)
def test_grpo_trains_a_table_of_prompts(beta, placement, column, tmp_path):
    names, config = ("joke", "fact"), softprompt.PromptTuning(length=2, placement=placement)
    model, twin = new_model(config, names), new_model(config, names)
    trainer = grpo(tmp_path, model, beta=beta, column=column)
    seen = recording(trainer)
    trainer.train()
    lm, batches = base(), iter(seen)
    losses = trained_by_hand(twin, lambda: grpo_loss(lm, twin.soft_prompt, next(batches), beta, names))
    assert logged(trainer) == pytest.approx(losses, abs=1e-5)
    same_vectors(model, twin)


def test_grpo_accumulates_the_gradients_of_a_table(tmp_path):
    """Two halves of a step's rows, shuffled, are as the whole step."""
    names, config = ("joke", "fact"), softprompt.PromptTuning(length=2, placement="before")
    model, twin = new_model(config, names), new_model(config, names)
    trainer = grpo(tmp_path, model, beta=0.5, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    seen = recording(trainer)
    trainer.train()
    assert [len(inputs["prompt_ids"]) for inputs in seen] == [4] * 2 * STEPS
    wholes = (
        {key: torch.cat([half[key] for half in pair]) for key in pair[0] if key.endswith(("_ids", "_mask"))}
        for pair in zip(seen[::2], seen[1::2], strict=True)
    )
    lm = base()
    losses = trained_by_hand(twin, lambda: grpo_loss(lm, twin.soft_prompt, next(wholes), 0.5, names))
    assert logged(trainer) == pytest.approx(losses, abs=1e-5)
    same_vectors(model, twin)


def ids_of(part, inputs):
    pairs = zip(inputs[f"{part}_ids"], inputs[f"{part}_mask"], strict=True)
    return [row[real.bool()].tolist() for row, real in pairs]


def test_grpo_generates_and_scores_with_the_prompt_of_each_row(tmp_path):
    """Rows are generated together, shuffled, cut into two steps, and each is used twice."""
    names = ("joke", "fact")
    model = new_model(softprompt.PrefixTuning(length=2), names)
    with torch.no_grad():
        for parameter in model.soft_prompt.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    twin = new_model(softprompt.PrefixTuning(length=2), names)
    twin.soft_prompt.load_state_dict(model.soft_prompt.state_dict())
    trainer = grpo(
        tmp_path,
        model,
        reward_funcs=lambda completion_ids, **_: [float(i % 3) for i in range(len(completion_ids))],
        per_device_train_batch_size=4,
        steps_per_generation=2,
        num_iterations=2,
        top_k=1,
        max_steps=4,
    )
    seen = recording(trainer)
    trainer.train()
    assert [len(inputs["prompt_ids"]) for inputs in seen] == [4] * 4
    lm, used = base(), set()
    for inputs in seen[:2]:
        asked, answered = ids_of("prompt", inputs), ids_of("completion", inputs)
        for row, answer in zip(asked, answered, strict=True):
            name = names[INPUTS.index(row) % 2]
            alone = twin.generate(torch.tensor([row]), prompts=[name], max_new_tokens=5, do_sample=False)
            assert alone[0, len(row) :][: len(answer)].tolist() == answer
            used.add(name)
        batch = numbered(asked, answered, 2)
        logits = lm.logits(batch, injection_for(lm, twin.soft_prompt, batch)).float().log_softmax(-1)
        exact = logits.gather(2, batch.target_ids[:, :, None])[:, :, 0]
        for row, old, real in zip(
            exact, inputs["old_per_token_logps"], inputs["completion_mask"], strict=True
        ):
            count = int(real.sum())
            assert (row[len(row) - count :] - old[real.bool()]).abs().max() < 1e-5
    assert used == set(names)


def test_what_says_no_prompt_of_a_row_is_refused(tmp_path):
    model = new_model(softprompt.PromptTuning(length=2, placement="before"), ("joke", "fact"))
    with pytest.raises(SoftPromptError, match="takes no table of 2 prompts") as error:
        grpo(tmp_path, model, trl)
    assert "softprompt.GRPOTrainer" in error.value.fix
    with pytest.raises(SoftPromptError, match="a row has no column 'prompt_name'"):
        grpo(tmp_path, model, prompts=()).train()
    with pytest.raises(SoftPromptError, match="unknown prompt 'song'"):
        grpo(tmp_path, model, prompts=("joke", "song")).train()
    with pytest.raises(SoftPromptError, match="cannot name the prompts of rows"):
        grpo(tmp_path, model, column="prompts")
    trainer = grpo(tmp_path, model)
    trainer.args.use_vllm = True
    with pytest.raises(SoftPromptError, match="use_vllm=True takes no prompt"):
        check_trainer(trainer, prompts=1)
    trainer._row_prompts = torch.tensor([0, 1])
    with pytest.raises(SoftPromptError, match="runs 3 rows, and has 2"):
        trainer._generate_single_turn([[5], [6], [7]], None, {}, 4)


def test_a_column_that_is_dropped_is_an_error():
    collator = softprompt.PromptCollator(dict, new_model())
    with pytest.raises(SoftPromptError, match="no column 'prompts'"):
        collator([{"input_ids": [1]}])
    with pytest.raises(SoftPromptError, match="no table of prompts"):
        softprompt.PromptCollator(dict, tiny_model("llama"))


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
