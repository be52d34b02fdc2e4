"""Files written whole or not at all, and tensors without pickle."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import SoftPromptError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place once it is written and on disk.

    Raises SoftPromptError for a full disk or a folder that cannot be written; `path` stays as it was.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file, atomically."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            # None and not {}: with no tensors and {} it writes a header that it cannot read
            save_file(ready, temporary, metadata=dict(metadata) if metadata else None)
        except SafetensorError as error:  # it wraps the operating system's error in words
            code = errno.ENOSPC if "No space left" in str(error) else errno.EIO
            raise OSError(code, str(error)) from error


def read_tensors(path: Path) -> dict[str, Any]:
    """Tensors of a safetensors file. Raises SoftPromptError where it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise SoftPromptError(f"no file {path}", fix="train again, or copy the whole folder") from None
    except (SafetensorError, OSError) as error:
        raise SoftPromptError(
            f"{path} is damaged", why=str(error), fix="restore it from a copy, or train again"
        ) from None


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _unwritable(path: Path, error: OSError) -> SoftPromptError:
    if error.errno == errno.ENOSPC:
        return SoftPromptError(
            f"the disk is full: {path} was not written",
            why="what stood there before is unchanged",
            fix="free some space and run the same command again; a run goes on from its checkpoint",
        )
    return SoftPromptError(
        f"cannot write {path}",
        why=error.strerror or str(error),
        fix="choose another output=FOLDER, or mend its rights",
    )
