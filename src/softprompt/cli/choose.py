"""`softprompt choose` ranks the methods for these rows, this model and these limits, and writes recipes."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._system.progress import following
from .contest import Contest
from .interruption import Interruption
from .output import Json, Reply, duration, log, number, size, table
from .quantities import memory as bytes_of
from .quantities import seconds as seconds_of

if TYPE_CHECKING:
    from ..data.sources import Row
    from ..lm.base import LanguageModel
    from ..recommend import Needs, Ranking, Rule
    from ..recommend.infer_fields import Guess
    from ..recommend.pilot import Pilot

_FIELDS = "--input '{{{{ {0} }}}}' --target '{{{{ {1} }}}}'"


class Kind(str, Enum):
    """A kind of task is what is predicted."""

    classification = "classification"
    generation = "generation"
    choice = "choice"
    embedding = "embedding"


def choose(
    rows: Annotated[str, typer.Option("--rows", metavar="FILE", help="Your rows, as for training.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="The base model. Default: smollm2, or minilm for vectors of texts.",
            show_default=False,
        ),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option("--tasks", min=1, metavar="N", help="Prompts that will be served.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="8GB", help="Memory for the model and all its prompts.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option("--latency", metavar="50ms", help="Time to a request's first token.")
    ] = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Inputs will come that are unlike the rows.")
    ] = False,
    one_batch: Annotated[
        bool, typer.Option("--one-batch", help="Requests of different prompts share a batch.")
    ] = False,
    frozen: Annotated[bool, typer.Option("--frozen", help="The base model may not be changed.")] = False,
    task: Annotated[
        Kind | None, typer.Option("--task", help="What is predicted; by default inferred from the targets.")
    ] = None,
    input: Annotated[
        str | None,
        typer.Option("--input", metavar="TEMPLATE", help="How a row becomes the input; by default inferred."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="TEMPLATE", help="How a row becomes the target.")
    ] = None,
    prompt_field: Annotated[
        str | None,
        typer.Option(
            "--prompt-field", metavar="COLUMN", help="The column that names each row's prompt; '' for none."
        ),
    ] = None,
    choices: Annotated[
        str | None, typer.Option("--choices", metavar="COLUMN", help="The column with each row's choices.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write recipes for the first three.")
    ] = None,
    why: Annotated[
        bool, typer.Option("--why", help="Show every rule that applied, and its evidence.")
    ] = False,
    pilot: Annotated[
        str | None,
        typer.Option("--pilot", metavar="10m", help="Try the first of them on the rows, within this time."),
    ] = None,
    margin: Annotated[
        float,
        typer.Option("--margin", min=0, max=99, help="Methods of a pilot are equal within these points."),
    ] = 2.0,
    json: Json = False,
) -> Reply:
    """Rank the methods for your rows, your model and your limits.

    The order follows published and measured evidence (--why shows it). With --pilot the first methods of the
    ranking are also tried on the rows, by the search of a comparison within that time.

    \b
    Example:
      softprompt choose --rows data.jsonl
      softprompt choose --rows data.jsonl --pilot 10m --out recipes
      softprompt choose --rows data.jsonl --tasks 200 --memory 8GB --latency 50ms --unseen --out recipes
    """
    memory_bytes = None if memory is None else bytes_of(memory, "--memory")
    latency_seconds = None if latency is None else seconds_of(latency, "--latency")
    pilot_seconds = None if pilot is None else seconds_of(pilot, "--pilot")
    from ..data.sources import read_rows
    from ..methods import METHODS
    from ..recommend import Requirements, measure, rank, recipes
    from ..recommend.draft import model_for, template_of
    from ..recommend.infer_fields import guess

    read = read_rows(rows)
    kind = None if task is None else task.value
    given: dict[str, Any] = {"input": input, "target": target, "choices": choices}
    fields = guess(read, **given, prompt_field=prompt_field, kind=kind, options=_FIELDS)
    kind = kind or fields.kind
    model = model or model_for(kind)
    template = template_of(fields, kind)
    for row in read[:1]:  # so that a mistake is reported before the model is loaded
        template.render(row)
    log(f"{len(read)} rows; loading {model} …")
    lm = _loaded(model, kind)
    required = Requirements(model, tasks, memory_bytes, latency_seconds, unseen, one_batch, frozen)
    needs = measure(read, template, lm, required, kind=kind)
    ranking, tried = rank(needs), None
    if pilot_seconds is not None:
        from ..recommend.pilot import measured_first

        tried = _pilot(rows, read, lm, fields, needs, ranking, pilot_seconds, margin)
        ranking = measured_first(ranking, tried)
    written = []
    if out is not None:
        settings = None if tried is None else tried.settings
        written = recipes.write(ranking, needs, rows, fields, out, settings=settings)
    following_command = _next(written, rows, ranking, pilot)
    data = {**_data(needs, ranking), "recipes": [str(path) for path in written], "next": following_command}
    data["template"] = asdict(fields)
    if tried is not None:
        data["pilot"] = {**asdict(tried), "folder": str(tried.folder)}
    if unranked := [name for name in METHODS if METHODS.origin(name) is not None]:
        data["unranked"] = unranked
        log(f"note: not ranked, without cited evidence: {', '.join(unranked)}; `softprompt compare` measures")
    return Reply(
        data, None if json else _text(needs, ranking, why, written, following_command, fields, tried)
    )


def _loaded(model: str, kind: str | None) -> LanguageModel:
    """Load the model, with a pooling where texts are embedded: the base's own, or a decoder's last state."""
    from ..lm.heads import Head
    from ..lm.loading import load

    lm = load(model)
    if kind != "embedding" or lm.head is not None:
        return lm
    return load(model, head=Head("pooling", pooling="last" if lm.spec.kind == "decoder" else None))


def _pilot(
    rows: str,
    read: list[Row],
    lm: LanguageModel,
    fields: Guess,
    needs: Needs,
    ranking: Ranking,
    seconds: float,
    margin: float,
) -> Pilot:
    from ..compare.experiment import Hooks
    from ..recommend.pilot import run_pilot
    from ..recommend.quickstart import comparison, name_of

    name = name_of(rows)
    plain, _ = comparison(rows, name, Path(), needs.required.model, fields, needs)
    plain["compare"]["margin"] = margin
    folder = Path(f"runs/{name}-pilot")
    log(f"a pilot of {duration(seconds)}: timing a step of each kind of method …")
    # trials in this very process would report each of their steps
    with Interruption(), following(None), Contest(within=seconds) as contest:
        hooks = Hooks(contest.stage, contest.plan, contest.record)
        return run_pilot(plain, ranking, folder, seconds, lm=lm, rows=read, hooks=hooks)


def _next(written: list[Path], rows: str, ranking: Ranking, pilot: str | None) -> str:
    if written:
        return f"softprompt {'tune' if pilot else 'check'} {shlex.quote(str(written[0]))}"
    if pilot:
        return f"softprompt compare {shlex.quote(rows)} --open"
    if any(item.candidate.is_trained for item in ranking.ranked):
        return f"softprompt choose --rows {shlex.quote(rows)} --out recipes"
    return "softprompt init"


def _data(needs: Needs, ranking: Ranking) -> dict[str, Any]:
    facts = asdict(needs)
    return {
        "needs": {"said": facts.pop("required"), **facts, "limits": dict(needs.limits)},  # codespell:ignore
        "ranked": [
            {
                "name": item.candidate.name,
                "place": item.place,
                "says": item.sentence,
                "for": [rule.name for rule in item.reasons_for],
                "against": [rule.name for rule in item.reasons_against],
                "notes": [rule.name for rule in item.fired if not rule.preferences],
            }
            for item in ranking.ranked
        ],
        "excluded": [
            {"name": item.candidate.name, "rule": item.rule.name, "reason": item.reason}
            for item in ranking.excluded
        ],
        "rules": [
            {"name": r.name, "when": r.condition, "about": r.about, "says": r.says, "over": r.over}
            | {"under": r.under, "excludes": r.excludes, "evidence": asdict(r.evidence)}
            for r in ranking.rules
        ],
    }


def _text(
    needs: Needs,
    ranking: Ranking,
    why: bool,
    written: list[Path],
    following_command: str,
    fields: Guess,
    tried: Pilot | None,
) -> str:
    lines = [_facts(needs), table(fields.lines()), ""]
    if tried is not None:
        lines += [*_measured(tried), "", "what is known of the methods in general:"]
    by_evidence = sorted(ranking.ranked, key=lambda item: item.place)
    cells = [(item.place, item.candidate.name, item.sentence) for item in by_evidence]
    lines.append(table(cells, right=[0]) if cells else "  nothing is left: every method is out")
    if ranking.excluded:
        lines += ["", "out:", table([(e.candidate.name, e.reason) for e in ranking.excluded])]
    if why:
        lines += ["", "why:", *(_rule(rule) for rule in ranking.rules)]
    if tried is None:
        lines += ["", "This order is what is known, not what was tried on your rows (--pilot 10m tries it)."]
        lines.append("Nothing is known that separates methods of the same number.")
    if written:
        lines += ["", "wrote:", *(f"  {path}" for path in written)]
    return "\n".join([*lines, "", "next:", f"  {following_command}"])


def _measured(pilot: Pilot) -> list[str]:
    """The pilot's order, what each cost, and how far its scores can be trusted."""
    lines = [f"measured in {duration(pilot.seconds)}, on {pilot.dev_rows} dev rows ({pilot.metric}):"]
    if pilot.answer is not None:
        lines += [f"  {pilot.answer.headline}", *(f"    {text}" for text in pilot.answer.sentences)]
    cells = []
    for trial in pilot.order:
        settings = " ".join(f"{key.split('.')[-1]}={value:g}" for key, value in trial.settings.items())
        cost = ("", "", "nothing is trained")
        if trial.settings:
            steps = f"{trial.steps} steps" if trial.steps else ""
            cost = duration(trial.seconds), size(trial.artifact_bytes or 0), steps
        early = "ended early" if trial.status == "pruned" else ""
        score = number(trial.score) + (f" ± {trial.noise:.2g}" if trial.noise else "")
        cells.append((trial.contestant, trial.error or score, *cost, settings, early))
    lines.append(table(cells))
    if pilot.lowered:
        lines.append(f"  to keep to the time: {', '.join(pilot.lowered)}")
    if pilot.unplayed:
        lines.append(f"  not tried, for want of time: {', '.join(pilot.unplayed)}")
    if pilot.unseparated:
        lines.append("  Other scores within a standard error (±) of the best are ordered by their log-loss.")
    lines.append("  The best of several dev scores is optimistic; softprompt compare scores held-out rows.")
    return lines


def _facts(needs: Needs) -> str:
    kind = needs.kind + (f" of {len(needs.labels)} labels" if needs.labels else "")
    rows = f"{needs.rows} rows, {kind}" + (f", {needs.prompts} prompts" if needs.prompts > 1 else "")
    tokens = f"input {needs.input_tokens:g} tokens, target {needs.target_tokens:g} (medians)"
    model = f"{needs.required.model}: {needs.model_kind}, {size(needs.weight_bytes)}"
    if needs.input_seconds is not None:
        model += f", {1000 * needs.input_seconds:.0f} ms for a median input on this machine"
    if needs.input_seconds is not None and needs.input_seconds > (needs.required.latency or 0.0):
        model += ": more than --latency, whatever the method"
    return f"{rows}; {tokens}\n{model}"


def _rule(rule: Rule) -> str:
    from ..recommend.rules.registry import effect, named

    proof = rule.evidence
    lines = [f"  {rule.name} ({effect(rule)}; {rule.condition})", f"    {rule.says}"]
    lines += [f"    for: {named(rule.about)}", f"    evidence: {proof.source}: {proof.figures}"]
    lines += [f"    limits: {proof.limits}"] if proof.limits else []
    lines += [f"    again: {proof.command}"] if proof.command else []
    return "\n".join(lines)
