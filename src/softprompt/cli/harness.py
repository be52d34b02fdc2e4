"""`softprompt eval --harness` runs tasks of lm-evaluation-harness; its options are here too."""

from __future__ import annotations

import enum
import json as jsonlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SoftPromptError
from .output import Reply, jsonable, log

if TYPE_CHECKING:
    from ..harness.model import SoftPromptLM


class Contexts(str, enum.Enum):
    """The template by which a task's contexts are written."""

    none = "none"
    artifact = "artifact"
    chat = "chat"


Tasks = Annotated[
    str | None,
    typer.Option("--harness", metavar="TASKS", help="Run tasks of lm-evaluation-harness: names with commas."),
]
IncludePath = Annotated[
    str | None, typer.Option("--include-path", metavar="DIR", help="A folder of task files for --harness.")
]
FewShot = Annotated[
    int | None,
    typer.Option("--num-fewshot", min=0, metavar="N", help="Show N rows ahead of each, with --harness."),
]
ContextTemplate = Annotated[
    Contexts,
    typer.Option("--template", help="With --harness: the template that contexts go through."),
]
ResultsFile = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE.json", help="Where --harness writes its results."),
]


def check_mode(harness: str | None, given: Mapping[str, Any], artifact: str | None, data: str | None) -> None:
    """Raise SoftPromptError for options of the other kind of evaluation.

    Where something is missing the command is used wrongly, which has an exit code of its own.
    """
    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        raise SoftPromptError(
            f"{', '.join(wrong)} cannot be used {'with' if harness else 'without'} --harness",
            why="tasks of lm-evaluation-harness have rows and examples of their own"
            if harness
            else "it is about tasks of lm-evaluation-harness",
            fix="leave it out" if harness else "add --harness TASKS, or leave it out",
        )
    if not harness and (artifact is None or data is None):
        missing = "nothing is named to score" if artifact is None else "no rows are named to score"
        raise typer.BadParameter(f"{missing}: softprompt eval ARTIFACT --data FILE, or --harness TASKS")


def evaluate_tasks(
    artifact: str | None,
    tasks: list[str],
    *,
    prompt: str | None,
    limit: int | None,
    plain: bool,
    records: Path | None,
    model: str | None,
    other_base: bool,
    trust: bool,
    include_path: str | None,
    num_fewshot: int | None,
    template: Contexts,
    output: Path | None,
) -> Reply:
    """Run tasks of the harness on a prompt or a plain model, and write its results into a file."""
    from .._system import threads
    from .._system.files import write_text

    _check_installed()
    from ..harness.model import SoftPromptLM
    from ..harness.run import run

    threads.use()
    log(f"loading {artifact or model} …")
    lm = SoftPromptLM(
        artifact,
        model,
        prompt,
        template=template is Contexts.artifact,
        plain=plain,
        other_base=other_base,
        trust_remote_code=trust,
    )
    names = [name.strip() for name in tasks if name.strip()]
    outcome = run(
        lm,
        names,
        include_path=include_path,
        limit=limit,
        num_fewshot=num_fewshot,
        chat=template is Contexts.chat,
    )
    output = output or _beside(artifact, lm, names)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, jsonlib.dumps(outcome.results, indent=2, default=str, ensure_ascii=False) + "\n")
    log(f"wrote {output}")
    reply: dict[str, Any] = {
        **(lm.subject.facts or {}),
        "tasks": names,
        "results": outcome.results["results"],
        "output": str(output),
    }
    if records is not None:
        lines = [
            jsonlib.dumps(jsonable({"task": task, **sample}), ensure_ascii=False, default=str)
            for task, samples in outcome.samples.items()
            for sample in samples
        ]
        write_text(records, "\n".join(lines) + "\n")
        reply["records"] = str(records)
        log(f"wrote {len(lines)} records to {records}")
    facts = lm.subject.facts or {}
    return Reply(reply, f"{facts['method']}, on {facts['base']}\n{outcome.text.rstrip()}")


def _check_installed() -> None:
    """Raise SoftPromptError where lm-evaluation-harness is missing."""
    import importlib.util

    if importlib.util.find_spec("lm_eval") is None:
        raise SoftPromptError(
            "lm-evaluation-harness is not installed",
            why="--harness runs its tasks",
            fix='pip install "softprompt[harness]"',
        )


def _beside(artifact: str | None, lm: SoftPromptLM, tasks: list[str]) -> Path:
    """Return where results are written by default: in the artifact's folder, or in ./harness without one."""
    facts = lm.subject.facts or {}
    parts = [*tasks]
    if artifact is None:
        parts.append(facts["base"])
    elif facts["method"] == "none":
        parts.append("plain")
    elif len(lm.subject.encoder.prompts if lm.subject.encoder else ()) > 1:
        parts.append(facts["prompt"])
    name = re.sub(r"[^\w.+-]+", "-", "+".join(parts))[-120:]
    folder = Path(facts["artifact"]) if artifact is not None else Path()
    return (folder if folder.is_dir() else Path()) / "harness" / f"{name}.json"
