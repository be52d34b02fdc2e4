"""Rows of several prompts are given the distributions of several teachers: each prompt has a text of its own.

A row is of one prompt (`Example.prompt`), so that the prompt's name and, for a long document, the row's chunk
name the text that its teacher reads. See `teacher` for one text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..config.schema import Recipe
from ..data.example import Example
from ..data.spelling import same_form
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from .teacher import shown, taught
from .teacher_encoder import TeacherEncoder

Beginnings = dict[int, tuple[int, ...]]  # by the number of a prompt: the tokens of its text


def taught_by_prompt(
    recipe: Recipe, lm: LanguageModel, prompts: Sequence[str], parts: Sequence[Sequence[Example]]
) -> tuple[list[list[Example]], Beginnings]:
    """Return the examples of each part with their teacher's distributions, and the tokens of the texts.

    Raises SoftPromptError where a prompt has no text.
    """
    if recipe.teacher.texts is None:
        result, beginning = taught(recipe, lm, prompts, parts)
        return result, dict.fromkeys(range(len(prompts)), beginning)
    result, beginnings = [list(part) for part in parts], Beginnings()
    for number, name in _names(recipe, prompts):
        places = [[i for i, e in enumerate(part) if e.prompt == number] for part in parts]
        of_prompt = [[part[i] for i in rows] for part, rows in zip(parts, places, strict=True)]
        known_rows, beginnings[number] = taught(recipe.for_text(name), lm, (prompts[number],), of_prompt)
        for part, rows, examples in zip(result, places, known_rows, strict=True):
            for i, example in zip(rows, examples, strict=True):
                part[i] = example
    return result, beginnings


def inputs_by_prompt(
    recipe: Recipe, lm: LanguageModel, prompts: Sequence[str], examples: Sequence[Example]
) -> list[tuple[tuple[int, int], Example]]:
    """Return rows as their teachers read them, each after the numbers of its text and of its chunk."""
    if recipe.teacher.texts is None:
        encoder = TeacherEncoder(recipe, lm, prompts)
        return [((0, chunk), example) for chunk, example in shown(encoder, examples)]
    result: dict[int, tuple[tuple[int, int], Example]] = {}
    for number, name in _names(recipe, prompts):
        places = [i for i, e in enumerate(examples) if e.prompt == number]
        encoder = TeacherEncoder(recipe.for_text(name), lm, (prompts[number],))
        rows = shown(encoder, [examples[i] for i in places])
        result |= {i: ((number, chunk), e) for i, (chunk, e) in zip(places, rows, strict=True)}
    return [result[i] for i in range(len(examples))]


def _names(recipe: Recipe, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each prompt and the name of its text."""
    if recipe.data.prompt_field is None:
        raise SoftPromptError(
            "the rows name no text",
            why="the teacher has several (teacher.texts), and each row is about one",
            fix="data.prompt_field=COLUMN, the column that names each row's text",
        )
    texts = recipe.teacher.texts or {}
    known = {same_form(name): name for name in texts}
    for number, prompt in enumerate(prompts):
        name = known.get(same_form(prompt))
        if name is None:
            raise SoftPromptError(
                f"prompt '{prompt}' has no text",
                why=f"rows name it, and the teacher has texts for: {', '.join(known.values())}",
                fix=f"teacher: {{texts: {{'{prompt}': {{file: FILE}}}}}}, or remove its rows",
            )
        yield number, name
