"""Files are written whole or not at all, and tensors without pickle."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import SoftPromptError

RESTORE = "restore it from a copy, or train again"
POINTER = b"version https://git-lfs"  # the start of the small text that Git LFS leaves in a file's place
HEADER_BYTES = 100_000_000  # the limit that the safetensors library sets
# temporary files that a killed run leaves: those of `replacing`, and of safetensors
_UNFINISHED = re.compile(
    r"\.(tmp[A-Za-z0-9]{6}|(.+\.(safetensors|json|jsonl)|README\.md|report\.(md|html))\.[a-z0-9_]{8})"
)


@contextlib.contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place once it is written and on disk.

    With `keep`, the file that was at `path` is kept there: one of the two exists at any time.
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
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(
    path: Path,
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
    *,
    keep: Path | None = None,
) -> None:
    """Write a safetensors file atomically; the file that was there is kept as `keep`."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path, keep) as temporary:
        try:
            # None and not {}: with no tensors and {} it writes a header that it cannot read
            save_file(ready, temporary, metadata=dict(metadata) if metadata else None)
        except SafetensorError as error:  # it wraps the operating system's error in words
            code = errno.ENOSPC if "No space left" in str(error) else errno.EIO
            raise OSError(code, str(error)) from error


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file. Raises SoftPromptError where it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_tensors_fit(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path, str(error)) from error


def check_tensors_fit(path: Path) -> None:
    """Raise SoftPromptError unless a safetensors file is as long as its header says.

    Only the header is read, so a huge file costs nothing.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_BYTES, size - 8):
            raise _damaged(path, "its header is longer than the file")
        try:
            header = json.loads(file.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise _damaged(path, "its header cannot be read") from None
    if max(ends, default=0) != size - 8 - length:
        raise _damaged(path, "its size is not what its header says")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, to read it.

    Raises SoftPromptError for a missing file, for folders, pipes and devices, whose end may never come, and
    for a pointer of Git LFS.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise SoftPromptError(
                f"{path} is damaged",
                why="it is no regular file, but a " + _kind(mode),
                fix=RESTORE,
            )
        check_pulled(path)
        return _open_now(path)
    except FileNotFoundError:
        raise SoftPromptError(f"no file {path}", fix="train again, or copy the whole folder") from None
    except (OSError, ValueError) as error:
        raise _damaged(path, getattr(error, "strerror", None) or str(error)) from error


def _open_now(path: Path) -> BinaryIO:
    # O_NONBLOCK: a pipe that took the file's place just now does not make us wait
    return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")


def check_pulled(path: Path) -> None:
    """Raise SoftPromptError for a pointer of Git LFS. Other files, and those that cannot be read, pass.

    Pipes and devices pass unread: their reader would miss what was read here, and reading them may never end.
    """
    with contextlib.suppress(OSError, ValueError):
        if not stat.S_ISREG(path.stat().st_mode):
            return
        with _open_now(path) as file:
            is_pointer = file.read(len(POINTER)) == POINTER
        if is_pointer:
            raise SoftPromptError(
                f"{path} is not there yet: it is a Git LFS pointer",
                why="git has fetched the file's name and hash, and not its contents",
                fix=f"git lfs pull (in {path.parent})",
            )


def read_bytes(path: Path, most: int) -> bytes:
    """Read a regular file. Raises SoftPromptError where it is longer than `most` bytes."""
    content = bytearray()
    with open_regular(path) as file:
        while len(content) <= most and (block := file.read(1 << 16)):  # `read(most)` would reserve so much
            content += block
    if len(content) > most:
        raise _damaged(path, f"it is longer than {most:,} bytes")
    return bytes(content)


def sha256(path: Path) -> str:
    """Return the hex digest of a regular file."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder that nobody else writes to now."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if _UNFINISHED.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    return "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


def _damaged(path: Path, why: str) -> SoftPromptError:
    return SoftPromptError(f"{path} is damaged", why=why, fix=RESTORE)


def unwritable(path: Path, error: OSError) -> SoftPromptError:
    if error.errno == errno.ENOSPC:
        return SoftPromptError(
            f"the disk is full: {path} was not written",
            why="the file that was there before is unchanged",
            fix="free some space and run the same command again; a run resumes from its checkpoint",
        )
    return SoftPromptError(
        f"cannot write {path}",
        why=error.strerror or str(error),
        fix="choose another output=FOLDER, or change its permissions",
    )
