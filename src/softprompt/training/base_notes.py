"""Notes explain what a base's own settings mean for a run."""

from __future__ import annotations

from ..data.task import WRITTEN
from ..lm import settings
from ..lm.vocabulary import token_text
from .prepare import Prepared


def base_notes(prepared: Prepared) -> list[str]:
    """Write notes on the generation settings, if text is generated, and on the chat template, if used."""
    lm, chat = prepared.lm, prepared.encoder.conversation
    notes: list[str] = []
    if prepared.recipe.task.kind in WRITTEN:
        forced = [token_text(lm.tokenizer, token) for token in lm.forced]
        notes += settings.notes(lm.inherited, forced, lm.tokenizer)
    if prepared.recipe.task.kind == "preference" and "artifact" in prepared.recipe.method.options():
        notes.append(
            "the reference model of the preference loss is the base model without vectors, "
            "not the prompt that training starts from"
        )
    if prepared.encoder.template.chat:
        notes += [chat.note()] if chat.open_thought() else []
        if chat.writes_date:
            notes.append(
                f"the chat template writes the date: it is {chat.date} on every day (template.chat_date)"
            )
    return notes
