"""Standard streams that lack a character (Windows, ASCII) write `?` in its place, with one note."""

from __future__ import annotations

import codecs
import json
import sys
from typing import Any

_HANDLER = "softprompt.question-mark"
_noted = False


def prepare() -> None:
    """Make no character end a command. JSON is escaped (`json_text`), so that nothing is lost."""
    codecs.register_error(_HANDLER, _question_mark)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)  # type: ignore[union-attr]


def json_text(value: Any) -> str:
    """Return one line of JSON that standard output can write in its encoding."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("_", "-")
    text = json.dumps(value, ensure_ascii=not encoding.startswith("utf"))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a pair, as a broken emoji leaves it
        text = json.dumps(value)
    return text


def _question_mark(error: UnicodeError) -> tuple[str, int]:
    global _noted
    if not isinstance(error, UnicodeEncodeError):
        raise error
    if not _noted:
        _noted = True
        print(
            f"note: this output is {error.encoding} and lacks some characters: they are written as ? "
            "(set PYTHONIOENCODING=utf-8 to keep them)",
            file=sys.stderr,
        )
    return "?" * (error.end - error.start), error.end
