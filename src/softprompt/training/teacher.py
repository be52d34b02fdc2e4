"""Rows are given the distributions of their teacher: the frozen model that reads a text ahead of each input.

The teacher sees the rows' inputs behind its text, and the rows' targets. Its distributions are computed once
and kept in the folder of caches. Its text is the system text of the chat template or, without a chat
template, comes ahead of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .._system.notes import note
from .._system.progress import task
from ..build import encoder_of, teacher_text, template_of
from ..cache import disk_store
from ..cache.folders import cache_place
from ..cache.kv import beginning
from ..cache.teacher import TeacherDistributions
from ..config.schema import Recipe
from ..config.sections.model import MethodConfig
from ..data.chat import Chat
from ..data.encode import Encoder
from ..data.example import Example
from ..errors import SoftPromptError
from ..lm.base import LanguageModel


def teacher_encoder(recipe: Recipe, lm: LanguageModel, prompts: Sequence[str]) -> Encoder:
    """Return the encoder of the teacher's rows: the recipe's own, with the text ahead of every input.

    Raises SoftPromptError for a text that is empty, or that leaves no room for an input.
    """
    text, template = str(teacher_text(recipe)), recipe.template
    if template.chat and _takes_system(lm):
        system = f"{template.system}\n\n{text}" if template.system else text
        template = template.model_copy(update={"system": system})
    else:
        if template.chat:
            note("the chat template takes no system text, so the teacher's text joins the first user turn")
        template = template.model_copy(update={"input": _literal(text) + template.input})
    changes = {
        "template": template,
        "data": recipe.data.model_copy(update={"max_input_tokens": None}),
        "method": MethodConfig(name="none"),  # which takes no room
    }
    with_text = recipe.model_copy(update=changes)
    return encoder_of(with_text, lm, template_of(with_text, lm), tuple(prompts))


def _takes_system(lm: LanguageModel) -> bool:
    """Try whether the model's chat template writes a system text."""
    try:
        Chat(lm.tokenizer).ids((("system", "a text of the system"), ("user", "a request")))
    except SoftPromptError:
        return False
    return True


def _literal(text: str) -> str:
    """Return the template that writes a text and an empty line."""
    if "{% endraw %}" in text:
        raise SoftPromptError("the teacher's text holds '{% endraw %}'", fix="remove it from the text")
    return "{% raw %}" + text.rstrip("\n") + "{% endraw %}\n\n"


def taught(
    recipe: Recipe, lm: LanguageModel, prompts: Sequence[str], parts: Sequence[Sequence[Example]]
) -> tuple[list[list[Example]], tuple[int, ...]]:
    """Return the examples of each part with their teacher's distributions, and the text's tokens.

    The tokens are what the inputs of the teacher all begin with.
    """
    encoder = teacher_encoder(recipe, lm, prompts)
    shown = [[_shown(encoder, example) for example in part] for part in parts]
    every = [example for part in shown for example in part]
    kept = TeacherDistributions(lm, every, recipe.teacher.top_k)
    with task("the teacher's distributions") as progress:
        store = disk_store.open_or_build(
            cache_place(recipe), kept, every, progress=lambda done, total: progress.at(done, total=total)
        )
    rows = [kept.assemble([store.row(kept.name(e)) for e in part]) for part in shown]
    return [
        [replace(example, teacher=teacher) for example, teacher in zip(part, known, strict=True)]
        for part, known in zip(parts, rows, strict=True)
    ], beginning([e.input_ids for e in every])


def _shown(encoder: Encoder, example: Example) -> Example:
    """Encode a row as the teacher reads it. Its target is the student's to the token."""
    return replace(encoder.encode(example.rendered.row, with_target=False), target_ids=example.target_ids)
