"""The page about trackers: its snippet runs as it is, and its recipes are recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from softprompt.config.sections.track import TrackConfig
from softprompt.tracking.registry import TRACKERS

PAGE = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text(encoding="utf-8")


@pytest.mark.whole
def test_the_snippet_runs(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(block, {"MODEL": str(model_folder)})
    assert capsys.readouterr().out.count('{"kind": "step"') == 20
    assert list((tmp_path / "runs/mood/tensorboard").glob("events.*"))


def test_the_recipes_are_recipes_and_the_table_names_all_trackers():
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    assert len(blocks) == 2
    for block in blocks:
        assert set(TrackConfig.model_validate(yaml.safe_load(block)["track"]).chosen()) <= set(TRACKERS)
    assert all(f"`{name}`" in PAGE for name in TrackConfig.model_fields)
