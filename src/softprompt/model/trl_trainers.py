"""TRL's trainers that have a reference, which here is the model without vectors.

For DPO and KTO, TRL takes a reference from its caller. Without one it loads a second copy of the base. With
`precompute_ref_log_probs` it reads the reference off the model itself, with its vectors. For GRPO it takes
none: with `beta` above zero it loads a second copy, unless the model is PEFT's. There TRL builds the trainer
as for `beta=0`, which needs no reference, and gets one that shares every weight.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import SoftPromptError
from .collator import COLUMN, numbers_of
from .holder import holder_of
from .prompt_model import SoftPromptModel
from .row_prompts import in_order
from .trl_calls import nothing_to_copy

try:
    import trl
except ImportError as error:
    raise SoftPromptError(
        "this trainer needs TRL", why="the package trl is not installed", fix="pip install 'softprompt[trl]'"
    ) from error

if TYPE_CHECKING:
    GRPO = DPO = KTO = Any
else:
    GRPO, DPO = trl.GRPOTrainer, trl.DPOTrainer
    try:
        KTO = trl.KTOTrainer
    except AttributeError:  # where TRL calls it experimental
        from trl.experimental.kto import KTOTrainer as KTO

#: Arguments of reward functions that are no columns of the rows.
TAKEN = ("prompt", "prompts", "completion", "completions", "completion_ids")


class GRPOTrainer(GRPO):
    """Trains the prompt of an attached model as `trl.GRPOTrainer` does, with the same arguments.

    With `beta` above zero the reference is `model.reference()`: no second copy of the base is in memory.
    Where the model has a table of prompts, the rows have a column (`prompt_column`)
    with the name or number of each row's prompt; answers are generated and trained with it. Raises
    SoftPromptError for a reference that follows the policy (`sync_ref_model`), for DeepSpeed and FSDP, which
    take a model's weights apart, and for a row without its prompt.
    """

    takes_tables = True

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: Any = None,
        *others: Any,
        prompt_column: str = "prompt_name",
        **more: Any,
    ) -> None:
        if prompt_column in TAKEN:
            raise SoftPromptError(
                f"prompt_column={prompt_column!r} cannot name the prompts of rows",
                why="TRL passes columns to reward functions by name, and has an argument of this name",
                fix='rename the column: prompt_column="prompt_name"',
            )
        self.prompt_column, self._row_prompts = prompt_column, None
        if args is None or not args.beta or not isinstance(model, SoftPromptModel):
            super().__init__(model, reward_funcs, args, *others, **more)
            return
        _check_following(args)
        _check_shared(args)
        without = copy.copy(args)
        without.beta = 0.0
        super().__init__(model, reward_funcs, without, *others, **more)
        without.beta = self.beta = args.beta
        self.ref_model = model.reference()

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """Generate with each row's prompt, and keep its number beside what TRL shuffles and cuts."""
        model = self.accelerator.unwrap_model(self.model)
        if not isinstance(model, SoftPromptModel) or len(holder_of(model).prompts) < 2:
            return super()._generate_and_score_completions(inputs)
        numbers = numbers_of(model, inputs, self.prompt_column).to(self.accelerator.device)
        with self._rows_of(numbers):
            output = super()._generate_and_score_completions(inputs)
        return {**output, COLUMN: numbers}

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        with self._rows_of(inputs.get(COLUMN)):
            return super()._compute_loss(model, {k: v for k, v in inputs.items() if k != COLUMN})

    def _generate_single_turn(self, prompt_ids: Any, *others: Any, **more: Any) -> Any:
        with in_order(self._row_prompts, len(prompt_ids)):
            return super()._generate_single_turn(prompt_ids, *others, **more)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, *others: Any, **more: Any
    ) -> Any:
        with in_order(self._row_prompts, len(input_ids)):
            return super()._get_per_token_logps_and_entropies(model, input_ids, *others, **more)

    @contextlib.contextmanager
    def _rows_of(self, numbers: Any) -> Iterator[None]:
        """Inside, TRL runs rows that use these prompts, [rows]."""
        self._row_prompts = numbers
        try:
            yield
        finally:
            self._row_prompts = None


class _WithReference:
    """Gives TRL's trainer `model.reference()` where an attached model comes without a reference."""

    def __init__(
        self, model: Any, ref_model: Any = None, args: Any = None, *others: Any, **more: Any
    ) -> None:
        trainer: Any = super()
        trainer.__init__(model, _reference(model, ref_model, args), args, *others, **more)


class DPOTrainer(_WithReference, DPO):
    """Trains the prompt of an attached model as `trl.DPOTrainer` does, with the same arguments.

    Without `ref_model` the reference is `model.reference()`: no second copy of the base is in memory.
    Raises SoftPromptError as GRPOTrainer does.
    """


class KTOTrainer(_WithReference, KTO):
    """Trains the prompt of an attached model as `trl.KTOTrainer` does, with the same arguments.

    Without `ref_model` the reference is `model.reference()`: no second copy of the base is in memory.
    Raises SoftPromptError as GRPOTrainer does.
    """


def _reference(model: Any, given: Any, args: Any) -> Any:
    """Return the reference of a trainer: the one that is given, else the model without vectors."""
    if not isinstance(model, SoftPromptModel):
        return given
    _check_following(args)
    if given is not None:
        return given
    _check_shared(args)
    return model.reference()


def _check_following(args: Any) -> None:
    """Raise SoftPromptError for a reference that follows the policy."""
    if getattr(args, "sync_ref_model", False):
        raise nothing_to_copy()


def _check_shared(args: Any) -> None:
    """Raise SoftPromptError for settings that need a reference with weights of its own."""
    if args is not None and (args.deepspeed or args.fsdp):
        raise SoftPromptError(
            f"a shared reference does not work with {'DeepSpeed' if args.deepspeed else 'FSDP'}",
            why="it takes the weights apart that the reference shares with the model",
            fix="use TRL's own trainer, which loads a second copy of the base (for GRPO also: beta=0)",
        )
