"""The section about resources lists what each method cost to train, to keep and to serve."""

from __future__ import annotations

from ....page import charts
from ....page.blocks import Block, Figure, Panel, Section, Table, Text
from ....page.numbers import MISSING, plain, seconds
from ....page.style import Look
from ..aggregate import costs, mean
from ..schema import Comparison, Serving
from ..style import looks
from .cost_kinds import KINDS

_SERVING = (
    ("time_to_first_token_ms", "time to first token", "ms"),
    ("tokens_per_second", "tokens a second", "tokens/s"),
    ("mixed_tokens_per_second", "tokens a second in mixed batches", "tokens/s"),
)
_PLAIN = Look("the plain model", "cref", "circle")


def section(comparison: Comparison) -> Section:
    blocks: list[Block] = [_training(comparison), _serving(comparison)]
    if comparison.study.seconds is not None:
        blocks.append(Text(f"The whole comparison took {seconds(comparison.study.seconds)}."))
    return Section("resources", "Resources", blocks)


def _training(comparison: Comparison) -> Block:
    paid, look = costs(comparison), looks(comparison)
    names = [name for name in look if name in paid]
    kinds = [kind for kind in KINDS if any(kind.key in paid[name] for name in names)]
    if len(comparison.study.prompts or []) < 2:  # then it is the size of the artifact
        kinds = [kind for kind in kinds if kind.key != "artifact_bytes_per_prompt"]
    if not kinds:
        return Text("What training cost was not measured.", quiet=True)
    panels = [
        Panel(
            kind.label,
            charts.bars(
                [(look[name], paid[name].get(kind.key)) for name in names],
                width=charts.PANEL,
                title=kind.label,
                about="One bar a method, from zero; the same numbers are in the table below.",
                say=kind.short,
            ),
        )
        for kind in kinds
        if any(paid[name].get(kind.key) for name in names)
    ]
    table = Table(
        "What each method cost (means over the final trials)",
        ["method", *(kind.label for kind in kinds)],
        [[name, *(kind.full(paid[name].get(kind.key)) for kind in kinds)] for name in names],
        right=range(1, len(kinds) + 1),
    )
    caption = "Means over the trials that were scored in the end, not the search. Shorter is cheaper."
    return Figure("costs", "Training and keeping", caption, panels, table)


def _serving(comparison: Comparison) -> Block:
    look = looks(comparison)
    served = {item.contestant: item for item in comparison.servings if item.contestant in look}
    kinds = [kind for kind in _SERVING if any(getattr(item, kind[0]) is not None for item in served.values())]
    if not kinds:
        return Text("Serving: not measured in this comparison.", quiet=True)
    plain_rows = {
        key: [(_PLAIN, mean(known))]
        for key in ("time_to_first_token_ms", "tokens_per_second")
        if (known := [v for item in served.values() if (v := getattr(item, f"plain_{key}")) is not None])
    }
    panels = [
        Panel(
            label,
            charts.bars(
                [*((look[n], getattr(item, key)) for n, item in served.items()), *plain_rows.get(key, [])],
                width=charts.PANEL,
                title=f"{label} ({measure})",
                about="One bar a method, from zero; the same numbers are in the table below.",
                say=lambda value, measure=measure: f"{plain(value)} {measure}",
            ),
        )
        for key, label, measure in kinds
    ]
    keys = [key for key, _, _ in kinds]
    rows = [[name, *(cell for key in keys for cell in _beside(item, key))] for name, item in served.items()]
    if plain_rows:
        means = [plain(plain_rows[key][0][1]) if key in plain_rows else MISSING for key in keys]
        rows.append([_PLAIN.name, *(cell for value in means for cell in (value, MISSING))])
    head = [name for _, label, measure in kinds for name in (f"{label} ({measure})", "× the plain model")]
    table = Table("Serving", ["method", *head], rows, right=range(1, 2 * len(kinds) + 1))
    caption = (
        "Less time to the first token and more tokens a second are better. Each is timed in turns with the "
        "plain model: the ratio to it, in the table, hardly changes with what else the machine does."
    )
    return Figure("serving", "Serving", caption, panels, table)


def _beside(serving: Serving, key: str) -> tuple[str, str]:
    """Write what was timed, and its ratio to the plain model's, timed in the same turns."""
    value, plain_value = getattr(serving, key), getattr(serving, f"plain_{key.removeprefix('mixed_')}")
    return plain(value), MISSING if value is None or not plain_value else plain(value / plain_value)
