"""Labels and a row's choices, among which a model chooses, are encoded as token ids."""

from __future__ import annotations

from collections.abc import Sequence

from softprompt.data.answer_positions import check_label_words, mask_lead
from softprompt.data.task import Task
from softprompt.data.tokens import Ids, Tokens
from softprompt.errors import SoftPromptError


def label_ids(tokens: Tokens, task: Task, input_template: str, labels: Sequence[str]) -> tuple[Ids, ...]:
    """Token ids of each label, or its number where a head answers.

    The template's own last character decides whether a space comes first, rather than each row's, so that a
    label has the same ids in every row and its scores can be compared between rows.
    """
    answers = tokens.model.answers
    if answers == "head":
        return tuple((number,) for number in range(len(labels)))
    at_masks = answers == "mask"
    lead = mask_lead(input_template, tokens.tokenizer.mask_token) if at_masks else tokens.lead(input_template)
    texts = [tokens.with_lead(lead, word) for word in _words(task, labels)]
    if at_masks:
        check_label_words(texts, [tokens.of_continuation(text) for text in texts])
    result = distinct_ids(tokens, texts, "task.labels")
    for label, ids in zip(labels, result, strict=True):
        tokens.check_known(ids, f"label {label!r}", label)
    return result


def distinct_ids(tokens: Tokens, texts: Sequence[str], name: str) -> tuple[Ids, ...]:
    """Return the token ids of each text; where one text begins another, all end with the end token.

    Without it the shorter would be scored on a part of the longer ("no" and "no idea"). Raises
    SoftPromptError where two texts have the same tokens, or one has none.
    """
    ids: list[Ids] = [tokens.of_continuation(text) for text in texts]
    if any(a != b and b[: len(a)] == a for a in ids for b in ids):
        ids = [(*candidate, tokens.end()) for candidate in ids]
    for index, candidate in enumerate(ids):
        if not candidate or candidate in ids[:index]:
            other = texts[ids.index(candidate)] if candidate else ""
            why = f"{other!r} has the same tokens" if candidate else "the tokenizer gives no token for it"
            raise SoftPromptError(
                f"{name}: {texts[index]!r} cannot be distinguished from the others", why, "choose other words"
            )
    return tuple(ids)


def _words(task: Task, labels: Sequence[str]) -> list[str]:
    if not task.verbalizer:
        return list(labels)
    if set(task.verbalizer) != set(labels):
        raise SoftPromptError(
            "task.verbalizer does not name the labels",
            why=f"it names {', '.join(task.verbalizer)}; the labels are {', '.join(labels)}",
            fix="give each label its word: task.verbalizer={label: word, …}",
        )
    return [task.verbalizer[label] for label in labels]
