"""The printed price of a distillation, for `check` and for `distill --check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import SoftPromptError
from .output import Reply, duration, log, size, table

if TYPE_CHECKING:
    from ..config.schema import Recipe
    from ..distillation.work import Arguments


def price_of(
    recipe: Recipe, given: Arguments, command: str, *, json: bool, price_hour: float | None = None
) -> Reply:
    """Return the price of a distillation; the teacher answers nothing. `command` is what is priced."""
    from ..distillation.price import price

    if recipe.teacher.texts is not None:
        raise SoftPromptError(
            "check prices the distillation of one text",
            why=f"there are several: {', '.join(recipe.teacher.texts)}",
            fix="price one of them: --system FILE or --document FILE; in a recipe, teacher: {file: FILE} "
            "without data.prompt_field",
        )
    log(f"loading {recipe.model} and timing a few rows …")
    cost = price(recipe, given, price_hour)
    if json:
        return Reply({"distillation": cost.to_json()})
    rows = [
        ("requests", duration(cost.self_study_seconds), "that the model writes itself"),
        ("the teacher's answers", duration(cost.answer_seconds), f"{cost.requests} requests, at most"),
        ("its distributions", duration(cost.teacher_seconds), "once; kept on disk"),
        ("general text", duration(cost.general_text_seconds), "once for each base model (train.keep)"),
        ("the start", duration(cost.start_seconds), "of all sets, as the match of the text"),
        (
            "training",
            duration(cost.training_seconds),
            f"{cost.trained} sets of vectors, {cost.step_seconds:.2g}s a step",
        ),
        ("measuring", duration(cost.measuring_seconds), "all ways to answer, on requests kept apart"),
    ]
    if not cost.self_study_seconds:
        rows = rows[1:]
    rows.append(("in all", duration(cost.seconds), "on this machine, as busy as it is now"))
    if cost.price is not None:
        rows.append(("price", f"{cost.price:,.2f}", f"at {price_hour:g} an hour"))
    rows += [
        ("memory", size(cost.memory_bytes), "largest resident size, the model included"),
        ("disk", size(cost.disk_bytes), "the teacher's distributions, at most"),
        ("tokens saved", f"{cost.text_tokens}", f"a request; {cost.soft_tokens} vectors are read instead"),
    ]
    return Reply({}, "\n".join(["price:", table(rows, right=[1]), "", "next:", f"  {command}"]))
