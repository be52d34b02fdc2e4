"""TRL's own trainers are recognised by the functions in which they call an attached model.

A reference is the model without vectors. Where none is given, TRL's trainers load a second copy of the base
by its name (`create_model_from_path`), or read the reference off the model that they train
(`precompute_ref_log_probs`). With an attached model the first gives the base that is in memory already, and
the second runs without vectors. Where TRL has renamed these functions, the second copy is loaded, which gives
the same numbers; a test says so then.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

from ..errors import SoftPromptError

READS_REFERENCE = "compute_ref_log_probs"  # of TRL's DPOTrainer and KTOTrainer
LOADS_REFERENCE = "create_model_from_path"
#: TRL's modules whose trainers load a reference.
TRAINERS = tuple(f"trl.trainer.{kind}_trainer" for kind in ("dpo", "kto", "grpo"))
#: Trainers that pass all columns of a batch to the model, so that `prompts` reaches it.
TAKE_TABLES = ("SFTTrainer", "DPOTrainer", "KTOTrainer", "RewardTrainer")


def reads_reference() -> bool:
    """Return whether a call is one that TRL makes for a reference while its trainer has no `ref_model`."""
    if torch.is_grad_enabled() or "trl" not in sys.modules:
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != READS_REFERENCE:
        frame = frame.f_back
    trainer = None if frame is None else frame.f_locals.get("self")
    return trainer is not None and getattr(trainer, "ref_model", None) is None


def share_references(has_prompt: Callable[[Any], bool]) -> None:
    """Let TRL's trainers that were imported take `model.reference()` where they would load a second copy.

    `has_prompt` tells attached models from others, for which TRL loads what it always did. So it does with
    DeepSpeed and FSDP, which take a model's weights apart.
    """
    for name in TRAINERS:
        module: Any = sys.modules.get(name)
        load = getattr(module, LOADS_REFERENCE, None)
        if load is not None and not hasattr(load, "shares"):
            setattr(module, LOADS_REFERENCE, _sharing(load, has_prompt))


def _sharing(load: Callable[..., Any], has_prompt: Callable[[Any], bool]) -> Callable[..., Any]:
    @functools.wraps(load)
    def shared(*args: Any, **kwargs: Any) -> Any:
        trainer = sys._getframe(1).f_locals.get("self")
        model, settings = getattr(trainer, "model", None), getattr(trainer, "args", None)
        if model is None or not has_prompt(model) or settings is None or settings.deepspeed or settings.fsdp:
            return load(*args, **kwargs)
        return model.reference()

    shared.shares = True  # type: ignore[attr-defined]
    return shared


def check_trainer(trainer: Any, prompts: int) -> None:
    """Raise SoftPromptError for settings of TRL's trainer that a model with `prompts` prompts cannot take."""
    settings, name = getattr(trainer, "args", None), type(trainer).__name__
    if getattr(settings, "sync_ref_model", False):
        raise nothing_to_copy()
    if getattr(settings, "use_transformers_paged", False):
        raise SoftPromptError(
            "use_transformers_paged=True takes no prompt",
            why="continuous batching of transformers has an attention of its own, which vectors do not reach",
            fix="use use_transformers_paged=False",
        )
    if getattr(settings, "use_vllm", False):
        raise SoftPromptError(
            "use_vllm=True takes no prompt",
            why="vLLM generates with a model of its own, which vectors do not reach",
            fix="use use_vllm=False",
        )
    takes_tables = name in TAKE_TABLES or getattr(trainer, "takes_tables", False)
    if prompts > 1 and not takes_tables and hasattr(trainer, "ref_model"):
        ours = name == "GRPOTrainer"
        raise SoftPromptError(
            f"TRL's {name} takes no table of {prompts} prompts",
            why="it passes no column of the rows to the model that says which prompt a row uses",
            fix="use softprompt.GRPOTrainer, which reads it from the rows' column `prompt_name`"
            if ours
            else 'attach one prompt (prompts=["joke"]) and train each alone',
        )


def nothing_to_copy() -> SoftPromptError:
    """Return the error for a reference that is to follow the policy."""
    return SoftPromptError(
        "sync_ref_model=True has nothing to copy",
        why="the reference is the frozen base, and only the vectors are trained",
        fix="use sync_ref_model=False",
    )
