"""The blocks of code on a page are found here: those that are run, and those that say why they are not.

A block that is not run has `<!-- not run: REASON -->` on the line above it, and a file that the reader saves
has `<!-- file: NAME -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MARK = r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?"
#: Blocks of Python and shell.
BLOCK = re.compile(MARK + r"^```(?P<kind>python|bash)\n(?P<text>.*?)^```", re.M | re.S)
#: A file that a tutorial tells the reader to save.
FILE = re.compile(r"^<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<content>.*?)^```", re.M | re.S)


@dataclass(frozen=True)
class Part:
    """A page is words (Markdown), and what is run in between; `end` is the place behind it in the page."""

    kind: Literal["markdown", "python", "bash", "file"]
    source: str
    end: int
    name: str = ""  # of a file


def parts(page: str) -> Iterator[Part]:
    """Yield the parts of a page in their order; blocks that are not run are words."""
    matches = [match for match in BLOCK.finditer(page) if match["reason"] is None]
    start = 0
    for match in sorted([*matches, *FILE.finditer(page)], key=lambda match: match.start()):
        if words := page[start : match.start()].strip():
            yield Part("markdown", words, match.start())
        if match.re is FILE:
            yield Part("file", match["content"], match.end(), match["name"])
        else:
            kind = "python" if match["kind"] == "python" else "bash"
            yield Part(kind, match["text"], match.end())
        start = match.end()
    if words := page[start:].strip():
        yield Part("markdown", words, len(page))
