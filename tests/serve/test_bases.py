"""A server takes the base that its folder's prompts name, and says at its start which it cannot serve."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import softprompt
from softprompt._system import notes
from softprompt.lm.loading import fingerprint
from softprompt.serve import bases


def put(folder, base):
    folder.mkdir(parents=True)
    (folder / "softprompt.json").write_text(json.dumps({"base": base}))


def test_the_base_that_most_name(llama, tmp_path):
    assert bases.survey(tmp_path).base is None
    assert "no tuned prompts" in bases.survey(tmp_path).notes(llama)[0]
    own = fingerprint(llama)
    put(tmp_path / "a", {"name": "theirs", "fingerprint": {**own, "weights": "other"}})
    put(tmp_path / "team" / "b", {"name": "ours", "fingerprint": own})
    put(tmp_path / "team" / "c", {"name": "ours", "fingerprint": own})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "softprompt.json").write_text("{")
    found = bases.survey(tmp_path)
    assert found.base == "ours"
    count, message = found.notes(llama)
    assert count.startswith("2 prompts in") and "team/b, team/c" in count
    assert "2 of 4 artifacts cannot be served" in message
    assert (
        "a (it was made for another base, theirs)" in message
        and "broken (its manifest is damaged)" in message
    )


def test_what_is_not_served_is_said_at_the_start(llama, publish, tmp_path):
    root = tmp_path / "root"
    for name in ("v1", "v1:final", "a\\b", "tab\there", ".dot", "deep/v2"):
        publish(llama, root / name)
    publish(llama, tmp_path / "out")
    (root / "away").symlink_to(tmp_path / "out")
    (root / "folder").symlink_to(root / "deep")
    publish(llama, root / "shown-compare/trials/0f3a")
    (root / "shown-compare/trials/0f3a.json").write_text("{}")
    (root / ".git").mkdir()
    (root / "12:00 logs").mkdir()  # holds no prompt
    count, skipped, trials = bases.survey(root).notes(llama)
    assert count.startswith("2 prompts in") and count.endswith(": deep/v2, v1")
    assert "'away' (it is a link that leads outside" in skipped and "'a\\b' (a backslash" in skipped
    assert skipped.startswith("6 folders not served: ") and "'.dot' (" in skipped and ".git" not in skipped
    assert trials == "trials of comparisons not served: 1; --trials serves them too"
    whole = dict(bases.survey(root, trials=True).skipped)
    assert set(whole) == {"v1:final", "a\\b", "tab\there", ".dot", "away", "folder"}
    (count, _) = bases.survey(root, trials=True).notes(llama)
    assert count.startswith("3 prompts in")


def test_ten_of_those_that_cannot_be_served_are_named(llama, tmp_path):
    for i in range(12):
        put(tmp_path / f"bad{i:02}", {"name": []})
        put(tmp_path / f"v:{i:02}", {"name": "ours"})
    _, unfit, skipped = bases.survey(tmp_path).notes(llama)
    assert unfit.startswith("12 of 12 artifacts cannot") and unfit.count("damaged") == 10
    assert "bad09 (" in unfit and "bad10" not in unfit and unfit.endswith("… 2 more")
    assert skipped.startswith("12 folders not served") and skipped.endswith("… 2 more")


def test_a_folder_that_is_not_ours_to_read_is_said(llama, publish, tmp_path, monkeypatch):
    publish(llama, tmp_path / "good")
    publish(llama, tmp_path / "private/x")
    own = os.scandir

    def refused(path):
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return own(path)

    monkeypatch.setattr(os, "scandir", refused)
    count, skipped = bases.survey(tmp_path).notes(llama)
    assert count.endswith(": good") and "'private' (the folder cannot be read)" in skipped


def test_many_are_not_read_at_the_start(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(bases, "LOOKED_AT", 3)
    for name in "abcdef":
        put(tmp_path / name, {"name": "ours"})
    found = bases.survey(tmp_path)
    assert len(found.artifacts) == 3 and found.notes(llama)[0].startswith("more than 3 artifacts in")


def test_a_start_from_another_table_says_from_which_prompt(llama, tmp_path, caplog, monkeypatch):
    def rows(*names):
        return [{"input": f"row {i}", "target": "good", "who": name} for name in names for i in range(4)]

    how = {"length": 2, "steps": 1, "prompt_field": "who", "progress": False}
    softprompt.tune(llama, "prompt-tuning", rows("joke", "fact"), output=tmp_path / "first", **how)
    how |= {"init": "artifact", "artifact": str(tmp_path / "first")}
    monkeypatch.setattr(notes, "_shown", set())
    with caplog.at_level(logging.WARNING, logger="softprompt._system.notes"):
        softprompt.tune(llama, "prompt-tuning", rows("fact", "new"), output=tmp_path / "second", **how)
        softprompt.tune(llama, "prompt-tuning", rows("joke", "fact"), output=tmp_path / "third", **how)
    message = [text for text in caplog.messages if str(tmp_path / "first") in text]
    assert len(message) == 2 and "new: starts from 'joke'" in message[0] and "joke: in " in message[1]
