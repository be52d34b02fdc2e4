"""TRL's GRPOTrainer, whose reference is the model without vectors.

TRL takes a reference model from its caller for DPO and KTO, but not for GRPO: with `beta` above zero it loads
a second copy of the base by the name in the model's configuration, unless the model is PEFT's. Here TRL
builds the trainer as for `beta=0`, which needs no reference, and gets one that shares every weight.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ..errors import SoftPromptError
from .prompt_model import SoftPromptModel

try:
    import trl
except ImportError as error:
    raise SoftPromptError(
        "GRPOTrainer needs TRL", why="the package trl is not installed", fix="pip install 'softprompt[trl]'"
    ) from error

if TYPE_CHECKING:
    Base: Any = object
else:
    Base = trl.GRPOTrainer


class GRPOTrainer(Base):
    """Trains the prompt of an attached model as `trl.GRPOTrainer` does, with the same arguments.

    With `beta` above zero the reference is `model.reference()`: no second copy of the base is in memory.
    Raises SoftPromptError for a reference that follows the policy (`sync_ref_model`), and for DeepSpeed and
    FSDP, which take a model's weights apart.
    """

    def __init__(
        self, model: Any, reward_funcs: Any = None, args: Any = None, *others: Any, **more: Any
    ) -> None:
        if args is None or not args.beta or not isinstance(model, SoftPromptModel):
            super().__init__(model, reward_funcs, args, *others, **more)
            return
        _check(args)
        without = copy.copy(args)
        without.beta = 0.0
        super().__init__(model, reward_funcs, without, *others, **more)
        without.beta = self.beta = args.beta
        self.ref_model = model.reference()


def _check(args: Any) -> None:
    """Raise SoftPromptError for settings that need a reference with weights of its own."""
    if args.sync_ref_model:
        raise SoftPromptError(
            "sync_ref_model=True has nothing to copy",
            why="the reference is the frozen base, and only the vectors are trained",
            fix="use sync_ref_model=False",
        )
    if args.deepspeed or args.fsdp:
        raise SoftPromptError(
            f"a shared reference does not work with {'DeepSpeed' if args.deepspeed else 'FSDP'}",
            why="it takes the weights apart that the reference shares with the model",
            fix="use trl.GRPOTrainer, which loads a second copy of the base, or beta=0",
        )
