"""The page about one's own loop: its snippets run as they are."""

from __future__ import annotations

import re
from pathlib import Path

import softprompt
from softprompt.lm import smollm2
from softprompt.methods.typed_options import written_out

PAGE = Path(__file__).parents[2] / "docs" / "own-loop.md"


def test_the_snippets_run(model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(smollm2, "folder", lambda: model_folder)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert names["model"].soft_prompt.num_prompts == 2


def test_method_objects_are_written_out_in_recipes():
    prefix, prompt = softprompt.PrefixTuning(length=4), softprompt.PromptTuning(placement="before")
    assert written_out({"method": prefix}) == {"method": {"name": "prefix-tuning", "length": 4}}
    compared = {"compare": {"methods": [prefix, "lora", prompt]}}
    assert written_out(compared)["compare"]["methods"] == {
        "prefix-tuning": {"method": "prefix-tuning", "length": 4},
        "lora": {},
        "prompt-tuning": {"method": "prompt-tuning", "placement": "before"},
    }
    named = {"compare": {"methods": {"short": prefix, "mine": {"method": "lora"}}}}
    assert written_out(named)["compare"]["methods"] == {
        "short": {"method": "prefix-tuning", "length": 4},
        "mine": {"method": "lora"},
    }


def test_tune_takes_a_method_object(model_folder, tmp_path):
    rows = [{"input": f"row {i}", "target": "good"} for i in range(8)]
    method = softprompt.PromptTuning(length=3, placement="before")
    tuned = softprompt.tune(str(model_folder), method, rows, output=tmp_path / "run", steps=2)
    assert tuned.recipe.method.options() == {"length": 3, "placement": "before"}
