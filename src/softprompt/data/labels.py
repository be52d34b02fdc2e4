"""The labels of a task are found, and a row's text is matched with one of them.

Several spellings of a label are one label (`data.spelling`). This file knows rows and templates, and no
tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from softprompt.data.row_errors import each
from softprompt.data.spelling import distinct, same_form
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError, nearest

MAX_LABELS = 200  # more distinct targets than this are free text rather than labels


def distinct_labels(
    rows: Iterable[Mapping[str, Any]], template: Template, limit: int = MAX_LABELS
) -> list[str]:
    """Return the distinct rendered targets (or tags), sorted: the labels of a recipe that names none.

    Of several spellings of a label, the plain one is returned: no outer spaces, composed Unicode. Raises
    SoftPromptError for more than `limit` labels, and for fewer than two.
    """
    rendered = each(list(rows), template.render, "looking for labels")
    labels = sorted(distinct(label for row in rendered for label in row.tags or (row.target,)))
    if len(labels) > limit:
        raise SoftPromptError(
            f"the training rows have {len(labels)} distinct targets, too many to be labels (at most {limit})",
            why=f"the first are {', '.join(map(repr, labels[:3]))}",
            fix="name them in task.labels, or use task.kind=generation",
        )
    if len(labels) < 2:
        raise SoftPromptError(
            f"the training rows have {len(labels)} distinct target(s): {labels}",
            why="classification needs at least two labels",
            fix="add rows of other classes, or name the labels in task.labels",
        )
    return labels


def not_a_label(
    where: str, label: str, names: Sequence[str], *, is_tag: bool, named: bool
) -> SoftPromptError:
    """Return the error for a label that is not in `names`: the recipe's (`named`), or the training rows'."""
    guess = nearest(label, names)
    shown = ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
    noun = "tag" if is_tag else "target"
    return SoftPromptError(
        f"{where}: {noun} {label!r} is not one of the {len(names)} labels"
        + (f"; did you mean {guess!r}?" if guess else ""),
        why=f"labels: {shown}" + ("" if named else f"; no training row has the {noun} {label!r}"),
        fix="correct the row, or add the label to task.labels (case counts)"
        if named
        else "correct the row, add a training row with that label, or name all labels in task.labels",
    )


def kinds(
    template: Template, *, labelled: bool, prompt_field: str | None
) -> Callable[[Mapping[str, Any]], list[Hashable]]:
    """Return a function that lists what the training rows must have of a row: its labels and its prompt."""

    def of(row: Mapping[str, Any]) -> list[Hashable]:
        result: list[Hashable] = []
        if prompt_field is not None and row.get(prompt_field) not in (None, ""):
            result.append(("prompt", same_form(str(row[prompt_field]))))
        if labelled:
            try:
                rendered = template.render(row)
            except SoftPromptError:  # it is reported with all other such rows, when they are encoded
                return result
            result += [("label", same_form(text)) for text in set(rendered.tags or (rendered.target,))]
        return result

    return of
