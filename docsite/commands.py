"""The command line's pages are made from the parser that reads the command line."""

from __future__ import annotations

import inspect
import re
from typing import Any

from typer.main import get_command

from softprompt.cli.app import app

from .tables import cell, code, table


def _commands() -> dict[str, Any]:
    return dict(sorted(get_command(app).commands.items()))  # type: ignore[attr-defined]


def contents() -> str:
    """Return a table of all commands, each with a link to its page."""
    rows = [
        [f"[`softprompt {name}`](commands/{name}.md)", cell(_help(command).split("\n\n")[0])]
        for name, command in _commands().items()
        if not command.hidden
    ]
    return table(["command", "purpose"], rows)


def pages() -> dict[str, str]:
    """Return the page of each command by its place on the site."""
    return {f"commands/{name}.md": _page(name, command) for name, command in _commands().items()}


def _help(command: Any) -> str:
    return inspect.cleandoc(command.help or "")


def _page(name: str, command: Any) -> str:
    context = command.make_context(f"softprompt {name}", [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"# softprompt {name}\n", f"```text\nsoftprompt {name} {usage}\n```\n", _text(_help(command))]
    for title, kind in (("Arguments", "argument"), ("Options", "option")):
        records = (p.get_help_record(context) for p in command.params if p.param_type_name == kind)
        rows = [[code(names), _escaped(cell(text))] for names, text in filter(None, records)]
        if rows:
            parts.append(f"## {title}\n\n" + table([kind, "meaning"], rows))
    return "\n".join(parts)


def _text(text: str) -> str:
    """Return the help as Markdown. A paragraph that begins with a backspace keeps its lines."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.startswith("\b"):
            first, *lines = paragraph.removeprefix("\b\n").splitlines()
            verbatim = "\n".join(lines) if first.endswith(":") and lines else "\n".join([first, *lines])
            title = f"{first}\n\n" if first.endswith(":") and lines else ""
            parts.append(f"{title}```text\n{inspect.cleandoc(chr(10) + verbatim)}\n```\n")
        else:
            parts.append(_escaped(paragraph) + "\n")
    return "\n".join(parts)


def _escaped(text: str) -> str:
    return re.sub(r"([<>*_])", r"\\\1", text)
