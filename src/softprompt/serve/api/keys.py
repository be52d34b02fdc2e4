"""API keys: who may use which prompts. The file holds hashes, so reading it gives nobody a key.

    keys:
      - name: team-a
        sha256: 9f86d0…          # of the key; `softprompt serve --new-key team-a` prints both
        prompts: ["team-a/*", "shared/support"]
        base: true               # may it use the plain model? (by itself yes)
        metrics: false           # may it read /metrics? (by itself no)

A pattern is the shell's (`*` any characters, a slash too); it is held against the name of the artifact.
The file is read again when it changes, so that a key is withdrawn without a restart.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import SoftPromptError
from ..names import one_form

log = logging.getLogger("softprompt.serve")


class Key(BaseModel):
    """What one key permits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    prompts: tuple[str, ...] = ()
    base: bool = True
    metrics: bool = False

    def allows(self, artifact: str) -> bool:
        """Whether it may use, and see, the artifact of this name."""
        return any(fnmatchcase(one_form(artifact), one_form(pattern)) for pattern in self.prompts)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[Key] = Field(min_length=1)


#: Who needs no key: on loopback, or where the operator said so.
ANYBODY = Key(name="-", sha256="0" * 64, prompts=("*",), metrics=True)


class Keys:
    """The keys of a file. Raises SoftPromptError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = self._now()
        self._keys = _read(path)

    def find(self, secret: str) -> Key | None:
        """The key with this secret. Only its hash is compared, so how long that takes tells nothing."""
        self._refresh()
        return self._keys.get(_hash(secret))

    def _now(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    def _refresh(self) -> None:
        stamp = self._now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = _read(self.path)
        except SoftPromptError as error:
            log.error("the keys that were read before stay valid: %s", error)


def new_key(name: str) -> tuple[str, str]:
    """A fresh key, and the lines that the file of keys needs."""
    secret = "sp-" + secrets.token_urlsafe(32)
    entry = {"name": name, "sha256": _hash(secret), "prompts": [f"{name}/*"]}
    return secret, yaml.safe_dump({"keys": [entry]}, sort_keys=False)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path) -> dict[str, Key]:
    fix = "`softprompt serve --new-key NAME` prints an entry"
    try:
        found = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SoftPromptError(
            f"the keys of {path} are not usable: {where}: {first['msg']}", fix=fix
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SoftPromptError(f"cannot read the keys of {path}", why=str(error), fix=fix) from None
    if twice := len(found.keys) - len({key.sha256 for key in found.keys}):
        raise SoftPromptError(f"{path}: {twice} keys occur twice", fix="give each client one of its own")
    return {key.sha256: key for key in found.keys}
