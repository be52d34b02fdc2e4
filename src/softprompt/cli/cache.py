"""`softprompt cache` says where the tool writes, lists what its cache holds, and clears it."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SoftPromptError
from .output import Json, Reply, log, size, table

if TYPE_CHECKING:
    from ..cache.inventory import CacheItem


class Action(str, Enum):
    """An action is what `softprompt cache` does."""

    where = "where"
    list = "list"
    clear = "clear"


def cache(
    action: Annotated[
        Action, typer.Argument(metavar="[where|list|clear]", help="Default: say where the tool writes.")
    ] = Action.where,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]", help="With clear: entries as `list` names them, or kv for all of those."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Clear without asking.")] = False,
    json: Json = False,
) -> Reply:
    """Say where the tool writes, list its cache, or clear it.

    Whatever is cleared is computed again where it is needed; results are never in the cache. An entry that
    a run uses stays, and links are not followed.

    \\b
    Example:
      softprompt cache
      softprompt cache list
      softprompt cache clear kv --yes
    """
    if action is Action.clear:
        return _clear(names or [], yes, json)
    if names:
        raise typer.BadParameter(f"{action.value} takes no name")
    return _list() if action is Action.list else _where()


def _where() -> Reply:
    places = where()
    rows = [("what", "where", "size", "decided by")]
    rows += [(p["what"], p["path"], "–" if p["bytes"] is None else size(p["bytes"]), p["by"]) for p in places]
    text = (
        table(rows, right=[2])
        + "\n\nsoftprompt cache list shows the entries; softprompt cache clear removes them."
    )
    return Reply({"places": places}, text)


def where() -> list[dict[str, Any]]:
    """List the places that the tool writes to; `bytes` is None for what is not one folder."""
    from .._system.paths import cache_root
    from ..cache.folders import default_root
    from ..cache.inventory import usage
    from ..lm.smollm2 import CONVERTED

    root, by = cache_root(), _decided_by("SOFTPROMPT_CACHE", "XDG_CACHE_HOME", default="the home folder")
    converted = root.glob(f"{CONVERTED}[0-9]*")
    hub, hub_by = _hub_cache()

    def place(content: str, path: Path | str, by: str, count: int | None) -> dict[str, Any]:
        return {"what": content, "path": str(path), "bytes": count, "by": by}

    return [
        place(
            "converted base models",
            root,
            by,
            sum(usage(folder)[0] for folder in converted),
        ),
        place(
            "keys and values of inputs", default_root(), f"{by}; train.cache_folder", usage(default_root())[0]
        ),
        place("models of the hub", hub, f"{hub_by}; cleared by `hf cache`", usage(Path(hub))[0]),
        place("runs, comparisons, reports", "runs/…", "output in the recipe", None),
        place("trackers", "as they say", "track in the recipe", None),
    ]


def _decided_by(*names: str, default: str) -> str:
    return next((f"${name}" for name in names if os.environ.get(name)), default)


def _hub_cache() -> tuple[str, str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    return HF_HUB_CACHE, _decided_by(*names, default="the home folder")


def _list() -> Reply:
    from .._system.paths import cache_root
    from ..cache.inventory import CONTENTS, entries

    listed, root = entries(), cache_root()
    data = {
        "folder": str(root),
        "bytes": sum(e.bytes for e in listed),
        "entries": [_record(e) for e in listed],
    }
    if not listed:
        return Reply(data, f"nothing is cached in {root}")
    rows = [("entry", "size", "files", "used", "content")]
    for e in listed:
        note = f"in use: {e.in_use}" if e.in_use else CONTENTS[e.content]
        rows.append((e.name, size(e.bytes), str(e.files), _age(e.used), note))
    total = f"{len(listed)} entries, {size(data['bytes'])} in {root}"
    return Reply(data, f"{table(rows, right=[1, 2])}\n\n{total}")


def _record(entry: CacheItem) -> dict[str, Any]:
    return {**asdict(entry), "path": str(entry.path)}


def _age(used: float) -> str:
    """Say how long ago, in one unit."""
    seconds = max(0.0, time.time() - used)
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name} ago" if seconds >= 1.5 * unit else f"1 {name[:-1]} ago"
    return "just now"


def _clear(names: list[str], yes: bool, json: bool) -> Reply:
    from ..cache.inventory import chosen, clear, entries

    wanted = chosen(names, entries())
    if not wanted:
        return Reply({"cleared": [], "kept": [], "bytes": 0}, "nothing is cached")
    if not yes:
        _confirm(wanted, json)
    cleared, kept, freed = [], [], 0
    for entry in wanted:
        try:
            freed += clear(entry)
            cleared.append(entry.name)
        except SoftPromptError as error:
            kept.append({"name": entry.name, "why": error.why or error.what})
            log(f"kept {entry.name}: {error.why or error.what}")
    text = f"{len(cleared)} entries cleared, {size(freed)} freed"
    text += f"; {len(kept)} kept" if kept else ""
    return Reply({"cleared": cleared, "kept": kept, "bytes": freed}, text, code=1 if kept else 0)


def _confirm(wanted: list[CacheItem], json: bool) -> None:
    """Ask; raise SoftPromptError where nobody can answer, or where the answer is no."""
    total = size(sum(entry.bytes for entry in wanted))
    if json or not sys.stdin.isatty():
        raise SoftPromptError(
            f"{len(wanted)} entries ({total}) would be cleared, and nobody was asked",
            "the standard input is no terminal" if not json else "--json asks nothing",
            "add --yes",
        )
    for entry in wanted:
        log(f"  {entry.name}  {size(entry.bytes)}")
    if not typer.confirm(f"Clear {len(wanted)} entries ({total})?", err=True):
        raise SoftPromptError("nothing was cleared", "the answer was no")
