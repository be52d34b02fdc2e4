"""`softprompt methods` lists the registry."""

from __future__ import annotations

from .output import Json, Reply, table


def methods(json: Json = False) -> Reply:
    """List the methods and their options.

    \b
    Example:
      softprompt methods
    """
    from ..methods import METHODS

    listed = {
        name: {
            "summary": method.summary,
            "lr": method.lr or None,
            "options": {option: parameter.default for option, parameter in method.options().items()},
        }
        for name, method in METHODS.items()
    }
    blocks = []
    for name, facts in listed.items():
        options = "  ".join(f"{option}={_written(default)}" for option, default in facts["options"].items())
        learning = f"lr {facts['lr']:g}" if facts["lr"] else ""
        rows = [("", learning)] if learning else []
        rows += [("", options or "no options")]
        blocks.append(f"{name}: {facts['summary']}\n" + table(rows))
    usage = (
        "in a recipe:  method: {name: prefix-tuning, length: 8}\non a command: method=prefix-tuning length=8"
    )
    return Reply({"methods": listed}, "\n\n".join([*blocks, usage]))


def _written(default: object) -> str:
    if isinstance(default, bool) or default is None:
        return {True: "true", False: "false", None: "null"}[default]  # type: ignore[index]
    return str(default) if default != "" else "''"
