"""Prompts of one table learn to be attached together."""

from __future__ import annotations

import pytest
import torch

from softprompt.artifacts.arithmetic import concatenate
from softprompt.artifacts.sinks import one_sink
from softprompt.config.load import recipe_from_dict
from softprompt.errors import SoftPromptError
from softprompt.methods import build, option_names
from softprompt.training import together
from softprompt.training.prepare import prepare
from softprompt.training.tune import tune

NAMES = ("a", "b", "c")
ROWS = [{"request": f"say {i}", "answer": "yes it is", "name": NAMES[i % 3]} for i in range(9)]


def recipe(tmp_path, **sections):
    tree = {
        "data": {"train": "rows in memory", "prompt_field": "name"},
        "template": {"input": "{{ request }}", "target": "{{ answer }}"},
        "task": {"objective": "distil"},
        "teacher": {"texts": {name: {"context": f"{name * 3} answers."} for name in NAMES}},
        "method": {"name": "prefix-tuning", "length": 3, "placement": "before", "freeze_first": True},
        "train": {"steps": 4, "batch_size": 3, "together": True, "dtype": "float32"},
        "output": str(tmp_path / "out"),
    }
    for key, value in sections.items():
        tree[key] = {**tree[key], **value}
    return recipe_from_dict(tree, method_option_names=option_names())


def test_a_combination_is_its_prompts_joined(llama, setting, perturb):
    table = perturb(
        build("prefix-tuning", setting(llama, prompts=NAMES), {"length": 3, "placement": "before"})
    )
    method = together.Together(table, [(0,), (1,), (2,), (2, 0), (1, 2, 0)], llama, has_sink=True)
    rows = method(torch.tensor([3, 1, 4, 3])).kv_before
    alone = [table(torch.tensor([i])) for i in range(3)]
    for row, numbers in enumerate([(2, 0), (1,), (1, 2, 0), (2, 0)]):
        expected = concatenate(one_sink([alone[i] for i in numbers], [True] * len(numbers)), llama).kv_before
        length = expected.mask.shape[1]
        assert rows.mask[row].sum() == length
        for got, right in zip(rows.layers, expected.layers, strict=True):
            torch.testing.assert_close(got.key[row, :, -length:], right.key[0])
            torch.testing.assert_close(got.value[row, :, -length:], right.value[0])


def test_each_row_has_the_teacher_of_its_prompt_and_sees_others(llama, tmp_path):
    run = prepare(recipe(tmp_path), lm=llama, rows=ROWS, dev_rows=ROWS)
    read = together.expanded(run)
    assert len(read.train) == 9 * 2  # four steps of three rows read nine rows twice, at most
    assert read.combinations[:3] == ((0,), (1,), (2,)) and len(read.combinations) > 4
    for example, row in zip(read.train, [*run.train, *run.train], strict=True):
        assert row.prompt in read.combinations[example.prompt] and example.teacher is row.teacher
    starts = {
        tuple(run.method(torch.tensor([i])).kv_before.layers[0].key.flatten().tolist()) for i in range(3)
    }
    assert len(starts) == 3  # each prompt starts as its own text
    alone = recipe(tmp_path, teacher={"texts": None, "context": "bbb answers."}, train={"together": False})
    b_rows = [row for row in ROWS if row["name"] == "b"]
    of_b = prepare(alone, lm=llama, rows=b_rows, dev_rows=b_rows).train
    for left, right in zip(of_b, (e for e in run.train if e.prompt == 1), strict=True):
        assert left.teacher is not None and right.teacher is not None
        assert all(torch.equal(a, b) for a, b in zip(left.teacher, right.teacher, strict=True))


def test_a_run_of_several_texts_is_tuned_and_found_again(llama, tmp_path):
    run = tune(prepare(recipe(tmp_path), lm=llama, rows=ROWS, dev_rows=ROWS))
    assert run.artifact.prompts == NAMES and run.artifact.manifest["data"]["rows"] == 9
    kept = run.artifact.manifest["recipe"]["teacher"]["texts"]
    assert all(set(text.values()) - {None} == {text["sha256"]} for text in kept.values())
    assert tune(prepare(recipe(tmp_path), lm=llama, rows=ROWS, dev_rows=ROWS)).was_finished


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"method": {"placement": "after"}}, "placement=after"),
        ({"method": {"name": "llama-adapter", "placement": None, "freeze_first": None}}, "cannot be joined"),
        ({"train": {"together": 4}}, "4 prompts cannot be seen at once"),
        ({"teacher": {"texts": {"a": {"context": "x"}}}}, "prompt 'b' has no text"),
        ({"base": {"mode": "lora"}}, "base.mode=lora"),
    ],
)
def test_what_is_refused(llama, tmp_path, sections, words):
    sections = {"base": {}, **sections}
    with pytest.raises(SoftPromptError, match=words):
        prepare(_cleaned(tmp_path, sections), lm=llama, rows=ROWS, dev_rows=ROWS)


def _cleaned(tmp_path, sections):
    tree = recipe(tmp_path).to_dict()
    for key, value in sections.items():
        tree[key] = {k: v for k, v in {**tree[key], **value}.items() if v is not None}
    return recipe_from_dict(tree, method_option_names=option_names())
