"""A checkpoint has generation settings of its own, of which only some apply.

They are in generation_config.json beside its weights: penalties, lengths,
sampling, suppressed and forced tokens, end tokens. Training and scoring know nothing of most of them, so a
prompt would be tuned without a penalty and then answer under it. One rule holds for all that generates:

- *Tokens* are the checkpoint's: its end tokens and the tokenizer's (which training appends), its padding.
- *What a decoder begins with* (its start token, and the first token that the settings force, as BART's `<s>`
  or a target language) precedes every target, in training, scoring and generation alike.
- *Everything else* is neutral. `LanguageModel.inherited` holds what the checkpoint would have it be, as
  options for callers of `generate` who want them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import GenerationConfig

from .attachment import attach
from .library_internals import generation_defaults

KEPT = "generation settings"  # of a model: as shipped, and as they were made neutral
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
# what changes no answer
SILENT = (
    *("transformers_version", "use_cache", "is_assistant", "compile_config", "disable_compile"),
    *("output_scores", "output_logits", "output_attentions", "output_hidden_states"),
    "return_dict_in_generate",
)
# neutral values where transformers has another default, or none
NEUTRAL = {"top_k": 0, "guidance_scale": 1, "min_new_tokens": 0}


def shipped(model: Any) -> GenerationConfig | None:
    """Return the generation settings that the model came with; None where it does not generate."""
    config = getattr(model, "generation_config", None)
    as_shipped, neutral = attach(model).measured.get(KEPT, (None, None))
    return as_shipped if neutral is not None and config is neutral else config


def make_neutral(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Leave the model only the generation settings that apply; return the others."""
    config = shipped(model)
    if config is None:
        return {}
    values = {name: value for name, value in config.to_dict().items() if value is not None}
    known = GenerationConfig().to_dict().keys() | {"forced_decoder_ids"}
    tokens = {name: values.get(name, getattr(model.config, name, None)) for name in TOKENS}
    if tokens["eos_token_id"] is not None:
        tokens["eos_token_id"] = end_tokens(tokens["eos_token_id"], tokenizer)
    more = {name: value for name, value in values.items() if name not in known}
    if model.config.is_encoder_decoder:
        tokens["forced_bos_token_id"] = values.get("forced_bos_token_id")
    neutral = GenerationConfig(**{k: v for k, v in tokens.items() if v is not None}, **more)
    model.generation_config = neutral
    attach(model).measured[KEPT] = config, neutral
    kept = {*tokens, *SILENT, *more}
    return {name: value for name, value in values.items() if name not in kept and _counts(name, value)}


def end_tokens(of_checkpoint: Any, tokenizer: Any) -> list[int] | None:
    """Return the ids of the checkpoint's end tokens and the tokenizer's; None for none."""
    ends_given = of_checkpoint if isinstance(of_checkpoint, list | tuple) else [of_checkpoint]
    ends = dict.fromkeys([*ends_given, getattr(tokenizer, "eos_token_id", None)])
    return [int(end) for end in ends if end is not None] or None


def begin(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that a decoder behind an encoder reads before a target; () where none is known.

    The start token, then the token that the checkpoint forces, else the code of the language that the
    tokenizer is set to write (`tgt_lang` of NLLB, M2M100, mBART-50): these models' targets begin with it.
    """
    config = shipped(model)
    start = getattr(config, "decoder_start_token_id", None)
    start = getattr(model.config, "decoder_start_token_id", None) if start is None else start
    if start is None:
        return ()
    forced = getattr(config, "forced_bos_token_id", None)
    ahead = _language(tokenizer) if forced is None else (int(forced),)
    return (int(start), *(token for token in ahead if token != start))


def wants_language(tokenizer: Any) -> bool:
    """Return whether the tokenizer marks the language that is written, and has none set."""
    return hasattr(tokenizer, "tgt_lang") and tokenizer.tgt_lang is None


def notes(inherited: Mapping[str, Any], forced: Sequence[str], tokenizer: Any) -> list[str]:
    """Return sentences about a checkpoint's settings for the user; `forced`: tokens as text."""
    sentences = []
    if forced:
        sentences.append(
            f"every target follows {' '.join(forced)}, which the checkpoint has its decoder begin with"
        )
    elif wants_language(tokenizer):
        sentences.append(
            "the tokenizer marks the language that is written, and is set to none; to have its mark ahead of "
            "every target, set tgt_lang in tokenizer_config.json"
        )
    if inherited:
        named = ", ".join(f"{name}={value}" for name, value in inherited.items())
        sentences.append(
            "the checkpoint's own generation settings are left out, since training knows nothing of them: "
            f"{named} (to have them: softprompt generate --checkpoint-settings)"
        )
    return sentences


def _language(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that the tokenizer puts ahead of a target in the language that it is set to."""
    if getattr(tokenizer, "tgt_lang", None) is None:
        return ()
    word = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer(text_target="a")["input_ids"]
    ahead = next((n for n in range(len(whole)) if whole[n : n + len(word)] == word), 0)
    return tuple(int(token) for token in whole[:ahead])


def _counts(name: str, value: Any) -> bool:
    """Return whether a setting changes anything."""
    neutral = (generation_defaults() | NEUTRAL).get(name)
    return not name.startswith("_") and value is not False and value not in (neutral, [], {}, "")
