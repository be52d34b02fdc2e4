"""An engine and its gateway read a folder of compiled prompts for one base model.

    base.json                     the base of all prompts: name, fingerprint, sizes
    prompts/NAME.json             a name (slashes make folders; `prompt_names`), and its content now
    kv/ab/SHA256.safetensors      content, named by its hash: k.0, v.0, … [k, kv_heads, head_dim], or soft
                                  tokens after the input: after [Q, hidden]
    embeddings.safetensors        the base's token embeddings [vocabulary, hidden], for such soft tokens

The content of a hash never changes, so a cache of it is never stale, and an engine can check what it loads. A
name gets new content by the replacement of one small file. Reading names needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from ...._system.files import check_pulled, replacing, write_tensors, write_text
from ....config.identity import base_differs
from ....errors import SoftPromptError
from ...prompt_names import HASHED, nameable, one_form, path_of, why_not

FORMAT = 1
BASE, NAMES, CONTENT, EMBEDDINGS = "base.json", "prompts", "kv", "embeddings.safetensors"
AFTER = "after"


@dataclass(frozen=True, slots=True)
class Base:
    """The model that a folder's prompts were compiled for."""

    name: str
    fingerprint: Mapping[str, str]
    hidden_size: int
    layers: tuple[tuple[int, int], ...]  # kv_heads and head_dim of each


@dataclass(frozen=True, slots=True)
class Entry:
    """A name is stored with its content's hash and what rendering inputs needs."""

    name: str
    sha256: str
    length: int  # vectors
    bytes: int
    dtype: str
    kind: Literal["kv", "after"] = "kv"  # a KV prefix, or soft tokens after the input
    prompt: str = "default"  # its name in the artifact
    method: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)  # for rendering inputs
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Folder:
    """Reads and writes compiled prompts on disk."""

    path: Path

    def base(self) -> Base:
        """Read the base. Raises SoftPromptError where this is no such folder, or of a newer version."""
        record = _read(self.path / BASE, f"no compiled prompts at {self.path}")
        layers = tuple((int(heads), int(size)) for heads, size in record["layers"])
        return Base(record["name"], record["fingerprint"], record["hidden_size"], layers)

    def begin(self, base: Base) -> None:
        """Make the folder, or check that it is for the same base."""
        self.check(base.name, base.fingerprint)
        if not (self.path / BASE).exists():
            write_text(self.path / BASE, _json(asdict(base)))

    def check(self, name: str, fingerprint: Mapping[str, str]) -> None:
        """Raise SoftPromptError where the folder has prompts of another base, or is a file."""
        if self.path.exists() and not self.path.is_dir():
            raise SoftPromptError(f"{self.path} is a file", fix="choose another --out FOLDER")
        if not (self.path / BASE).exists():
            return
        there = self.base()
        if parts := base_differs(there.fingerprint, fingerprint, chat=True):
            raise SoftPromptError(
                f"{self.path} has prompts compiled for another base, '{there.name}'",
                why=f"its {' and '.join(parts)} differ from those of '{name}'",
                fix="choose another --out FOLDER: one for each base model",
            )

    def add(self, tensors: Mapping[str, Any], entry_of: Callable[[str, int], Entry]) -> Entry:
        """Write tensors under their hash, then the name's entry, which `entry_of(sha256, bytes)` returns."""
        from safetensors.torch import save

        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        sha256 = hashlib.sha256(content).hexdigest()
        file = self.content(sha256)
        if not file.exists():
            with replacing(file) as temporary:
                temporary.write_bytes(content)
        entry = entry_of(sha256, len(content))
        self.check_name(entry.name)
        write_text(self._file(entry.name), _json(asdict(entry)))
        for before in filter(os.path.lexists, self._older_files(entry.name)):
            before.unlink()
        return entry

    def content(self, sha256: str) -> Path:
        """Return the file of some content, in one of 256 folders: a million files in one are slow to list."""
        return self.path / CONTENT / sha256[:2] / f"{sha256}.safetensors"

    def names(self) -> Iterator[str]:
        root = self.path / NAMES
        for file in root.rglob("*.json"):
            if (name := _name_of(file, root)) is not None:
                yield name

    def prompts_of(self, artifact: str) -> Iterator[str]:
        """Yield the names of the prompts of an artifact that had several."""
        if not all(map(nameable, artifact.split("/"))):
            return
        root, prompts = self.path / NAMES, set()
        for ahead in dict.fromkeys((path_of(artifact), quote(artifact))):
            for file in _files_from(root / f"{ahead}{quote(':')}"):
                name = _name_of(file, root)
                if name is not None and name.startswith(f"{artifact}:"):
                    prompts.add(name.removeprefix(f"{artifact}:"))
        yield from sorted(prompts)

    def holds(self, name: str) -> bool:
        try:
            return self.name_file(name).is_file()
        except (SoftPromptError, OSError, ValueError):
            return False

    def entry(self, name: str) -> Entry:
        """Return the entry of a name. Raises SoftPromptError for one that is unknown or leads elsewhere."""
        file = self.name_file(name)
        record = _read(file, f"no compiled prompt '{name}' in {self.path}")
        known: dict[str, Any] = {k: v for k, v in record.items() if k in Entry.__dataclass_fields__}
        entry = Entry(**{**known, "labels": tuple(known.get("labels", ()))})
        if one_form(entry.name) != one_form(name):
            raise _shared(file, name, entry.name)
        return entry

    def check_name(self, name: str) -> None:
        """Raise SoftPromptError for a text that cannot be a prompt's name, or has the file of another one."""
        if name != name.encode("utf-8", "replace").decode("utf-8"):
            raise _unusable(
                name.encode("ascii", "backslashreplace").decode(), "it has half of a surrogate pair"
            )
        check_artifact(name.partition(":")[0])
        file = self._file(name)
        there = _name_in(file)
        if there is not None and there != name:
            raise _shared(file, name, there)

    def add_embeddings(self, make: Callable[[], Any]) -> None:
        """Write the base's token embeddings, unless they exist."""
        if not (self.path / EMBEDDINGS).exists():
            write_tensors(self.path / EMBEDDINGS, {"embeddings": make()})

    def embeddings(self, ids: Sequence[int]) -> Any:
        """Read rows [n, H] of the base's token embeddings, and no more of the file.

        Raises SoftPromptError where the file is missing or damaged, or has no such rows.
        """
        from safetensors import SafetensorError, safe_open

        path = self.path / EMBEDDINGS
        check_pulled(path)
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_slice("embeddings")[list(ids)]
        except (SafetensorError, OSError, LookupError) as error:
            fix = "remove it, and compile the prompts again"
            raise SoftPromptError(f"{path} is damaged or missing", why=str(error), fix=fix) from error

    def load(self, entry: Entry) -> dict[str, Any]:
        """Load tensors and check their hash. Raises SoftPromptError for missing or damaged ones."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        file, fix = self.content(entry.sha256), f"compile '{entry.name}' again"
        check_pulled(file)
        try:
            content = file.read_bytes() if os.path.isfile(file) else b""  # a pipe may never end
        except OSError as error:
            raise SoftPromptError(f"{file} cannot be read", why=str(error), fix=fix) from error
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise SoftPromptError(
                f"{file} is damaged or missing",
                why="its content does not have the hash that is its name",
                fix=fix,
            )
        try:
            return load(content)
        except SafetensorError as error:
            raise SoftPromptError(f"{file} is damaged", why=str(error), fix=fix) from error

    def name_file(self, name: str) -> Path:
        """Return the file of a name, existing or not. Raises SoftPromptError for one that leads elsewhere."""
        if not all(map(nameable, name.partition(":")[0].split("/"))):
            why = "a name is a path inside the folder: parts without a dot ahead, joined by /"
            raise _unusable(name, why)
        forms = dict.fromkeys((name, one_form(name), unicodedata.normalize("NFD", name)))
        files = [file for form in forms for file in (self._file(form), *self._older_files(form))]
        return next((file for file in files if os.path.isfile(file)), files[0])

    def _file(self, name: str) -> Path:
        return self.path / NAMES / f"{path_of(name)}.json"

    def _older_files(self, name: str) -> list[Path]:
        """Return the file that earlier versions wrote: slashes in a prompt's own name made folders, too."""
        parts = name.split("/")
        if not all(parts) or any(part.startswith(".") or "\\" in part for part in parts):
            return []
        older = self.path / NAMES / f"{quote(name, errors='surrogatepass')}.json"
        return [older] if older != self._file(name) else []


def check_artifact(name: str) -> None:
    """Raise SoftPromptError for an artifact's name that no prompt can have."""
    if (part := next((part for part in name.split("/") if not nameable(part)), None)) is not None:
        raise _unusable(name, why_not(part) if part else "a part of it is empty")


def _unusable(name: str, why: str) -> SoftPromptError:
    return SoftPromptError(
        f"'{name}' cannot name a compiled prompt", why=why, fix="use a name like team/support"
    )


def _shared(file: Path, name: str, other: str) -> SoftPromptError:
    return SoftPromptError(
        f"'{name}' and '{other}' have one file, {file}",
        why="this file system does not distinguish names by capital letters or accents",
        fix="rename the folder of one of them",
    )


def _name_in(file: Path) -> str | None:
    try:
        name = json.loads(file.read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _files_from(beginning: Path) -> Iterator[Path]:
    """Yield files of names whose paths begin so; earlier versions wrote them in folders that do."""
    if beginning.parent.is_dir():
        for path in beginning.parent.iterdir():
            if path.name.startswith(beginning.name):
                yield from [path] if path.suffix == ".json" else path.rglob("*.json")


def _name_of(file: Path, root: Path) -> str | None:
    """Return the name that a file is for, from its path unless a part of that is hashed."""
    path = file.relative_to(root).as_posix().removesuffix(".json")
    return _name_in(file) if HASHED in path else unquote(path)


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, **record}, indent=2, ensure_ascii=False) + "\n"


def _read(file: Path, missing: str) -> dict[str, Any]:
    check_pulled(file)
    try:
        if os.path.lexists(file) and not os.path.isfile(file):
            raise ValueError("it is no regular file")
        record = json.loads(file.read_text(encoding="utf-8"))
        newer = record["format"] > FORMAT
    except (FileNotFoundError, NotADirectoryError):
        raise SoftPromptError(
            missing, why=f"there is no {file}", fix="softprompt compile writes it"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SoftPromptError(f"{file} is damaged", why=str(error), fix="compile it again") from None
    if newer:
        raise SoftPromptError(
            f"{file} has format {record['format']}",
            why=f"this version reads up to {FORMAT}",
            fix="pip install --upgrade softprompt",
        )
    return record
