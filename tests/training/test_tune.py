"""From rows to an artifact and back, through the Python API on a saved tiny model."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import softprompt
from softprompt.artifacts import artifact, warm_start
from softprompt.cache import disk_store, memory_store, planning
from softprompt.config.load import recipe_from_dict
from softprompt.errors import SoftPromptError
from softprompt.training.prepare import prepare
from softprompt.training.tune import Hooks, Interrupted, tune

pytestmark = pytest.mark.whole

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss"]
ROWS = [{"input": f"{w} {i}", "target": ("good", "bad")[i % 2]} for i, w in enumerate(WORDS * 2)]
STYLED = [{**row, "style": ("joke", "fact")[i // 8]} for i, row in enumerate(ROWS)]
TENSORS = ("prompt.safetensors", "state.safetensors", "base.safetensors")


@pytest.fixture
def lm(model_folder):
    return softprompt.load(str(model_folder), dtype="float32")


@pytest.fixture
def prepared(model_folder, tmp_path):
    """`prepared(method=…, task=…, …)`: a fresh process's start of the same small run."""

    def make(
        method="prompt-tuning", *, output="out", options=None, task="classification", base="frozen", **train
    ):
        recipe = recipe_from_dict(
            {
                "model": str(model_folder),
                "data": {"train": "rows"},
                "task": {"kind": task, **({"max_new_tokens": 3} if task == "generation" else {})},
                "method": {"name": method, **({} if method == "none" else {"length": 3}), **(options or {})},
                "base": {"mode": base, **({} if base == "frozen" else {"lr": 1e-2})},
                "train": {"steps": 7, "batch_size": 4, "eval_every": 3, "dtype": "float32", **train},
                "output": str(tmp_path / output),
            }
        )
        return prepare(recipe, rows=ROWS[:12], dev_rows=ROWS[12:])

    return make


def tensors_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TENSORS if (folder / name).exists()}


def scores(evaluation) -> list:
    return [record.scores for record in evaluation.records]


# --- the API ---


def test_tune_and_open_again(lm, model_folder, tmp_path):
    options = {"length": 3}
    tuned = softprompt.tune(
        lm,
        "prefix-tuning",
        ROWS,
        task="classification",
        output=tmp_path / "out",
        options=options,
        steps=30,
        batch_size=8,
        dtype="float32",
    )
    assert set(tuned.metrics) >= {"accuracy"}
    again = softprompt.open_prompt(tmp_path / "out")
    for one, other in zip(scores(tuned.evaluate(ROWS)), scores(again.evaluate(ROWS)), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    inputs = [row["input"] for row in ROWS]
    assert tuned.generate(inputs) == again.generate(inputs)
    assert again.generate("sun 0") in ("good", "bad")
    manifest = json.loads((tmp_path / "out" / artifact.MANIFEST).read_text())
    assert manifest["base"]["name"] == str(model_folder) and manifest["training"]["stopped"] == "finished"
    assert manifest["options"]["placement"] == "after" and manifest["plan"] == "cached-ram"


def test_search_gives_every_setting_the_best_first(lm, tmp_path):
    over = {"lr": [1e-4, 0.1], "length": [2, 3]}
    found = softprompt.search(
        lm,
        "prompt-tuning",
        ROWS,
        over,
        task="classification",
        output=tmp_path / "out",
        steps=4,
        dtype="float32",
    )
    assert len(found) == 4 and all(tuned.lm is lm for tuned in found)
    assert {(t.recipe.train.lr, t.recipe.method.options()["length"]) for t in found} == {
        (lr, length) for lr in over["lr"] for length in over["length"]
    }
    assert [t.metrics["accuracy"] for t in found] == sorted(
        (t.metrics["accuracy"] for t in found), reverse=True
    )
    assert softprompt.open_prompt(tmp_path / "out" / "lr=0.1,length=2", lm).generate("sun") in ("good", "bad")


def test_several_prompts_by_name(lm, tmp_path):
    tuned = softprompt.tune(
        lm,
        "prompt-tuning",
        STYLED,
        task={"kind": "generation", "max_new_tokens": 4},
        dev=STYLED[:4],
        prompt_field="style",
        output=tmp_path / "out",
        options={"length": 3},
        steps=20,
        dtype="float32",
        lr=0.3,
    )
    assert tuned.artifact.prompts == ("joke", "fact")
    joke, fact = (tuned.generate("sun", prompt=name) for name in ("joke", "fact"))
    assert isinstance(joke, str) and isinstance(fact, str)
    mixed = [{"input": "sun", "style": style} for style in ("fact", "joke")]
    assert tuned.generate(mixed) == [fact, joke]
    with pytest.raises(SoftPromptError, match="did you mean 'joke'"):
        tuned.generate("sun", prompt="jok")
    with pytest.raises(SoftPromptError, match="prompt"):
        tuned.generate("sun")


def test_a_multiple_choice_row_is_answered_with_a_choice(lm, tmp_path):
    rows = [{**row, "choices": ["good", "bad", "so so"]} for row in ROWS]
    tuned = softprompt.tune(
        lm,
        "generated-prefix",
        rows,
        task={"kind": "choice", "choices": "choices"},
        output=tmp_path / "out",
        options={"length": 3, "placement": "before"},
        steps=3,
        dtype="float32",
    )
    assert tuned.generate({"input": "sun", "choices": ["yes", "no"]}) in ("yes", "no")
    assert tuned.evaluate(rows).n == 16


# --- resume ---


CASES = [
    ("prompt-tuning", {"placement": "after"}),
    ("prefix-tuning", {"placement": "before", "reparameterize": True}),
    ("generated-prompt", {"placement": "after"}),
    ("llama-adapter", {}),
]


@pytest.mark.parametrize(("method", "options"), CASES, ids=[name for name, _ in CASES])
@pytest.mark.parametrize("stops", [(2,), (1, 5)])
def test_interrupted_run_ends_with_the_same_bytes(prepared, tmp_path, method, options, stops):
    whole = tune(prepared(method, options=options, output="whole"))
    for step in stops:
        seen: list[int] = []

        def stop(step=step, seen=seen):
            return bool(seen) and seen[-1] >= step

        hooks = Hooks(on_event=lambda event, seen=seen: seen.append(event.step), should_stop=stop)
        with pytest.raises(Interrupted) as caught:
            tune(prepared(method, options=options, output="cut"), hooks=hooks)
        assert caught.value.step == step
        with pytest.raises(SoftPromptError, match="no tuned prompt"):
            artifact.load(tmp_path / "cut")
    run = tune(prepared(method, options=options, output="cut"))
    assert tensors_of(tmp_path / "cut") == tensors_of(tmp_path / "whole")
    assert run.outcome.history == whole.outcome.history and run.dev == whole.dev and run.plain == whole.plain


def test_a_model_that_an_earlier_run_gave_lora_weights_is_refused(lm, tmp_path):
    """A prompt would learn on a base that its artifact does not record."""
    settings = {"task": "classification", "steps": 1, "batch_size": 4}
    softprompt.tune(lm, "prompt-tuning", ROWS, base="lora", output=tmp_path / "one", **settings)
    with pytest.raises(SoftPromptError, match="carries LoRA weights already"):
        softprompt.tune(lm, "prompt-tuning", ROWS, output=tmp_path / "two", **settings)


@pytest.mark.parametrize("base", ["lora", "full"])
def test_trained_base_resumes_saves_and_loads(prepared, lm, model_folder, tmp_path, base):
    run = tune(prepared("prefix-tuning", base=base, output="whole"))
    hooks = Hooks(should_stop=iter([False, False, True]).__next__)
    with pytest.raises(Interrupted):
        tune(prepared("prefix-tuning", base=base, output="cut"), hooks=hooks)
    tune(prepared("prefix-tuning", base=base, output="cut"))
    assert set(tensors_of(tmp_path / "cut")) == set(TENSORS)
    assert tensors_of(tmp_path / "cut") == tensors_of(tmp_path / "whole")
    own = softprompt.open_prompt(tmp_path / "whole", lm).evaluate(ROWS[12:])
    assert own.metrics == run.dev.metrics
    for one, other in zip(sorted(scores(own)), sorted(scores(run.dev)), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert abs(scores(run.dev)[0][0] - scores(run.plain)[0][0]) > 0.1


@pytest.mark.parametrize("base", ["lora", "full"])
@pytest.mark.parametrize("task", ["classification", "generation"])
def test_plain_model_is_the_untrained_one(prepared, base, task):
    """The comparison must not be with a base that was trained in the meantime."""
    reference = tune(prepared(task=task, output="frozen"))
    trained = tune(prepared("none", task=task, base=base, output="trained"))
    assert [r.nll for r in trained.plain.records] == pytest.approx([r.nll for r in reference.plain.records])
    assert [r.nll for r in trained.dev.records] != pytest.approx([r.nll for r in reference.plain.records])


# --- the plan at work ---


@pytest.mark.parametrize("task", ["classification", "generation"])
@pytest.mark.parametrize("interrupted", [False, True])
def test_what_is_saved_is_the_evaluation_of_the_best(prepared, monkeypatch, task, interrupted):
    """Made once where nothing is written, and always what the saved state comes to."""
    from softprompt.evaluation.evaluator import Evaluator

    if interrupted:  # the best may have been before: it is evaluated anew
        stop = iter([False] * 6 + [True])
        with pytest.raises(Interrupted):
            tune(prepared(task=task, steps=9), hooks=Hooks(should_stop=lambda: next(stop)))
    run_of, calls = Evaluator.run, []

    def counted(self, *args, **named):
        calls.append(named["text_rows"])
        return run_of(self, *args, **named)

    monkeypatch.setattr(Evaluator, "run", counted)
    run = tune(prepared(task=task, steps=9), text_rows=2)
    if not interrupted:  # the plain model, three times while training, and texts
        assert len(calls) == (4 if task == "classification" else 5)
    monkeypatch.undo()
    made = run.prepared
    evaluator = Evaluator(made.lm, made.encoder, tuple(made.recipe.task.metrics or ()), 3)
    again = evaluator.run(made.method, made.dev, text_rows=2)
    assert run.dev.metrics.keys() == again.metrics.keys()
    for ours, theirs in zip(run.dev.records, again.records, strict=True):
        assert ours.prediction == theirs.prediction
        assert ours.nll == pytest.approx(theirs.nll, abs=1e-4)


def test_without_the_plain_model(prepared):
    from softprompt.training.tune import tune_many

    (run,) = tune_many([prepared()], plain=False)
    assert run.dev.metrics and not run.plain.metrics
    assert run.artifact.manifest["plain"]["metrics"] == {}


def test_cached_recomputed_and_full_train_alike(prepared, monkeypatch):
    """Three ways of computing the same steps: the results differ by rounding alone."""
    cached = tune(prepared(output="a"))
    recomputed = tune(prepared(output="b", cache="off"))
    monkeypatch.setattr(planning, "decide", lambda *args, **how: _full(cached.prepared.plan))
    full = tune(prepared(output="c"))
    modes = [run.prepared.plan.mode for run in (cached, recomputed, full)]
    assert modes == ["cached-ram", "recompute", "full"]
    for other in (recomputed, full):
        for a, b in zip(other.outcome.history, cached.outcome.history, strict=True):
            assert a == pytest.approx(b, rel=1e-3)


def _full(chosen):
    from dataclasses import replace

    return replace(chosen, mode="full")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_no_memory_for_the_cache_falls_back_and_says_so(prepared, monkeypatch, error):
    reference = tune(prepared(output="reference"))

    def full(*args, **how):
        raise error

    monkeypatch.setattr(memory_store, "lazily", full)
    message: list[str] = []
    run = tune(prepared(), hooks=Hooks(on_stage=message.append))
    assert any("no memory" in text for text in message)
    assert run.prepared.plan.mode == "recompute" and "memory ran out" in run.prepared.plan.reason
    assert run.artifact.manifest["plan"] == "recompute"
    assert run.outcome.history[-1]["loss"] == pytest.approx(reference.outcome.history[-1]["loss"], rel=1e-3)


def test_other_errors_are_not_taken_for_memory(prepared, monkeypatch):
    def broken(*args, **how):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(memory_store, "lazily", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        tune(prepared())


def test_a_cache_on_disk_trains_alike_and_a_second_run_computes_nothing(prepared, tmp_path, monkeypatch):
    where = {"cache": "disk", "cache_folder": str(tmp_path / "kv")}
    reference = tune(prepared(output="ram"))
    counted: list[tuple[int, int]] = []
    first = tune(prepared(output="a", **where), hooks=Hooks(on_cache=lambda *done: counted.append(done)))
    assert first.artifact.manifest["plan"] == "cached-disk" and counted[-1] == (16, 16)
    for a, b in zip(first.outcome.history, reference.outcome.history, strict=True):
        assert a == pytest.approx(b, rel=1e-3)

    def never(*args, **how):
        raise AssertionError("computed again")

    monkeypatch.setattr(disk_store, "_build", never)
    other = prepared("prefix-tuning", output="b", seed=3, **where)
    assert other.plan.stored and len(list((tmp_path / "kv").iterdir())) == 1
    tune(other)
    same = tune(prepared(output="c", **where))
    assert tensors_of(tmp_path / "c") == tensors_of(tmp_path / "a")
    assert same.outcome.history == first.outcome.history


def test_where_a_cache_lies_is_no_part_of_a_run(prepared, tmp_path):
    one, other = (
        prepared(cache="disk", cache_folder=str(tmp_path / name), cache_disk_mb=mb)
        for name, mb in (("a", 10), ("b", 20))
    )
    assert one.identity() == other.identity() != prepared(cache="disk", cache_dtype="int8").identity()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_no_disk_for_the_cache_falls_back_and_says_so(prepared, tmp_path, monkeypatch, code):
    reference = tune(prepared(output="reference"))
    real = os.fsync

    def full(descriptor):
        if "/kv/" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    message: list[str] = []
    run = tune(
        prepared(cache="disk", cache_folder=str(tmp_path / "kv")), hooks=Hooks(on_stage=message.append)
    )
    assert any("no disk for the cache" in text and os.strerror(code) in text for text in message)
    assert run.prepared.plan.mode == "recompute" and run.artifact.manifest["plan"] == "recompute"
    assert [path.name for path in (tmp_path / "kv").glob("*/*")] == ["lock"]
    assert run.outcome.history[-1]["loss"] == pytest.approx(reference.outcome.history[-1]["loss"], rel=1e-3)


def test_a_folder_that_cannot_be_made_falls_back(prepared, tmp_path):
    (tmp_path / "file").write_text("in the way")
    run = tune(prepared(cache="disk", cache_folder=str(tmp_path / "file")))
    assert run.artifact.manifest["plan"] == "recompute"


def test_int8_rows_train_nearly_alike(prepared):
    exact, int8 = (tune(prepared(output=dtype, cache_dtype=dtype)) for dtype in ("auto", "int8"))
    assert int8.prepared.plan.mode == "cached-ram"
    a, b = (run.outcome.history[-1]["loss"] for run in (exact, int8))
    assert a != b and a == pytest.approx(b, rel=0.05)


def test_gradient_checkpointing_trains_alike(prepared):
    for options in ({"placement": "before"}, {"placement": "after"}):
        place = options["placement"]
        plain = tune(prepared("prefix-tuning", options=options, output=f"{place}-plain"))
        saved = tune(
            prepared("prefix-tuning", options=options, output=f"{place}-saved", gradient_checkpointing=True)
        )
        for a, b in zip(saved.outcome.history, plain.outcome.history, strict=True):
            assert a == pytest.approx(b, rel=1e-3)


# --- refusals that lose nothing ---


def test_loss_that_explodes_is_told_and_the_best_kept(prepared, monkeypatch, tmp_path):
    from softprompt.training import step as steps

    numbers = iter(range(100))
    original = steps.token_losses

    def explodes(*args):
        found = original(*args)
        return replace(found, values=found.values * (float("nan") if next(numbers) == 4 else 1))

    monkeypatch.setattr(steps, "objective_of", lambda task: explodes)
    with pytest.raises(SoftPromptError) as caught:
        tune(prepared())
    assert "not finite at step 5" in caught.value.what and "step 3" in caught.value.why
    assert "train.lr=1.0e-02" in caught.value.fix
    kept = artifact.load(tmp_path / "out")
    assert kept.manifest["training"]["stopped"] == "nan" and kept.manifest["training"]["best_step"] == 3
    assert all(t.isfinite().all() for t in warm_start.vectors(str(kept.path), "default").values())


def test_a_tuned_prompt_is_not_overwritten(prepared, tmp_path):
    tune(prepared())
    before = tensors_of(tmp_path / "out")
    with pytest.raises(SoftPromptError) as caught:
        tune(prepared(seed=1))
    assert "--overwrite" in caught.value.fix and tensors_of(tmp_path / "out") == before
    tune(prepared(seed=1), overwrite=True)
    assert tensors_of(tmp_path / "out") != before


def test_another_seed_is_another_recipe(prepared):
    with pytest.raises(Interrupted):
        tune(prepared(), hooks=Hooks(should_stop=iter([False, True]).__next__))
    with pytest.raises(SoftPromptError, match="was 0, is 1"):
        tune(prepared(seed=1))
    assert tune(prepared(seed=1), restart=True).outcome.step == 7


def test_seeds(prepared, tmp_path):
    for seed, output in ((0, "a"), (0, "b"), (1, "c")):
        tune(prepared(seed=seed, output=output, options={"init": "random"}))
    a, b, c = (tensors_of(tmp_path / name) for name in "abc")
    assert a == b and a != c


def test_warm_start_from_another_prompt(prepared, tmp_path):
    tune(prepared(output="first"))
    options = {"init": "artifact", "artifact": str(tmp_path / "first")}
    method = prepared(output="second", options=options).method
    assert torch.equal(method.table[0], warm_start.vectors(str(tmp_path / "first"), "default")["after"])
    with pytest.raises(SoftPromptError, match="no prefix"):
        prepared("prefix-tuning", options=options)


def test_names_that_are_not_known(prepared):
    with pytest.raises(SoftPromptError, match="did you mean 'prompt-tuning'"):
        prepared("promt-tuning")
    with pytest.raises(SoftPromptError, match="did you mean 'placement'"):
        prepared(options={"placment": "after"})


def test_each_metric_says_how_many_rows_it_counted():
    from softprompt.evaluation.metric_intervals import Score
    from softprompt.evaluation.records import Evaluation, Record

    records = [Record("a", "b", ("b",), 0, 1.0, 1)] * 5
    scores = {"perplexity": Score(2.0, 1.5, 2.5, 5), "chrf": Score(50.0, 40.0, 60.0, 3)}
    shown = Evaluation(scores, records).to_json()
    assert shown["rows"] == {"perplexity": 5, "chrf": 3} and shown["n"] == 5
