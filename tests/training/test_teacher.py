"""`task.objective: distil`: rows with a teacher's distributions, and runs that learn them."""

from __future__ import annotations

import pytest
import torch

import softprompt
from softprompt.cache.teacher import TeacherDistributions
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import batch_of_ids, collate
from softprompt.errors import SoftPromptError
from softprompt.lm.divergence import divergence
from softprompt.training.prepare import prepare
from softprompt.training.tune import Hooks, Interrupted, tune

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss"]
ROWS = [{"input": f"{word} {i}", "target": word[::-1] + "!" * (i % 3)} for i, word in enumerate(WORDS * 2)]
TEXT = "always say the word backwards, and shout"


@pytest.fixture
def prepared(model_folder, tmp_path):
    """`prepared(method=…, teacher=…)`: a fresh process's start of the same small run."""

    def make(method="prefix-tuning", *, output="out", teacher=None, options=None, template=None, **train):
        recipe = recipe_from_dict(
            {
                "model": str(model_folder),
                "data": {"train": "rows"},
                "template": template or {},
                "task": {"objective": "distil", "max_new_tokens": 3},
                "teacher": teacher or {"context": TEXT, "top_k": 5},
                "method": {"name": method, "length": 3, **(options or {})},
                "train": {
                    "steps": 7,
                    "batch_size": 4,
                    "eval_every": 3,
                    "dtype": "float32",
                    "cache_folder": str(tmp_path / "cache"),
                    **train,
                },
                "output": str(tmp_path / output),
            }
        )
        return prepare(recipe, rows=ROWS[:12], dev_rows=ROWS[12:])

    return make


def test_the_teacher_reads_the_text_ahead_of_each_input(prepared):
    """Each row's distributions against the model's on text, input and target, row by row."""
    run = prepared()
    lm = run.lm
    for example in [*run.train[:3], run.dev[0]]:
        row = lm.text_ids(f"{TEXT}\n\n{example.rendered.input}")
        with torch.no_grad():
            logits = lm.model(torch.tensor([[*row, *example.target_ids]])).logits[0, len(row) - 1 : -1]
        ids, logprobs = example.teacher
        values, order = logits.log_softmax(-1).topk(5)
        assert ids.tolist() == order.tolist()
        torch.testing.assert_close(logprobs, values, atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_mean_over_tokens(prepared):
    from softprompt.training.losses import teacher_divergences

    run = prepared()
    batch = collate(run.train[:5])
    losses = teacher_divergences(run.lm, run.method, batch)
    assert len(losses.values) == sum(len(e.target_ids) for e in run.train[:5])
    for i, example in enumerate(run.train[:5]):
        logits = run.lm.logits(
            batch_of_ids([example.input_ids], [example.target_ids]), run.method(torch.tensor([0]))
        )
        torch.testing.assert_close(losses.values[losses.rows == i], divergence(logits[0], *example.teacher))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("prompt-tuning", {"placement": "before"}),
        ("prefix-tuning", {"placement": "after"}),
        ("prefix-tuning", {"placement": "before"}),
        ("generated-prefix", {}),
    ],
)
def test_it_comes_nearer_to_the_teacher(prepared, method, options):
    run = tune(prepared(method, options=options, steps=30, lr=0.05))
    assert list(run.dev.metrics)[:2] == ["kl", "agreement"]
    assert run.dev.metrics["kl"].value < run.plain.metrics["kl"].value
    sums = sum(r.divergence for r in run.dev.records) / sum(r.tokens for r in run.dev.records)
    assert run.dev.metrics["kl"].value == pytest.approx(sums)


def test_a_run_that_was_stopped_ends_with_the_same_bytes(prepared, tmp_path):
    tune(prepared(output="whole"))
    with pytest.raises(Interrupted):
        tune(prepared(output="cut"), hooks=Hooks(should_stop=iter([False, False, True]).__next__))
    tune(prepared(output="cut"))
    whole, cut = ((tmp_path / name / "prompt.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_another_text_is_another_run(prepared):
    tune(prepared())
    with pytest.raises(SoftPromptError):
        tune(prepared(teacher={"context": TEXT + "?"}))


def test_a_second_run_computes_nothing(prepared, monkeypatch):
    first = prepared(output="one")
    monkeypatch.setattr(TeacherDistributions, "compute", lambda self, examples: pytest.fail("computed again"))
    second = prepared(output="two")
    assert torch.equal(first.train[0].teacher[1], second.train[0].teacher[1])


def test_the_prefix_starts_as_the_keys_of_the_text(prepared):
    run = prepared(options={"placement": "before"})
    ids = run.lm.text_ids(TEXT)[:3]
    start = run.method(torch.tensor([0])).kv_before
    for layer, expected in zip(start.layers, run.lm.kv_of(ids), strict=True):
        torch.testing.assert_close(layer.key, expected.key)
        torch.testing.assert_close(layer.value, expected.value)


def test_the_saved_prompt_is_one_like_any_other(prepared, tmp_path):
    run = tune(prepared())
    tuned = softprompt.open_prompt(tmp_path / "out", run.prepared.lm)
    assert tuned.generate("sun 1")
    assert "perplexity" in tuned.evaluate(ROWS[:2]).metrics


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"task": {"objective": "distil"}}, "needs the teacher's text"),
        ({"teacher": {"context": "a"}}, "only with `task.objective: distil`"),
        ({"task": {"objective": "distil"}, "teacher": {"context": "a", "file": "b"}}, "not both"),
        (
            {"task": {"kind": "classification", "objective": "distil"}, "teacher": {"context": "a"}},
            "generation",
        ),
    ],
)
def test_recipes_that_do_not_fit(recipe, words):
    with pytest.raises(SoftPromptError, match=words):
        recipe_from_dict({"data": "rows.jsonl", **recipe})


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"context": "  "}, "empty"),
        ({"file": "/nowhere/a.txt"}, "cannot be read"),
        ({"context": "a" * 400}, "fit"),
    ],
)
def test_texts_that_do_not_do(prepared, teacher, words):
    with pytest.raises(SoftPromptError) as caught:
        prepared(teacher=teacher)
    assert words in str(caught.value)


def test_without_a_teacher_a_recipe_is_written_as_before():
    content = recipe_from_dict({"data": "rows.jsonl"}).to_dict()
    assert "teacher" not in content and "objective" not in content["task"]
