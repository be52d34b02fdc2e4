"""`softprompt choose`: which methods suit these rows, this model and these limits, and recipes to run."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import Json, Reply, duration, log, number, size, table
from .quantities import memory as bytes_of
from .quantities import seconds as seconds_of

if TYPE_CHECKING:
    from ..recommend.infer_fields import Guess
    from ..recommend.rank import Ranking
    from ..recommend.requirements import Needs
    from ..recommend.rules.base import Rule
    from ..recommend.run_pilot import Tried

_FIELDS = "--input '{{{{ {0} }}}}' --target '{{{{ {1} }}}}'"


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
        str | None,
        typer.Option("--input", metavar="TEMPLATE", help="How a row becomes the input; by itself guessed."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="TEMPLATE", help="And the target.")
    ] = None,
    prompt_field: Annotated[
        str | None,
        typer.Option("--prompt-field", metavar="COLUMN", help="It names each row's prompt; '' for none."),
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
        str | None,
        typer.Option("--pilot", metavar="10m", help="Try the first of them on the rows for so long."),
    ] = None,
    json: Json = False,
) -> Reply:
    """Rank the methods for your rows, your model and your limits.

    By what is known: each rule says where it comes from and what that does not show (--why). With --pilot,
    by short trials on the rows too: those that do better get longer ones.

    \b
    Example:
      softprompt choose --rows data.jsonl
      softprompt choose --rows data.jsonl --pilot 10m --out recipes
      softprompt choose --rows data.jsonl --tasks 200 --memory 8GB --latency 50ms --unseen --out recipes
    """
    said_memory = None if memory is None else bytes_of(memory, "--memory")
    said_latency = None if latency is None else seconds_of(latency, "--latency")
    pilot_seconds = None if pilot is None else seconds_of(pilot, "--pilot")
    from ..data.sources import read_rows
    from ..data.template import Template
    from ..lm.loading import load
    from ..recommend import Said, measure, rank, recipes
    from ..recommend.infer_fields import guess

    found = read_rows(rows)
    fields = guess(found, input=input, target=target, choices=choices, prompt_field=prompt_field, say=_FIELDS)
    prompt_field = fields.prompt_field
    template = Template(fields.input, fields.target, prompt_field=prompt_field, choices_field=fields.choices)
    for row in found[:1]:  # so that a mistake is told before the model is loaded
        template.render(row)
    log(f"{len(found)} rows; loading {model} …")
    said = Said(model, tasks, said_memory, said_latency, unseen, one_batch, frozen)
    needs = measure(found, template, load(model), said, kind=None if task is None else task.value)
    ranking, tried = rank(needs), None
    if pilot_seconds is not None:
        tried = _pilot(rows, prompt_field, fields, needs, ranking, pilot_seconds)
        ranking = measured_first(ranking, tried)
    written = []
    if out is not None:
        about = recipes.RecipeTask(
            rows, model, fields.input, fields.target, prompt_field, fields.choices, fields.references
        )
        settings = None if tried is None else tried.settings
        written = recipes.write(ranking, needs, about, out, settings=settings)
    following = _next(written, rows, ranking, pilot)
    data = {**_data(needs, ranking), "recipes": [str(path) for path in written], "next": following}
    data["template"] = asdict(fields)
    if tried is not None:
        data["pilot"] = {**asdict(tried.pilot), "folder": str(tried.folder), "dev_rows": tried.dev_rows}
    return Reply(data, None if json else _text(needs, ranking, why, written, following, fields, tried))


def _pilot(
    rows: str, prompt_field: str | None, fields: Guess, needs: Needs, ranking: Ranking, seconds: float
) -> Tried:
    from ..config.load import recipe_from_dict
    from ..recommend.quickstart import comparison, name_of
    from ..recommend.run_pilot import try_out

    name = name_of(rows)
    folder = Path(f"runs/{name}-pilot")
    asked = recipe_from_dict(
        {"model": needs.said.model, "data": {"train": rows, "prompt_field": prompt_field}}
    )
    plain, _ = comparison(rows, name, Path(), asked, fields, needs)
    log(f"a pilot of {duration(seconds)} …")
    return try_out(plain, ranking, folder, seconds, say=log)


def measured_first(ranking: Ranking, tried: Tried) -> Ranking:
    """The ranking by what the pilot measured."""
    from ..recommend.run_pilot import measured_first as by_pilot

    return by_pilot(ranking, tried.pilot)


def _next(written: list[Path], rows: str, ranking: Ranking, pilot: str | None) -> str:
    if written:
        return f"softprompt {'tune' if pilot else 'check'} {shlex.quote(str(written[0]))}"
    if pilot:
        return f"softprompt compare {shlex.quote(rows)} --open"
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


def _text(
    needs: Needs,
    ranking: Ranking,
    why: bool,
    written: list[Path],
    following: str,
    fields: Guess,
    tried: Tried | None,
) -> str:
    lines = [_facts(needs), table(fields.lines()), ""]
    if tried is not None:
        lines += [*_measured(tried), "", "what is known:"]
    cells = [(f"{item.score:+d}", item.contestant.name, item.sentence) for item in ranking.ranked]
    lines.append(table(cells, right=[0]) if cells else "  nothing is left: every method is out")
    if ranking.excluded:
        lines += ["", "out:", table([(e.contestant.name, e.reason) for e in ranking.excluded])]
    if why:
        lines += ["", "why:", *(_rule(rule) for rule in ranking.rules)]
    if tried is None:
        lines += ["", "This is what is known, not what was tried on your rows (--pilot 10m tries it);"]
        lines.append("equal points mean no preference.")
    if written:
        lines += ["", "wrote:", *(f"  {path}" for path in written)]
    return "\n".join([*lines, "", "next:", f"  {following}"])


def _measured(tried: Tried) -> list[str]:
    """The pilot's order: scores of one round can be compared, those of two cannot."""
    found, rounds = tried.pilot, max(trial.rung for trial in tried.pilot.played) + 1
    lines = [f"measured in {duration(found.seconds)}, on {tried.dev_rows} dev rows ({tried.metric}):"]
    cells = []
    for trial in found.order:
        settings = " ".join(f"{key.split('.')[-1]}={value:g}" for key, value in trial.settings.items())
        score = trial.error or number(tried.shown(trial.score))
        steps = f", {trial.steps} steps" if trial.steps else ""
        cells.append((trial.contestant, score, f"round {trial.rung + 1} of {rounds}{steps}", settings))
    lines.append(table(cells))
    if found.unplayed:
        lines.append(f"  not reached: {', '.join(found.unplayed)}")
    if rounds > 1:
        lines.append(
            "  Who got further did better before. Scores of unlike rounds had unlike rows and steps."
        )
    if found.unparted:
        lines.append(
            f"  {tried.dev_rows} rows do not part {', '.join(found.unparted)}: "
            "their log-loss put them in order. More rows, or several seeds (softprompt compare), may."
        )
    return lines


def _facts(needs: Needs) -> str:
    what = needs.kind + (f" of {len(needs.labels)} labels" if needs.labels else "")
    rows = f"{needs.rows} rows, {what}" + (f", {needs.prompts} prompts" if needs.prompts > 1 else "")
    tokens = f"input {needs.input_tokens:g} tokens, target {needs.target_tokens:g} (medians)"
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
