"""`softprompt methods` lists the registry: the library's methods, and those of installed packages."""

from __future__ import annotations

from .output import Json, Reply, table


def methods(json: Json = False) -> Reply:
    """List the methods and their options.

    \b
    Example:
      softprompt methods
    """
    from ..methods import METHODS

    broken = METHODS.broken()
    listed = {
        name: {
            "summary": method.summary,
            "lr": method.lr or None,
            "package": str(METHODS.origin(name) or "") or None,
            "options": {option: parameter.default for option, parameter in method.options().items()},
        }
        for name, method in METHODS.items()
    }
    blocks = []
    for name, facts in listed.items():
        options = "  ".join(f"{option}={_written(default)}" for option, default in facts["options"].items())
        learning = f"lr {facts['lr']:g}" if facts["lr"] else ""
        rows = [("", learning)] if learning else []
        rows += [("", f"of {facts['package']}")] if facts["package"] else []
        rows += [("", options or "no options")]
        blocks.append(f"{name}: {facts['summary']}\n" + table(rows))
    blocks += [
        f"{name}: broken\n" + table([("", line) for line in str(error).splitlines()])
        for name, error in broken.items()
    ]
    usage = (
        "in a recipe:  method: {name: prefix-tuning, length: 8}\non a command: method=prefix-tuning length=8"
    )
    errors = {
        name: {"what": error.what, "why": error.why, "fix": error.fix} for name, error in broken.items()
    }
    return Reply({"methods": listed, "broken": errors}, "\n\n".join([*blocks, usage]))


def _written(default: object) -> str:
    if isinstance(default, bool) or default is None:
        return {True: "true", False: "false", None: "null"}[default]  # type: ignore[index]
    return str(default) if default != "" else "''"
