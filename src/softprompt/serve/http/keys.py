"""API keys decide who may use which prompts. The file has hashes only, so it reveals no key.

    keys:
      - name: team-a
        sha256: 9f86d0…          # of the key; `softprompt serve --new-key team-a` prints both
        prompts: ["team-a/*", "shared/support"]
        base: true               # may it use the plain model? (default: yes)
        metrics: false           # may it read /metrics? (default: no)

A pattern is the shell's (`*` is any characters, slashes included); it is compared with the artifact's name.
The file is read at every request, so that a removed key is refused at the next one, however the file was
changed (its time stamp and size may stay the same). While the file cannot be used, no key is accepted.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..._system.files import read_bytes
from ...errors import SoftPromptError
from ..names import one_form

log = logging.getLogger("softprompt.serve")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # fast enough for thousands of keys at every request
MOST_BYTES = 64 * 2**20
FIX = "`softprompt serve --new-key NAME` prints an entry"


class Key(BaseModel):
    """A key, and what it permits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    prompts: tuple[str, ...] = ()
    base: bool = True
    metrics: bool = False

    def allows(self, artifact: str) -> bool:
        return any(fnmatchcase(one_form(artifact), one_form(pattern)) for pattern in self.prompts)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[Key]


#: Used where no key is needed: on loopback, or where the operator chose --no-keys.
ANYBODY = Key(name="-", sha256="0" * 64, prompts=("*",), metrics=True)


class Keys:
    """The keys in a file as it is now. Raises SoftPromptError where it cannot be used, or has no key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._content = _content(path)
        self._keys = _parsed(path, self._content)
        if isinstance(self._keys, SoftPromptError):
            raise self._keys
        if not self._keys:
            raise SoftPromptError(f"{path} holds no keys", why="nobody could use the server", fix=FIX)

    def find(self, secret: str) -> Key | None:
        """Return the key with this secret. Hashes are compared, so the time that it takes reveals nothing.

        Raises SoftPromptError while the file cannot be used.
        """
        with self._lock:
            self._refresh()
            keys = self._keys
        if isinstance(keys, SoftPromptError):
            # a new error: the same object would collect the frames of every request
            raise SoftPromptError(keys.what, keys.why, keys.fix)
        return keys.get(_hash(secret))

    def move(self, path: Path) -> None:
        """Read the keys from another file from now on. Raises SoftPromptError where it cannot be used."""
        other = Keys(path)
        with self._lock:
            self.path, self._content, self._keys = path, other._content, other._keys

    def _refresh(self) -> None:
        """Read the file; log a change once."""
        content = _content(self.path)
        if content == self._content:
            return
        before, self._content = self._keys, content
        self._keys = _parsed(self.path, content)
        if isinstance(self._keys, SoftPromptError):
            why = " ".join(str(self._keys).split())
            log.error("no key is accepted until the keys can be read: %s", why)
            return
        known = {} if isinstance(before, SoftPromptError) else before
        gone = sorted({key.name for hashed, key in known.items() if hashed not in self._keys})
        withdrawn = f"; withdrawn: {', '.join(gone)}" if gone else ""
        log.info("the keys were read again: %d in %s%s", len(self._keys), self.path, withdrawn)


def new_key(name: str) -> tuple[str, str]:
    """Return a fresh key, and its lines for the file of keys."""
    secret = "sp-" + secrets.token_urlsafe(32)
    entry = {"name": name, "sha256": _hash(secret), "prompts": [f"{name}/*"]}
    return secret, yaml.safe_dump({"keys": [entry]}, sort_keys=False)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _content(path: Path) -> bytes | str:
    """Return the file's content, or, as a text, why it cannot be read."""
    try:
        return read_bytes(path, MOST_BYTES)
    except SoftPromptError as error:
        return error.why or "it does not exist"
    except OSError as error:
        return error.strerror or str(error)


def _read(path: Path, content: bytes) -> Any:
    """Read the file as plain values. Raises yaml.YAMLError, and SoftPromptError where a key occurs twice."""
    loader = LOADER(content)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check_twice(path, root)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _check_twice(path: Path, root: yaml.Node) -> None:
    todo, seen = [root], set()
    while todo:
        node = todo.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += reversed(node.value)
            continue
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            todo.append(value)
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line, same = key.start_mark.line + 1, (key.tag, key.value)
                if same in lines:
                    raise _twice(path, key.value, lines[same], line, node is root)
                lines[same] = line


def _twice(path: Path, key: str, first: int, line: int, top: bool) -> SoftPromptError:
    fix = "keep one of them"
    if top and key == "keys":
        fix = f"put every entry under the one `keys:` of line {first}, all indented alike"
    problem = (
        f"the keys of {path} are not usable: `{key}` occurs twice in one mapping, in lines {first} and {line}"
    )
    return SoftPromptError(
        problem, "YAML keeps only the last one, and would drop the rest without a word", fix
    )


def _parsed(path: Path, content: bytes | str) -> dict[str, Key] | SoftPromptError:
    """Return the keys by the hashes of their secrets, or the error where the file cannot be used."""
    if isinstance(content, str):
        return SoftPromptError(f"cannot read the keys of {path}", why=content, fix=FIX)
    try:
        values = _read(path, content)
        if values is None:
            return SoftPromptError(f"{path} is empty", why="`keys: []` is a file without keys", fix=FIX)
        keys = _File.model_validate(values).keys
    except SoftPromptError as error:
        return error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        return SoftPromptError(f"the keys of {path} are not usable: {where}: {first['msg']}", fix=FIX)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        return SoftPromptError(f"cannot read the keys of {path}", why=" ".join(str(error).split()), fix=FIX)
    if twice := len(keys) - len({key.sha256 for key in keys}):
        return SoftPromptError(f"{path}: {twice} keys occur twice", fix="give each client its own key")
    return {key.sha256: key for key in keys}
