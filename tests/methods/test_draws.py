"""`draws`: several starts are drawn, and the one with the smallest loss on training rows is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from softprompt import methods
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import collate
from softprompt.errors import SoftPromptError
from softprompt.methods.materialised import Materialised
from softprompt.training.losses import next_token
from softprompt.training.prepare import prepare

ROWS = [{"input": f"{i} and {i + 1}", "target": f"{i + 2}"} for i in range(10)]
CASES = [("prefix-tuning", "context"), ("prefix-tuning", "random"), ("prompt-tuning", "vocab")]


def vectors(method, prompt: int = 0):
    return [value.detach() for value in method.state_dict().values() if value.shape[0] > prompt]


@pytest.mark.parametrize(("name", "init"), CASES)
@pytest.mark.parametrize("placement", ["before", "after"])
def test_the_best_draw_is_kept(llama, name, init, placement):
    """The kept start has the smallest loss of all draws, as computed here, and one draw is as it was."""
    options = {"name": name, "init": init, "length": 3, "placement": placement}

    def made(**more):
        recipe = recipe_from_dict({"data": {"train": "x"}, "method": options | more, "train": {"seed": 3}})
        return prepare(recipe, lm=llama, rows=ROWS, dev_rows=ROWS[:2])

    run = made(draws=5)
    batch, seen = collate(run.train, llama.device), {}

    def loss(index, injection):
        with torch.no_grad():
            seen[len(seen)] = next_token(llama, Materialised([injection]), batch).item()
        return seen[len(seen) - 1]

    rows = tuple((*example.input_ids, *example.target_ids) for example in run.train)
    setting = methods.Setting(llama, examples=rows, examples_by_prompt={0: rows}, seed=3, start_loss=loss)
    chosen = {key: value for key, value in options.items() if key != "name"}
    again = methods.build(name, setting, chosen | {"draws": 5})
    assert len(seen) == 5 and len(set(seen.values())) == 5
    for a, b in zip(again.state_dict().values(), run.method.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    first = methods.build(name, replace(setting, start_loss=None), chosen)
    kept = methods.build(name, replace(setting, start_loss=lambda i, injection: 0.0), chosen | {"draws": 5})
    for a, b in zip(first.state_dict().values(), kept.state_dict().values(), strict=True):
        assert torch.equal(a, b)  # of equals the first, which is the start without draws
    with torch.no_grad():
        ours = next_token(llama, run.method, batch).item()
    assert ours == pytest.approx(min(seen.values()), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"draws": 0}, "method.draws=0 is not valid"),
        ({"draws": 3, "init": "text", "text": "a"}, "no effect with init=text"),
        ({"draws": 3, "init": "labels"}, "no effect with init=labels"),
        ({"draws": 3}, "needs training rows"),
    ],
)
@pytest.mark.parametrize("name", ["prompt-tuning", "prefix-tuning"])
def test_draws_that_cannot_be_compared_are_errors(llama, setting, name, options, text):
    with pytest.raises(SoftPromptError) as caught:
        methods.build(name, setting(llama), options)
    assert text in caught.value.what and caught.value.why and caught.value.fix


def test_pairs_are_refused(llama):
    rows = [{"prompt": f"{i}", "chosen": "5", "rejected": "6"} for i in range(6)]
    method = {"name": "prefix-tuning", "draws": 2}
    task = {"kind": "preference"}
    recipe = recipe_from_dict({"data": {"train": "x"}, "task": task, "method": method})
    with pytest.raises(SoftPromptError, match="preference"):
        prepare(recipe, lm=llama, rows=rows, dev_rows=rows[:2])
