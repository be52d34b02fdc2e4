"""The options of transformers' own `generate` are checked here for both kinds of model that write text.

Beside the embeddings `generate` is given token ids in the same columns, so that whatever reads ids
(penalties, streamers, an assistant) sees a row's input under every method. Columns that have no token
(padding, soft tokens) repeat the row's first one: a penalty on repeated tokens then does not depend on
the neighbours. This file knows nothing of methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..data.collate import Batch
from ..errors import SoftPromptError
from ..injection import Injection
from .attachment import attached
from .library_internals import attention_of

Pack = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

# Options that guess tokens ahead. Given embeddings, transformers drops the guesses of its first step, and
# then compares them with the wrong logits.
GUESSING = (
    *("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit"),
    *("use_mtp", "speculation_type"),
)


def answering(lm: Any, max_new_tokens: int, /, **given: Any) -> dict[str, Any]:
    """Return options for answers: greedy, up to an end token, unless others are given."""
    options = merged(given)
    if options.get("max_length") is None:
        options.setdefault("max_new_tokens", max_new_tokens)
    options.setdefault("do_sample", False)
    if lm.ends:
        options.setdefault("eos_token_id", sorted(lm.ends))
    if options.get("stop_strings") is not None:
        options.setdefault("tokenizer", lm.tokenizer)
    return options


def merged(options: dict[str, Any]) -> dict[str, Any]:
    """Join the options of a `generation_config` with the others, which take precedence."""
    config = options.get("generation_config")
    settings = {} if config is None else vars(config)
    whole = {k: v for k, v in settings.items() if v is not None and not k.startswith("_")}
    whole.pop("transformers_version", None)
    return whole | {name: value for name, value in options.items() if name != "generation_config"}


def option_value(model: Any, options: dict[str, Any], name: str) -> Any:
    """Return an option's value: as given, else as in the model's own `generation_config`."""
    given = options.get(name)
    return getattr(model.generation_config, name, None) if given is None else given


def default(options: dict[str, Any], name: str, value: Any) -> None:
    """Set an option where the caller has not."""
    if options.get(name) is None:
        options[name] = value


def draw_from_all(options: dict[str, Any]) -> None:
    """Sample from the whole vocabulary by default; transformers would take the best 50 tokens."""
    if options.get("do_sample"):
        default(options, "top_k", 0)


def check(model: Any, options: dict[str, Any], injection: Injection) -> None:
    """Raise SoftPromptError where `generate` would accept an option and not do what it means."""
    if option_value(model, options, "output_attentions") and "eager" not in (
        attention_of(model.config) or ""
    ):
        raise SoftPromptError(
            "output_attentions cannot be combined with attention=sdpa",
            why="the fused kernel never has the weights: each would be None",
            fix="load the model with attention=eager",
        )
    if option_value(model, options, "cache_implementation") == "paged":
        raise SoftPromptError(
            "cache_implementation=paged takes no injected vectors",
            why="transformers' continuous batching runs another attention",
            fix="use cache_implementation=dynamic or static",
        )
    if option_value(model, options, "token_healing"):
        raise SoftPromptError(
            "token_healing takes away tokens of the input",
            why="the positions of injected vectors depend on the input's columns",
            fix="leave it out, and end inputs where a word ends",
        )
    assistant = options.get("assistant_model")
    if assistant is not None and attached(assistant) is not None:
        raise SoftPromptError(
            "the assistant model was loaded by softprompt",
            why="its attention is changed, and only the large model's is meant to be",
            fix="give it as transformers loads it: AutoModelForCausalLM.from_pretrained(…)",
        )
    if not injection.channels():
        return
    if option_value(model, options, "guidance_scale") not in (None, 1, 1.0):
        raise SoftPromptError(
            "guidance_scale cannot be combined with a prompt or prefix",
            why="its run without the input would be given the prompt of the run with it",
            fix="mix the logits of two runs in a logits_processor of your own",
        )


def check_soft_tokens(model: Any, options: dict[str, Any]) -> None:
    """Raise SoftPromptError where `generate` cannot start from embeddings (decoder-only models)."""
    if option_value(model, options, "prefill_chunk_size"):
        raise SoftPromptError(
            "prefill_chunk_size cannot be combined with soft tokens",
            why="transformers prefills token ids in chunks, and soft tokens have none",
            fix="leave it out, or use a prefix",
        )
    if guessing := guesses(model, options):
        raise SoftPromptError(
            f"{guessing} cannot be combined with soft tokens",
            why="transformers' first step of assisted decoding reads embeddings alone, and loses the guesses",
            fix="leave it out, or use a prefix (prefix-tuning), which works with assisted decoding",
        )


def guesses(model: Any, options: dict[str, Any]) -> str:
    """Return the option that guesses tokens ahead, if one is given; else an empty string."""
    return next((name for name in GUESSING if option_value(model, options, name)), "")


def ids_in_place(batch: Batch, injection: Injection, pack: Pack) -> tuple[Tensor, Tensor]:
    """Return token ids [B, S] in the columns of [before | input | after], and which are tokens."""
    first = batch.input_ids.gather(1, batch.input_mask.to(torch.uint8).argmax(1, keepdim=True))
    parts = [(batch.input_ids, batch.input_mask, batch.input_mask)]
    if injection.before is not None:
        parts.insert(0, _without_tokens(injection.before.mask))
    if injection.after is not None:
        parts.append(_without_tokens(injection.after.mask))
    ids, real, known = (torch.cat(column, dim=1) for column in zip(*parts, strict=True))
    columns, mask = pack(torch.stack([ids, known.long()], dim=2), real)
    there = columns[..., 1].bool() & mask
    return columns[..., 0].where(there, first), there


def _without_tokens(real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros_like(real, dtype=torch.long), real, torch.zeros_like(real)


def new_tokens(out: Any, width: int) -> Any:
    """Cut off the first `width` columns of the sequences that `generate` returned."""
    if isinstance(out, Tensor):
        return out[:, width:]
    out.sequences = out.sequences[:, width:]
    return out


def tokens_of(out: Any) -> Tensor:
    """Return the tokens, whether `generate` returned them alone or in its output object."""
    return out if isinstance(out, Tensor) else out.sequences
