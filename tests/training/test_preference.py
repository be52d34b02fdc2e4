"""Preference tasks: the loss of DPO against its formula, and runs from rows to answers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import softprompt
from softprompt.config.load import recipe_from_dict
from softprompt.data.fewshot import few_shot
from softprompt.errors import SoftPromptError
from softprompt.evaluation.evaluator import Evaluator, evaluator_of
from softprompt.lm import finetune
from softprompt.lm.apply import injection_for
from softprompt.training.base_notes import base_notes
from softprompt.training.caches import open_caches
from softprompt.training.estimate import measure
from softprompt.training.prepare import prepare
from softprompt.training.step import StepPart, TrainStep
from softprompt.training.tune import Hooks, Interrupted, tune

pytestmark = pytest.mark.whole

BETA = 0.3
WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss"]
ROWS = [
    {"prompt": f"say {w}", "chosen": f"{w} it is", "rejected": "no" + "!" * i} for i, w in enumerate(WORDS)
]
TENSORS = ("prompt.safetensors", "state.safetensors", "base.safetensors")
PLACES = [
    ("prompt-tuning", {"placement": "after"}),
    ("prompt-tuning", {"placement": "before"}),
    ("prefix-tuning", {"placement": "after"}),
    ("generated-prefix", {"placement": "after"}),
    ("llama-adapter", {}),
]


@pytest.fixture
def prepared(model_folder, tmp_path):
    """`prepared(method, options, base=…, …)`: a fresh process's start of the same small run."""

    def make(
        method="prompt-tuning", options=None, *, base="frozen", rows=ROWS, output="out", task=None, **train
    ):
        trained = {"name": method, **({} if method == "none" else {"length": 3}), **(options or {})}
        recipe = recipe_from_dict(
            {
                "model": str(model_folder),
                "data": {"train": "rows"},
                "task": {"kind": "preference", "beta": BETA, "max_new_tokens": 3, **(task or {})},
                "method": trained,
                "base": {"mode": base, **({} if base == "frozen" else {"lr": 1e-2})},
                "train": {"steps": 5, "batch_size": 3, "eval_every": 2, "dtype": "float32", **train},
                "output": str(tmp_path / output),
            }
        )
        return prepare(recipe, rows=rows[:6], dev_rows=rows[6:])

    return make


def log_probability(run, example, answer, injection=None) -> torch.Tensor:
    """Sum over the answer's tokens, from the logits of one unpadded row. Without an injection: of the model
    of transformers alone."""
    if injection is None:
        ids = torch.tensor([[*example.input_ids, *answer]])
        with finetune.without_adapters(run.lm), torch.no_grad():
            logits = run.lm.model(input_ids=ids).logits[0, len(example.input_ids) - 1 : -1]
    else:
        logits = run.lm.logits(single(run, example, answer), injection)[0]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()


def single(run, example, answer):
    from softprompt.data.collate import collate

    return collate([replace(example, target_ids=tuple(answer))], run.lm.device)


def margin(run, example) -> torch.Tensor:
    """Compute beta ((log p(w) - log p_ref(w)) - (log p(l) - log p_ref(l)))."""
    ratios = []
    for answer in (example.target_ids, example.rejected_ids):
        injection = injection_for(run.lm, run.method, single(run, example, answer))
        policy = log_probability(run, example, answer, injection)
        ratios.append(policy - log_probability(run, example, answer))
    return BETA * (ratios[0] - ratios[1])


def stepped(run) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Take the loss and the gradients of one step over all training rows, as training computes them."""
    (cache,), run = open_caches(run, [run.train])
    evaluator = evaluator_of(run.recipe, run.lm, run.encoder)
    run = replace(run, train=evaluator.with_references(run.train, cache))
    loss = TrainStep(run.lm, [StepPart.of(run)], cache).backward([(0, list(range(len(run.train))))])[0]
    trained = [p for p in (*run.method.parameters(), *run.lm.model.parameters()) if p.requires_grad]
    gradients = [p.grad.clone() for p in trained]
    for parameter in trained:
        parameter.grad = None
    return loss, gradients


def in_float64(run):
    """The step and the formula are computed in float64, in which their different order of sums is no matter.
    A method that reads the input reads it in float32."""
    if run.method.reads is None:
        run.lm.model.double()
        run.method.double()


@pytest.mark.parametrize(("method", "options"), PLACES, ids=[f"{m}-{o.get('placement')}" for m, o in PLACES])
def test_loss_and_gradient_are_those_of_the_formula(prepared, perturb, close, method, options):
    run = prepared(method, options)
    perturb(run.method)
    in_float64(run)
    loss, gradients = stepped(run)
    expected = torch.stack([-torch.nn.functional.logsigmoid(margin(run, e)) for e in run.train]).mean()
    expected.backward()
    close(loss.double(), expected.detach(), 1e-6)
    assert len(gradients) == len(list(run.method.parameters()))
    for ours, parameter in zip(gradients, run.method.parameters(), strict=True):
        close(ours.double(), parameter.grad, 1e-6)
    assert run.plan.is_cached == (options.get("placement") == "after")


def test_the_reference_of_lora_is_the_model_without_adapters(prepared, close):
    run = prepared("none", base="lora")
    with torch.no_grad():
        for weight in finetune.trained_weights(run.lm).values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    in_float64(run)
    loss, gradients = stepped(run)
    expected = torch.stack([-torch.nn.functional.logsigmoid(margin(run, e)) for e in run.train]).mean()
    expected.backward()
    close(loss.double(), expected.detach(), 1e-6)
    trained = [p for p in run.lm.model.parameters() if p.requires_grad]
    assert trained and len(gradients) == len(trained)
    for ours, parameter in zip(gradients, trained, strict=True):
        close(ours.double(), parameter.grad, 1e-6)


def test_loss_of_trl(prepared, perturb, tmp_path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = prepared("prefix-tuning", {"placement": "after"})
    perturb(run.method)
    folder = run.recipe.model.id
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder)
    model = softprompt.attach(base, tokenizer, softprompt.PrefixTuning(length=3))
    model.soft_prompt.load_state_dict(run.method.state_dict())
    spaced = [{**row, "chosen": " " + row["chosen"], "rejected": " " + row["rejected"]} for row in ROWS[:6]]
    config = trl.DPOConfig(
        str(tmp_path / "trl"),
        beta=BETA,
        per_device_train_batch_size=6,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
    )
    trainer = trl.DPOTrainer(
        model,
        ref_model=model.reference(),
        args=config,
        train_dataset=Dataset.from_list(spaced),
        processing_class=tokenizer,
    )
    theirs = trainer.compute_loss(model, next(iter(trainer.get_train_dataloader())))
    assert stepped(run)[0].item() == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize(("method", "options", "base"), [(*PLACES[0], "frozen"), ("none", {}, "lora")])
def test_interrupted_run_ends_with_the_same_bytes(prepared, tmp_path, method, options, base):
    straight = tune(prepared(method, options, base=base, output="straight"))
    steps = []

    def stops() -> bool:
        return len(steps) >= 3

    with pytest.raises(Interrupted):
        tune(prepared(method, options, base=base), hooks=Hooks(on_event=steps.append, should_stop=stops))
    resumed = tune(prepared(method, options, base=base))
    assert resumed.resumed_from == 3 and straight.dev.to_json() == resumed.dev.to_json()
    for name in TENSORS:
        one, other = (Path(folder) / name for folder in (tmp_path / "straight", tmp_path / "out"))
        assert one.exists() == other.exists() and (not one.exists() or one.read_bytes() == other.read_bytes())


def test_the_reference_is_computed_once(prepared, monkeypatch):
    from softprompt.evaluation import pairs

    seen: list[int] = []
    original = pairs.log_probabilities

    def counted(lm, batch, injection, context, examples):
        seen.extend(len(e.target_ids) for e in examples if not injection.channels())
        return original(lm, batch, injection, context, examples)

    monkeypatch.setattr(pairs, "log_probabilities", counted)
    run = tune(prepared(steps=6))
    # six training rows and two dev rows as references; the dev rows once more, as the plain model's score
    assert len(seen) == 6 + 2 + 2
    assert (
        run.plain.metrics["reward_margin"].value == 0 and run.plain.metrics["preference_accuracy"].value == 0
    )


def test_dev_metrics(prepared):
    run = tune(prepared(steps=4))
    margins = [margin(run.prepared, e).item() for e in run.prepared.dev]
    assert run.dev.metrics["reward_margin"].value == pytest.approx(sum(margins) / 2, abs=1e-5)
    assert run.dev.metrics["preference_accuracy"].value == sum(m > 0 for m in margins) / 2
    loss = sum(math.log1p(math.exp(-m)) for m in margins) / 2
    assert run.key == pytest.approx((sum(m > 0 for m in margins) / 2, -loss), abs=1e-5)
    chosen, rejected = (run.dev.metrics[f"{side}_reward"].value for side in ("chosen", "rejected"))
    assert chosen - rejected == pytest.approx(sum(margins) / 2, abs=1e-5)
    score = run.dev.metrics["reward_margin"]
    assert score.low <= score.value <= score.high and score.n == 2


def test_tune_search_and_open_again(model_folder, tmp_path):
    lm = softprompt.load(str(model_folder), dtype="float32")
    about = {"task": {"kind": "preference", "max_new_tokens": 3}, "dev": ROWS, "steps": 4, "batch_size": 4}
    found = softprompt.search(
        lm, "prompt-tuning", ROWS, {"lr": [1e-3, 0.1], "beta": [0.1, 1.0]}, output=tmp_path / "many", **about
    )
    best = found[0]
    settings = {"lr": best.recipe.train.lr, "beta": best.recipe.task.beta}
    alone = softprompt.tune(lm, "prompt-tuning", ROWS, output=tmp_path / "alone", **about, **settings)
    assert alone.metrics == pytest.approx(best.metrics, abs=1e-4)
    again = softprompt.open_prompt(tmp_path / "alone", lm)
    assert again.evaluate(ROWS).metrics["reward_margin"].value == pytest.approx(
        alone.metrics["reward_margin"], abs=1e-5
    )
    assert isinstance(again.generate("say sun", max_new_tokens=2), str)
    recipe = json.loads((tmp_path / "alone" / "softprompt.json").read_text())["recipe"]
    assert recipe_from_dict(recipe) == alone.recipe and alone.recipe.template.rejected == "{{ rejected }}"


def test_lora_is_scored_against_the_model_without_it(prepared, model_folder):
    run = tune(prepared("none", base="lora"))
    opened = softprompt.open_prompt(run.artifact.path)
    value = opened.evaluate(ROWS[6:]).metrics["reward_margin"].value
    assert value == pytest.approx(run.dev.metrics["reward_margin"].value, abs=1e-5) and value != 0
    assert not any(p.requires_grad for p in opened.lm.model.parameters())


def test_a_base_that_was_replaced_is_no_reference(prepared):
    run = tune(prepared("none", base="full", steps=2))
    assert run.dev.metrics["reward_margin"].value != 0
    with pytest.raises(SoftPromptError, match="base model before training"):
        softprompt.open_prompt(run.artifact.path).evaluate(ROWS)


def test_the_cost_is_estimated_without_references(prepared):
    run = prepared(batch_tokens=60)
    price = measure(run)
    assert price.reference_seconds > 0 and price.step_seconds > 0
    assert all(example.reference is None for example in run.train)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "row 3.*'rejected'"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "row 3.*'rejected'"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "row 3.*rejected answer is empty"),
        ({"prompt": "a", "chosen": "same", "rejected": "same"}, "row 3.*are the same"),
        ({"prompt": "a", "chosen": "same", "rejected": "same<end>"}, "row 3.*are the same"),
    ],
)
def test_a_row_that_compares_nothing_is_named(prepared, row, message):
    with pytest.raises(SoftPromptError, match=message):
        prepared(rows=[*ROWS[:2], row, *ROWS[3:]])


def test_what_cannot_be_done_is_refused(model_folder, bert_folder, prepared, tmp_path):
    about = {"task": "preference", "output": tmp_path / "refused", "steps": 2}
    with pytest.raises(SoftPromptError, match="preference task") as caught:
        softprompt.tune(str(bert_folder), "prompt-tuning", ROWS, **about)
    assert "writes no text" in str(caught.value)
    for wrong in (
        {"template": {"rejected": "{{ rejected }}"}, "task": "generation"},
        {"beta": 1, "task": "classification"},
    ):
        with pytest.raises(SoftPromptError, match="kind: preference"):
            softprompt.tune(str(model_folder), "prompt-tuning", ROWS, **{**about, **wrong})
    for metric, kind in (("chrf", "preference"), ("reward_margin", "generation")):
        with pytest.raises(SoftPromptError, match=f"'{metric}' cannot score a {kind} task"):
            prepared(task={"metrics": [metric], "kind": kind}) if kind == "preference" else softprompt.tune(
                str(model_folder), "none", ROWS, **{**about, "task": {"kind": kind, "metrics": [metric]}}
            )
    cut = [{**row, "rejected": row["chosen"] + "!"} for row in ROWS]
    with pytest.raises(SoftPromptError, match="first 2 tokens of both answers"):
        softprompt.tune(str(model_folder), "prompt-tuning", cut, **about, max_target_tokens=2)


def test_demonstrations_are_refused(prepared):
    run = prepared()
    with pytest.raises(SoftPromptError, match="no few-shot reference"):
        few_shot(run.encoder, ROWS, ROWS, 2)


def test_a_start_from_an_artifact_says_what_the_reference_is(prepared):
    tune(prepared(steps=1))
    folder = prepared().recipe.output
    run = prepared(options={"init": "artifact", "artifact": folder}, output="next")
    assert any("base model without vectors" in note for note in base_notes(run))
    assert isinstance(evaluator_of(run.recipe, run.lm, run.encoder), Evaluator)
