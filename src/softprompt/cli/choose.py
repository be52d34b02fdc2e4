"""`softprompt choose`: which methods suit these rows, this model and these limits, and recipes to run."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SoftPromptError
from .output import Json, Reply, duration, log, number, size, table
from .quantities import memory as bytes_of
from .quantities import seconds as seconds_of

if TYPE_CHECKING:
    from ..choose.needs import Needs
    from ..choose.rank import Ranking
    from ..choose.rule import Rule


class Kind(str, Enum):
    """What is predicted."""

    classification = "classification"
    generation = "generation"
    choice = "choice"


def choose(
    rows: Annotated[str, typer.Option("--rows", metavar="FILE", help="Your rows, as for training.")],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The base model.")] = "smollm2",
    tasks: Annotated[
        int | None, typer.Option("--tasks", min=1, metavar="N", help="Prompts that will be served.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="8GB", help="For the model and all its prompts.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option("--latency", metavar="50ms", help="Until a request's first token.")
    ] = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Inputs will come that are unlike the rows.")
    ] = False,
    one_batch: Annotated[
        bool, typer.Option("--one-batch", help="Requests of different prompts share a batch.")
    ] = False,
    frozen: Annotated[bool, typer.Option("--frozen", help="The base model may not be changed.")] = False,
    task: Annotated[
        Kind | None, typer.Option("--task", help="What is predicted; by itself told from the targets.")
    ] = None,
    input: Annotated[
        str, typer.Option("--input", metavar="TEMPLATE", help="How a row becomes the input.")
    ] = "{{ input }}",
    target: Annotated[
        str, typer.Option("--target", metavar="TEMPLATE", help="And the target.")
    ] = "{{ target }}",
    prompt_field: Annotated[
        str | None, typer.Option("--prompt-field", metavar="COLUMN", help="It names each row's prompt.")
    ] = None,
    choices: Annotated[
        str | None, typer.Option("--choices", metavar="COLUMN", help="It holds each row's choices.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write recipes for the first three.")
    ] = None,
    why: Annotated[
        bool, typer.Option("--why", help="Show every rule that counted, and its evidence.")
    ] = False,
    pilot: Annotated[
        str | None, typer.Option("--pilot", metavar="10m", help="Try them on the rows for so long.")
    ] = None,
    json: Json = False,
) -> Reply:
    """Rank the methods for your rows, your model and your limits.

    By what is known: each rule says where it comes from and what that does not show (--why).

    \b
    Example:
      softprompt choose --rows data.jsonl
      softprompt choose --rows data.jsonl --tasks 200 --memory 8GB --latency 50ms --unseen --out recipes
    """
    said_memory = None if memory is None else bytes_of(memory, "--memory")
    said_latency = None if latency is None else seconds_of(latency, "--latency")
    if pilot is not None:
        _pilot(seconds_of(pilot, "--pilot"))
    from ..choose import Said, measure, rank, recipes
    from ..data.sources import read_rows
    from ..data.template import Template
    from ..lm.loading import load

    found = read_rows(rows)
    template = Template(input, target, prompt_field=prompt_field, choices_field=choices)
    for row in found[:1]:  # so that a mistake is told before the model is loaded
        template.render(row)
    log(f"{len(found)} rows; loading {model} …")
    said = Said(model, tasks, said_memory, said_latency, unseen, one_batch, frozen)
    needs = measure(found, template, load(model), said, kind=None if task is None else task.value)
    ranking = rank(needs)
    written = []
    if out is not None:
        about = recipes.Task(rows, model, input, target, prompt_field, choices)
        written = recipes.write(ranking, needs, about, out)
    following = _next(written, rows, ranking)
    data = {**_data(needs, ranking), "recipes": [str(path) for path in written], "next": following}
    return Reply(data, None if json else _text(needs, ranking, why, written, following))


def _pilot(seconds: float) -> None:
    raise SoftPromptError(f"--pilot ({duration(seconds)}) needs softprompt compare", fix="leave --pilot out")


def _next(written: list[Path], rows: str, ranking: Ranking) -> str:
    if written:
        return f"softprompt check {shlex.quote(str(written[0]))}"
    if any(item.contestant.is_trained for item in ranking.ranked):
        return f"softprompt choose --rows {shlex.quote(rows)} --out recipes"
    return "softprompt init"


def _data(needs: Needs, ranking: Ranking) -> dict[str, Any]:
    return {
        "needs": {**asdict(needs), "limits": dict(needs.limits)},
        "ranked": [
            {
                "name": item.contestant.name,
                "score": item.score,
                "says": item.sentence,
                "for": [rule.name for rule in item.reasons_for],
                "against": [rule.name for rule in item.reasons_against],
                "notes": [rule.name for rule in item.fired if not rule.points],
            }
            for item in ranking.ranked
        ],
        "excluded": [
            {"name": item.contestant.name, "rule": item.rule.name, "reason": item.reason}
            for item in ranking.excluded
        ],
        "rules": [
            {"name": r.name, "when": r.condition, "about": r.about, "says": r.says, "points": r.points}
            | {"excludes": r.excludes, "evidence": asdict(r.evidence)}
            for r in ranking.rules
        ],
    }


def _text(needs: Needs, ranking: Ranking, why: bool, written: list[Path], following: str) -> str:
    lines = [_facts(needs), ""]
    cells = [(f"{item.score:+d}", item.contestant.name, item.sentence) for item in ranking.ranked]
    lines.append(table(cells, right=[0]) if cells else "  nothing is left: every method is out")
    if ranking.excluded:
        lines += ["", "out:", table([(e.contestant.name, e.reason) for e in ranking.excluded])]
    if why:
        lines += ["", "why:", *(_rule(rule) for rule in ranking.rules)]
    lines += ["", "This is what is known, not what was tried on your rows; equal points mean no preference."]
    if written:
        lines += ["", "wrote:", *(f"  {path}" for path in written)]
    return "\n".join([*lines, "", "next:", f"  {following}"])


def _facts(needs: Needs) -> str:
    what = needs.kind + (f" of {len(needs.labels)} labels" if needs.labels else "")
    rows = f"{needs.rows} rows, {what}" + (f", {needs.prompts} prompts" if needs.prompts > 1 else "")
    tokens = f"input {number(needs.input_tokens)} tokens, target {number(needs.target_tokens)} (medians)"
    model = f"{needs.said.model}: {needs.model_kind}, {size(needs.weight_bytes)}"
    if needs.input_seconds is not None:
        model += f", {1000 * needs.input_seconds:.0f} ms for a median input on this machine"
    if needs.input_seconds is not None and needs.input_seconds > (needs.said.latency or 0.0):
        model += ": more than --latency, whatever the method"
    return f"{rows}; {tokens}\n{model}"


def _rule(rule: Rule) -> str:
    points = "out" if rule.excludes else f"{rule.points:+d}" if rule.points else "note"
    proof = rule.evidence
    lines = [f"  {rule.name} ({points}; {rule.condition})", f"    {rule.says}"]
    lines += [f"    for: {', '.join(rule.about)}", f"    evidence: {proof.source}: {proof.figures}"]
    lines += [f"    limits: {proof.limits}"] if proof.limits else []
    lines += [f"    again: {proof.command}"] if proof.command else []
    return "\n".join(lines)
