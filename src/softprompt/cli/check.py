"""`softprompt check` shows what a run would read, do and cost, before anything is trained."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .distill_price import price_of
from .opening import Overrides, RecipeFile, open_recipe
from .output import Json, Reply, duration, log, size, table

if TYPE_CHECKING:
    from rich.text import Text

    from ..compare.price import Priced
    from ..training.estimate import Price, Slower
    from ..training.prepare import Prepared
    from ..training.preview import Counts, Piece

SHOWN_TOKENS = 60  # of a long part, half at each end
STYLES = {"target": "bold green", "rejected": "red"}
STYLES |= dict.fromkeys(("soft", "prefix", "adapter"), "bold magenta")


def check(recipe: RecipeFile, overrides: Overrides = None, json: Json = False) -> Reply:
    """Show what a run would read, do and cost.

    Nothing is trained or written. It shows three examples token by token, counts of unusual rows, the plan,
    and the cost of the run, from one step that is measured on this machine, beside the cost of the next
    slower plan.

    \b
    Example:
      softprompt check recipe.yaml
      softprompt check recipe.yaml method=prefix-tuning length=8 steps=400
    """
    read = open_recipe(recipe, overrides)
    if read.task.objective == "distil":
        from ..distillation.work import Arguments

        requests = read.data.train
        command = ["softprompt distill", str(recipe), "--requests", str(requests), *(overrides or [])]
        return price_of(read, Arguments(requests), " ".join(command), json=json)
    from torch import get_num_threads

    from ..training.base_notes import base_notes
    from ..training.estimate import measure
    from ..training.prepare import prepare
    from ..training.preview import count, examples_to_show, layout

    log(f"reading the rows and loading {read.model} …")
    prepared = prepare(read)
    shown = [(example, layout(prepared, example)) for example in examples_to_show(prepared)]
    counts = count(prepared)
    notes = base_notes(prepared)
    log("measuring one step, and one of the next slower plan …")
    price = measure(prepared)
    comparison = None
    if read.compare.budget is not None:
        from ..compare.price import price as priced

        log("timing the steps of each method of the comparison …")
        comparison = priced(read)
    data = {
        "method": read.method.name,
        "model": prepared.lm.name,
        "examples": [
            {
                "row": example.rendered.row.where,
                "prompt": prepared.prompts[example.prompt],
                "pieces": [asdict(piece) for piece in pieces],
            }
            for example, pieces in shown
        ],
        "rows": asdict(counts),
        "context": prepared.lm.spec.context,
        "carried": None if prepared.carried is None else asdict(prepared.carried),
        "notes": notes,
        "precision": {"dtype": _dtype(prepared), "why": prepared.lm.why_dtype},
        "threads": get_num_threads(),
        "plan": prepared.plan.to_json(),
        "price": price.to_json(),
    }
    if comparison is not None:
        data["comparison"] = {
            "budget_seconds": read.compare.budget,
            "methods": [asdict(each) for each in comparison[0]],
            "notes": comparison[1],
        }
    if json:
        return Reply(data)
    from rich.text import Text

    text = Text()
    for example, pieces in shown:
        text.append(f"{example.rendered.row.where}", style="bold")
        if len(prepared.prompts) > 1:
            text.append(f"  prompt {prepared.prompts[example.prompt]}")
        text.append("\n  ").append(_line(pieces)).append("\n")
    last = "the target, which is learned, comes last"
    if read.task.kind == "preference":
        last = "the chosen answer is followed by the rejected one, which the model reads in its place"
    text.append(f"  (tokens are separated by |; {last})\n\n", style="dim")
    text.append(_rows(counts, prepared)).append("\n\n")
    if prepared.carried is not None:
        text.append(str(prepared.carried)).append("\n\n")
    for note in notes:
        text.append(f"note: {note}\n\n")
    text.append(str(prepared.plan)).append(f"\n  precision: {_dtype(prepared)}, {prepared.lm.why_dtype}\n\n")
    text.append(_price(price, prepared))
    if comparison is not None:
        text.append("\n\n").append(_comparison(*comparison))
    command = " ".join(["softprompt tune", str(recipe), *(overrides or [])])
    text.append("\n\nnext:\n  ").append(command, style="bold")
    return Reply(data, text)


def _line(pieces: list[Piece]) -> Text:
    from rich.text import Text

    parts = []
    for piece in pieces:
        if piece.vectors:
            where = f" in {piece.layers} layers" if piece.layers else ""
            words = [f"[{piece.part}×{piece.vectors}{where}]"]
        else:
            words = [_visible(token) for token in piece.tokens]
            if len(words) > SHOWN_TOKENS:
                half = SHOWN_TOKENS // 2
                words = [*words[:half], f"… {len(words) - 2 * half} more …", *words[-half:]]
        parts += [Text(word, style=STYLES.get(piece.part, "")) for word in words]
    return Text("|", style="dim").join(parts)


def _visible(token: str) -> str:
    return token.replace("\r", "␍").replace("\n", "⏎").replace("\t", "⇥") or "∅"


def _rows(counts: Counts, prepared: Prepared) -> str:
    from ..training.reporting import few_dev_rows

    def listing(numbers: dict[str, int]) -> str:
        named = [f"{name} {number}" for name, number in list(numbers.items())[:8]]
        return ", ".join(named) + (f", … {len(numbers) - 8} more" if len(numbers) > 8 else "")

    context = prepared.lm.spec.context
    rows: list[tuple[Any, ...]] = [("rows", f"{counts.rows} to train on, {counts.dev_rows} to measure on")]
    if len(prepared.prompts) > 1:
        rows.append(("prompts", f"{len(prepared.prompts)}: {listing(counts.prompts)}"))
    if counts.labels:
        rows.append(("labels", f"{len(counts.labels)}: {listing(counts.labels)}"))
    for name, lengths in (("input", counts.inputs), ("target", counts.targets)):
        rows.append((name, f"{lengths.median:g} tokens (median), {lengths.longest} (longest)"))
    rows.append(("context", f"{context:,} tokens"))
    odd = {
        "truncated": counts.truncated,
        "with an empty field": counts.empty,
        "duplicates": counts.duplicates,
        "dev inputs also trained on": counts.seen_in_dev,
    }
    if few := few_dev_rows(counts.dev_rows):
        rows.append(("dev rows", few.removeprefix("note: ")))
    rows.append(("odd rows", ", ".join(f"{number} {name}" for name, number in odd.items())))
    return "\n".join(["data:", table(rows), *(f"  note: {remark.text}" for remark in counts.remarks)])


def _price(price: Price, prepared: Prepared) -> str:
    steps = price.steps * price.step_seconds
    evaluations = price.evaluations * price.evaluation_seconds
    measured = f"{price.batch_rows} rows, {price.batch_tokens:,} tokens in them"
    rows = [
        ("one step", f"{price.step_seconds:.2g}s", f"measured: {measured}"),
        ("all steps", duration(steps), f"{price.steps} × {price.step_seconds:.3g}s"),
        ("evaluations", duration(evaluations), f"{price.evaluations} × {price.evaluation_seconds:.3g}s"),
    ]
    if price.cache_seconds:
        rows.insert(0, ("cache", duration(price.cache_seconds), f"{size(prepared.plan.cache_bytes)}, once"))
    if price.reference_seconds:
        rows.append(("reference", duration(price.reference_seconds), "all rows without vectors, once"))
    if price.text_seconds:
        rows.append(("texts", duration(price.text_seconds), "at most; answers to dev rows"))
    rows += [
        ("in all", duration(price.seconds), "on this machine, as busy as it is now"),
        ("memory", size(price.memory_bytes), "largest resident size, the model included"),
        ("artifact", size(price.artifact_bytes), f"{price.trained_parameters:,} trained parameters"),
    ]
    lines = ["price:", table(rows, right=[1])]
    if price.slower is not None:
        lines.append(f"  the next slower plan, {_slower(price.slower, price)}")
    if price.faster:
        lines.append(f"  faster: {price.faster}")
    return "\n".join(lines)


def _comparison(prices: list[Priced], notes: list[str]) -> str:
    """Return the price of the recipe's comparison at equal time."""
    rows = [("", "steps of each", "a step alone", "training", "dev scores")]
    for each in prices:
        share = each.share
        steps = f"{share.steps} × {each.trainings} trainings"
        seconds = (duration(share.seconds), duration(each.dev_seconds))
        rows.append((share.method, steps, f"{share.pace.step:.2g}s", *seconds))
    whole = sum(each.share.seconds + each.dev_seconds for each in prices)
    lines = ["the comparison (softprompt compare), at equal time:", table(rows)]
    lines.append(f"  {duration(whole)} in one process, without references, test scores and measures")
    return "\n".join([*lines, *(f"  note: {text}" for text in notes)])


def _slower(slower: Slower, price: Price) -> str:
    if slower.note:
        return f"{slower.name}: {slower.note} (about {size(slower.memory_bytes)})"
    pace = slower.step_seconds / price.step_seconds
    costs = f"{slower.step_seconds:.2g}s a step ({pace:.1f}×), {duration(slower.seconds)} in all"
    return f"{slower.name}: {costs}, about {size(slower.memory_bytes)} of memory"


def _dtype(prepared: Prepared) -> str:
    return prepared.lm.precision
