"""Server-sent events are parsed from bytes as they arrive, by the rules of the HTML standard.

Bytes are joined before they are decoded, so characters may be cut anywhere. Only CR and LF end a line: JSON
may contain the other characters that Python's splitlines counts as ends.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator

LINE_END = re.compile(rb"\r\n|\n|\r(?!$)")  # a CR that is the last byte so far may be half of CR LF


async def events(pieces: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """Yield the data of each event; comments, and events without data, are skipped.

    Raises UnicodeDecodeError for bytes that are not UTF-8.
    """
    rest, data = b"", []
    async for piece in pieces:
        *lines, rest = LINE_END.split(rest + piece)
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data).decode()
                data = []
    if rest.startswith(b"data:"):  # the empty line at the end is missing
        data.append(rest[5:].removeprefix(b" ").rstrip(b"\r"))
    if data:
        yield b"\n".join(data).decode()
