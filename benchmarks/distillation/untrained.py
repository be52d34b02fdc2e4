"""It measures what vectors keep before they are trained, on the requests of a finished distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from softprompt.data.sources import read_rows
from softprompt.distillation.answers import usable
from softprompt.distillation.measure import share_kept
from softprompt.distillation.run import Distilled
from softprompt.distillation.ways import plain_model
from softprompt.distillation.work import REQUESTS
from softprompt.evaluation.evaluator import evaluator_of
from softprompt.training.prepare import Prepared, prepare
from softprompt.training.teacher import taught


def start_of(result: Distilled) -> Prepared:
    """Make the start of a distillation again, from the same rows with the same seed."""
    run = result.run.prepared
    return prepare(
        run.recipe,
        lm=run.lm,
        rows=[dict(example.rendered.row) for example in run.train],
        dev_rows=[dict(example.rendered.row) for example in run.dev],
    )


def share_of_start(result: Distilled, measured: Sequence[str]) -> list[float]:
    """Return the share of the text's effect that the untrained start keeps, and its 95 % interval.

    `measured` are the requests that the distillation was measured on. Raises RuntimeError where the rows are
    not those that the trained vectors were measured on.
    """
    run, again = result.run.prepared, start_of(result)
    known = {row["request"]: dict(row) for row in read_rows(str(result.folder / REQUESTS))}
    answered = usable([known[text] for text in measured if text in known], run.recipe.task.max_new_tokens)
    if len(answered) != result.comparison.ways["vectors"]["n"]:
        raise RuntimeError(f"{len(answered)} requests, and the trained vectors were measured on others")
    (rows,), _ = taught(run.recipe, run.lm, run.prompts, [run.encoder.encode_rows(answered)])
    evaluator = replace(evaluator_of(run.recipe, run.lm, run.encoder), metrics=("kl",))
    start, none = (evaluator.run(m, rows, text_rows=0) for m in (again.method, plain_model(run)))
    return list(share_kept(start, none))
