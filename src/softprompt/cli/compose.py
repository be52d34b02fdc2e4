"""`softprompt compose` makes a prompt of tuned ones, without training."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .opening import ModelName, TrustCode
from .output import Json, Reply, log, size, table


def compose(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="ARTIFACT[:NAME]...", help="Tuned prompts, in order.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write it.")],
    concat: Annotated[bool, typer.Option("--concat", help="Join all of them, in order.")] = False,
    average: Annotated[
        bool, typer.Option("--average", help="Take their mean; shapes must be equal.")
    ] = False,
    scale: Annotated[
        float | None,
        typer.Option("--scale", metavar="S", help="Change one's strength to S; 1 is as trained."),
    ] = None,
    keep_sinks: Annotated[
        bool,
        typer.Option("--keep-sinks", help="With --concat: keep every prefix's first column (for comparing)."),
    ] = False,
    keep_positions: Annotated[
        bool,
        typer.Option("--keep-positions", help="With --concat: leave keys where they are (for comparing)."),
    ] = False,
    model: ModelName = None,
    trust_remote_code: TrustCode = False,
    json: Json = False,
) -> Reply:
    """Make a new prompt of tuned ones, without training.

    All must belong to one frozen base model. Template, task and labels are the first one's. --concat keeps
    one attention sink of prefixes that start with one, and moves keys to positions that follow each other.

    \b
    Example:
      softprompt compose --concat runs/style runs/task --out runs/both
      softprompt compose --average runs/seed-0 runs/seed-1 --out runs/mean
      softprompt compose --scale 0.5 runs/chat:joke --out runs/mild
      softprompt compose --scale 0.5 hf:me/chat@v1:joke --out runs/mild
    """
    if [concat, average, scale is not None].count(True) != 1:
        raise typer.BadParameter("give one of --concat, --average and --scale S")
    if (keep_sinks or keep_positions) and not concat:
        raise typer.BadParameter("--keep-sinks and --keep-positions belong to --concat")
    from ..artifacts import compose as composition
    from ..artifacts.manifest import using_command
    from ..build import saved_base

    operation = composition.AVERAGE
    if concat:
        operation = composition.concatenating(keep_sinks=keep_sinks, keep_positions=keep_positions)
    if scale is not None:
        operation = composition.scaling(scale)
    opened = [composition.open_source(source) for source in sources]
    operation.check(len(opened))
    others = [source for source in opened[1:] if not source.used_as(opened[0])]
    for source in others:
        log(f"note: {source.artifact} was trained with another template or task; the first one's is used")
    base = opened[0].artifact.manifest["base"]
    log(f"loading {model or base['name']} …")
    lm = saved_base(opened[0].artifact, model, trust_remote_code=trust_remote_code)
    composed = composition.compose(operation, opened, out, lm)
    data = {
        "artifact": str(composed.path),
        "method": composed.manifest["method"],
        **composed.manifest["options"],
        "model": base["name"],
        "sources": composed.manifest["sources"],
        "bytes": composed.bytes,
    }
    rows = [("artifact", f"{composed.path} ({size(composed.bytes)})"), ("made by", operation.name)]
    rows += [("of", f"{source.artifact}, prompt {source.prompt}") for source in opened]
    if operation.one_sink and (dropped := sum(source.has_sink for source in opened) - 1) > 0:
        rows.append(("dropped", f"{dropped} of {dropped + 1} attention sinks (first columns)"))
    rows.append(("vectors", str(composed.manifest["options"]["length"])))
    command = f"softprompt {using_command(composed.manifest['recipe'])} {shlex.quote(str(composed.path))}"
    next_step = f'next:\n  {command} "your input"'
    return Reply(data, f"{table(rows)}\n\n{next_step}")
