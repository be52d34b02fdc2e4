"""A model that the caller has in memory becomes a `LanguageModel`; `close` gives it back as it was."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from ..errors import SoftPromptError
from . import attachment, heads, quantization, refusals
from .checkpoint import kind_of_model
from .heads import Head
from .library_internals import attention_of, unread_parameters
from .origin import Origin

KEPT = ("sdpa", "eager")  # attention functions of transformers that have a counterpart here


def wrapped(model: Any, tokenizer: Any, *, attention: str | None = None, trains_head: bool = False) -> Any:
    """Return the `LanguageModel` of a transformers model, which stays the caller's.

    `attention` None keeps the model's own function where vectors can be put into it. `trains_head` makes a
    classification head a part that training changes. Raises SoftPromptError as `check` does.
    """
    if attachment.PROMPT in vars(model):
        raise SoftPromptError(
            "the model has a prompt attached already",
            why="vectors of two prompts cannot be put in at once",
            fix="call model.detach() first; several prompts of one method are one table: prompts=[…]",
        )
    check(model)
    config = model.config
    current = attention_of(config)
    chosen = attention or (current if current in KEPT else "auto")
    head = head_of(model)
    names = heads.parameter_names(model, unread_parameters(model)) if head is not None and trains_head else ()
    origin = Origin(
        revision=getattr(config, "_commit_hash", None) if model.name_or_path else None,
        quantization=quantization.of_model(model),
        attn_implementation=chosen if chosen in ("eager", "flash") else None,
        device_map=getattr(model, "hf_device_map", None),
        in_memory=True,
    )
    name = model.name_or_path or type(model).__name__
    lm = kind_of_model(config, head, name)(model, tokenizer, name, head, names, chosen)
    lm.origin = origin
    return lm


def check(model: Any) -> None:
    """Raise SoftPromptError for what is no model of transformers."""
    if isinstance(model, PreTrainedModel):
        if head_of(model) is None and model.get_output_embeddings() is None:
            raise SoftPromptError(
                f"a {type(model).__name__} takes no prompt",
                why="it has neither an output for each token of the vocabulary nor a head of labels",
                fix="load the checkpoint with AutoModelForCausalLM, AutoModelForSeq2SeqLM, "
                "AutoModelForMaskedLM, AutoModelForSequenceClassification or AutoModelForTokenClassification",
            )
        return
    refusals.refuse_wrapped(model)
    library = type(model).__module__.partition(".")[0]
    raise SoftPromptError(
        f"lm is no base model: it is of the type {'' if library == 'builtins' else library + '.'}"
        f"{type(model).__name__}",
        why="it must be a hub id, a folder, a model of transformers, or what softprompt.load gives",
        fix='lm = softprompt.load("smollm2"); or give AutoModelForCausalLM.from_pretrained(…), '
        "without a wrapper around it",
    )


def head_of(model: PreTrainedModel) -> Head | None:
    """Return the head that the name of the model's class tells of."""
    over = {"ForSequenceClassification": "sequence", "ForTokenClassification": "tokens"}
    part = next((each for end, each in over.items() if type(model).__name__.endswith(end)), None)
    return None if part is None else Head(part, model.config.num_labels)  # type: ignore[arg-type]
