"""`softprompt play` opens a page in the browser to try tuned prompts."""

from __future__ import annotations

import contextlib
import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SoftPromptError
from .opening import TrustCode
from .output import Json, Reply, log
from .serve import BaseModel, Trials
from .serving import needed, run

if TYPE_CHECKING:
    import socket

USUAL_PORT = 8000


def play(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="[PROMPTS_DIR]", help="A folder of tuned prompts, one prompt, or hf:ID[@REVISION]."
        ),
    ] = Path("runs"),
    model: BaseModel = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, metavar="N", help="Default: 8000, or any free port."),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address, open no browser.")] = False,
    trust_remote_code: TrustCode = False,
    trials: Trials = False,
    json: Json = False,
) -> Reply:
    """Try tuned prompts side by side in the browser.

    The plain model, a prompt that you write and tuned prompts answer the same input. The server listens on
    this machine alone, until Ctrl-C.

    \b
    Example:
      softprompt play runs/demo
      softprompt play runs/voices
    """
    with needed():
        from ..serve.http.server import LOOPBACK_NAMES

    def ready(url: str, base: str) -> None:
        page = f"{url}/play"
        log(f"{page} is ready; Ctrl-C ends it")
        if json:
            print(jsonlib.dumps({"url": page, "model": base}), flush=True)
        if not no_open:
            import webbrowser

            webbrowser.open(page)

    with contextlib.closing(_socket(port)) as bound:
        settings: dict[str, Any] = {"trials": trials, "trust_remote_code": trust_remote_code}
        run(folder, model, bound, ready, hosts=LOOPBACK_NAMES, drain=2.0, **settings)
    return Reply(None)


def _socket(port: int | None) -> socket.socket:
    from ..serve.http.server import listen

    if port is not None:
        return listen("127.0.0.1", port)
    try:
        return listen("127.0.0.1", USUAL_PORT)
    except SoftPromptError:
        return listen("127.0.0.1", 0)
