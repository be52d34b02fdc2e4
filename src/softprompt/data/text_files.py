"""Bytes of a file or of standard input are unpacked, decoded and checked as text.

The limits are here and in `values`, `row` and `template_limits`; docs/data.md lists them.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from softprompt._system.files import check_pulled
from softprompt._system.paths import kind_of
from softprompt._system.progress import Progress, task
from softprompt.errors import SoftPromptError

MAX_BYTES = 4_000_000_000  # of a file of text, uncompressed
MAX_ROW = 100_000_000  # bytes of one row
BLOCK = 1 << 22


def _open_zst(path: Path, mode: str) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(str(path), "zstd")


OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
}
#: Marks at the start of a file, the longer ones first: UTF-32's begins with UTF-16's.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def check_regular(path: Path, name: str = "data file") -> None:
    """Raise SoftPromptError for a path without a file of known length: a pipe, a device.

    A pointer of Git LFS is refused as well.
    """
    if (kind := kind_of(path, f"the {name}")) != "file":
        raise SoftPromptError(
            f"'{path}' is a {kind}, not a {name}",
            why="rows are read more than once, and a pipe or device may never end",
            fix="write it to a file first",
        )
    check_pulled(path)


def read_text(path: Path, *, may_be_blank: bool = False) -> str:
    """Read a file's text: UTF-8, or UTF-16 or UTF-32 that begins with its mark.

    Raises SoftPromptError for a file that is empty or too long, or holds bytes that are no text.
    """
    opener = OPENERS.get(path.suffix.lower())
    total = None if opener else path.stat().st_size
    try:
        with task(f"reading {path.name}", total) as reading, (opener or open)(path, "rb") as file:
            content = _bytes_of(file, f"'{path}'", reading, in_lines=".json" not in _suffixes(path))
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, OSError) as error:
        if opener is None or (isinstance(error, OSError) and error.errno):
            raise
        raise SoftPromptError(
            f"'{path}' cannot be unpacked", why=str(error), fix="copy or download it again"
        ) from None
    text = _decoded(content, path.name, path.name)
    if not may_be_blank and not text.strip():
        raise SoftPromptError(f"'{path}' is empty", fix="write one row a line, with an input and a target")
    return text


def read_standard_input() -> str:
    """Read standard input as `read_text` reads a file; it may be blank."""
    with task("reading standard input") as reading:
        binary = getattr(sys.stdin, "buffer", None)
        if binary is None:  # a stream of text in its place
            return sys.stdin.read()
        return _decoded(_bytes_of(binary, "standard input", reading, in_lines=True), "standard input", "")


def _suffixes(path: Path) -> list[str]:
    return [suffix.lower() for suffix in path.suffixes[-2:]]


def _bytes_of(file: Any, name: str, reading: Progress, *, in_lines: bool) -> bytes:
    """Read all bytes. Raises SoftPromptError once they, or one line where lines are rows, are too many."""
    blocks, size, line = [], 0, 0
    while block := file.read(BLOCK):
        if not blocks:  # a list of rows may be written without a line break
            in_lines = in_lines and not block.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"[")
        blocks.append(block)
        size += len(block)
        end = max(block.rfind(b"\n"), block.rfind(b"\r"))
        line = line + len(block) if end < 0 else len(block) - end - 1
        if size > MAX_BYTES:
            raise SoftPromptError(
                f"{name} is too long",
                why=f"a file of text has at most {MAX_BYTES:,} bytes, uncompressed",
                fix="train on a part of it, or write it as Parquet",
            )
        if in_lines and line > MAX_ROW:
            raise row_too_long(name)
        reading.at(size)
    return b"".join(blocks)


def row_too_long(where: str) -> SoftPromptError:
    """Return the error for a row of more than `MAX_ROW` bytes."""
    return SoftPromptError(
        f"{where} holds a row that is too long",
        why=f"a row has at most {MAX_ROW:,} bytes",
        fix="shorten its texts, or give each row a line of its own",
    )


def _decoded(content: bytes, name: str, file: str) -> str:
    """Decode the bytes; `file` is the name that a command to convert them is given."""
    encoding = next((code for mark, code in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(name, file, content, error) from None
    if "\0" in text[:10_000]:
        raise SoftPromptError(
            f"'{name}' holds NUL characters",
            why="it is not text, or is UTF-16 without a mark at its start",
            fix=f"if it is text, convert it: iconv -f utf-16le -t utf-8 {file}".strip(),
        )
    return text


def _undecodable(name: str, file: str, content: bytes, error: UnicodeDecodeError) -> SoftPromptError:
    line = content.count(b"\n", 0, error.start) + 1
    start, why = content[:4000], f"byte {content[error.start : error.start + 1].hex()} cannot be decoded"
    if error.encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        return SoftPromptError(
            f"'{name}' is damaged: its mark says {error.encoding}", why, "write it again, as UTF-8"
        )
    if start.count(0) > len(start) // 4:
        which, note = ("utf-16le" if start[1:2] == b"\0" else "utf-16be"), ""
    else:  # Windows' code page has all printable characters of Latin-1, and quotation marks
        which, note = "cp1252", "(if it comes from western Windows)"
    fix = " ".join(f"convert it: iconv -f {which} -t utf-8 {file} {note}".split())
    return SoftPromptError(f"{name}:{line}: not UTF-8 text", why=why, fix=fix)
