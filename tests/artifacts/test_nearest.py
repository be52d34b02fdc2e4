"""A prompt starts from the one whose inputs are most like its own (`init=nearest`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import softprompt
from softprompt.artifacts.artifact import load
from softprompt.artifacts.hub.public import public
from softprompt.artifacts.nearest import Candidate, mean_input, nearest
from softprompt.artifacts.warm_start import vectors
from softprompt.config.load import recipe_from_dict
from softprompt.errors import SoftPromptError
from softprompt.training import prepare as preparing
from softprompt.training.prepare import prepare
from softprompt.training.sweep import prepare_prompts
from softprompt.training.tune import tune_many

WORDS = {"animals": "cat dog cow", "numbers": "111 222 333", "upper": "XYZ WXY VWX"}


def rows(kind, count=4):
    words = WORDS[kind].split()
    return [
        {"customer": kind, "input": f"{words[i % 3]} {words[(i + i // 3) % 3]} {i}", "target": "ab"[i % 2]}
        for i in range(count)
    ]


def file_of(folder: Path, name: str, content) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return str(path)


def recipe(model, folder, data, **changes):
    whole = {
        "model": str(model),
        "data": {"train": data, "dev": data, "prompt_field": "customer"},
        "task": {"kind": "classification"},
        "method": {"name": "prompt-tuning", "length": 2},
        "train": {"steps": 1, "batch_size": 2, "dtype": "float32", "apart": True},
        "output": str(folder),
    }
    return recipe_from_dict({**whole, **changes})


@pytest.fixture(scope="module")
def tuned(model_folder, tmp_path_factory):
    """A folder with a prompt for each kind of words."""
    folder = tmp_path_factory.mktemp("tuned")
    data = file_of(folder, "rows", [row for kind in WORDS for row in rows(kind)])
    tune_many(prepare_prompts(recipe(model_folder, folder / "prompts", data)))
    return folder / "prompts"


def start(folder, length=2):
    return {"name": "prompt-tuning", "length": length, "init": "nearest", "artifact": str(folder)}


def test_each_prompt_starts_from_the_one_with_like_inputs(model_folder, tuned, tmp_path):
    """Of a table, each of its prompts from another; bit by bit."""
    new = [{**row, "customer": f"new {kind}"} for kind in ("upper", "animals") for row in rows(kind, 3)]
    data = file_of(tmp_path, "new", new)
    ready = prepare(recipe(model_folder, tmp_path / "out", data, method=start(tuned), train={"steps": 1}))
    assert {name: near.prompt for name, near in ready.nearest.items()} == {
        "new upper": "upper",
        "new animals": "animals",
    }
    for table, kind in zip(next(ready.method.parameters()), ("upper", "animals"), strict=True):
        assert torch.equal(table, vectors(str(tuned / kind), kind)["after"])


def test_one_more_customer_is_added_without_touching_the_others(model_folder, tuned, tmp_path):
    """The same command again finds it finished, though the folder has grown."""
    tuned = Path(shutil.copytree(tuned, tmp_path / "served"))
    before = {path: path.read_bytes() for path in tuned.rglob("*") if path.is_file()}
    data = file_of(tmp_path, "new", [{**row, "customer": "later"} for row in rows("numbers")])
    adding = recipe(model_folder, tuned, data, method=start(tuned))
    (run,) = tune_many(prepare_prompts(adding))
    assert run.artifact.path == tuned / "later" and run.prepared.nearest["later"].prompt == "numbers"
    assert load(tuned / "later").manifest["nearest"]["later"]["prompt"] == "numbers"
    assert all(path.read_bytes() == content for path, content in before.items())
    (again,) = prepare_prompts(adding)
    assert again.nearest["later"].prompt == "numbers"  # not itself
    assert tune_many([again])[0].was_finished


def test_another_folder_is_another_run(model_folder, tuned, tmp_path):
    """A finished prompt that started from one folder is not returned for another."""
    data = file_of(tmp_path, "new", [{**row, "customer": "later"} for row in rows("numbers")])
    tune_many(prepare_prompts(recipe(model_folder, tmp_path / "out", data, method=start(tuned))))
    other = shutil.copytree(tuned, tmp_path / "other")
    with pytest.raises(SoftPromptError, match="already holds a tuned prompt") as error:
        tune_many(prepare_prompts(recipe(model_folder, tmp_path / "out", data, method=start(other))))
    assert "method.artifact: was" in str(error.value.why)


def test_candidates_are_read_once_for_many_prompts(model_folder, tuned, tmp_path, monkeypatch):
    reads, real = [], preparing.candidates_in
    monkeypatch.setattr(preparing, "candidates_in", lambda *args: reads.append(args) or real(*args))
    data = file_of(tmp_path, "rows", [row for kind in WORDS for row in rows(kind)])
    runs = prepare_prompts(recipe(model_folder, tmp_path / "out", data, method=start(tuned)))
    assert [run.nearest[kind].prompt for run, kind in zip(runs, WORDS, strict=True)] == list(WORDS)
    assert len(reads) == 1


def test_the_mean_input_is_that_of_rows_not_of_tokens(model_folder):
    lm = softprompt.load(str(model_folder), dtype="float32")
    inputs = [[5], [6, 7, 7, 7]]
    naive = torch.stack([lm.embed(torch.tensor(ids)).mean(0) for ids in inputs]).mean(0)
    assert torch.allclose(mean_input(lm, inputs), naive, atol=1e-6)


def test_what_all_inputs_share_does_not_count():
    """Every input holds the template's words: by plain cosine the first would be nearest."""
    places = {"a": (100.0, 2.0, 2.0), "b": (100.0, 0.0, 9.0), "c": (100.0, -2.0, -11.0)}
    known = [Candidate(Path(name), name, torch.tensor(place)) for name, place in places.items()]
    new = torch.tensor([100.0, 0.0, 3.0])
    plain = {each.prompt: float(torch.cosine_similarity(each.mean, new, 0)) for each in known}
    assert max(plain, key=plain.__getitem__) == "a"
    assert nearest(known, {"new": new}, Path("elsewhere"))["new"].prompt == "b"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"artifact": "nowhere"}, "finds no folder"),
        ({"artifact": None}, "finds no folder"),
        ({"name": "residual-prompt-tuning"}, "no prompt to start from"),
        ({"name": "llama-adapter", "artifact": None}, "unknown|no folder|cannot start"),
    ],
)
def test_nothing_to_start_from_is_an_error(model_folder, tuned, tmp_path, change, says):
    method = {key: value for key, value in {**start(tuned), **change}.items() if value is not None}
    with pytest.raises(SoftPromptError, match=says):
        prepare(recipe(model_folder, tmp_path / "out", file_of(tmp_path, "n", rows("upper")), method=method))


def test_an_older_or_damaged_prompt_is_passed_over(model_folder, tuned, tmp_path):
    manifest = json.loads((tuned / "animals" / "softprompt.json").read_text(encoding="utf-8"))
    for name, text in (("old", {**manifest, "data": {"rows": 4}}), ("cut", {**manifest, "files": {}})):
        (tmp_path / "some" / name).mkdir(parents=True)
        (tmp_path / "some" / name / "softprompt.json").write_text(json.dumps(text), encoding="utf-8")
    data = file_of(tmp_path, "new", rows("animals"))
    with pytest.raises(SoftPromptError, match="no prompt to start from"):
        prepare(recipe(model_folder, tmp_path / "out", data, method=start(tmp_path / "some")))


def test_the_mean_of_the_inputs_is_not_published(tuned):
    manifest = load(tuned / "animals").manifest
    assert manifest["data"]["inputs"]["animals"]
    assert public(manifest, "someone/model")[0]["data"]["inputs"] == {}
