"""Infers what rows without a recipe are for: which fields are the input, and which is the target.

The names that such fields usually have decide, else the values. A caller shows what was inferred, and how to
name the fields instead. The kind of task is inferred from the targets (`requirements.kind_of`), but for
embeddings, which names of fields tell (`infer_embeddings`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.sections.task import FIELDS
from ..data.labels import MAX_LABELS
from ..errors import SoftPromptError
from .field_names import ABOUT, CHOICES, INPUTS, TARGETS, TOGETHER, by_name, is_aside
from .field_templates import input_template, name_in_template, tag, target_template
from .infer_embeddings import PAIRS, SCORES, as_number, embedding_fields
from .requirements import LABEL_WORDS, ROWS_A_LABEL

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Guess:
    """Templates as a recipe has them, and the columns that belong to them."""

    input: str
    target: str
    choices: str | None = None
    references: str | None = None  # the column that lists every good answer
    prompt_field: str | None = None  # the column that names each row's prompt
    rejected: str | None = None  # the template of the answer that the target is preferred to
    kind: str | None = None  # of task, where names of fields tell it; None: the targets do
    negatives: str | None = None  # embedding: the column of texts that do not fit the query
    score: str | None = None  # embedding: the column of a pair's score
    score_range: tuple[float, float] | None = None

    def lines(self) -> list[tuple[str, str]]:
        """Return the names and values to show to a user."""
        shown = [("input", self.input.replace("\n", "⏎")), ("target", self.target)]
        scale = None if self.score_range is None else "{:g} to {:g}".format(*self.score_range)
        more = (
            *(("rejected", self.rejected), ("choices", self.choices), ("references", self.references)),
            *(("negatives", self.negatives), ("score", self.score), ("scores are", scale)),
            ("prompts", self.prompt_field),
        )
        return shown + [(name, value) for name, value in more if value]


def guess(
    rows: Rows,
    *,
    input: str | None = None,
    target: str | None = None,
    choices: str | None = None,
    prompt_field: str | None = None,
    kind: str | None = None,
    options: str = "template.input='{{{{ {0} }}}}' template.target='{{{{ {1} }}}}'",
) -> Guess:
    """Return inferred templates; those that are given stay as they are.

    `prompt_field` names the column of prompts; None: it is inferred, "": there is none. `kind` is the task
    where the user names it. `options` is how the caller's user names the two fields, for the error. Raises
    SoftPromptError where the fields leave it open what is the input or the target.
    """
    if input is not None and target is not None:
        return Guess(input, target, choices, prompt_field=prompt_field or None)
    fields = [name for name in rows[0] if all(name in row for row in rows)]
    if input is None and target is None and _is_chat(rows, fields):
        turns = "{% for message in messages[:-1] %}{{ message.content }}\n{% endfor %}"
        return Guess(turns, "{{ messages[-1].content }}", prompt_field=prompt_field or None)
    if input is None and target is None and _is_pairs(rows, fields):
        return Guess(
            FIELDS["preference"]["input"],
            FIELDS["preference"]["target"],
            prompt_field=prompt_field or None,
            rejected=FIELDS["preference"]["rejected"],
        )
    may_embed = input is None and target is None and choices is None and kind in (None, "embedding")
    if may_embed and (embedded := embedding_fields(rows)) is not None:
        return Guess(
            *(tag(name_in_template(name)) for name in (embedded.query, embedded.document)),
            prompt_field=prompt_field or None,
            kind="embedding",
            negatives=embedded.negatives,
            score=embedded.score,
            score_range=embedded.score_range,
        )
    choices = choices or by_name(fields, CHOICES)
    open_fields = [name for name in fields if name not in (choices, prompt_field) and not is_aside(name)]
    if prompt_field is None and target is None and choices is None:
        prompt_field = _prompts(rows, open_fields)
        open_fields = [name for name in open_fields if name != prompt_field]
    numbers = kind == "regression"
    answer = None
    if target is None:
        answer = (_number(rows, open_fields) if numbers else None) or _target(rows, open_fields)
    together = (*TOGETHER, *PAIRS) if numbers else TOGETHER
    inputs = [] if input is not None else _inputs(rows, open_fields, answer, together)
    if (target is None and answer is None) or (input is None and not inputs):
        raise _unclear(rows, fields, options)
    references = None
    if answer is not None:
        target, references = target_template(rows, answer, choices)
    assert target is not None
    if input is None:
        is_label = answer is not None and not numbers and is_label_like(rows, answer)
        input = input_template(rows, inputs, answer, choices=choices, is_label=is_label)
    return Guess(input, target, choices, references, prompt_field or None)


def is_label_like(rows: Rows, field: str) -> bool:
    """Return whether the field has a few short values that occur often."""
    if not all(isinstance(row[field], (str, int, float)) for row in rows):
        return False
    values = Counter(str(row[field]) for row in rows)
    few = 2 <= len(values) <= min(MAX_LABELS, len(rows) / ROWS_A_LABEL)
    return few and all(len(value.split()) <= LABEL_WORDS for value in values)


def _prompts(rows: Rows, fields: Sequence[str]) -> str | None:
    """The only field of few values beside free text in and out, as names of voices or customers are.

    An input may come up once under each of those names, as where every voice answers the same messages.
    None where that field is rather what is predicted: it has a label's name, or both texts are inputs.
    """
    few = [field for field in fields if is_label_like(rows, field) and not _is_free(rows, field)]
    if not few:
        return None
    least = min(few, key=lambda field: len({str(row[field]) for row in rows}))
    free = [field for field in fields if field != least and _is_free(rows, field, least)]
    if len(free) != 2 or set(few) - {least, *free} or all(field in few for field in free):
        return None
    if by_name([least], (*ABOUT, *TARGETS)) or not _is_text(rows, least):
        return None
    lower = {field.lower() for field in free}
    together = any(set(names) == lower for names in TOGETHER)
    both_inputs = all(by_name([field], INPUTS) for field in free) and by_name(free, TARGETS) is None
    return None if together or both_inputs else least


def _is_free(rows: Rows, field: str, under: str | None = None) -> bool:
    """Texts of several words that seldom come up again (with the same value of the field `under`)."""
    if not _is_text(rows, field):
        return False
    values = [(row[field], str(row[under]) if under else "") for row in rows]
    worded = sum(len(text.split()) > 1 for text, _ in values)
    return 2 * len(set(values)) > len(values) < 3 * worded


def _is_chat(rows: Rows, fields: Sequence[str]) -> bool:
    """Turns of a chat, of which the last is the answer."""
    return "messages" in fields and all(
        isinstance(row["messages"], list)
        and len(row["messages"]) > 1
        and all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in row["messages"])
        for row in rows
    )


def _is_pairs(rows: Rows, fields: Sequence[str]) -> bool:
    """Return whether the rows compare two answers: texts in `prompt`, `chosen` and `rejected`."""
    names = ("prompt", "chosen", "rejected")
    return all(name in fields and all(isinstance(row[name], str) for row in rows) for name in names)


def _target(rows: Rows, fields: Sequence[str]) -> str | None:
    """Find the target by name; else it is the only field of labels; else the second of two."""
    if len(fields) > 1 and (named := by_name(fields, TARGETS)) is not None:
        return named
    texts = [field for field in fields if _is_text(rows, field)]
    labels = [field for field in fields if is_label_like(rows, field)]
    if len(labels) == 1 and len(texts) > 1:
        return labels[0]
    return texts[1] if len(texts) == 2 and not labels else None


def _number(rows: Rows, fields: Sequence[str]) -> str | None:
    """Find the target of a regression: by name among the fields of numbers; else the only one of them."""
    numbers = [name for name in fields if all(as_number(row[name]) is not None for row in rows)]
    return by_name(numbers, (*TARGETS, *SCORES)) or (numbers[0] if len(numbers) == 1 else None)


def _inputs(
    rows: Rows, fields: Sequence[str], target: str | None, together: Sequence[Sequence[str]]
) -> list[str]:
    """Those read together by custom; else one by name; else the only text that is left."""
    left = [field for field in fields if field != target]
    lower = {field.lower(): field for field in left}
    for names in together:
        if all(name in lower for name in names):
            return [lower[name] for name in names]
    if (named := by_name(left, INPUTS)) is not None:
        return [named]
    texts = [field for field in left if _is_text(rows, field)]
    return texts if len(texts) == 1 else []


def _is_text(rows: Rows, field: str) -> bool:
    """Return whether the field has words, not only numbers."""
    return all(isinstance(row[field], str) for row in rows) and any(
        re.search(r"[^\W\d_]{2}", row[field]) for row in rows
    )


def _unclear(rows: Rows, fields: Sequence[str], options: str) -> SoftPromptError:
    first, second = [*map(name_in_template, fields), "FIELD", "FIELD"][:2]
    some = sorted(set(rows[0]) - set(fields))
    return SoftPromptError(
        "it is not clear which fields are the input and the target",
        why=f"fields of all rows: {', '.join(fields) or 'none'}"
        + (f"; of some rows: {', '.join(some)}" if some else ""),
        fix=f"name them: {options.format(first, second)}",
    )
