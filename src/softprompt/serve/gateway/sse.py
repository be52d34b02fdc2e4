"""Server-sent events as the HTML standard has them: bytes as they arrive become the data of each event.

Bytes are joined before they are decoded, so a character may be cut anywhere; only CR and LF end a line, since
JSON may hold every other character that Python takes for the end of one.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator

LINE_END = re.compile(rb"\r\n|\n|\r(?!$)")  # a CR that is the last byte so far may be half of CR LF


async def events(pieces: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """The data of each event; comments, and events without data, are left out.

    Raises UnicodeDecodeError for what is not UTF-8.
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
    if rest.startswith(b"data:"):  # no empty line at the end: taken as it is
        data.append(rest[5:].removeprefix(b" ").rstrip(b"\r"))
    if data:
        yield b"\n".join(data).decode()
