"""Check that an adapter was made for this model: its task, and the sizes of its layers."""

from __future__ import annotations

from ....errors import SoftPromptError
from ....lm.base import LanguageModel
from . import config
from .encdec import TASKS
from .files import Adapter
from .layout import shared_layer


def check_task(adapter: Adapter, lm: LanguageModel) -> tuple[str, ...]:
    """Return a note on an adapter without a task. Raises SoftPromptError for one of another task."""
    task, meant = adapter.config.get("task_type"), TASKS.get(lm.spec.kind)
    if meant is None:
        raise SoftPromptError(
            f"an adapter cannot be imported for {lm.spec.family}",
            why="its answers are read at masks or off a head, and in PEFT soft tokens come ahead of [CLS]",
            fix="use it with PEFT",
        )
    if task == meant or (task is None and adapter.kind == config.ADAPTION):
        return ()
    if task is None:
        classes = {"CAUSAL_LM": "PeftModelForCausalLM", "SEQ_2_SEQ_LM": "PeftModelForSeq2SeqLM"}
        return (
            f"its task_type is null, for which PEFT's plain PeftModel ignores the prompt; "
            f"what is imported answers as it does in {classes[meant]}",
        )
    trained = f"its vectors were trained for {config.HEADS[task]}" if task in config.HEADS else ""
    raise SoftPromptError(
        f"an adapter for {task} cannot be imported",
        why=trained or f"{lm.spec.family} is no model for that, but one for {meant}",
        fix="use it with PEFT, or train a prompt for this model with softprompt"
        if trained
        else "give --model the base model that the adapter was trained on",
    )


def check_geometry(adapter: Adapter, lm: LanguageModel, entries: int) -> tuple[str, ...]:
    """Return notes on settings that are ignored, as PEFT ignores them.

    Raises SoftPromptError where layers and heads have other sizes, although the rows have the same width.
    """
    spec, settings = shared_layer(lm), adapter.config
    depth, heads = config.number(settings, "num_layers"), config.number(settings, "num_attention_heads")
    width, own_width = config.number(settings, "token_dim"), spec.kv_heads * spec.head_dim
    grouped = hasattr(lm.model.config.get_text_config(decoder=True), "num_key_value_heads")
    notes: tuple[str, ...] = ()
    if grouped and width not in (
        None,
        own_width,
    ):  # it cannot belong to these rows, so it says nothing about the model
        heads = width = None
        notes = (
            f"its {config.NAME} says token_dim: {settings['token_dim']}, and its vectors have {own_width} a "
            "layer; PEFT takes the model's sizes instead, and so does the import",
        )
    differences = [
        f"{name} {given}, the model {wanted}"
        for name, given, wanted in (
            ("layers", depth, entries),
            ("heads", heads, spec.kv_heads),
            ("numbers a head", width and heads and width // heads, spec.head_dim),
        )
        if given is not None and given != wanted
    ]
    if differences:
        raise SoftPromptError(
            "this prefix was trained on a model of another shape",
            why=f"its {config.NAME} has {'; '.join(differences)}",
            fix="give --model the base model that the adapter was trained on; if that is this one, set "
            "num_layers, num_attention_heads and token_dim to null there: then the model's sizes are used",
        )
    return notes
