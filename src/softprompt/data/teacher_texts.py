"""The texts of a recipe's teacher are read here: from the recipe, or from the files that it names."""

from __future__ import annotations

from pathlib import Path

from ..config.schema import Recipe
from ..errors import SoftPromptError


def teacher_text(recipe: Recipe) -> str | None:
    """Return the text of the recipe's teacher; None where it has no teacher.

    Raises SoftPromptError for a text that is empty or cannot be read.
    """
    text = recipe.teacher.context
    try:
        if text is None and recipe.teacher.file is not None:
            text = Path(recipe.teacher.file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SoftPromptError(
            f"the teacher's text {recipe.teacher.file} cannot be read",
            why=getattr(error, "strerror", None) or "it is not UTF-8 text",
            fix="--system FILE or --document FILE (in a recipe, teacher.file) names a text file of UTF-8",
        ) from None
    if text is None and recipe.teacher.sha256 is not None:
        raise SoftPromptError(
            "the teacher's text is not here",
            why="a tuned prompt keeps the hash of its text, and not the text, which may be private",
            fix="teacher.file=FILE names the file that holds the text",
        )
    if text is not None and not text.strip():
        of = f" {recipe.teacher.file}" if recipe.teacher.file else ""
        raise SoftPromptError(
            f"the teacher's text{of} is empty", fix="write the text that the vectors replace"
        )
    return text


def teacher_texts(recipe: Recipe) -> dict[str, str]:
    """Return the teacher's texts by the names of their prompts; none without `teacher.texts`.

    Raises SoftPromptError as `teacher_text` does.
    """
    return {name: str(teacher_text(recipe.for_text(name))) for name in recipe.teacher.texts or ()}


def with_texts(recipe: Recipe) -> Recipe:
    """Return the recipe with the text of each of its teacher's files beside the file's name.

    What reads the recipe afterwards has the same text, also where a file is changed during a run. Raises
    SoftPromptError as `teacher_text` does.
    """
    teacher = recipe.teacher
    if teacher.texts is not None:
        texts = {
            name: part.model_copy(update={"context": teacher_text(recipe.for_text(name))})
            for name, part in teacher.texts.items()
        }
        read = teacher.model_copy(update={"texts": texts})
    else:
        read = teacher.model_copy(update={"context": teacher_text(recipe)})
    return recipe.model_copy(update={"teacher": read})
