"""Prompts trained side by side are those that they would be alone, whatever is trained beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from softprompt import methods
from softprompt.artifacts import artifact
from softprompt.cache import InputCache
from softprompt.config.load import recipe_from_dict
from softprompt.config.sections.model import ModelConfig
from softprompt.errors import SoftPromptError
from softprompt.training import losses, micro_batch
from softprompt.training.prepare import prepare
from softprompt.training.step import StepPart, TrainStep
from softprompt.training.sweep import prepare_prompts, prepare_settings
from softprompt.training.tune import Hooks, Interrupted, tune, tune_many

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss"]
ROWS = [
    {"input": f"{w} {i}" * (1 + i % 3), "target": ("good", "bad")[i % 2]} for i, w in enumerate(WORDS * 2)
]
BESIDE = (
    {"name": "prompt-tuning", "length": 5, "placement": "before"},
    {"name": "prefix-tuning", "length": 2},
)
TRAINED = [name for name in methods.METHODS if name != "none"]


@pytest.fixture
def start(model_folder, tmp_path):
    """`start(method, folder, …)`: a run before its first step, with a model of its own."""

    def make(method: dict, output: str, *, rows=ROWS, kind="classification", **train):
        recipe = recipe_from_dict(
            {
                "model": str(model_folder),
                "data": {"train": "rows"},
                "task": {"kind": kind, **({"max_new_tokens": 3} if kind == "generation" else {})},
                "method": {"length": 3, **method},
                "train": {"steps": 5, "batch_size": 4, "eval_every": 2, "dtype": "float32", **train},
                "output": str(tmp_path / output),
            }
        )
        return prepare(recipe, rows=rows[:12], dev_rows=rows[12:])

    return make


def on_one_base(runs):
    return [replace(run, lm=runs[0].lm) for run in runs]


def steps_of(runs) -> TrainStep:
    return TrainStep(runs[0].lm, [StepPart.of(run) for run in runs], InputCache())


def saved(folder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "state.safetensors")


def assert_same(one, other, atol=2e-5):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            tensor, other[name], atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_are_those_of_each_alone(start, name):
    placements = methods.find(name).options().get("placement")
    runs = on_one_base(
        [start({"name": name}, "a"), *(start(method, f"b{i}", seed=i) for i, method in enumerate(BESIDE))]
        + ([start({"name": name, "placement": "before"}, "c", seed=7)] if placements else [])
    )
    rows = [[0, 5], [1, 2, 3, 11], [4], [7, 6, 8]][: len(runs)]

    def gradients(groups):
        for run in runs:
            run.method.zero_grad(set_to_none=True)
        for group in groups:
            steps_of(runs).backward([(k, rows[k]) for k in group])
        return [
            {n: p.grad.clone() for n, p in run.method.named_parameters() if p.grad is not None}
            for run in runs
        ]

    numbers = range(len(runs))
    together, alone = gradients(steps_of(runs).groups(numbers)), gradients([[k] for k in numbers])
    assert max(map(len, steps_of(runs).groups(numbers))) > 1
    for one, other in zip(together, alone, strict=True):
        assert one
        assert_same(one, other, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["ram", "disk", "off"])
def test_runs_come_out_as_alone(start, tmp_path, cache):
    kinds = [
        ({"name": "prompt-tuning"}, {"lr": 0.1, "seed": 1}),
        ({"name": "prompt-tuning"}, {"lr": 0.01, "seed": 2, "batch_size": 3, "schedule": "linear"}),
        ({"name": "prefix-tuning"}, {"steps": 3, "clip": 0.01}),
        ({"name": "prompt-tuning", "placement": "before"}, {"weight_decay": 0.1}),
        ({"name": "generated-prefix"}, {"lr": 0.001}),
    ]
    common = {"cache": cache, "cache_folder": str(tmp_path / "kv")}
    alone = [tune(start(method, f"alone{i}", **common, **how)) for i, (method, how) in enumerate(kinds)]
    together = tune_many(
        on_one_base([start(method, f"beside{i}", **common, **how) for i, (method, how) in enumerate(kinds)])
    )
    for i, (one, other) in enumerate(zip(together, alone, strict=True)):
        assert one.outcome.best_step == other.outcome.best_step and one.outcome.step == other.outcome.step
        assert_same(saved(tmp_path / f"beside{i}"), saved(tmp_path / f"alone{i}"))
        for a, b in zip(one.dev.records, other.dev.records, strict=True):
            assert a.nll == pytest.approx(b.nll, abs=1e-4)
        for key in ("method", "options", "recipe", "base", "trained_parameters"):
            a, b = one.artifact.manifest[key], other.artifact.manifest[key]
            assert a == b or key == "recipe"


def test_one_that_diverges_ends_alone(start, tmp_path, monkeypatch):
    real = losses.token_losses

    def poisoned(lm, method, batch, context=None):
        found = real(lm, method, batch, context)
        factor = torch.where(batch.prompt_ids[found.rows] == 1, float("nan"), 1.0)
        return replace(found, values=found.values * factor)

    tune(start(BESIDE[0], "alone0"))
    tune(start(BESIDE[1], "alone2"))
    monkeypatch.setattr(losses, "token_losses", poisoned)
    runs = [
        start(BESIDE[0], "a"),
        start({"name": "prompt-tuning", "placement": "before"}, "b"),
        start(BESIDE[1], "c"),
    ]
    found = tune_many(on_one_base(runs))
    assert [run.outcome.stopped for run in found] == ["finished", "nan", "finished"]
    assert_same(saved(tmp_path / "a"), saved(tmp_path / "alone0"))
    assert_same(saved(tmp_path / "c"), saved(tmp_path / "alone2"))
    assert all(tensor.isfinite().all() for tensor in saved(tmp_path / "b").values())


def test_each_ends_by_its_own_patience(start):
    runs = [
        start(
            BESIDE[1], "a", patience=1, eval_every=1, lr=1e-9, steps=9
        ),  # nothing moves, so nothing improves
        start(BESIDE[1], "b", eval_every=3, steps=9),
    ]
    one, other = tune_many(on_one_base(runs))
    assert one.outcome.stopped == "early" and one.outcome.step < 9
    assert (other.outcome.stopped, other.outcome.step) == ("finished", 9)


def test_interrupted_runs_go_on_together(start, tmp_path):
    def runs(folder):
        return on_one_base(
            [start(BESIDE[1], f"{folder}0", seed=1), start({"name": "prompt-tuning"}, f"{folder}1")]
        )

    tune_many(runs("whole"))
    rounds = iter([False, False, False, True])
    with pytest.raises(Interrupted):
        tune_many(runs("parts"), hooks=Hooks(should_stop=lambda: next(rounds)))
    messages = []
    tune_many(runs("parts"), hooks=Hooks(on_stage=messages.append))
    assert any("resuming from step" in text for text in messages)
    for i in range(2):
        assert_same(saved(tmp_path / f"parts{i}"), saved(tmp_path / f"whole{i}"))


def test_a_pass_is_no_larger_than_the_machine_takes(start, monkeypatch):
    runs = on_one_base([start({"name": "prompt-tuning"}, f"r{i}") for i in range(5)])
    each = StepPart.of(runs[0]).step()[0]
    assert [len(g) for g in steps_of(runs).groups(range(5))] == [5]
    monkeypatch.setitem(micro_batch.STEP_TOKENS, "cpu", 2.1 * each)
    assert [g for g in steps_of(runs).groups([0, 1, 3, 4])] == [[0, 1], [3, 4]]
    monkeypatch.setitem(micro_batch.STEP_TOKENS, "cpu", 1)  # one row fills it
    assert [g for g in steps_of(runs).groups([0, 4])] == [[0], [4]]
    monkeypatch.setitem(micro_batch.STEP_TOKENS, "cpu", 10**6)
    monkeypatch.setitem(micro_batch.INPUT_TOKENS, "cpu", 1)
    assert [len(g) for g in steps_of(runs).groups(range(5))] == [1] * 5


def test_plain_model_is_scored_once_for_the_same_rows(start, monkeypatch):
    from softprompt.evaluation.evaluator import Evaluator

    runs = on_one_base([start({"name": "prompt-tuning"}, f"r{i}", seed=i) for i in range(3)])
    runs = [replace(run, dev=runs[0].dev) for run in runs]
    plain, real = [], Evaluator.run

    def counted(self, method, *args, **named):
        plain.extend([1] if not list(method.parameters()) else [])
        return real(self, method, *args, **named)

    monkeypatch.setattr(Evaluator, "run", counted)
    tune_many(runs)
    assert len(plain) == 1


def rows_file(tmp_path, count=24):
    import json

    path = tmp_path / "rows.jsonl"
    rows = [
        {**ROWS[i % 16], "style": ("a/b", "c")[i % 2], "target": ("good", "bad")[i // 2 % 2]}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(model_folder, tmp_path, **changes):
    whole = {
        "model": str(model_folder),
        "data": {"train": str(rows_file(tmp_path)), "prompt_field": "style", "dev_fraction": 0.3},
        "task": {"kind": "classification"},
        "method": {"name": "prefix-tuning", "length": 2},
        "train": {"steps": 3, "batch_size": 4, "dtype": "float32", "apart": True},
        "output": str(tmp_path / "out"),
    }
    return recipe_from_dict({**whole, **changes})


def test_prompts_apart_are_those_of_their_rows_alone(model_folder, tmp_path):
    runs = prepare_prompts(recipe(model_folder, tmp_path))
    assert [run.prompts for run in runs] == [("a/b",), ("c",)]
    assert len({run.lm for run in runs}) == 1
    done = tune_many(runs)
    assert [artifact.load(tmp_path / "out" / name).prompts for name in ("a_b", "c")] == [("a/b",), ("c",)]
    for run, one in zip(runs, done, strict=True):
        rows = [dict(e.rendered.row) for e in run.train]
        assert {row["style"] for row in rows} == set(run.prompts) and one.outcome.stopped == "finished"


def test_settings_are_measured_on_the_same_rows(model_folder, tmp_path):
    base = recipe(model_folder, tmp_path)
    recipes = [
        base.model_copy(
            update={
                "train": base.train.model_copy(update={"seed": seed}),
                "output": str(tmp_path / f"s{seed}"),
            }
        )
        for seed in (0, 1, 2)
    ]
    first, *others = prepare_settings(recipes)
    for other in others:
        for rows, same in ((other.dev, first.dev), (other.train, first.train)):
            assert sorted(e.input_ids for e in rows) == sorted(e.input_ids for e in same)
        assert other.recipe.train.seed != first.recipe.train.seed


def test_refusals(model_folder, tmp_path):
    whole = recipe(model_folder, tmp_path)
    with pytest.raises(SoftPromptError, match="name no prompts"):
        prepare_prompts(
            whole.model_copy(update={"data": whole.data.model_copy(update={"prompt_field": None})})
        )
    with pytest.raises(SoftPromptError, match="cannot go side by side"):
        prepare_prompts(recipe(model_folder, tmp_path, base="lora"))
    with pytest.raises(SoftPromptError, match="saved in"):
        prepare_settings([whole, whole])
    other = whole.model_copy(update={"model": ModelConfig(id="elsewhere"), "output": str(tmp_path / "b")})
    with pytest.raises(SoftPromptError, match="share one base model"):
        prepare_settings([whole, other])


def test_methods_that_read_different_things_take_turns(start):
    embeddings = start({"name": "generated-prefix"}, "a")
    hidden = start({"name": "generated-prefix", "source": "hidden", "layer": 1}, "b")
    runs = on_one_base([embeddings, hidden])
    assert [len(g) for g in steps_of(runs).groups(range(2))] == [1, 1]
    with pytest.raises(SoftPromptError, match="cannot go through the model together"):
        steps_of(runs).backward([(0, [0]), (1, [0])])
