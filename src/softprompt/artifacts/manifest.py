"""`softprompt.json` is read, checked and written here, with the digest that covers it.

    {..., "digest": sha256 of the file's bytes without these 64 digits}

The digest is the last line, so that any changed byte is noticed, also one of the digest. Windows line ends
are accepted. Files of schema 1 have no digest; their content is checked all the same. This file knows nothing
of tensors or models.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .._system.files import RESTORE, read_bytes
from ..config.load import recipe_from_dict
from ..errors import SoftPromptError

SCHEMA = 2
MANIFEST = "softprompt.json"
VECTORS, STATE, BASE = "prompt.safetensors", "state.safetensors", "base.safetensors"
MANIFEST_BYTES = 256_000_000  # at most; only the prompts' names and the history grow
#: The scores and the rows of a prompt that was not trained here.
UNSCORED: dict[str, Any] = {"metrics": {}, "intervals": {}, "rows": {}, "n": 0}
UNKNOWN_DATA: dict[str, Any] = {"fingerprint": "", "rows": 0, "dev_rows": 0}
_DIGEST = re.compile(rb'"digest": "([0-9a-f]{64})"\n\}\n\Z')

Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _File(_Part):
    sha256: Sha256
    bytes: Count


class _Base(_Part):
    name: Name
    mode: Literal["frozen", "lora", "full"]
    options: dict[str, Any] = {}
    fingerprint: dict[str, str]
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    revision: str | None = None
    quantization: dict[str, Any] | None = None
    weights: Literal["int8"] | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    in_memory: bool = False


class _Scores(_Part):
    metrics: dict[str, float | int]
    intervals: dict[str, list[float | int]] = {}
    rows: dict[str, Count] = {}
    n: Count = 0


class _Data(_Part):
    fingerprint: str = ""
    rows: Count = 0
    dev_rows: Count = 0


class _Distribution(_Part):
    name: str
    version: str
    object: str


class _Manifest(_Part):
    method: Name
    options: dict[str, Any]
    distribution: _Distribution | None = None  # of a method that another package has
    prompts: Annotated[list[Name], Field(min_length=1)]
    labels: list[str] | None
    base: _Base
    recipe: dict[str, Any]
    data: _Data
    dev: _Scores
    plain: _Scores | None = None
    training: dict[str, Any] = {}
    files: dict[Literal["prompt.safetensors", "state.safetensors", "base.safetensors"], _File]

    @field_validator("prompts")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("a prompt's name is there twice")
        return names

    @field_validator("files")
    @classmethod
    def _has_vectors(cls, files: dict[str, _File]) -> dict[str, _File]:
        if STATE not in files:
            raise ValueError(f"{STATE} is not among its files")
        return files


def using_command(recipe: Mapping[str, Any]) -> str:
    """Return the command that uses a prompt of a recipe (as plain values): `embed` where it gives vectors."""
    return "embed" if (recipe.get("task") or {}).get("kind") == "embedding" else "generate"


def text_of(manifest: Mapping[str, Any]) -> str:
    """Return the text of `softprompt.json` with its digest."""
    whole = {key: value for key, value in manifest.items() if key != "digest"} | {"digest": "0" * 64}
    text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    return text[:-68] + _digest(text.encode("utf-8")) + text[-4:]


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Return the digest of a manifest's file, also where the manifest was just written and not yet read."""
    return json.loads(text_of(manifest))["digest"]


def read(file: Path) -> dict[str, Any]:
    """Read a `softprompt.json`. Raises SoftPromptError where it is damaged, or of a newer version."""
    content = read_bytes(file, MANIFEST_BYTES)
    try:
        manifest = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(file, str(error)) from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema"), int):
        raise _damaged(file, "it names no schema")
    if manifest["schema"] > SCHEMA:
        raise SoftPromptError(
            f"{file.parent} has schema {manifest['schema']}",
            why=f"this version reads up to {SCHEMA}",
            fix="pip install --upgrade softprompt",
        )
    if not is_whole(content, manifest):
        raise _damaged(file, "its content does not match its digest: it was changed since it was written")
    if manifest["schema"] < 1:
        raise _damaged(file, f"there is no schema {manifest['schema']}")
    _check(file, manifest)
    return manifest


def _check(file: Path, manifest: dict[str, Any]) -> None:
    """Raise SoftPromptError where something is missing, or has another type."""
    try:
        _Manifest.model_validate(manifest)
        json.dumps(manifest["options"])  # a value that is nested too deep is found here
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _damaged(file, f"{where}: {first['msg']}") from None
    except RecursionError:
        raise _damaged(file, "it is nested too deep") from None
    try:
        recipe_from_dict(manifest["recipe"])
    except (SoftPromptError, RecursionError, ValueError, TypeError) as error:
        reason = getattr(error, "what", None) or str(error)
        raise _damaged(file, f"its recipe cannot be read: {reason}") from None


def is_whole(content: bytes, manifest: Mapping[str, Any]) -> bool:
    """Tell whether a manifest's bytes match its digest; True where schema 1 has none."""
    if manifest.get("schema") != SCHEMA and "digest" not in manifest:
        return True
    content = content.replace(b"\r\n", b"\n")
    digest = _DIGEST.search(content)
    return digest is not None and digest[1].decode() == _digest(content)


def _digest(content: bytes) -> str:
    """Hash a manifest's bytes without the 64 digits ahead of their last four."""
    return hashlib.sha256(content[:-68] + content[-4:]).hexdigest()


def _damaged(file: Path, why: str) -> SoftPromptError:
    return SoftPromptError(f"{file} is damaged", why=why, fix=RESTORE)
