"""A server takes the base that its folder's prompts name, and says at its start which it cannot serve."""

from __future__ import annotations

import json
import logging

import softprompt
from softprompt import notes
from softprompt.lm.loading import fingerprint
from softprompt.serve import bases


def put(folder, base):
    folder.mkdir(parents=True)
    (folder / "softprompt.json").write_text(json.dumps({"base": base}))


def test_the_base_that_most_name(llama, tmp_path):
    assert bases.base_of(tmp_path) is None and "no tuned prompts" in bases.said(tmp_path, llama)[0]
    own = fingerprint(llama)
    put(tmp_path / "a", {"name": "theirs", "fingerprint": {**own, "weights": "other"}})
    put(tmp_path / "team" / "b", {"name": "ours", "fingerprint": own})
    put(tmp_path / "team" / "c", {"name": "ours", "fingerprint": own})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "softprompt.json").write_text("{")
    assert bases.base_of(tmp_path) == "ours"
    (said,) = bases.said(tmp_path, llama)
    assert "1 of 3 prompts cannot be served" in said and "a (of theirs)" in said


def test_a_start_from_another_table_says_from_which_prompt(llama, tmp_path, caplog, monkeypatch):
    def rows(*names):
        return [{"input": f"row {i}", "target": "good", "who": name} for name in names for i in range(4)]

    how = {"length": 2, "steps": 1, "prompt_field": "who", "progress": False}
    softprompt.tune(llama, "prompt-tuning", rows("joke", "fact"), output=tmp_path / "first", **how)
    how |= {"init": "artifact", "artifact": str(tmp_path / "first")}
    monkeypatch.setattr(notes, "_said", set())
    with caplog.at_level(logging.WARNING, logger="softprompt.notes"):
        softprompt.tune(llama, "prompt-tuning", rows("fact", "new"), output=tmp_path / "second", **how)
        softprompt.tune(llama, "prompt-tuning", rows("joke", "fact"), output=tmp_path / "third", **how)
    said = [text for text in caplog.messages if str(tmp_path / "first") in text]
    assert len(said) == 2 and "new: starts from 'joke'" in said[0] and "joke: in " in said[1]
