"""A small load balancer asks the next server, as nginx's `proxy_next_upstream error http_503 non_idempotent`.

A request goes to another server only where no byte of an answer has come, or a 503.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from urllib.parse import urlsplit


class Proxy:
    """It runs in a thread; `servers` (addresses) may change while it does."""

    def __init__(self, servers: list[str]) -> None:
        self.servers, self.retried, self._turn = servers, 0, itertools.count()
        self.loop, ready = asyncio.new_event_loop(), threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self.thread.start()
        assert ready.wait(10)

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._end = asyncio.Event()
            ready.set()
            await self._end.wait()
            server.close()

        self.loop.run_until_complete(main())

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self.thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        length = next(
            (int(v) for k, _, v in (row.partition(":") for row in lines) if k.lower() == "content-length"), 0
        )
        body = await reader.readexactly(length)
        kept = [row for row in lines if row and not row.lower().startswith("connection:")]
        request = "\r\n".join([*kept, "Connection: close", "", ""]).encode() + body
        first, answer, upstream = b"", None, None
        for _ in range(20):
            servers = list(self.servers)
            first, answer, upstream = await self._ask(servers[next(self._turn) % len(servers)], request)
            if first and b" 503 " not in first:
                break
            self.retried += 1
            await asyncio.sleep(0.05)
        writer.write(first)
        while answer is not None and (part := await answer.read(65536)):
            writer.write(part)
            await writer.drain()
        writer.close()
        if upstream is not None:
            upstream.close()

    async def _ask(
        self, url: str, request: bytes
    ) -> tuple[bytes, asyncio.StreamReader | None, asyncio.StreamWriter | None]:
        """Return the first bytes of the answer (none where the server is away), and the connection.

        A writer that nobody holds would close it.
        """
        parts = urlsplit(url)
        try:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(request)
            await writer.drain()
            return await reader.read(65536), reader, writer
        except OSError:
            return b"", None, None
