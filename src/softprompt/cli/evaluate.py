"""`softprompt eval` computes metrics with intervals on rows that were not trained on."""

from __future__ import annotations

import json as jsonlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .harness import (
    Contexts,
    ContextTemplate,
    FewShot,
    IncludePath,
    ResultsFile,
    Tasks,
    check_mode,
    evaluate_tasks,
)
from .opening import (
    DeviceMap,
    ModelName,
    OtherBase,
    Plain,
    PromptName,
    TrustCode,
    check_prompt,
    open_artifact,
    with_prompt,
)
from .output import Json, Reply, jsonable, log, scores, table

if TYPE_CHECKING:
    from ..data.example import Example
    from ..evaluation.records import Evaluation
    from ..tuned import Tuned


def evaluate(
    artifact: Annotated[
        str | None,
        typer.Argument(metavar="[ARTIFACT]", help="The folder that tune wrote.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="FILE", help="Rows, as for training; - for JSON Lines from standard input."
        ),
    ] = None,
    prompt: PromptName = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=1,
            metavar="N",
            help="Score at most N rows, drawn at random; the first N of a task.",
        ),
    ] = None,
    plain: Plain = False,
    shots: Annotated[
        int | None,
        typer.Option("--shots", min=1, metavar="N", help="Score the plain model, shown N training rows."),
    ] = None,
    records: Annotated[
        Path | None, typer.Option("--records", metavar="FILE.jsonl", help="Write the output for each row.")
    ] = None,
    model: ModelName = None,
    other_base: OtherBase = False,
    trust_remote_code: TrustCode = False,
    device_map: DeviceMap = None,
    harness: Tasks = None,
    include_path: IncludePath = None,
    num_fewshot: FewShot = None,
    template: ContextTemplate = Contexts.none,
    output: ResultsFile = None,
    json: Json = False,
) -> Reply:
    """Score a tuned prompt on a file of rows, or on tasks.

    With --plain or --shots, the plain model is scored in its place.

    \b
    Example:
      softprompt eval runs/prompt --data test.jsonl
      softprompt eval runs/prompt --data test.jsonl --plain
      softprompt eval runs/prompt --data test.jsonl --shots 4 --limit 200
      softprompt eval runs/prompt --harness capitals --include-path tasks
      softprompt eval --harness lambada_openai --model smollm2
    """
    given = (
        {"--shots": shots, "--data": data, "--device-map": device_map}
        if harness
        else {
            "--include-path": include_path,
            "--num-fewshot": num_fewshot,
            "--output": output,
            "--template": None if template is Contexts.none else template,
        }
    )
    check_mode(harness, given, artifact, data)
    if harness:
        return evaluate_tasks(
            artifact,
            harness.split(","),
            prompt=prompt,
            limit=limit,
            plain=plain,
            records=records,
            model=model,
            other_base=other_base,
            trust=trust_remote_code,
            include_path=include_path,
            num_fewshot=num_fewshot,
            template=template,
            output=output,
        )
    assert artifact is not None and data is not None
    from ..artifacts import artifact as artifacts
    from ..data.recipe_rows import query_of
    from ..data.sources import read_rows, read_standard_rows
    from ..data.split import limit_rows

    opened = artifacts.load(artifact)
    if data == "-":
        rows = [row for row in read_standard_rows(split="test") if row is not None]
    else:
        rows = read_rows(data, split="test")
    check_prompt(opened, rows, prompt)
    is_plain, places = plain or shots is not None, {"trust": trust_remote_code, "device_map": device_map}
    tuned = open_artifact(opened, model, other_base, is_plain, **places)
    rows, seed = with_prompt(rows, tuned, prompt), tuned.recipe.train.seed
    rows = limit_rows(rows, limit, seed, together=query_of(tuned.recipe))
    evaluator = tuned.evaluator()
    if shots is None:
        examples = tuned.encoder.encode_rows(rows)
    else:
        from ..data.fewshot import few_shot, stop_options
        from ..data.recipe_rows import read_split

        training, _ = read_split(tuned.recipe)
        examples = few_shot(tuned.encoder, training, rows, shots, seed=tuned.recipe.train.seed)
        evaluator = replace(evaluator, generate_options=stop_options(tuned.encoder))
    truncated = sum(example.truncated > 0 for example in examples)
    if truncated:
        log(f"note: {truncated} of {len(examples)} rows were cut to data.max_input_tokens")
    evaluation = evaluator.run(tuned.method, examples)
    name = f"few-shot ({shots})" if shots else "plain model" if plain else tuned.artifact.manifest["method"]
    report = evaluation.to_json()
    reply: dict[str, Any] = {
        "artifact": str(tuned.artifact),
        "what": name,
        "data": data,
        **report,
        "truncated": truncated,
    }
    if records is not None:
        _write(records, tuned, examples, evaluation)
        reply["records"] = str(records)
        log(f"wrote {len(examples)} records to {records}")
    lines = [(metric, scores(report, metric)) for metric in report["metrics"]]
    return Reply(reply, f"{name}: {report['n']} rows (with 95 % intervals)\n{table(lines)}")


def _write(path: Path, tuned: Tuned, examples: list[Example], evaluation: Evaluation) -> None:
    """Write one JSON object a row; the file appears when it is complete."""
    from .._system.files import write_text

    lines = []
    for example, record in zip(examples, evaluation.records, strict=True):
        entry: dict[str, Any] = {
            "row": example.rendered.row.where,
            "prompt": tuned.artifact.prompts[record.prompt],
            "input": record.input,
            "prediction": record.prediction,
            "references": record.references,
            "nll": record.nll,
            "tokens": record.tokens,
        }
        if record.rewards is not None:
            answers = {"chosen": example.rendered.target, "rejected": example.rendered.rejected}
            entry |= {**answers, "rewards": record.rewards}
        if record.ranks is not None:
            entry["ranks"] = record.ranks
        if record.scores is not None:
            names = tuned.encoder.labels or example.rendered.choices or ()
            entry["scores"] = dict(zip(names, record.scores, strict=True))
        lines.append(jsonlib.dumps(jsonable(entry), ensure_ascii=False))
    write_text(path, "\n".join(lines) + "\n")
