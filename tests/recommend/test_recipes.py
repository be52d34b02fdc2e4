"""Every recipe that `choose` may write is a recipe, and `check` accepts it on a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from softprompt.config.load import load_recipe
from softprompt.data.sources import read_rows
from softprompt.data.template import Template
from softprompt.recommend import CANDIDATES, Requirements, measure, rank, recipes
from softprompt.recommend.infer_fields import Guess
from softprompt.training.prepare import prepare

FIELDS = {"labels": {}, "answers": {"prompt_field": "style"}, "choices": {"choices": "options"}}


@pytest.mark.parametrize("kind", FIELDS)
def test_every_contestant_that_trains_has_a_recipe_that_runs(kind, rows_file, tmp_path, new_lm, model_folder):
    path = rows_file(kind)
    fields = FIELDS[kind]
    template = Template(
        "{{ input }}",
        "{{ target }}",
        prompt_field=fields.get("prompt_field"),
        choices_field=fields.get("choices"),
    )
    needs = measure(read_rows(path), template, new_lm(), Requirements(str(model_folder)))
    inferred = Guess("{{ input }}", "{{ target }}", **fields)
    written = recipes.write(
        rank(needs), needs, str(path), inferred, tmp_path / "recipes", first=len(CANDIDATES)
    )
    trained = [item for item in rank(needs).ranked if item.candidate.is_trained]
    assert len(written) == len(trained) >= 7
    for place, (file, item) in enumerate(zip(written, trained, strict=True), 1):
        assert file.name == f"{place}-{item.candidate.name.replace('/', '-')}.yaml"
        recipe = load_recipe(file)
        prepared = prepare(recipe, lm=new_lm())  # as `check` and `tune` begin
        assert recipe.method.name == item.candidate.method and prepared.trained_parameters > 0
        assert len(prepared.train) + len(prepared.dev) == needs.rows
        assert f"softprompt tune {file}" in file.read_text(encoding="utf-8")


def test_a_recipe_of_few_rows_has_a_batch_that_they_fill(rows_file, llama):
    needs = measure(
        read_rows(rows_file("labels", 10)), Template("{{ input }}", "{{ target }}"), llama, Requirements()
    )
    place = "rows.jsonl", Guess("{{ input }}", "{{ target }}"), Path()
    few = recipes.recipe_of(CANDIDATES["prompt-tuning/after"], needs, *place)
    assert few["train"]["batch_size"] == 5 and yaml.safe_load(yaml.safe_dump(few)) == few
    lora, prefix = CANDIDATES["lora"], CANDIDATES["prefix-tuning/after"]
    many = recipes.recipe_of(lora, replace(needs, rows=1000), *place)
    assert many["train"]["batch_size"] == 16 and many["base"] == {"mode": "lora", "lr": lora.rate}
    assert recipes.recipe_of(prefix, needs, *place)["train"]["lr"] == prefix.rate


def test_rates_to_try_begin_with_the_usual_one():
    assert recipes.rates_of(CANDIDATES["prompt-tuning/after"]) == [0.03, 0.09, 0.01]  # the method's default
    for name in ("lora", "prefix-tuning/after"):
        assert recipes.rates_of(CANDIDATES[name])[0] == CANDIDATES[name].rate
