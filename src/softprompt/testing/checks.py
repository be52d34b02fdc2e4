"""The contracts of a method by name, each a function that raises `ContractBroken`.

    check(subject: MethodOnModel) -> None

The conformance suite of the library runs the same functions over its own methods and all families of models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch

from ..errors import SoftPromptError
from .broken import ContractBroken
from .logit_checks import cached_input, generate_equals_forward, row_alone, saved_and_loaded
from .material import MethodOnModel, injection_of
from .training_checks import (
    base_stays_as_it_was,
    bfloat16_base,
    gradients_reach_the_method_alone,
    learns,
    prompts_are_independent,
)
from .vector_checks import injection_is_well_formed, prompt_ids_choose, same_seed_same_start

Check = Callable[[MethodOnModel], None]
#: In the order in which they run: the first that fails is usually the cause of those behind it.
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        base_stays_as_it_was,
        injection_is_well_formed,
        same_seed_same_start,
        row_alone,
        prompt_ids_choose,
        prompts_are_independent,
        cached_input,
        generate_equals_forward,
        gradients_reach_the_method_alone,
        saved_and_loaded,
        bfloat16_base,
        learns,
    )
}
#: Checks that run on the first of the families only.
ONCE = ("bfloat16_base", "learns")


def refusal(subject: MethodOnModel) -> SoftPromptError | None:
    """Return the error with which the method refuses the model, or the model a well-formed injection."""
    try:
        subject.build()
        injection = injection_of(subject)
    except SoftPromptError as error:
        return error
    try:
        with torch.no_grad():
            subject.lm.logits(subject.batch, injection)
    except SoftPromptError as error:
        with contextlib.suppress(ContractBroken):
            injection_is_well_formed(subject)
            return error
    return None
