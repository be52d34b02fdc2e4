"""Rows without a recipe: what is written, what is measured, and how it is cut to a time."""

from __future__ import annotations

import json

import pytest

from softprompt.compare.candidates import candidates_of
from softprompt.config.load import load_recipe
from softprompt.errors import SoftPromptError
from softprompt.recommend import quickstart, time_budget, time_cuts
from softprompt.recommend.quickstart import start


@pytest.fixture
def begun(tmp_path, model_folder, monkeypatch):
    """`begun(rows, *overrides)`: a start in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def begin(rows, *overrides, **how):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return start("rows.jsonl", [f"model={model_folder}", "dtype=float32", *overrides], None, **how)

    return begin


def labelled(count):
    return [{"text": f"row {i}", "label": ("good", "bad")[i % 2]} for i in range(count)]


def answered(count, words=3):
    return [{"question": f"what {i}", "answer": f"it is {i}" + " so" * words} for i in range(count)]


def test_labels_become_a_classification(begun, tmp_path):
    made = begun(labelled(40))
    assert made.path == (tmp_path / "runs/rows-compare/rows.yaml").relative_to(tmp_path)
    read = load_recipe(made.path)
    assert read.data.train == str(tmp_path / "rows.jsonl")
    assert read.task.kind == "classification" and read.task.labels == ["bad", "good"]
    assert [one.name for one in candidates_of(read)][-3:] == ["zero-shot", "few-shot", "tf-idf"]
    assert read.compare.output == "runs/rows-compare" and read.compare.unseen is None
    assert made.seconds is not None and made.seconds > 0 and not made.limits
    assert "softprompt compare runs/rows-compare/rows.yaml" in made.path.read_text()


def test_answers_become_a_generation_and_cuts_are_reported(begun):
    made = begun(answered(600, words=200), "max_input_tokens=20")
    read = load_recipe(made.path)
    assert read.task.kind == "generation" and "tf-idf" not in (read.compare.methods or [])
    # the tiny model reads 256 tokens, and an eighth of them may be the answer
    assert read.data.limit == 400 and read.data.max_target_tokens == 32 and read.task.max_new_tokens == 32
    assert read.compare.unseen is not None and read.compare.unseen.clusters == 8
    message = " ".join(made.limits)
    assert "data.limit" in message and "32 tokens" in message and "24 test rows" in message


def test_embedding_rows_become_an_embedding_task(begun, bert_folder):
    rows = [{"sentence1": f"w{i}", "sentence2": f"w{i} w{i + 1}", "score": i % 6} for i in range(40)]
    begun(rows, f"model={bert_folder}")
    read = load_recipe("runs/rows-compare/rows.yaml")
    assert (read.task.kind, read.task.score, read.task.score_range) == ("embedding", "score", (0.0, 5.0))
    assert read.model.id == str(bert_folder) and read.train.batch_size == 12  # half of what is learned from
    names = [candidate.name for candidate in candidates_of(read)]
    assert "zero-shot" in names and not {"few-shot", "tf-idf"} & set(names)


def test_a_named_regression_predicts_the_score_of_two_texts(begun, bert_folder):
    rows = [{"sentence1": f"w{i}", "sentence2": f"w{i} w{i + 1}", "score": i % 6} for i in range(40)]
    begun(rows, f"model={bert_folder}", "task.kind=regression")
    read = load_recipe("runs/rows-compare/rows.yaml")
    assert (read.task.kind, read.template.target) == ("regression", "{{ score }}")
    assert all(f"{{{{ {name} }}}}" in read.template.input for name in ("sentence1", "sentence2"))
    assert "Label" not in read.template.input


def test_int8_weights_leave_out_the_method_that_trains_the_base(begun):
    read = load_recipe(begun(labelled(40), "weights=int8").path)
    names = [candidate.name for candidate in candidates_of(read)]
    assert read.train.weights == "int8" and "prompt-tuning/after" in names and "lora" not in names


def test_a_head_has_the_labels_of_the_rows(begun):
    read = load_recipe(begun(labelled(40), "task.kind=classification", "task.head=true").path)
    assert read.task.needs_head and read.task.labels == ["bad", "good"]
    assert not {"zero-shot", "few-shot"} & {each.name for each in candidates_of(read)}


def test_a_named_embedding_task_takes_the_model_for_vectors_of_texts(monkeypatch, tmp_path):
    """The names of the fields do not tell the task. `choose --task embedding` takes the same model."""

    def loaded(recipe, labels=None):
        raise SoftPromptError(f"{recipe.model.id} as {recipe.task.kind}")

    monkeypatch.setattr(quickstart, "load_base", loaded)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answered(40)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SoftPromptError, match="minilm as embedding"):
        start("rows.jsonl", ["task.kind=embedding"], None)
    with pytest.raises(SoftPromptError, match="mine as embedding"):
        start("rows.jsonl", ["task.kind=embedding", "model=mine"], None)
    with pytest.raises(SoftPromptError, match="smollm2 as generation"):
        start("rows.jsonl", [], None)


def test_a_recipe_that_is_there_is_what_counts(begun, tmp_path):
    first = begun(labelled(40))
    first.path.write_text(first.path.read_text().replace("Label:", "Mood:"))
    again = begun(labelled(40), "steps=3")
    assert again.existed and "Mood:" in again.path.read_text()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/rows.jsonl").write_text('{"text": "a", "label": "b"}\n')
    with pytest.raises(SoftPromptError, match="other rows"):
        start("elsewhere/rows.jsonl", [], None)


def test_values_of_the_command_line_are_kept_and_written(begun, monkeypatch):
    monkeypatch.setattr(
        time_budget, "measure", lambda *a, **k: time_budget.MeasuredSeconds({"prompt-tuning/after": 1.0}, 0.1)
    )
    message = (
        "steps=99",
        "seeds=2",
        "length=3",
        "dev_fraction=0.25",
        "methods=[prompt-tuning/after, zero-shot]",
    )
    made = begun(labelled(40), *message, within=700.0)
    read = load_recipe(made.path)
    assert (read.train.steps, read.compare.seeds, read.data.dev_fraction) == (99, 2, 0.25)
    assert read.method.options()["length"] == 3 and read.train.dtype == "float32"
    assert read.compare.methods == ["prompt-tuning/after", "zero-shot"]
    assert made.seconds is not None and made.seconds <= 700 and len(read.compare.rates) < 4
    assert read.compare.within == 700 and any("learning rates" in cut for cut in made.cuts)


@pytest.mark.parametrize("slow", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("rows", [100, 4000])
def test_a_first_comparison_ends_within_its_time(begun, monkeypatch, slow, rows):
    def measured(recipe, lm, rows, workers=1):
        step = {one.name: 20 * slow for one in candidates_of(recipe) if not one.is_reference}
        return time_budget.MeasuredSeconds(step, slow, 0.0)

    monkeypatch.setattr(time_budget, "measure", measured)
    made = begun(labelled(rows))
    read = load_recipe(made.path)
    assert made.seconds is not None and made.seconds <= 1800 and read.compare.within == 1800
    assert len([one for one in candidates_of(read) if not one.is_reference]) >= 2
    if slow > 0.01:  # what was cut is reported, and is less than there was
        assert made.cuts and read.train.steps < 150


def test_too_short_a_time_is_refused_before_anything_runs(begun, monkeypatch):
    monkeypatch.setattr(
        time_budget, "measure", lambda *a, **k: time_budget.MeasuredSeconds({"prompt-tuning/after": 2.0}, 0.2)
    )
    with pytest.raises(SoftPromptError, match="too short") as error:
        begun(labelled(40), within=60.0)
    enough = error.value.fix.removeprefix("--within ").partition("m")[0]
    made = begun(labelled(40), within=60.0 * int(enough))  # the fix does
    assert made.seconds is not None and made.seconds <= 60 * int(enough)


@pytest.mark.parametrize(
    ("rows", "message"),
    [(labelled(12), "too few"), ([{"a": "x", "b": "y", "c": "z"}] * 30, "not clear")],
)
def test_rows_that_will_not_do(begun, rows, message):
    with pytest.raises(SoftPromptError, match=message) as error:
        begun(rows, "model=no/such/model")  # reported before a model is looked for
    assert error.value.fix


def test_it_is_cut_to_the_time_as_little_as_will_do():
    levels = {"train.steps": (150, 100, 75, 50, 30), "compare.rates": time_cuts.RATES}

    def seconds(settings):
        return settings["train.steps"] * (len(settings["compare.rates"]) + 3)

    assert time_cuts.fit(seconds, 10_000, levels)[0] == {
        "train.steps": 150,
        "compare.rates": time_cuts.RATES[0],
    }
    settings, time = time_cuts.fit(seconds, 400, levels)
    assert settings["train.steps"] == 50 and len(settings["compare.rates"]) == 4 and time == 350
    settings, time = time_cuts.fit(seconds, 190, levels)
    assert settings["train.steps"] == 30 and len(settings["compare.rates"]) == 3 and time == 180
    settings, time = time_cuts.fit(seconds, 1, levels)
    assert settings["train.steps"] == 30 and len(settings["compare.rates"]) == 1 and time == 120


def test_what_a_later_cut_made_needless_is_not_cut():
    levels = {"train.steps": (150, 100), "data.limit": (400, 10)}

    def seconds(settings):  # only rows count
        return settings["data.limit"]

    assert time_cuts.fit(seconds, 20, levels) == ({"train.steps": 150, "data.limit": 10}, 10)


def test_hints_lower_what_is_there(begun):
    hints = ("steps=20", "seeds=2", "methods=[prompt-tuning/after, prefix-tuning/after, zero-shot]")
    read = load_recipe(begun(labelled(40), *hints).path)
    message = time_cuts.less(read)
    assert message[:2] == ["steps=10", "seeds=1"] and "prefix-tuning/after" in message[-1]
    from softprompt.config.load import recipe_from_dict

    changed = recipe_from_dict(read.to_dict(), overrides=[hint.strip("'") for hint in message])
    pace, counts = (
        time_budget.MeasuredSeconds({"prompt-tuning/after": 1.0}, 0.1),
        time_budget.Counts(30, 5, 5),
    )
    assert pace.seconds(changed, counts) < pace.seconds(read, counts)


def test_paces_are_measured_by_kind_and_what_was_trained_is_left_as_it_was(begun):
    read = load_recipe(begun(answered(40), "methods=[prompt-tuning/after, prefix-tuning/after, lora]").path)
    from softprompt.data.sources import read_rows
    from softprompt.lm.from_recipe import load_base

    pace = time_budget.measure(read, load_base(read), read_rows(read.data.train))
    assert pace.step["prompt-tuning/after"] == pace.step["prefix-tuning/after"] > 0
    assert pace.step["lora"] > 0 and pace.row > 0 and pace.text > 0


def test_more_of_anything_takes_longer(begun):
    read = load_recipe(begun(answered(40), "methods=[prompt-tuning/after, few-shot]").path)
    read = read.model_copy(
        update={"compare": read.compare.model_copy(update={"methods": ["prompt-tuning/after", "few-shot"]})}
    )
    pace = time_budget.MeasuredSeconds({"prompt-tuning/after": 0.1}, 0.01, 0.5)
    counts = time_budget.Counts(100, 20, 30)
    least = pace.seconds(read, counts)
    assert least > (len(read.compare.rates) + read.compare.seeds) * read.train.steps * 0.1
    for changed in (
        read.model_copy(update={"train": read.train.model_copy(update={"steps": 300})}),
        read.model_copy(update={"compare": read.compare.model_copy(update={"seeds": 5})}),
        read.model_copy(update={"compare": read.compare.model_copy(update={"shots": 8})}),
    ):
        assert pace.seconds(changed, counts) > least
    assert pace.seconds(read, time_budget.Counts(200, 40, 60)) > least
