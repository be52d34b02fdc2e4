"""Every tuned prompt is compared with a few-shot prompt, which has demonstrations in context.

Demonstrations are training rows, shown ahead of the input with the same template: as earlier turns in chat,
else as text with a blank line between. A row that does not fit the model's context is refused, never cut.
This file knows rows and the encoder, and no model.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import SoftPromptError
from .encode import Encoder
from .example import Example
from .row_errors import each
from .spelling import meant
from .template import Rendered


def few_shot(
    encoder: Encoder,
    training: Iterable[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    shots: int,
    *,
    seed: int = 0,
) -> list[Example]:
    """Encode `rows`, each after `shots` demonstrations of its own prompt (the same for all its rows).

    Labels take turns among the demonstrations. A row that is among them is shown another one instead. Raises
    SoftPromptError where there are too few training rows, or a row does not fit the context.
    """
    if encoder.model.answers != "next":
        raise SoftPromptError(
            "no demonstrations can be shown to this model",
            why="it does not continue a text: it fills in a masked word, or has a head of labels",
            fix="leave --shots out",
        )
    if encoder.kind == "preference":
        raise SoftPromptError(
            "a preference task has no few-shot reference",
            why="its rewards compare a prompt with the plain model under the same input",
            fix="leave --shots out",
        )
    pools: dict[int, list[Rendered]] = {}
    for rendered in each(list(training), encoder.render):
        pools.setdefault(_prompt(encoder, rendered), []).append(rendered)
    ordered = {index: in_order(pool, encoder.kind, seed) for index, pool in pools.items()}
    shower = encoder.begun()

    def encode(row: Mapping[str, Any]) -> Example:
        rendered = encoder.render(row)
        pool = ordered.get(_prompt(encoder, rendered), [])
        # one more than needed, so that leaving a row out does not move the others
        shown = [demo for demo in pool[: shots + 1] if demo.input != rendered.input][:shots]
        if len(shown) < shots:
            raise SoftPromptError(
                f"{rendered.row.where}: {shots} demonstrations are requested, but there are {len(shown)}",
                why=f"its prompt has {len(pool)} training rows",
                fix=f"show {len(shown)} or fewer",
            )
        shower.turns = tuple((encoder.shorten(demo.input), demo.target) for demo in shown)
        return shower.encode(row)

    return each(list(rows), encode)


def _prompt(encoder: Encoder, rendered: Rendered) -> int:
    known = None if rendered.prompt is None else meant(rendered.prompt, encoder.prompts)
    return 0 if known is None else encoder.prompts.index(known)


def in_order(pool: Sequence[Rendered], kind: str, seed: int) -> list[Rendered]:
    """Order rows by a seed; in classification the labels take turns, so that few demonstrations show all."""
    shuffled = list(pool)
    random.Random(seed).shuffle(shuffled)
    if kind != "classification":
        return shuffled
    seen: dict[str, int] = {}
    turns = []
    for rendered in shuffled:
        seen[rendered.target] = seen.get(rendered.target, 0) + 1
        turns.append(seen[rendered.target])
    return [shuffled[i] for i in sorted(range(len(shuffled)), key=lambda i: turns[i])]


def stop_options(encoder: Encoder) -> dict[str, Any]:
    """Return generation options that end an answer where a model would write another demonstration."""
    if encoder.template.chat or encoder.kind != "generation":
        return {}
    return {"stop_strings": ["\n\n"], "tokenizer": encoder.tokenizer}
