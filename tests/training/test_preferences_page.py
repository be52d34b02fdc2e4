"""The page about preferences: its snippet runs as it is, and its recipe is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from benchmarks import preferences

from softprompt.config.load import recipe_from_dict

PAGE = (Path(__file__).parents[2] / "docs" / "preferences.md").read_text(encoding="utf-8")


@pytest.mark.whole
def test_the_snippet_runs(model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names: dict = {}
    assert block.count('"smollm2"') == 1
    exec(block.replace("smollm2", str(model_folder)), names)
    assert names["tuned"].recipe.task.kind == "preference" and Path("runs/short/softprompt.json").exists()


def test_the_recipe_has_the_defaults():
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    written = yaml.safe_load(block)
    recipe = recipe_from_dict(written)
    assert recipe == recipe_from_dict({**written, "task": "preference", "template": {}})
    assert recipe.template.target == "{{ chosen }}"


@pytest.mark.whole
def test_the_benchmark_measures_every_way(capsys):
    assert preferences.main(["--short", "--questions", "9", "6", "5", "--seeds", "0", "--steps", "1"]) == 0
    printed = capsys.readouterr().out
    for way in preferences.WAYS:
        assert re.search(rf"^\| {way.name} \|", printed, re.M)


def test_scores_and_wins_of_the_benchmark():
    scored = [preferences.score(text, ended) for text in ("Yes, it is.", "It is.", "Nor") for ended in (1, 0)]
    assert scored == [2, 1, 1, 0, 1, 0]
    about = {"way": "", "rate": 1, "accuracy": 1, "margin": 1, "scores": [2, 0], "divergence": 0, "tokens": 1}
    about |= {"seconds": 1, "bytes": 1}
    results = [preferences.Result(seed=i, wins=wins, **about) for i, wins in enumerate([[1, 0.5], [1, 1]])]
    win, low, high = preferences.interval(results)
    assert (win, low, high) == (0.875, 0.75, 1.0)
