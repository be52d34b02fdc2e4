"""A stand-in for vLLM on a loopback port, which misbehaves as a test wants, byte by byte."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

MODELS = {"object": "list", "data": [{"id": "base", "root": "base", "max_model_len": 256}]}
Say = Callable[["Connection"], None]


def chunk(text: str, *ids: int, reason: str | None = None, **more: Any) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "text": text, "token_ids": list(ids), "finish_reason": reason, **more}
    return event({"choices": [choice]})


def event(data: Any) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


class Connection:
    """One request's, with what was asked for."""

    def __init__(self, sock: socket.socket, path: str, body: Any) -> None:
        self.sock, self.path, self.body = sock, path, body

    def head(self, status: int = 200, **headers: str) -> None:
        """Headers of an answer that ends with the connection."""
        lines = [f"HTTP/1.1 {status} X", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())

    def reply(self, status: int, content: Any, **headers: str) -> None:
        kind = "application/json" if not isinstance(content, str) else "text/html; charset=utf-8"
        sent = content if isinstance(content, str) else json.dumps(content)
        self.head(status, **{"Content_Type": kind, "Content_Length": str(len(sent.encode())), **headers})
        self.sock.sendall(sent.encode())

    def stream(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Events, each written alone; the connection is closed after them."""
        self.head(200, Content_Type="text/event-stream; charset=utf-8")
        for piece in pieces:
            self.sock.sendall(piece)
            time.sleep(pause)

    def promise(self, *pieces: bytes) -> None:
        """The same of a body that ends before it should."""
        self.head(200, Content_Type="text/event-stream", Content_Length="100000")
        for piece in pieces:
            self.sock.sendall(piece)

    def reset(self) -> None:
        """The connection is broken, not closed."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class StandIn:
    """`say` answers completions, `health` and `models` the paths of those names."""

    def __init__(self) -> None:
        self.say: Say = lambda c: c.stream(chunk("he", 40), chunk("llo", 41, reason="length"))
        self.health: Say = lambda c: c.reply(200, "")
        self.models: Say = lambda c: c.reply(200, MODELS)
        self.bodies: list[Any] = []
        self.open(0)

    def open(self, port: int) -> None:
        """Listen; a server that was closed comes back."""
        self.sock = socket.create_server(("127.0.0.1", port))
        self.port = self.sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, args=(self.sock,), daemon=True).start()

    def close(self) -> None:
        """Nobody listens any more."""
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock:
                path, content = _read(sock)
                body = json.loads(content) if content else None
                if path == "/health":
                    self.health(Connection(sock, path, body))
                elif path == "/v1/models":
                    self.models(Connection(sock, path, body))
                else:
                    self.bodies.append(body)
                    self.say(Connection(sock, path, body))
        except (OSError, ValueError):
            pass


def _read(sock: socket.socket) -> tuple[str, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        received += sock.recv(65536) or _nothing()
        if received.startswith(b"\x16\x03"):  # TLS
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            _nothing()
    head, _, content = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    length = next((int(line[15:]) for line in lines if line.lower().startswith("content-length:")), 0)
    while len(content) < length:
        content += sock.recv(65536) or _nothing()
    return lines[0].split()[1], content


def _nothing() -> bytes:
    raise ValueError("the connection was closed")


def in_turn(*says: Say) -> Say:
    """One after the other; the last one again and again."""
    left: list[Say] = list(says)

    def say(connection: Connection) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(connection)

    return say


def cut(content: bytes, size: int) -> Iterable[bytes]:
    """Bytes in pieces, which part characters and lines."""
    return [content[i : i + size] for i in range(0, len(content), size)]
