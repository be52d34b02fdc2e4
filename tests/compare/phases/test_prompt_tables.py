"""Tables that grow, and prompts that come later: which are trained, on what, and what of it stays."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from softprompt import methods
from softprompt._system.files import read_tensors, write_tensors
from softprompt.artifacts import artifact as artifacts
from softprompt.compare import report, trials
from softprompt.compare.experiment import compare
from softprompt.compare.held_out import newcomers
from softprompt.compare.phases import prompt_counts, prompt_tables
from softprompt.compare.report.read import comparison
from softprompt.compare.running.executors import Serial
from softprompt.config.load import recipe_from_dict
from softprompt.data.sources import read_rows
from softprompt.errors import SoftPromptError

pytestmark = pytest.mark.whole

NAMED = [name for name in methods.METHODS if name != "none"]
METHODS = ["prompt-tuning/after", "multitask-prompt-tuning/after", "lora", "zero-shot", "few-shot"]
NAMES = [f"task {i}" for i in range(8)]


@pytest.mark.parametrize("size", range(1, 9))
def test_every_watched_prompt_is_scored_once_in_tables_of_each_size(size):
    made = prompt_counts.tables(NAMES, size)
    assert [name for table in made for name in table.watched] == list(prompt_counts.watched(NAMES))
    for table in made:
        assert len(set(table.prompts)) == len(table.prompts) == size
        assert set(table.watched) <= set(table.prompts) <= set(NAMES)


def test_sizes_are_those_below_all():
    assert prompt_counts.sizes([16, 1, 4, 4, 100], 16) == [1, 4]


@pytest.mark.parametrize(("steps", "batch"), [(100, 32), (60, 16), (400, 4)])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_each_prompt_sees_as_many_rows_in_as_many_steps_whatever_the_table(steps, batch, size):
    made, rows = trials.scaled(steps, batch, size / 8)
    assert made * rows / size == pytest.approx(steps * batch / 8, rel=0.02)
    if batch >= 8:  # a row of each in every step
        assert made == steps


def test_newcomers_keep_some_rows_to_be_scored_on():
    rows = [{"task": name, "n": n} for name in ("a", "b") for n in range(10 if name == "a" else 3)]
    few, rest = newcomers(rows, "task", 4, seed=0)
    assert Counter(row["task"] for row in few) == {"a": 4, "b": 1}
    assert sorted((r["task"], r["n"]) for r in [*few, *rest]) == sorted((r["task"], r["n"]) for r in rows)
    with pytest.raises(SoftPromptError, match="'c' has one row"):
        newcomers([*rows, {"task": "c", "n": 1}], "task", 4, seed=0)


@pytest.fixture(scope="module")
def grown(tmp_path_factory, model_folder):
    """Six prompts, two of them held out, through a method that shares nothing, one that does, and LoRA."""
    folder = tmp_path_factory.mktemp("grown")
    rows = [
        {"input": f"word {i}", "target": ("good", "bad")[i % 2], "task": NAMES[i % 6]} for i in range(144)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = recipe_from_dict(
        {
            "model": str(model_folder),
            "data": {"train": str(path), "prompt_field": "task", "dev_fraction": 0.3},
            "task": {"kind": "classification", "labels": ["good", "bad"]},
            "train": {"steps": 6, "batch_size": 8, "dtype": "float32"},
            "output": str(folder / "out"),
            "compare": {
                "methods": METHODS,
                "rates": [1e-2],
                "base_rates": [1e-3],
                "seeds": 2,
                "shots": 1,
                "control": False,
                "serving": False,
                "unseen": {"field": "task", "values": NAMES[4:6]},
                "growth": [1, 2, 4],
                "newcomer_rows": 5,
            },
        }
    )
    return compare(recipe, on=Serial()), recipe


def test_no_training_sees_a_prompt_that_is_held_out(grown):
    done, _ = grown
    for split, names in (("train", NAMES[:4]), ("dev", NAMES[:4]), ("newcomers", NAMES[4:6])):
        assert {row["task"] for row in read_rows(done.folder / "rows" / f"{split}.jsonl")} == set(names)
    few = Counter(row["task"] for row in read_rows(done.folder / "rows/newcomers-train.jsonl"))
    assert few == {name: 5 for name in NAMES[4:6]}


def test_growth_is_a_line_for_every_method_seed_and_size(grown):
    found = comparison(grown[0].folder)
    assert grown[0].failed == 0, [t.error for t in found.trials if t.error]
    seen = Counter((p.contestant, p.seed, p.prompts) for p in found.tables)
    assert seen == {(name, seed, size): 1 for name in METHODS[:3] for seed in (0, 1) for size in (1, 2, 4)}
    assert all(p.split == "test" and p.value is not None for p in found.tables)


def test_the_last_point_is_the_finals_own_score_of_the_watched_prompts(grown):
    found = comparison(grown[0].folder)
    watched = {
        (found.study.prompts or []).index(name) for name in prompt_counts.watched(found.study.prompts or [])
    }
    for point in found.tables:
        if point.prompts == 4:
            own = [
                e.score
                for e in found.examples
                if (e.contestant, e.seed, e.split) == (point.contestant, point.seed, "test")
                and e.prompt in watched
            ]
            assert point.value == pytest.approx(sum(own) / len(own))


def test_newcomers_are_scored_tested_and_shown(grown):
    found = comparison(grown[0].folder)
    seeds: dict = {}
    for score in found.scores:
        if score.split == "newcomers":
            seeds.setdefault(score.contestant, set()).add(score.seed)
    assert seeds["zero-shot"] == seeds["few-shot"] == {None} and seeds["lora"] == {None, 0, 1}
    assert sum(test.split == "newcomers" for test in found.tests) == 10
    rows = len(read_rows(grown[0].folder / "rows/newcomers.jsonl"))
    assert all(
        count == rows
        for count in Counter(
            (e.contestant, e.seed) for e in found.examples if e.split == "newcomers"
        ).values()
    )
    page = report.write(grown[0].folder).with_suffix(".md").read_text()
    assert "Prompts never seen in training" in page and "One table of many prompts" in page


def test_what_prompts_share_stays_as_the_final_has_it(grown, llama):
    """Multitask prompts share one; plain prompts share nothing."""
    done, _ = grown
    finals = [
        json.loads(path.read_text())
        for path in (done.folder / "trials").glob("*.json")
        if json.loads(path.read_text())["phase"] == "final"
    ]
    for record in finals:
        if record["contestant"] == "lora":
            continue
        final = artifacts.load(done.folder / "trials" / record["id"])
        own = prompt_tables.of_each_prompt(final, llama)
        saved = read_tensors(final.path / "state.safetensors")
        assert (set(saved) - own == set()) == (record["contestant"] == "prompt-tuning/after")
    joined = [
        json.loads(path.read_text())
        for path in (done.folder / "trials").glob("*.json")
        if json.loads(path.read_text())["phase"] == "newcomer"
    ]
    shared = {r["contestant"]: r["shared"] for r in joined if "shared" in r}
    assert shared == {"prompt-tuning/after": 0, "multitask-prompt-tuning/after": 1, "lora": 0}
    trained = {r["contestant"]: r["cost"]["trained_parameters"] for r in joined if "shared" in r}
    final = {r["contestant"]: r["cost"]["trained_parameters"] for r in finals}
    assert trained["prompt-tuning/after"] == final["prompt-tuning/after"] / 2  # two prompts, not four
    assert trained["multitask-prompt-tuning/after"] < final["multitask-prompt-tuning/after"] / 2


@pytest.mark.parametrize("name", NAMED)
def test_shared_tensors_are_given_and_held(name, new_lm, setting, tmp_path):
    """For every method: what grows with the number of prompts is trained, the rest is the final's."""
    lm = new_lm()
    options = {"init": "vocab"} if "init" in methods.find(name).options() else {}
    before = methods.build(name, setting(lm, prompts=("a", "b", "c"), examples_by_prompt={}), options)
    manifest = {"method": name, "options": options, "prompts": ["a", "b", "c"]}

    class Final:
        path = tmp_path
        tensors = staticmethod(lambda name: read_tensors(tmp_path / name))

    Final.manifest = manifest
    write_tensors(tmp_path / "state.safetensors", dict(before.state_dict()))
    torch.manual_seed(3)
    method = methods.build(name, setting(lm, prompts=("x", "y"), examples_by_prompt={}), options)
    common = set(prompt_tables.share(method, Final, lm))  # type: ignore[arg-type]
    for key, tensor in method.state_dict().items():
        same_shape = tensor.shape == before.state_dict()[key].shape
        assert (key in common) == same_shape
        if key in common:
            assert torch.equal(tensor, before.state_dict()[key])
    held = {key for key, p in method.named_parameters() if not p.requires_grad}
    assert held <= common and any(p.requires_grad for p in method.parameters())


def test_growth_needs_prompts(grown):
    _, recipe = grown
    bare = recipe.model_copy(update={"data": recipe.data.model_copy(update={"prompt_field": None})})
    with pytest.raises(SoftPromptError, match="name no prompts"):
        compare(bare, recipe.output + "-bare", on=Serial())
