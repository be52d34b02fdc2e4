"""What is published of a manifest: no path of the machine, no secret, nothing of the rows."""

from __future__ import annotations

import json

import pytest

from softprompt.artifacts.hub.public import base_note, public
from softprompt.errors import SoftPromptError

TEMPLATE = "Read /home/me/rules first, and/or answer: {{ text }}"


def manifest(**changes):
    whole = {
        "method": "prompt-tuning",
        "options": {"length": 2, "artifact": "/home/secretive/runs/start", "text": "good or /bad/"},
        "prompts": ["/a/b"],
        "labels": ["/home/of/a/label"],
        "base": {"name": "/home/secretive/models/tiny", "mode": "frozen"},
        "recipe": {
            "model": "/home/secretive/models/tiny",
            "data": {"train": "/home/secretive/My Rows/train.jsonl", "dev": "hf:me/rows:dev", "test": None},
            "template": {"input": TEMPLATE},
            "method": {"artifact": "/home/secretive/runs/start"},
            "train": {"cache_folder": "cache/secretive"},
            "output": "runs/secretive/mood",
            "track": {"wandb": {"project": "secretive"}},
        },
        "data": {"rows": 3, "remarks": [{"kind": "end", "text": "a row of /home/secretive/x.jsonl:3"}]},
        "sources": [
            {"folder": "C:\\Users\\secretive\\a", "prompt": "x"},
            {"folder": "hf:me/b@abc", "prompt": "y"},
        ],
        "imported": "PEFT PROMPT_TUNING of /tmp/secretive/adapter, and https://hub.org/a/b",
        "command": "softprompt tune /home/secretive/r.yaml train=~/secretive/a.jsonl lr=1e-2 model=me/tiny",
        "training": {"steps": 3},
    }
    return whole | changes


def test_paths_become_their_last_parts():
    result, cleaned = public(manifest(), None)
    assert "secretive" not in json.dumps(result)
    assert result["base"]["name"] == result["recipe"]["model"] == "tiny"
    assert result["recipe"]["data"] == {"train": "train.jsonl", "dev": "hf:me/rows:dev", "test": None}
    assert result["recipe"]["output"] == "mood" and result["recipe"]["train"]["cache_folder"] is None
    assert result["options"]["artifact"] == result["recipe"]["method"]["artifact"] == "start"
    assert [source["folder"] for source in result["sources"]] == ["a", "hf:me/b@abc"]
    assert result["imported"] == "PEFT PROMPT_TUNING of adapter, and https://hub.org/a/b"
    assert result["command"] == "softprompt tune r.yaml train=a.jsonl lr=1e-2 model=me/tiny"
    assert {"base.name", "recipe.data.train", "command", "imported"} <= set(cleaned)


def test_content_for_the_model_stays():
    result, _ = public(manifest(), None)
    assert result["recipe"]["template"]["input"] == TEMPLATE
    assert result["prompts"] == ["/a/b"] and result["labels"] == ["/home/of/a/label"]
    assert result["options"]["text"] == "good or /bad/"
    assert result["data"]["remarks"] == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/opt/train.py --token hf_abcdefghijkl --out /home/secretive", "train.py"),
        ("ipykernel_launcher.py -f /home/secretive/kernel.json", "ipykernel_launcher.py"),
        (
            "softprompt tune r.yaml data.train=hf_abcdefghijklmnop",
            "softprompt tune r.yaml data.train=REMOVED",
        ),
        ("softprompt 'unfinished", ""),
    ],
)
def test_commands_keep_no_secret(command, expected):
    result, _ = public(manifest(command=command), None)
    assert result["command"] == expected


def test_a_base_from_a_folder_can_be_named():
    result, _ = public(manifest(), "meta/Tiny-1B")
    assert result["base"]["name"] == result["recipe"]["model"] == "meta/Tiny-1B"
    assert base_note(result) is None
    assert "--base-model" in (base_note(manifest()) or "")


def test_an_encoder_that_nobody_else_has_is_refused(tmp_path):
    options = {"encoder": str(tmp_path)}
    with pytest.raises(SoftPromptError, match="encoder") as error:
        public(manifest(options=options), None)
    assert "method.encoder=" in error.value.fix
    public(manifest(options={"encoder": "me/encoder"}), None)


def test_a_base_in_a_relative_folder_is_no_model_of_the_hub(tmp_path, monkeypatch):
    """`models/tiny` looks like an owner and a name; the folder decides, as it does on loading."""
    whole = manifest(base={"name": "models/tiny", "mode": "frozen"})
    whole["recipe"]["model"] = {"id": "models/tiny", "revision": None}
    assert public(whole, None)[0]["base"]["name"] == "models/tiny"  # no such folder: an id
    (tmp_path / "models/tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    result, cleaned = public(whole, None)
    assert result["base"]["name"] == result["recipe"]["model"]["id"] == "tiny" and "base.name" in cleaned
    assert public(whole, "me/tiny")[0]["recipe"]["model"]["id"] == "me/tiny"
