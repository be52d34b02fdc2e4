"""Rows are encoded as their teacher reads them: with a text ahead of the input.

A system prompt is the system text of the model's chat template. So is a document, behind a short frame. Where
a template takes no system text, the text joins the first user turn; without a chat template it comes ahead of
the input. A document that the context does not hold is cut into chunks, and a row is shown one of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, final

from .._system.notes import note
from ..build import encoder_of, room_of, template_of
from ..config.schema import Recipe
from ..config.sections.model import MethodConfig
from ..config.sections.task import FRAME
from ..data.capacity import Need, TooLong
from ..data.chat import Chat
from ..data.chunks import chunks, nearest
from ..data.encode import Encoder
from ..data.example import Example
from ..data.teacher_texts import teacher_text
from ..errors import SoftPromptError
from ..lm.base import LanguageModel

_ENDS_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
CHUNK_TOKENS = 1024
REQUEST_TOKENS = 256  # kept free for a request and the chat template, or a quarter of a short context


@final
class TeacherEncoder:
    """Encodes rows with the recipe's text ahead of their inputs.

    `row["chunk"]` is the index of the chunk that a row is about. It counts only where the document does not
    fit whole (`is_whole` is False).
    """

    def __init__(self, recipe: Recipe, lm: LanguageModel, prompts: Sequence[str]) -> None:
        self.recipe, self.lm, self.prompts = recipe, lm, tuple(prompts)
        self.text = str(teacher_text(recipe))
        self.is_document = recipe.teacher.role == "document"
        self._encoders: dict[str, Encoder] = {}
        need = Need(self.text_tokens + 1, 0)
        room = room_of(recipe.model_copy(update={"method": MethodConfig(name="none")}), lm).for_input(need)
        spare = min(REQUEST_TOKENS, lm.spec.context // 4)
        spare += len(lm.text_ids(FRAME)) if recipe.template.chat else 0
        self.most = None if room is None else room - spare  # tokens of a text that leave room for requests
        self.is_whole = self.most is None or not self.is_document or self.text_tokens <= self.most
        if not self.is_document and room is not None and need.input > room:
            raise SoftPromptError(
                f"the text is too long: it has {self.text_tokens:,} tokens, and the model reads "
                f"{lm.spec.context:,}",
                why=f"a request and an answer of {recipe.task.max_new_tokens} tokens (task.max_new_tokens) "
                "must fit beside it",
                fix="--document FILE (role: document in a recipe's teacher) shows it in chunks; or a shorter "
                "text, or a model with a longer context",
            )

    @cached_property
    def chunks(self) -> tuple[str, ...]:
        """Return the document's chunks, which make up the whole text; a system prompt is one chunk."""
        if not self.is_document:
            return (self.text,)
        wanted = self.recipe.teacher.chunk_tokens
        most = min(wanted or CHUNK_TOKENS, self.text_tokens if self.most is None else self.most)
        if most < 1:
            raise SoftPromptError(
                "the model's context has no room for a part of the document",
                why=f"it is {self.lm.spec.context} tokens, and task.max_new_tokens takes "
                f"{self.recipe.task.max_new_tokens} of them",
                fix="a smaller task.max_new_tokens, or a model with a longer context",
            )
        if wanted is not None and most < wanted and most < self.text_tokens:
            note(f"teacher.chunk_tokens is {most:,} instead of {wanted:,}: the context holds no more")
        return tuple(chunks(self.text, most, lambda part: len(self.lm.text_ids(part))))

    def encode(self, row: Mapping[str, Any]) -> Example:
        """Encode a row without its target, behind the document or the chunk that it is about."""
        return self._encoded(self.text if self.is_whole else self.chunks[self.chunk_of(row)], row)

    def encode_about(self, chunk: int, row: Mapping[str, Any]) -> Example:
        """Encode a row behind one chunk, also where the whole document would fit."""
        return self._encoded(self.chunks[chunk], row)

    def chunk_of(self, row: Mapping[str, Any]) -> int:
        """Return the index of the chunk that a row is about: its own, else the one that is most like it."""
        given = row.get("chunk")
        if isinstance(given, int) and 0 <= given < len(self.chunks):
            return given
        return self.chunks_like([row])[0]

    def chunks_like(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return, for each row, the chunk that shares most of the words of its input."""
        template = template_of(self.recipe)
        return nearest(self.chunks, [template.render(row, with_target=False).input for row in rows])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of an answer."""
        return self._encoder(self.text if self.is_whole else self.chunks[0]).decode(ids)

    @cached_property
    def text_tokens(self) -> int:
        """Return the number of tokens of the text alone, without a template."""
        return len(self.lm.text_ids(self.text))

    @cached_property
    def _in_system(self) -> bool:
        """Return whether the text is a system text. Where it could not be, a note says where it is."""
        if not self.recipe.template.chat:
            return False
        if takes_system(self.lm):
            return True
        note("the chat template takes no system text, so the text joins the first user turn")
        return False

    def _encoded(self, text: str, row: Mapping[str, Any]) -> Example:
        try:
            return self._encoder(text).encode(row, with_target=False)
        except TooLong as error:
            raise SoftPromptError(
                error.what,
                why="the text comes ahead of each request, and what does not fit is never cut unasked",
                fix="leave this request out, or make it shorter; or a smaller task.max_new_tokens",
            ) from None

    def _encoder(self, text: str) -> Encoder:
        if text not in self._encoders:
            self._encoders[text] = self._new(text)
        return self._encoders[text]

    def _new(self, text: str) -> Encoder:
        recipe, template = self.recipe, self.recipe.template
        if self.is_document and template.chat:
            text = FRAME + text
        if self._in_system:
            system = f"{template.system}\n\n{text}" if template.system else text
            template = template.model_copy(update={"system": system})
        else:
            template = template.model_copy(update={"input": _literal(text) + template.input})
        changes = {
            "template": template,
            "data": recipe.data.model_copy(update={"max_input_tokens": None}),
            "method": MethodConfig(name="none"),  # which takes no room
        }
        with_text = recipe.model_copy(update=changes)
        return encoder_of(with_text, self.lm, template_of(with_text, self.lm), self.prompts)


def takes_system(lm: LanguageModel) -> bool:
    """Try whether the model's chat template writes a system text."""
    try:
        Chat(lm.tokenizer).ids((("system", "a text of the system"), ("user", "a request")))
    except SoftPromptError:
        return False
    return True


def _literal(text: str) -> str:
    """Return the template that writes a text and an empty line."""
    inside = _ENDS_RAW.sub(lambda end: f"{{% endraw %}}{{{{ {json.dumps(end[0])} }}}}{{% raw %}}", text)
    return "{% raw %}" + inside.rstrip("\n") + "{% endraw %}\n\n"
