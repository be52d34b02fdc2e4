"""A file's bytes become text: which files are read at all, how they are compressed, and in which encoding.

The limits stand here and in `values`, `row` and `budget`; docs/data.md lists them.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from softprompt.errors import SoftPromptError
from softprompt.paths import kind_of
from softprompt.progress import task

MAX_BYTES = 4_000_000_000  # of a file of text, uncompressed
BLOCK = 1 << 22
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
#: Marks at the start of a file, the longer ones first: UTF-32's begins with UTF-16's.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def check_regular(path: Path, what: str = "data file") -> None:
    """Raises SoftPromptError for what is there but is no file of a known length: a pipe, a device."""
    if (kind := kind_of(path, f"the {what}")) != "file":
        raise SoftPromptError(
            f"'{path}' is a {kind}, not a {what}",
            why="rows are read more than once, and a pipe or device may never end",
            fix="write it to a file first",
        )


def read_text(path: Path, *, may_be_blank: bool = False) -> str:
    """The text of a file: UTF-8, or UTF-16 or UTF-32 that begins with its mark.

    Raises SoftPromptError for a file that is empty or too long, or holds bytes that are no text.
    """
    content = _content(path)
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(path, content, error) from None
    if "\0" in text[:10_000]:
        raise SoftPromptError(
            f"'{path}' holds NUL characters",
            why="it is not text, or is UTF-16 without a mark at its start",
            fix=f"if it is text, convert it: iconv -f utf-16le -t utf-8 {path.name}",
        )
    if not may_be_blank and not text.strip():
        raise SoftPromptError(f"'{path}' is empty", fix="write one row a line, with an input and a target")
    return text


def _content(path: Path) -> bytes:
    opener = OPENERS.get(path.suffix.lower())
    total, blocks, size = path.stat().st_size, [], 0
    try:
        with (
            task(f"reading {path.name}", None if opener else total) as reading,
            (opener or open)(path, "rb") as file,
        ):
            while block := file.read(BLOCK):
                blocks.append(block)
                size += len(block)
                if size > MAX_BYTES:
                    raise SoftPromptError(
                        f"'{path}' is too long",
                        why=f"a file of text has at most {MAX_BYTES:,} bytes, uncompressed",
                        fix="train on a part of it, or write it as Parquet",
                    )
                reading.at(size)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise SoftPromptError(
            f"'{path}' cannot be unpacked", why=str(error), fix="copy or download it again"
        ) from None
    return b"".join(blocks)


def _undecodable(path: Path, content: bytes, error: UnicodeDecodeError) -> SoftPromptError:
    line = content.count(b"\n", 0, error.start) + 1
    found, why = content[:4000], f"byte {content[error.start : error.start + 1].hex()} cannot be decoded"
    if error.encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        return SoftPromptError(
            f"'{path}' is damaged: its mark says {error.encoding}", why, "write it again, as UTF-8"
        )
    if found.count(0) > len(found) // 4:
        which = "utf-16le" if found[1:2] == b"\0" else "utf-16be"
        fix = f"convert it: iconv -f {which} -t utf-8 {path.name}"
    else:  # Windows' code page holds all that Latin-1 prints, and its quotation marks
        fix = f"convert it: iconv -f cp1252 -t utf-8 {path.name} (if it comes from western Windows)"
    return SoftPromptError(f"{path.name}:{line}: not UTF-8 text", why=why, fix=fix)
