"""A text is shortened to as many tokens as there are vectors: cut, or summarised by the model itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from .._system.files import write_text
from .._system.notes import note
from ..build import encoder_of, room_of, template_of
from ..config.schema import Recipe
from ..config.sections.model import MethodConfig
from ..config.sections.task import TemplateConfig
from ..data.capacity import Need
from ..data.collate import collate
from ..lm.base import LanguageModel
from ..lm.generation import answering, tokens_of
from ..lm.loading import fingerprint

FILE = "summary.json"
ASK = (
    "Write the text below again in at most {tokens} tokens, so that a person who reads it alone does the "
    "same and knows the same. Write only the shorter text."
)
SPARE = 64  # tokens that the question and the chat template take


def summary(recipe: Recipe, lm: LanguageModel, text: str, tokens: int, folder: Path) -> str:
    """Return the model's greedy summary of a text, of at most `tokens` tokens.

    It is kept in `folder`, and computed again only for another text, model, precision or number of tokens.
    Of a text that the context does not hold, the model reads the beginning, with a note. Empty if it writes
    none.
    """
    if tokens < 1:
        return ""
    file = folder / FILE
    parts = [text, fingerprint(lm), recipe.template.chat, tokens, ASK]
    if lm.precision != "float32":  # a summary in float32 keeps the name that it had before
        parts.append(lm.precision)
    name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    if file.exists() and (kept := json.loads(file.read_text(encoding="utf-8"))).get("of") == name:
        return str(kept["summary"])
    written = first_tokens(lm, _written(recipe, lm, text, tokens).strip(), tokens)
    facts = {"of": name, "tokens": len(lm.text_ids(written)) if written else 0, "summary": written}
    write_text(file, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return written


def first_tokens(lm: LanguageModel, text: str, tokens: int) -> str:
    """Return the beginning of a text that has at most `tokens` tokens when it is encoded again."""
    ids = lm.text_ids(text) if text else []
    if len(ids) <= tokens:
        return text
    for count in range(tokens, 0, -1):
        shorter = lm.tokenizer.decode(ids[:count])
        if len(lm.text_ids(shorter)) <= tokens:
            return shorter
    return ""


def _written(recipe: Recipe, lm: LanguageModel, text: str, tokens: int) -> str:
    ask = ASK.format(tokens=tokens)
    shown = "{{ ask }}\n\n{{ text }}" if recipe.template.chat else "{{ text }}\n\n{{ ask }}\n\n"
    task = recipe.task.model_copy(update={"max_new_tokens": tokens})
    changes = {
        "template": TemplateConfig(input=shown, chat=recipe.template.chat),
        "data": recipe.data.model_copy(update={"max_input_tokens": None}),
        "method": MethodConfig(name="none"),
        "task": task,
    }
    asking = recipe.model_copy(update=changes)
    encoder = encoder_of(asking, lm, template_of(asking, lm), ("default",))
    whole = len(lm.text_ids(text))
    room = room_of(asking, lm).for_input(Need(whole + 1, 0))
    if room is not None and whole > (most := max(1, room - SPARE - len(lm.text_ids(ask)))):
        note(f"the summary is of the text's first {most:,} tokens of {whole:,}: the context holds no more")
        text = first_tokens(lm, text, most)
    row = encoder.encode({"ask": ask, "text": text}, with_target=False)
    with torch.no_grad():
        batch = collate([row], lm.device, targets=False)
        outputs = tokens_of(lm.generate(batch, None, **answering(lm, tokens))).tolist()
    return encoder.decode(outputs[0])
