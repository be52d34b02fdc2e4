"""What a base's own settings mean for a run, as sentences."""

from __future__ import annotations

from ..lm import settings
from ..lm.vocabulary import token_text
from .prepare import Prepared


def base_notes(prepared: Prepared) -> list[str]:
    """Of its generation settings where text is written, and of its chat template where there is a chat."""
    lm, chat = prepared.lm, prepared.encoder.conversation
    found: list[str] = []
    if prepared.recipe.task.kind == "generation":
        forced = [token_text(lm.tokenizer, token) for token in lm.forced]
        found += settings.notes(lm.inherited, forced, lm.tokenizer)
    if prepared.encoder.template.chat:
        found += [chat.note()] if chat.open_thought() else []
        if chat.writes_date:
            found.append(
                f"the chat template writes the date: it is {chat.date} on every day (template.chat_date)"
            )
    return found
