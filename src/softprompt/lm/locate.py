"""Find a base model, and explain why one cannot be loaded, before and after transformers tries.

The hub is never asked for a name that looks like a path. Code that comes with a checkpoint is run only where
the caller says so; nobody is asked to allow it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from .._system.files import check_pulled
from .._system.paths import expanded
from ..errors import SoftPromptError, unknown

# Names that the hub had before each model belonged to somebody.
OWNERS = {
    "gpt2": "openai-community",
    "distilgpt2": "distilbert",
    "openai-gpt": "openai-community",
    "bert": "google-bert",
    "distilbert": "distilbert",
    "distilroberta": "distilbert",
    "roberta": "FacebookAI",
    "xlm-roberta": "FacebookAI",
    "xlm": "FacebookAI",
    "albert": "albert",
    "t5": "google-t5",
    "camembert": "almanach",
    "xlnet": "xlnet",
    "ctrl": "Salesforce",
    "transfo-xl": "transfo-xl",
}
TOKENIZERS = (
    "tokenizer",
    "vocab",
    "spiece",
    "sentencepiece",
    "source.spm",
    "merges",
    "tekken",
    "qwen.tiktoken",
)
WEIGHTS = (".safetensors", ".bin", ".h5", ".msgpack")


def find(name: str, aliases: Mapping[str, Callable[[], Path]]) -> tuple[str, dict[str, Any]]:
    """Return (path or hub id, options) for `from_pretrained`. Raises SoftPromptError with the reason."""
    if name in aliases:
        return str(aliases[name]()), {}
    path = Path(expanded(name))
    if path.suffix == ".gguf":
        _check_gguf(path)
        return str(path.parent), {"gguf_file": path.name}
    if os.path.lexists(path):
        _check_folder(path)
        return str(path.absolute()), {}
    if looks_local(name):
        raise SoftPromptError(
            f"no folder {path.absolute()}",
            why=f"model='{name}' is a path, which the hub is not asked for",
            fix="check the path (a recipe's belongs to the recipe's folder), or give a hub id (owner/name)",
        )
    if "/" not in name:
        family = max(
            (old for old in OWNERS if name == old or name.startswith(f"{old}-")), key=len, default=""
        )
        meant = f"the hub calls it {OWNERS[family]}/{name}: model={OWNERS[family]}/{name}" if family else ""
        raise unknown(
            "model", name, aliases, fix=meant or "or give a hub id (owner/name), a folder, or a .gguf file"
        )
    return name, {}


def is_place(name: str, aliases: Collection[str]) -> bool:
    """Return whether a name is written as one of a model: an alias, a path, or a hub id."""
    return name in aliases or "/" in name or os.path.lexists(expanded(name))


def on_hub(name: str, aliases: Collection[str]) -> bool:
    """Return whether a name means a model on the hub."""
    path = expanded(name)
    return not (name in aliases or path.endswith(".gguf") or os.path.lexists(path) or looks_local(name))


def package_named(text: str) -> str | None:
    """Return the package that a message says to install."""
    match = re.search(r"pip3? install (?:(?:-U|--upgrade|-q)\s+)?[`'\"]?([A-Za-z][\w-]*)", text)
    return match[1] if match else None


def looks_local(name: str) -> bool:
    """Return whether a name is written as a path: relative, absolute, from home, or of several folders."""
    return (
        name.startswith((".", "/", "~", os.sep))
        or name.endswith("/")
        or "\\" in name
        or name.count("/") > 1
        or os.path.isabs(name)
    )


def failed(name: str, error: BaseException, revision: str | None = None) -> SoftPromptError:
    """Return the error for a model that transformers could not load, with a reason and a fix."""
    text = str(error).strip() or type(error).__name__
    low = text.lower()
    first = next((line for line in text.splitlines() if line.strip()), text)
    why, fix = (
        first,
        "give a hub id, a folder with config.json and weights, a .gguf file, or the alias smollm2",
    )
    if "trust_remote_code" in low or "custom code" in low:
        why = "its checkpoint brings code of its own, which is run only if you say so"
        fix = "read that code and, if you trust it, say trust_remote_code=True (in a recipe: "
        fix += "model: {trust_remote_code: true}); or use a model that transformers itself has"
    elif revision is not None and ("not a valid git identifier" in low or "revision not found" in low):
        why = f"the hub has no revision '{revision}' of it"
        fix = "give a branch, a tag or a commit of its page on the hub as revision, or leave revision out"
    elif match := re.search(r"Unrecognized configuration class.*\.(\w+)'.*: (AutoModel\w+)", first):
        why = f"transformers has no {match[2]} for its configuration, {match[1]}"
        fix = "use a text model: decoder-only, encoder-decoder, or one that fills in masked words"
    elif missing := next((p for p in ("sentencepiece", "tiktoken", "protobuf") if p in low), None):
        why = f"its tokenizer needs the package {missing}, which is not installed"
        fix = f"pip install {missing}"
    elif package := package_named(text):
        why, fix = first, f"pip install {package}"
    elif "device_map" in low:
        fix = 'give device_map="auto", or {"": "cpu"}, or none'
    elif "gated" in low or "401" in text or "403" in text:
        why = "the hub gives it to those only who were let in, and the token of this call is not one of them"
        fix = "ask for access on its page, and log in: hf auth login (or set HF_TOKEN, or give token=…)"
    elif any(
        phrase in low for phrase in ("offline", "couldn't connect", "connection", "cannot find the requested")
    ):
        why = "it is not on this machine, and the hub was not reached"
        fix = "check the connection (and HF_HUB_OFFLINE), or give the folder that the model is in"
    elif "not a valid model identifier" in low or "repository not found" in low or "404" in text:
        why = "the hub has no model of that name"
        fix = "check owner and name (private ones: hf auth login), or give the folder that the model is in"
    elif "permission denied" in low:
        fix = "let this user read the files"
    elif "header" in low or "incomplete metadata" in low or "invalid load key" in low or "eof" in low:
        why, fix = f"its weights are damaged: {first}", "download or copy the model again"
    return SoftPromptError(f"cannot load model '{name}'", why=why, fix=fix)


# --- what a folder lacks ---


def _check_gguf(path: Path) -> None:
    if not path.is_file():
        raise SoftPromptError(f"no GGUF file at {path}", fix="check the path given as model")
    check_pulled(path)
    if not _begin(path).startswith(b"GGUF"):
        raise SoftPromptError(
            f"{path} is no GGUF file", why="it does not begin as one", fix="download or copy it again"
        )


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        there = path.exists()
        raise SoftPromptError(
            f"{path} is no folder" if there else f"{path} leads nowhere",
            why="a model is a folder, or a .gguf file" if there else "it is a link to what is not there",
            fix=f"give the folder that it is in: model={path.parent}" if there else "repair the link",
        )
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise SoftPromptError(
            f"cannot read the folder {path}", why=str(error.strerror), fix="let this user read it"
        ) from None
    if "config.json" not in names:
        raise _without_config(path, names)
    check_pulled(path / "config.json")
    config = _config(path / "config.json")
    weights = [name for name in names if name.endswith(WEIGHTS)]
    if not weights:
        raise SoftPromptError(
            f"the folder {path} has no weights",
            why=f"there is no model.safetensors, but {', '.join(names)[:200]}",
            fix="copy model.safetensors beside its config.json, or download the model again",
        )
    for name in _read_by_transformers(names):
        check_pulled(path / name)
    _check_shards(path, names)
    if "model_type" not in config and not config.get("auto_map"):
        raise SoftPromptError(
            f"{path / 'config.json'} does not say what model it is",
            why="it has no model_type",
            fix="copy the config.json of the model that it was trained from",
        )
    if not any(
        name.startswith(TOKENIZERS) or name.endswith((".model", ".spm", ".tiktoken")) for name in names
    ):
        raise SoftPromptError(
            f"the folder {path} has no tokenizer",
            why="it was saved without one: there is no tokenizer.json, nor a vocabulary of another form",
            fix="copy tokenizer.json and tokenizer_config.json of the model that it was trained from into it",
        )


def _read_by_transformers(names: list[str]) -> list[str]:
    """Return the weights of the kind that transformers takes first, and the small files beside them."""
    first = next((end for end in WEIGHTS if any(name.endswith(end) for name in names)), WEIGHTS[0])
    small = (".json", ".model", ".spm", ".tiktoken", ".txt", ".jinja")
    return [name for name in names if name.endswith((first, *small))]


def _without_config(path: Path, names: list[str]) -> SoftPromptError:
    problem, why = f"the folder {path} holds no model", "it has no config.json"
    fix = "give a hub id, a folder with config.json and weights, or a .gguf file"
    if not names:
        why = "it is empty"
    elif "adapter_config.json" in names:
        base = _config(path / "adapter_config.json").get("base_model_name_or_path") or "BASE"
        problem, why = f"{path} is an adapter, not a model", f"it changes {base}"
        fix = (
            f"model={base}, or merge the adapter into its base and save that "
            "(a tuned prompt or prefix of PEFT: softprompt import FOLDER --from peft)"
        )
    elif "softprompt.json" in names:
        base = (_config(path / "softprompt.json").get("base") or {}).get("name", "BASE")
        problem, why, fix = f"{path} is a tuned prompt, not a model", f"its base is {base}", f"model={base}"
    elif files := [name for name in names if name.endswith(".gguf")]:
        fix = f"give the file: model={path / files[0]}"
    elif inner := [name for name in names if (path / name / "config.json").is_file()]:
        fix = f"give the folder in it: model={path / inner[-1]}"
    return SoftPromptError(problem, why=why, fix=fix)


def _config(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SoftPromptError(
            f"cannot read {file}", why=str(error.strerror), fix="let this user read it"
        ) from None
    except ValueError as error:
        raise SoftPromptError(f"{file} is no JSON", why=str(error), fix="download or copy it again") from None
    return content if isinstance(content, dict) else {}


def _check_shards(path: Path, names: list[str]) -> None:
    """Raise SoftPromptError where a file that an index of weights names is missing."""
    for index in (name for name in names if name.endswith(".index.json")):
        named = sorted(set((_config(path / index).get("weight_map") or {}).values()))
        if missing := [name for name in named if name not in names]:
            raise SoftPromptError(
                f"the folder {path} lacks {len(missing)} of its {len(named)} files of weights",
                why=f"{index} names {missing[0]}, which is not there",
                fix="download or copy the model again",
            )


def _begin(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(4)
    except OSError as error:
        raise SoftPromptError(
            f"cannot read {file}", why=str(error.strerror), fix="let this user read it"
        ) from None
