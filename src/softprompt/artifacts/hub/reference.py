"""`hf:OWNER/NAME@REVISION` names an artifact on the hub; the revision is a branch, a tag or a commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..._system.paths import shown
from ...errors import SoftPromptError

PREFIX = "hf:"
FORM = "write OWNER/NAME of letters, digits, '-', '_' and '.', such as me/mood"


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository on the hub is named with its revision; None is the main branch."""

    id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.id}" + (f"@{self.revision}" if self.revision else "")

    @property
    def name(self) -> str:
        return self.id.rpartition("/")[2]


def is_reference(path: str | Path) -> bool:
    return str(path).startswith(PREFIX)


def parse(path: str | Path, *, owned: bool = True) -> Reference:
    """Read `hf:OWNER/NAME[@REVISION]`; the prefix may be missing.

    With `owned`, the owner is required. Raises SoftPromptError where the hub allows no such name.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    text = (path.as_posix() if isinstance(path, Path) else path).removeprefix(PREFIX)
    id, at, revision = text.partition("@")
    try:
        validate_repo_id(id)
    except HFValidationError as error:
        raise _wrong(text, str(error).removesuffix(f": '{id}'.")) from None
    if owned and "/" not in id:
        raise _wrong(text, "the owner of the repository is missing")
    if at and (not revision or set(revision) & set(" \t\n:?*[\\^~")):
        why = f"'{shown(revision)}' is no branch, tag or commit" if revision else "nothing follows the '@'"
        raise SoftPromptError(f"'{shown(text)}' names no revision", why, f"write {PREFIX}{id}@main, or {id}")
    return Reference(id, revision or None)


def split_prompt(text: str) -> tuple[str, str | None]:
    """Split `hf:ID@REVISION:NAME` into the artifact and the name of a prompt in it, None without one."""
    id, colon, name = text.removeprefix(PREFIX).partition(":")
    return PREFIX + id, name if colon else None


def _wrong(text: str, why: str) -> SoftPromptError:
    id, colon, prompt = text.partition(":")
    if colon and prompt and "/" in id:
        why, fix = "a colon is allowed in no id", f"write {PREFIX}{id}, and choose the prompt with --prompt"
    else:
        fix = FORM
    return SoftPromptError(f"'{shown(text)}' is no id of the Hugging Face hub", why, fix)
