"""A module that the user built is taken where a method is named."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tests.conftest import HIDDEN, tiny_model, tiny_tokenizer
from tests.lm.test_close import differences, snapshot

import softprompt
from softprompt import SoftPromptError, methods
from softprompt._system import notes
from softprompt.injection import Injection, SoftTokens
from softprompt.methods.base import SoftPrompt

ROWS = [{"input": f"row {i}", "target": ("good", "bad")[i % 2]} for i in range(12)]


class Mine(SoftPrompt):
    """Two vectors times a scale, ahead of the input."""

    lr = 2e-2

    def __init__(self, length=2, width=HIDDEN, prompts=1):
        super().__init__()
        self.length, self.num_prompts = length, prompts
        start = torch.linspace(-0.1, 0.1, prompts * length * width)
        self.vectors = torch.nn.Parameter(start.view(prompts, length, width))
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, prompt_ids, inputs=None):
        vectors = self.vectors[prompt_ids] * self.scale
        return Injection(before=SoftTokens(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool)))

    @staticmethod
    def build(setting, *, length: int = 2) -> SoftPrompt:
        return Mine(length, setting.lm.spec.hidden_size, len(setting.prompts))


@pytest.fixture
def registry(monkeypatch):
    """Take back what a test registered."""
    before = set(methods.METHODS)
    yield
    for name in set(methods.METHODS) - before:
        del methods.METHODS[name]


@pytest.fixture
def lm(model_folder):
    return softprompt.load(str(model_folder), dtype="float32")


def test_tune_trains_a_copy_and_says_what_other_processes_need(registry, lm, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(notes, "_shown", set())
    mine = Mine()
    before = copy.deepcopy(mine.state_dict())
    tuned = softprompt.tune(lm, mine, ROWS, output=tmp_path / "run", steps=3)
    name = tuned.recipe.method.name
    assert name.startswith("Mine-") and f"methods.register('{name}', Mine)" in caplog.text
    assert all(torch.equal(mine.state_dict()[key], before[key]) for key in before)
    assert not torch.equal(tuned.method.vectors, mine.vectors)
    answer = tuned.generate("row 3", max_new_tokens=4)
    assert tuned.evaluate(ROWS[:2]).metrics
    again = softprompt.open_prompt(tmp_path / "run", lm)
    assert again.generate("row 3", max_new_tokens=4) == answer
    del methods.METHODS[name]  # as in another process
    with pytest.raises(SoftPromptError, match="is not installed"):
        softprompt.open_prompt(tmp_path / "run", lm)
    methods.register(name, Mine)
    trained = softprompt.open_prompt(tmp_path / "run", lm).artifact.method(lm, trainable=True)
    assert torch.equal(trained.vectors, tuned.method.vectors)


def test_the_first_step_is_that_of_the_module_itself(registry, lm, tmp_path):
    """AdamW's first step is the learning rate times the gradient's sign."""
    mine = Mine()
    settings = {"steps": 1, "warmup": 0.0, "schedule": "constant", "clip": 0.0, "lr": 1e-3, "batch_size": 9}
    tuned = softprompt.tune(lm, mine, ROWS, output=tmp_path / "run", **settings)
    moved = (tuned.method.vectors - mine.vectors).abs()
    assert moved.max() <= 1.001e-3 and moved.median() > 0.9e-3


def test_another_start_is_another_run(registry, lm, tmp_path):
    softprompt.tune(lm, Mine(), ROWS, output=tmp_path / "run", steps=2)
    other = Mine()
    with torch.no_grad():
        other.scale.fill_(2.0)
    with pytest.raises(SoftPromptError, match="Mine-"):
        softprompt.tune(lm, other, ROWS, output=tmp_path / "run", steps=2)
    assert softprompt.tune(lm, Mine(), ROWS, output=tmp_path / "run", steps=2).metrics  # the finished one


def test_a_registered_class_is_saved_under_its_name(registry, lm, tmp_path):
    methods.register("mine", Mine)
    mine = Mine(3)
    with torch.no_grad():
        mine.scale.fill_(2.0)
    tuned = softprompt.tune(lm, mine, ROWS, output=tmp_path / "run", steps=2, lr=1e-4)
    assert tuned.recipe.method.name == "mine" and tuned.recipe.method.options() == {"length": 3}
    assert abs(tuned.method.scale.item() - 2) < 1e-2  # it started from the module's values
    trained = tuned.artifact.method(lm, trainable=True)
    assert torch.equal(trained.vectors, tuned.method.vectors)
    with torch.no_grad():
        mine.scale.fill_(3.0)
    with pytest.raises(SoftPromptError, match="tuned prompt") as error:
        softprompt.tune(lm, mine, ROWS, output=tmp_path / "run", steps=2, lr=1e-4)
    assert "the values that the module starts from" in str(error.value)
    mine.length = 5
    with pytest.raises(SoftPromptError, match="options of this Mine"):
        softprompt.tune(lm, mine, ROWS, output=tmp_path / "other", steps=2)
    assert not (tmp_path / "other").exists()


def test_a_search_copies_the_module(registry, lm, tmp_path):
    mine = Mine()
    tuned = softprompt.search(lm, mine, ROWS, {"lr": [1e-3, 1e-2]}, output=tmp_path / "search", steps=2)
    assert len(tuned) == 2 and not torch.equal(tuned[0].method.vectors, tuned[1].method.vectors)
    with pytest.raises(SoftPromptError, match="length cannot be searched"):
        softprompt.search(lm, mine, ROWS, {"length": [1, 2]}, output=tmp_path / "other")


@pytest.mark.slow
def test_compare_takes_a_module(registry, model_folder, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({**row, "input": f"{i}"}) + "\n" for i, row in enumerate(ROWS * 3)))
    compared = {"methods": {"mine": Mine()}, "seeds": 1, "rates": [1e-2], "control": False, "serving": False}
    recipe = {"model": str(model_folder), "data": {"train": str(file)}, "task": {"kind": "classification"}}
    recipe |= {"train": {"steps": 2, "dtype": "float32"}, "compare": compared}
    comparison = softprompt.compare_methods(recipe, tmp_path / "compared", report=False)
    (contestant,) = comparison.study.contestants
    assert contestant.name == "mine" and contestant.method.startswith("Mine-")
    assert all(trial.error is None for trial in comparison.trials)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Mine(width=HIDDEN + 1), "do not fit the model"),
        (Mine(prompts=2), "has 2 prompts, and 1 are needed"),
        (Mine().requires_grad_(False), "nothing to train"),
    ],
)
def test_a_module_that_does_not_suit_is_refused_at_once(registry, module, message, lm, tmp_path):
    with pytest.raises(SoftPromptError, match=message):
        softprompt.tune(lm, module, ROWS, output=tmp_path / "run", steps=2)
    assert not (tmp_path / "run").exists()
    base = tiny_model("llama")
    before = snapshot(base)
    with pytest.raises(SoftPromptError, match=message):
        softprompt.attach(base, tiny_tokenizer(), module)
    assert not differences(before, snapshot(base))
