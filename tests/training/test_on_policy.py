"""`teacher.on_policy`: the student answers training rows, and the teacher scores its answers."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import pytest
import torch

import softprompt
from softprompt import methods
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.lm import families
from softprompt.lm.divergence import divergence
from softprompt.lm.seq2seq import Seq2SeqLM
from softprompt.testing.material import tiny_tokenizer
from softprompt.training import on_policy
from softprompt.training.prepare import prepare
from softprompt.training.step import TrainStep
from softprompt.training.tune import Hooks, Interrupted, tune, tune_many

WORDS = ["sun", "mud", "cake", "rain", "song", "ache"]
ROWS = [
    {"input": f"{word} {i}", "target": word[::-1], "name": "ab"[i % 2]} for i, word in enumerate(WORDS * 2)
]
TEXTS = {"a": "always say the word backwards", "b": "shout"}
NEW = 4  # task.max_new_tokens


@pytest.fixture(scope="module")
def lm(model_folder):
    return softprompt.load(str(model_folder), dtype="float32")


@pytest.fixture
def prepared(lm, tmp_path, monkeypatch):
    """`prepared(method=…, share=…)`: a fresh start of the same small run. A round is of three steps."""
    monkeypatch.setattr(on_policy, "EVERY", 3)

    def make(
        method="prefix-tuning", *, share=0.5, output="out", model=lm, options=None, texts=False, **train
    ):
        teacher = {"texts": {name: {"context": text} for name, text in TEXTS.items()}}
        recipe = recipe_from_dict(
            {
                "model": "in memory",
                "data": {"train": "rows", **({"prompt_field": "name"} if texts else {})},
                "task": {"objective": "distil", "max_new_tokens": NEW},
                "teacher": {
                    **(teacher if texts else {"context": TEXTS["a"]}),
                    **{"top_k": 5, "on_policy": share},
                },
                "method": {"name": method, **({"length": 3} if options is None else options)},
                "train": {
                    **{"steps": 7, "batch_size": 3, "eval_every": 2, "dtype": "float32", "lr": 0.05},
                    **{"cache_folder": str(tmp_path / "cache"), **train},
                },
                "output": str(tmp_path / output),
            }
        )
        return prepare(recipe, lm=model, rows=ROWS[:8], dev_rows=ROWS[8:])

    return make


@pytest.fixture
def steps(monkeypatch):
    """The steps of the runs that follow: (method as it was before, {row number: row}, loss), and the part."""
    taken, whole = [], TrainStep.backward

    def backward(self, chosen):
        ((index, rows),) = chosen
        part = self._parts[index]
        before = copy.deepcopy(part.method)
        (loss,) = whole(self, chosen)
        taken.append((before, {i: part.row(i) for i in rows if i >= 0}, loss, part))
        return [loss]

    monkeypatch.setattr(TrainStep, "backward", backward)
    return taken


def likeliest(probabilities, num_samples, **_):
    """Stand in for torch.multinomial, so that answers can be written by hand. Every token may come."""
    assert num_samples == 1 and bool((probabilities > 0).all())
    return probabilities.argmax(-1, keepdim=True)


def answer_by_hand(lm, method, example):
    ids = []
    while len(ids) < NEW and not (ids and ids[-1] in lm.ends):
        batch = batch_of_ids([example.input_ids], [[*ids, 0]])
        ids.append(int(lm.logits(batch, method(torch.tensor([example.prompt])))[0, -1].argmax()))
    return tuple(ids)


def teacher_by_hand(lm, text, example):
    row = lm.text_ids(f"{text}\n\n{example.rendered.input}")
    logits = lm.model(torch.tensor([[*row, *example.target_ids]])).logits[0, len(row) - 1 : -1]
    return logits.log_softmax(-1).topk(5)


@torch.no_grad()
def check_by_hand(run, steps, texts=(TEXTS["a"],)):
    """Check the answers, the teacher's distributions and the losses of all steps of a run."""
    lm, answered, numbers = run.lm, 0, []
    for number, (method, rows, loss, part) in enumerate(steps):
        first = steps[number - number % 3][0]
        losses, of_step = [], []
        for i, row in rows.items():
            example = part.examples[i]
            assert row.input_ids == example.input_ids
            if row is not example:
                of_step.append(i)
                assert row.target_ids == answer_by_hand(lm, first, example)
                known = teacher_by_hand(lm, texts[example.prompt], row)
                assert row.teacher[0].tolist() == known.indices.tolist()
                torch.testing.assert_close(row.teacher[1], known.values, atol=1e-5, rtol=1e-5)
            batch = batch_of_ids([row.input_ids], [row.target_ids])
            logits = lm.logits(batch, method(torch.tensor([row.prompt])))[0]
            losses.append(divergence(logits, *row.teacher))
        torch.testing.assert_close(loss, torch.cat(losses).mean(), atol=1e-5, rtol=1e-4)
        answered += len(of_step)
        numbers.append(of_step)
    return answered, numbers


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("prompt-tuning", {"length": 3, "placement": "before"}),
        ("prefix-tuning", {"length": 3, "placement": "before"}),
        ("prefix-tuning", {"length": 3, "placement": "after"}),
    ],
)
def test_rows_are_the_students_answers_with_the_teachers_distributions(
    prepared, steps, monkeypatch, method, options
):
    """Every step of a run against the same by hand: token by token and row by row."""
    monkeypatch.setattr(torch, "multinomial", likeliest)
    run = tune(prepared(method, options=options)).prepared
    answered, numbers = check_by_hand(run, steps)
    # eight rows in three steps of an epoch: the student answers four of them before each round
    assert 8 <= answered < 7 * 3 and numbers[0] + numbers[1] + numbers[2] != numbers[3] + numbers[4]


def test_each_prompt_has_its_text(prepared, steps, monkeypatch):
    monkeypatch.setattr(torch, "multinomial", likeliest)
    run = tune(prepared(texts=True, share=1)).prepared
    answered, _ = check_by_hand(run, steps, tuple(TEXTS[name] for name in run.prompts))
    assert answered == sum(len(rows) for _, rows, _, _ in steps)  # a share of 1 is all rows


def test_no_share_is_no_answer(prepared, steps, tmp_path):
    tune(prepared(share=0))
    assert all(row is part.examples[i] for _, rows, _, part in steps for i, row in rows.items())
    assert not list(tmp_path.rglob("on_policy-*"))


def test_answers_are_drawn_by_the_seed(prepared, tmp_path):
    """Samples change with the seed, are the same in a second run, and leave the caller's generator alone."""
    state, answers = torch.get_rng_state(), []
    for output, seed in (("one", 0), ("two", 0), ("three", 1)):
        tune(prepared(output=output, seed=seed, share=1, steps=2))
        answers.append((tmp_path / output / "checkpoint" / "on_policy-0.safetensors").read_bytes())
    assert answers[0] == answers[1] != answers[2]
    assert torch.equal(state, torch.get_rng_state())


def stop_after(number):
    return Hooks(should_stop=iter([False] * number + [True]).__next__)


@pytest.mark.parametrize(("method", "stops"), [("prefix-tuning", [2, 3]), ("prompt-tuning", [4])])
def test_resume_is_exact(prepared, tmp_path, method, stops):
    """Runs that stop inside a round and between two, with no cache of the teacher's left."""
    tune(prepared(method, output="whole"))
    for i, stop in enumerate(stops):
        with pytest.raises(Interrupted):
            tune(prepared(method, output=f"cut-{i}"), hooks=stop_after(stop))
        shutil.rmtree(tmp_path / "cache")
        tune(prepared(method, output=f"cut-{i}"))
        whole, cut = ((tmp_path / name / "prompt.safetensors").read_bytes() for name in ("whole", f"cut-{i}"))
        assert whole == cut


def test_resume_without_the_answers(prepared, tmp_path):
    """Answers that are lost are one error, and its fix begins anew; another share is another run."""
    whole = tune(prepared(output="whole")).prepared
    with pytest.raises(Interrupted):
        tune(prepared(), hooks=stop_after(4))
    with pytest.raises(SoftPromptError, match="share of the student's answers"):
        tune(prepared(share=0.25))
    file = tmp_path / "out" / "checkpoint" / "on_policy-3.safetensors"
    for damage in (lambda: file.write_bytes(file.read_bytes()[:50]), file.unlink):
        damage()
        with pytest.raises(SoftPromptError, match=r"on_policy-3.*is damaged") as caught:
            tune(prepared())
        assert "--restart" in str(caught.value.fix)
    again = tune(prepared(), restart=True).prepared
    for a, b in zip(whole.method.parameters(), again.method.parameters(), strict=True):
        assert torch.equal(a, b)


def test_restart_removes_the_answers(prepared, tmp_path):
    with pytest.raises(Interrupted):
        tune(prepared(), hooks=stop_after(4))
    with pytest.raises(Interrupted):
        tune(prepared(), hooks=stop_after(2), restart=True)
    assert [path.name for path in tmp_path.rglob("on_policy-*")] == ["on_policy-0.safetensors"]


@pytest.mark.parametrize("name", sorted(name for name in methods.METHODS if name != "none"))
def test_every_method(prepared, steps, name):
    """All rows of every method are answers of the student, and the loss is finite."""
    options = {"length": 3} if "length" in methods.METHODS[name].options() else {}
    tune(prepared(name, options=options, share=1, steps=4))
    for _, rows, loss, part in steps:
        assert torch.isfinite(loss) and all(row is not part.examples[i] for i, row in rows.items())
        assert all(1 <= len(row.target_ids) <= NEW for row in rows.values())


def test_an_encoder_decoder(prepared, steps, monkeypatch):
    monkeypatch.setattr(torch, "multinomial", likeliest)
    model = Seq2SeqLM(families.tiny("t5"), tiny_tokenizer(), "tiny-t5")
    tune(prepared(model=model, share=1, steps=2))
    with torch.no_grad():
        method, rows, _, part = steps[0]
        for i, row in rows.items():
            assert row.target_ids == answer_by_hand(model, method, part.examples[i])
            text = model.text_ids(f"{TEXTS['a']}\n\n{row.rendered.input}")
            for ids in (text, [*text, *sorted(model.ends)]):  # an encoder's input may have an end token
                known = model.logits(batch_of_ids([ids], [row.target_ids]))[0].log_softmax(-1).topk(5)
                if torch.allclose(row.teacher[1], known.values, atol=1e-5):
                    break
            else:
                pytest.fail("the distributions are not the teacher's")


def test_side_by_side(prepared, tmp_path):
    """Runs that share a pass end as each does alone: with other shares, and general text."""
    (tmp_path / "general.txt").write_text("A fox ran over the hill and sat down near the old mill. " * 6)
    settings = [
        {"seed": 0},
        {"share": 0},
        {"share": 1, "keep": 0.3, "keep_text": str(tmp_path / "general.txt")},
    ]
    settings = [{**each, "steps": 5} for each in settings]
    runs = [prepared(output=f"both-{i}", **each) for i, each in enumerate(settings)]
    tune_many(runs)
    for i, (each, beside) in enumerate(zip(settings, runs, strict=True)):
        alone = prepared(output=f"alone-{i}", **each)
        tune(alone)
        for a, b in zip(beside.method.parameters(), alone.method.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_prompts_that_are_attached_together(prepared, steps, monkeypatch):
    """With `train.together` the student answers under all prompts of a row, the teacher by the row's text."""
    monkeypatch.setattr(torch, "multinomial", likeliest)
    options = {"length": 3, "placement": "before"}
    run = tune(prepared(texts=True, share=1, together=2, options=options)).prepared
    seen = set()
    with torch.no_grad():
        for method, rows, _, part in steps[::3]:
            for i, row in rows.items():
                example = part.examples[i]
                assert row.target_ids == answer_by_hand(run.lm, method, example)
                known = teacher_by_hand(run.lm, TEXTS[example.rendered.row["name"]], row)
                torch.testing.assert_close(row.teacher[1], known.values, atol=1e-5, rtol=1e-5)
                seen.add(row.prompt)
    assert len(seen) > 2  # also combinations


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "generation"}, "on_policy: 0.5` belongs to `task.objective: distil`"),
        ({"base": "lora"}, "needs `base.mode: frozen`"),
        ({"train": {"shard": True}}, "cannot be combined with `train.shard: true`"),
        ({"teacher": {"context": "a", "on_policy": 1.5}}, "on_policy"),
        ({"teacher": {"context": "a", "on_policy": -0.5}}, "on_policy"),
    ],
)
def test_what_cannot_be_is_one_error(changes, words):
    recipe = {
        "data": "rows.jsonl",
        "task": {"objective": "distil"},
        "teacher": {"context": "a", "on_policy": 0.5},
    }
    assert recipe_from_dict(recipe).to_dict()["teacher"]["on_policy"] == 0.5
    with pytest.raises(SoftPromptError) as caught:
        recipe_from_dict(recipe | changes)
    assert words in str(caught.value)


def test_a_model_that_writes_no_text(prepared):
    run = prepared()
    lm = copy.copy(run.lm)
    lm.spec = replace(lm.spec, limits={**lm.spec.limits, "generate": "its code cannot"})
    with pytest.raises(SoftPromptError, match="cannot answer its training rows") as caught:
        tune(replace(run, lm=lm))
    assert caught.value.fix == "teacher.on_policy=0"


def test_a_recipe_without_it_is_written_as_before():
    recipe = {"data": "rows.jsonl", "task": {"objective": "distil"}, "teacher": {"context": "a"}}
    assert "on_policy" not in recipe_from_dict(recipe).to_dict()["teacher"]
