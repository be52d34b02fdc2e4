"""An adapter of a decoder with a classification head holds the head beside the vectors, as PEFT saves it.

PEFT calls such a head one of `modules_to_save`, and the task SEQ_CLS. What it does was found by calling
PEFT 0.21.2. This file knows nothing of methods and folders.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ....errors import SoftPromptError
from ....lm.base import LanguageModel
from .files import Adapter

KINDS = ("PROMPT_TUNING", "PREFIX_TUNING")  # tested under a head


def check(artifact: Any, lm: LanguageModel) -> None:
    """Raise SoftPromptError where PEFT gives the answers of such a model otherwise, whatever the prompt."""
    if lm.answers == "pooled":
        raise SoftPromptError(
            f"{artifact} cannot be written for PEFT",
            why="PEFT does not pool vectors of texts, and its prompts are pooled with the text",
            fix="use it with softprompt, or in sentence-transformers: softprompt.SentenceModule",
        )
    if lm.answers == "next" or (lm.head is not None and lm.spec.kind == "decoder"):
        return
    where = "at masks" if lm.head is None else "off a head"
    raise SoftPromptError(
        f"{artifact} cannot be written for PEFT",
        why=f"its answers are read {where} of an encoder: in PEFT soft tokens come ahead of [CLS], and "
        "a prefix moves the text to other positions or is refused",
        fix="use it with softprompt",
    )


def with_head(adapter: Adapter, lm: LanguageModel) -> Adapter:
    """Return the adapter with the head of `lm`; as it is for a model without one.

    Raises SoftPromptError for a kind of adapter that PEFT runs or saves otherwise under a head.
    """
    if lm.head is None:
        return adapter
    if adapter.kind not in KINDS:
        raise SoftPromptError(
            f"PEFT cannot hold a head beside {adapter.kind}",
            why="it saves no head with it"
            if adapter.kind == "ADAPTION_PROMPT"
            else f"only {' and '.join(KINDS)} were tested under a head",
            fix="train prompt-tuning or prefix-tuning with placement=before"
            if adapter.kind == "ADAPTION_PROMPT"
            else "add --materialise",
        )
    weights = {name: p.detach() for name, p in lm.model.named_parameters() if name in lm.head_names}
    tensors = {f"base_model.{name}": weight for name, weight in weights.items()}
    config = {"task_type": "SEQ_CLS", "modules_to_save": sorted({name.split(".")[0] for name in weights})}
    notes = (f"load the base as AutoModelForSequenceClassification with num_labels={lm.head.size}",)
    if adapter.kind == "PROMPT_TUNING":
        notes += (
            "PEFT reads the head at the last column of a batch, padding too: give it rows of one length",
        )
    return replace(
        adapter,
        config=adapter.config | config,
        tensors=adapter.tensors | tensors,
        notes=adapter.notes + notes,
    )
