"""Short hashes identify how a base's tokenizer encodes and decodes texts, and what ends its answers.

What a tokenizer does is tried on texts, rather than its files read: a library may write the same tokenizer in
another way tomorrow, and a file may say what no code looks at.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..config.identity import CHAT_TEMPLATE
from .base import LanguageModel

TEXTS = (
    "The train from Zürich, 9:30 a.m.",
    "  two  spaces,\ttabs\nand\r\nlines \n\n",
    "naïve cafe\u0301 ﬁne № ½ Straße İstanbul ＦＵＬＬ",
    "don't WON'T I'm they'll 1,234.50 2026-11-29 e=mc²",
    "def f(x):\n    return {'a': [x, -1]}  # <b>&amp;</b>",
    "Привет мир, 你好世界, こんにちは, مرحبا, 👩‍🚀🏽",
    "x",
    " x",
    "",
)
SPECIAL = 32  # special tokens that are tried inside a text
#: Of a generation config: what still rules an answer where nothing is asked for.
RULES = (
    "eos_token_id",
    "bos_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
)


def fingerprint(lm: LanguageModel) -> dict[str, str]:
    """Hashes by what a message calls them: "handling of text", "chat template", "generation config"."""
    facts = {"generation config": _short(_generation(lm))}
    if lm.tokenizer is not None:
        facts["handling of text"] = _short(_tried(lm.tokenizer))
        facts[CHAT_TEMPLATE] = _short(getattr(lm.tokenizer, "chat_template", None))
    return facts


def _tried(tokenizer: Any) -> list[Any]:
    """Encode and decode texts with and without special tokens, and list the special tokens."""
    texts = [*TEXTS, *(f"a{token} b" for token in tokenizer.all_special_tokens[:SPECIAL])]
    ids = [tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"] for text in texts]
    plain = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts]
    back = [
        tokenizer.decode(row, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        for row in ids
        for skip in (False, True)
    ]
    roles = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
    named = {role: getattr(tokenizer, f"{role}_token_id", None) for role in roles}
    return [ids, plain, back, sorted(tokenizer.all_special_ids), named]


def _generation(lm: LanguageModel) -> dict[str, Any]:
    config = getattr(lm.model, "generation_config", None)
    facts = {name: getattr(config, name, None) for name in RULES}
    return {
        name: sorted(v) if isinstance(v, (list, tuple)) else v for name, v in facts.items() if v is not None
    }


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
