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
MOST_BYTES = 4_000_000  # of a text that a page is to show


def play(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="[PROMPTS_DIR]", help="A folder of tuned prompts, one prompt, or hf:ID[@REVISION]."
        ),
    ] = Path("runs"),
    model: BaseModel = None,
    system: Annotated[
        Path | None,
        typer.Option(
            "--system",
            "--document",
            metavar="FILE",
            help="The text that a prompt was distilled from, to show.",
        ),
    ] = None,
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

    The plain model, a prompt that you write and tuned prompts answer the same input. A prompt that was
    distilled answers beside the full text and beside neither. The server listens on
    this machine alone, until Ctrl-C.

    \b
    Example:
      softprompt play runs/demo
      softprompt play runs/voices
      softprompt play runs/sea --system system.txt
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

    text = distilled_text(folder, system)  # an error of the file comes before a model is loaded
    with contextlib.closing(_socket(port)) as bound:
        settings: dict[str, Any] = {
            "trials": trials,
            "trust_remote_code": trust_remote_code,
            "play_text": text,
        }
        run(folder, model, bound, ready, hosts=LOOPBACK_NAMES, drain=2.0, **settings)
    return Reply(None)


def distilled_text(folder: Path, file: Path | None) -> str:
    """Return the text of `file`, or of the file that the prompt was distilled from; else an empty text."""
    if file is None:
        return _recorded_text(folder)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SoftPromptError(
            f"the text {file} cannot be read",
            why=getattr(error, "strerror", None) or "it is not UTF-8 text",
            fix="--system FILE names a text file of UTF-8",
        ) from None


def _recorded_text(folder: Path) -> str:
    """Return the text of the file that the artifact's recipe names; empty where it cannot be read."""
    from ..artifacts.manifest import MANIFEST

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # then the page asks for the text
        manifest = jsonlib.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        file = Path(manifest["recipe"]["teacher"]["file"])
        if file.is_file() and file.stat().st_size <= MOST_BYTES:  # an artifact may come from elsewhere
            return file.read_text(encoding="utf-8")
    return ""


def _socket(port: int | None) -> socket.socket:
    from ..serve.http.server import listen

    if port is not None:
        return listen("127.0.0.1", port)
    try:
        return listen("127.0.0.1", USUAL_PORT)
    except SoftPromptError:
        return listen("127.0.0.1", 0)
