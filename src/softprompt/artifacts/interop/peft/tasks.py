"""What an adapter was trained for, beside what a model is for."""

from __future__ import annotations

from ....errors import SoftPromptError
from ....lm.base import LanguageModel
from . import config
from .encdec import TASKS
from .files import Adapter


def check_task(adapter: Adapter, lm: LanguageModel) -> tuple[str, ...]:
    """What to know of an adapter for no task. Raises SoftPromptError for another task than the model's."""
    task, meant = adapter.config.get("task_type"), TASKS.get(lm.spec.kind)
    if meant is None:
        raise SoftPromptError(
            f"an adapter cannot be imported for {lm.spec.family}",
            why="its answers are read at masks or off a head, and in PEFT soft tokens stand ahead of [CLS]",
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
