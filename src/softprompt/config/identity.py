"""The identity of a run holds what decides its numbers, as plain values; two are compared in words.

    settings   {"train.lr": 0.01, …}: settings of the recipe, with every default filled in
    rows       {"train": hash, "dev": hash} of the encoded rows: that the run trains and is measured on
    base       the base model's fingerprint          dtype    the precision
    content    {"method.artifact": hash, …}: of files that an option names
    raw, about  hashes of the rows as they were read, and settings that decide how they are encoded: these
               decide nothing, but show why encoded rows differ

The places of rows, model and output are no part of it. This file knows no recipes and no models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SoftPromptError

Identity = Mapping[str, Any]
FORMAT = 2
CHAT_TEMPLATE = "chat template"
CONFIG, CONFIGURATION = "config", "configuration"  # hashes of earlier versions and of this one
_NAMES = {
    "method": "the method",
    "base.mode": "what is trained of the base",
    "train.lr": "the learning rate",
    "base.lr": "the base's learning rate",
    "train.steps": "the number of steps",
    "train.batch_size": "the batch size",
    "train.seed": "the seed",
    "train.keep": "the share of general text",
    "train.average": "the memory of the average",
    "train.eval_every": "the steps between evaluations",
    "template.input": "the input's template",
    "template.target": "the target's template",
    "teacher.context": "the teacher's text",
    "teacher.on_policy": "the share of the student's answers",
    "prompts": "the prompts",
    "labels": "the labels",
}
_ROWS = {"train": "the training rows", "dev": "the dev rows", "keep": "the general text of train.keep"}
_CHOOSE_ROWS = ("data.limit", "data.dev_fraction", "data.dev_limit")
_SHOWN = 60  # characters of a value


def differences(was: Identity, now: Identity) -> list[str]:
    """Return the differences as phrases for a message; none means that it is the same run.

    A key that only one of them has does not count: another version recorded it.
    """
    if was.get("format") != now.get("format"):
        return ["it was started by another version of softprompt, which may train in another way"]
    return [*_settings(was, now), *_contents(was, now), *_base(was, now), *_rows(was, now)]


def settings_differ(was: Identity, settings: Mapping[str, Any]) -> list[str]:
    """Return the differences in the recipe, which is known before rows are read and a model is loaded."""
    return _settings(was, {"settings": settings})


def base_differs(was: Mapping[str, str], now: Mapping[str, str], *, chat: bool) -> list[str]:
    """Return the parts in which two fingerprints of a base differ, among those that both have.

    A chat template counts only if `chat` is true: nothing else reads it. The hash of the config that earlier
    versions wrote counts where one of them has no other.
    """
    both = [part for part in was if part in now]
    ignored = {CONFIG} if CONFIGURATION in both else set()
    ignored |= set() if chat else {CHAT_TEMPLATE}
    return [part for part in both if was[part] != now[part] and part not in ignored]


def other_run(folder: object, changes: list[str]) -> SoftPromptError:
    """Return the error for a folder with the checkpoint of another run."""
    return SoftPromptError(
        f"{folder} holds another unfinished run",
        why="; ".join(changes),
        fix="add --restart to start anew (drops the old checkpoint), or choose another output=FOLDER",
    )


def _settings(was: Identity, now: Identity) -> list[str]:
    before, after = was.get("settings") or {}, now["settings"]
    changes = _changed(before, after)
    if before.get("method") != after.get("method"):  # with other options
        changes = {key: text for key, text in changes.items() if not key.startswith("method.")}
    return list(changes.values())


def _changed(
    before: Mapping[str, Any], after: Mapping[str, Any], among: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return, by key, a phrase for each value that differs between two mappings."""
    keys = [k for k in among or after if k in before and k in after and before[k] != after[k]]
    return {key: f"{_name(key)}: was {_shown(before[key])}, is {_shown(after[key])}" for key in keys}


def _contents(was: Identity, now: Identity) -> list[str]:
    before, after = was.get("content") or {}, now.get("content") or {}
    return [
        "the values that the module starts from"
        if key == "method"
        else f"the content of the file that {key} names"
        for key in after
        if key in before and before[key] != after[key]
    ]


def _base(was: Identity, now: Identity) -> list[str]:
    chat = bool((now.get("about") or {}).get("template.chat"))
    parts = base_differs(was.get("base") or {}, now.get("base") or {}, chat=chat)
    changes = [f"the base model's {part}" for part in parts]
    if was.get("dtype") != now.get("dtype"):
        changes.append(f"the precision: was {was.get('dtype')}, is {now.get('dtype')}")
    return changes


def _rows(was: Identity, now: Identity) -> list[str]:
    """Return which rows differ, or else why the same rows are encoded in another way."""
    before, after = was.get("rows") or {}, now.get("rows") or {}
    parts = [part for part in _ROWS if before.get(part) != after.get(part)]
    if not parts:
        return []
    chosen = _changed(was.get("about") or {}, now.get("about") or {}, _CHOOSE_ROWS)
    seed = _changed(was.get("settings") or {}, now.get("settings") or {}, ("train.seed",))
    if chosen or seed:  # named already, or the reason for other rows
        return list(chosen.values())
    raw_before, raw_after = was.get("raw") or {}, now.get("raw") or {}
    if others := [part for part in parts if raw_before.get(part) != raw_after.get(part)]:
        return [_ROWS[part] for part in others]
    why = _changed(was.get("about") or {}, now.get("about") or {})
    if why:
        return list(why.values())
    if _base(was, now):  # another tokenizer encodes the same texts in another way
        return []
    return [f"how {_ROWS[part]} are encoded" for part in parts]


def _name(key: str) -> str:
    return f"{_NAMES[key]} ({key})" if key in _NAMES and key != "method" else _NAMES.get(key, key)


def _shown(value: Any) -> str:
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
