"""An artifact's manifest as it is published: without paths and secrets of the machine that made it.

Paths of folders and files become their last part. What the model reads (template, labels, names of prompts,
initial text) is published as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ...config.sections.task import TeacherConfig
from ...errors import SoftPromptError
from ...lm.locate import looks_local
from ..card_metadata import hub_base
from ..nearest import INPUTS

#: Parts that hold content for the model, or numbers: a slash in them names no file.
CONTENT = {
    "prompts",
    "labels",
    "files",
    "options.text",
    "recipe.method.text",
    "recipe.template",
    "recipe.task",
}
CONTENT |= {"identity.settings", "identity.about", "training"}
_PATH = re.compile(r"(?<![\w/:.<])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\"`,;:=]+[/\\])+([^\s/\\'\"`,;:=]*)")
_TOKEN = re.compile(r"\b(hf_|hf_jwt_|api_org_|sk-)[A-Za-z0-9_-]{8,}")


def public(manifest: Mapping[str, Any], base: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return the manifest without paths of this machine, and the settings whose values were shortened.

    `base` is the base model's id on the hub, for one that was loaded from a folder. Raises SoftPromptError
    where others could not load the artifact.
    """
    _check_encoder(manifest)
    cleaned: list[str] = []

    def changed(value: str, place: str) -> str:
        result = _command(value) if place == "command" else _without_paths(value)
        if result != value:
            cleaned.append(place)
        return result

    def walk(value: Any, place: str) -> Any:
        if place in CONTENT:
            return value
        if isinstance(value, Mapping):
            return {key: walk(item, f"{place}.{key}".removeprefix(".")) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, place) for item in value]
        return changed(value, place) if isinstance(value, str) else value

    # remarks about the rows quote them, and the mean of the inputs tells of their words
    whole = {**manifest, "data": {**manifest["data"], "remarks": [], INPUTS: {}}}
    if base is None and hub_base(manifest) is None:
        base = _last(manifest["base"]["name"])
        cleaned += ["base.name"] * (base != manifest["base"]["name"])
    if base is not None:
        whole["base"] = {**whole["base"], "name": base}
        model = whole["recipe"]["model"]
        named = {**model, "id": base} if isinstance(model, Mapping) else base
        whole["recipe"] = {**whole["recipe"], "model": named}
    result = walk(whole, "")
    recipe = result["recipe"]
    recipe["output"] = _last(recipe["output"])
    if recipe.get("teacher"):  # earlier versions kept the text itself
        kept = TeacherConfig(**manifest["recipe"]["teacher"]).without_text().model_dump()
        recipe["teacher"] |= {key: kept[key] for key in ("context", "sha256")}
    recipe.pop("track", None)  # trackers take any setting, keys among them
    if recipe.get("train"):
        recipe["train"]["cache_folder"] = None
    return result, list(dict.fromkeys(cleaned))


def _without_paths(text: str) -> str:
    """Return a text in which absolute paths are their last parts, and which holds no token."""
    if _is_absolute(text):
        text = _last(text)
    return _TOKEN.sub("REMOVED", _PATH.sub(lambda match: match[1], text))


def _command(text: str) -> str:
    """Return a command of ours without paths; of another program its name, as its arguments may be secret."""
    try:
        program, *arguments = shlex.split(text)
    except ValueError:
        return ""
    if program not in ("softprompt", "__main__.py"):
        return _last(program)
    return shlex.join(["softprompt", *map(_argument, arguments)])


def _argument(text: str) -> str:
    key, equals, value = text.partition("=")
    return f"{key}={_without_paths(value)}" if equals else _without_paths(text)


def _is_absolute(text: str) -> bool:
    if "\n" in text:
        return False
    parts = (PurePosixPath(text), PureWindowsPath(text))
    return text.startswith("~") or any(path.is_absolute() for path in parts)


def _last(text: str) -> str:
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1]


def _check_encoder(manifest: Mapping[str, Any]) -> None:
    encoder = manifest["options"].get("encoder")
    if encoder and (looks_local(encoder) or Path(encoder).exists()):
        raise SoftPromptError(
            f"this prompt reads its inputs with the encoder in '{encoder}'",
            why="the encoder is a folder of this machine, so that nobody else could use the prompt",
            fix="upload the encoder to the hub, and tune with method.encoder=OWNER/NAME",
        )


def base_note(manifest: Mapping[str, Any]) -> str | None:
    """Return a sentence where readers cannot load the base model by its name; None where they can."""
    if hub_base(manifest) is not None:
        return None
    name = manifest["base"]["name"]
    return (
        f"the base model is a folder or file, '{_last(name)}', which others do not have; "
        "--base-model OWNER/NAME says where it is on the hub"
    )
