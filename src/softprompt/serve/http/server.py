"""The server listens on loopback by default, and its end breaks no connection.

On SIGTERM or Ctrl-C no new request is accepted. Running requests have `drain` seconds to finish; those that
are not finished by then end with an error, not with a broken connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from ...errors import SoftPromptError
from ..trim import Trimming
from . import logs

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
GRACE = 5.0  # seconds to send the last answers after the engine has ended them


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket; port 0 means any free one. Raises SoftPromptError where the address is not available."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise SoftPromptError(
            f"cannot listen on {host}:{port}",
            why=str(error.strerror or error),
            fix="another --port, or 0 for any",
        ) from None
    return bound


def address_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn that stops the engine too. `ready` is called once requests are accepted."""

    def __init__(self, app: Any, *, drain: float = 30.0, ready: Callable[[], None] = lambda: None) -> None:
        options: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False}
        super().__init__(uvicorn.Config(app, timeout_graceful_shutdown=int(drain + GRACE), **options))
        self.service, self.hosts, self.ready = app.state.service, app.state.hosts, ready
        self.drain = drain
        self.reload: Callable[[], None] | None = None  # on SIGHUP, where there is one
        self.trimming = Trimming()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.trimming.start()
            if self.reload is not None and hasattr(signal, "SIGHUP"):
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
            self.ready()

    def take(self, settings: Mapping[str, Any]) -> None:
        """Take over settings while the server runs: keys, hosts, max_tokens, timeout, drain, log_format.

        Raises SoftPromptError where one cannot be used; then nothing changes.
        """
        if "keys" in settings:
            if self.service.keys is None or settings["keys"] is None:
                raise SoftPromptError(
                    "whether keys are needed cannot change while the server runs", fix="restart the server"
                )
            self.service.keys.move(Path(settings["keys"]))
        if "hosts" in settings:
            self.hosts.clear()
            self.hosts.update(host.lower() for host in settings["hosts"])
        limits = self.service.limits
        limits.output_tokens = settings.get("max_tokens", limits.output_tokens)
        limits.seconds = settings.get("timeout", limits.seconds)
        if "drain" in settings:
            self.drain = settings["drain"]
            self.config.timeout_graceful_shutdown = int(self.drain + GRACE)
        if "log_format" in settings:
            logs.use(settings["log_format"])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn would send itself the signal again at the end, and never return
        self.service.stopping = True
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.stopping = True
        ended = asyncio.create_task(asyncio.to_thread(self.service.engine.stop, drain=self.drain))
        await super().shutdown(sockets)
        if self.force_exit:
            await asyncio.to_thread(self.service.engine.stop)
        await ended
        await asyncio.to_thread(self.trimming.stop)
