"""A prefix starts as demonstrations, and is trained on them with leave-one-out and token dropout (CT-KV)."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from tokenizers import processors

import softprompt
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import collate
from softprompt.data.fewshot import few_shot
from softprompt.errors import SoftPromptError
from softprompt.evaluation.evaluator import evaluator_of
from softprompt.lm.apply import injection_for
from softprompt.lm.causal import CausalLM
from softprompt.training.hiding import hidden_columns
from softprompt.training.losses import token_losses
from softprompt.training.prepare import prepare
from softprompt.training.run import Hooks, Interrupted
from softprompt.training.step import StepPart, TrainStep
from softprompt.training.tune import tune

WORDS = ["sun", "mud", "cake", "rain", "song", "ache"]
ROWS = [{"input": f"{word} day", "target": ("good", "bad")[i % 2]} for i, word in enumerate(WORDS)]
DEV = [{"input": "fog day", "target": "bad"}, {"input": "a gift", "target": "good"}]
CTKV = {"name": "prefix-tuning", "init": "demonstrations", "leave_one_out": True, "token_dropout": 0.2}
CHAT = (
    "{% if messages[0].role != 'system' %}be kind. {% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}/{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def recipe(output="runs/none", method=CTKV, **changes):
    tree = {
        "data": "rows in memory",
        "task": {"kind": "classification", "labels": ["good", "bad"]},
        "method": method,
        "train": {"steps": 6, "batch_size": 4, "lr": 0.02, "eval_every": 2},
        "output": str(output),
    }
    for name, value in changes.items():
        tree[name] = {**tree[name], **value} if isinstance(tree.get(name), dict) else value
    return recipe_from_dict(tree)


def prepared(lm, rows=ROWS, **changes):
    return prepare(recipe(**changes), lm=lm, rows=rows, dev_rows=DEV)


@pytest.fixture(scope="module")
def special(llama):
    """The tiny model with a tokenizer that writes a begin token, and a chat template with a system text."""
    raw = copy.deepcopy(llama.tokenizer.backend_tokenizer)
    raw.post_processor = processors.TemplateProcessing(single="<end> $A", special_tokens=[("<end>", 96)])
    tokenizer = type(llama.tokenizer)(tokenizer_object=raw, eos_token="<end>", chat_template=CHAT)
    return CausalLM(llama.model, tokenizer, "tiny-special")


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("kind", ["classification", "generation"])
def test_the_start_is_the_few_shot_prompt(special, kind, chat):
    task = {"kind": kind, "labels": ["good", "bad"] if kind == "classification" else None}
    task["max_new_tokens"] = 6
    run = prepared(special, task=task, template={"chat": chat})
    assert run.recipe.template.continues and len(run.method.hiding.demonstrations) == len(ROWS)
    plain = run.encoder.begun()
    shown = few_shot(plain, ROWS, DEV, len(ROWS), seed=run.recipe.train.seed)
    for row, text in zip(run.dev, shown, strict=True):
        batch, whole = collate([row]), collate([text])
        with torch.no_grad():
            logits = special.logits(batch, injection_for(special, run.method, batch))
            assert torch.allclose(logits, special.logits(whole), atol=2e-5)
        assert plain.encode(row.rendered.row).input_ids == row.begun().input_ids and row.begin


def test_a_row_does_not_see_itself(llama):
    """The loss of a row that is a demonstration is that of a text without it, at the same positions."""
    run = prepared(llama, method=CTKV | {"token_dropout": 0.0})
    hiding, length = run.method.hiding, run.method.hiding.columns
    ids = list(few_shot(run.encoder, ROWS, [DEV[0]], len(ROWS))[0].input_ids)[:length]
    for number in (0, 3):
        row = run.train[number]
        begin, end = hiding.demonstrations[row.demonstration]
        text = llama.tokenizer.decode(ids[begin:end])
        assert text == f"{row.rendered.input} {row.rendered.target}\n\n"
        batch = replace(collate([row]), hidden=hidden_columns(hiding, row.demonstration, 0, 0, number)[None])
        loss = token_losses(llama, run.method, batch).values.sum()
        # keys and values of later demonstrations saw the one that is hidden: only the row does not see it
        whole = torch.tensor([[*ids, *row.input_ids, *row.target_ids]])
        mask = torch.tril(torch.ones(whole.shape[1], whole.shape[1], dtype=torch.bool))
        mask[length:, begin:end] = False
        logits = llama.model(whole, attention_mask=mask[None, None]).logits[0]
        at = torch.arange(whole.shape[1] - len(row.target_ids) - 1, whole.shape[1] - 1)
        naive = torch.nn.functional.cross_entropy(logits[at], torch.tensor(row.target_ids), reduction="sum")
        assert loss.item() == pytest.approx(naive.item(), abs=2e-4)
        # a row that is no demonstration sees all of them
        assert not hidden_columns(hiding, run.dev[0].demonstration, 0, 0, number).any()


def test_nothing_is_hidden_outside_of_training(llama, tmp_path):
    """What is saved answers as the trained method does, and both as a naive mask-free prefix."""
    run = tune(prepared(llama, output=tmp_path / "out"))
    again = softprompt.open_prompt(tmp_path / "out", llama)
    batch = collate(again.encoder.encode_rows(DEV))
    with torch.no_grad():
        injection = injection_for(llama, run.prepared.method, batch)
        assert injection.kv_before.mask.all() and batch.hidden is None
        assert torch.equal(
            llama.logits(batch, injection), llama.logits(batch, injection_for(llama, again.method, batch))
        )
    assert json.loads((tmp_path / "out" / "softprompt.json").read_text())["recipe"]["template"]["continues"]
    # the plain model beside it reads whole inputs
    plain = evaluator_of(run.prepared.recipe, llama, run.prepared.encoder)
    none = softprompt.methods.build("none", softprompt.methods.Setting(llama))
    rows = [row.begun() for row in run.prepared.dev]
    assert run.plain.metrics["accuracy"] == plain.run(none, rows).metrics["accuracy"]


def test_hidden_columns(llama):
    hiding = prepared(llama).method.hiding
    draws = torch.stack(
        [hidden_columns(hiding, None, 0, step, row) for step in range(40) for row in range(9)]
    )
    assert not draws[:, 0].any() and len({tuple(d.tolist()) for d in draws}) == len(draws)
    assert draws[:, 1:].float().mean().item() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_run_that_was_stopped_ends_with_the_same_bytes(llama, tmp_path, step):
    whole = tune(prepared(llama, output=tmp_path / "whole"))
    done = []
    hooks = Hooks(on_event=done.append, should_stop=lambda: len(done) >= step)
    with pytest.raises(Interrupted):
        tune(prepared(llama, output=tmp_path / "out"), hooks=hooks)
    resumed = tune(prepared(llama, output=tmp_path / "out"))
    assert resumed.resumed_from == step
    for name, tensor in whole.prepared.method.state_dict().items():
        assert torch.equal(tensor, resumed.prepared.method.state_dict()[name])


def _gradients(lm, runs, checkpointing=False):
    lm.set_gradient_checkpointing(checkpointing)
    from softprompt.cache import InputCache

    steps = TrainStep(lm, [StepPart.of(run) for run in runs], InputCache(), step_of=lambda part: 2)
    losses = steps.backward([(i, [0, 1, 2, 5]) for i in range(len(runs))])
    gradients = [run.method.values.grad.clone() for run in runs]
    for run in runs:
        run.method.zero_grad(set_to_none=True)
    lm.set_gradient_checkpointing(False)
    return losses, gradients


def test_side_by_side_alone_and_checkpointed_are_one(llama):
    """Runs of other lengths and without hiding share a pass; layers that are computed twice see the same."""
    plain = CTKV | {"leave_one_out": False, "token_dropout": 0.0}
    runs = [prepared(llama), prepared(llama, rows=ROWS[:4] + ROWS), prepared(llama, method=plain)]
    runs[1] = prepared(llama, method=CTKV | {"length": 40})
    together = _gradients(llama, runs)
    for i, run in enumerate(runs):
        for other in (_gradients(llama, [run]), _gradients(llama, [run], checkpointing=True)):
            assert torch.allclose(other[0][0], together[0][i], atol=1e-5)
            assert torch.allclose(other[1][0], together[1][i], atol=1e-5)
    assert not torch.allclose(together[0][0], together[0][2])
    assert runs[1].method.hiding.columns < 40 < runs[0].method.hiding.columns


def test_rows_beyond_the_demonstrations_are_trained_on(llama):
    run = prepared(llama, method=CTKV | {"length": 40})
    shown = [row for row in run.train if row.demonstration is not None]
    assert len(run.train) == len(ROWS) and len(shown) == len(run.method.hiding.demonstrations) == 2
    assert {row.rendered.target for row in shown} == {"good", "bad"}  # labels take turns
    assert run.recipe.method.options()["length"] == run.method.hiding.columns <= 40
    # a second call starts from the recorded recipe, and chooses the same
    again = prepare(run.recipe, lm=llama, rows=ROWS, dev_rows=DEV)
    assert again.identity() == run.identity()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": CTKV | {"length": 20}}, "needs two demonstrations or more, not 1"),
        ({"method": CTKV | {"length": 3}}, "no demonstration fits: the first takes"),
        ({"method": CTKV | {"placement": "after"}}, "cannot be combined with placement=after"),
        ({"method": CTKV | {"token_dropout": 1.0}}, "token_dropout=1.0 is not valid"),
        ({"method": CTKV | {"init": "context"}}, "leave_one_out has no effect with init=context"),
        ({"method": CTKV | {"name": "prompt-tuning"}}, "is not valid for prompt-tuning"),
        ({"data": {"train": "x", "prompt_field": "target"}}, "takes one prompt"),
    ],
)
def test_what_cannot_be_is_refused(llama, changes, message):
    with pytest.raises(SoftPromptError, match=message):
        prepared(llama, **changes)


def test_a_model_that_takes_no_prefix_is_refused(llama):
    refusing = copy.copy(llama)
    refusing.spec = replace(llama.spec, limits={"prefix": "it has no attention"})
    with pytest.raises(SoftPromptError, match="no attention"):
        prepared(refusing)


def test_a_prefix_without_rows_is_refused(llama, setting):
    with pytest.raises(SoftPromptError, match="init=demonstrations needs training rows"):
        softprompt.methods.build(
            "prefix-tuning", setting(llama), {"init": "demonstrations", "placement": "before"}
        )
