"""Both sides are given the same tiny random models, and prompts of random vectors on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from softprompt import methods
from softprompt.lm.base import LanguageModel
from softprompt.lm.causal import CausalLM
from softprompt.lm.families import ENCODER_DECODERS, tiny
from softprompt.lm.seq2seq import Seq2SeqLM
from softprompt.methods.base import Setting, SoftPrompt

LONG, SHORT = [5, 17, 80, 33, 9, 71, 3], [60, 61, 7]  # two rows of different lengths
LENGTH = 4  # vectors of a prompt
CONFIGS = {  # by our name of the method
    "prompt-tuning": "PromptTuningConfig",
    "prefix-tuning": "PrefixTuningConfig",
    "p-tuning": "PromptEncoderConfig",
}
METHODS = {"soft prompt": "prompt-tuning", "prefix": "prefix-tuning"}


def peft_config(method: str, task: str = "CAUSAL_LM", **options: Any) -> Any:
    """Return PEFT's configuration of a method by its softprompt name."""
    import peft

    options |= {"encoder_hidden_size": 8} if method == "p-tuning" else {}
    return getattr(peft, CONFIGS[method])(task_type=task, num_virtual_tokens=LENGTH, **options)


def in_peft(method: str, base: Any = "llama", task: str = "CAUSAL_LM", **options: Any) -> Any:
    """Build a PEFT model with a prompt of random vectors, in evaluation mode."""
    import peft

    model = tiny(base) if isinstance(base, str) else base
    torch.manual_seed(3)
    return peft.get_peft_model(model, peft_config(method, task, **options)).eval()


def here(family: str = "llama") -> LanguageModel:
    """Wrap the same tiny model for softprompt."""
    return (Seq2SeqLM if family in ENCODER_DECODERS else CausalLM)(tiny(family), None, f"tiny-{family}")


def prompt(
    lm: LanguageModel, method: str, prompts: Sequence[str] = ("default",), **options: Any
) -> SoftPrompt:
    """Build a method with random vectors, by default ahead of the input."""
    torch.manual_seed(3)
    chosen = {"length": LENGTH, "placement": "before", "init": "random", **options}
    built = methods.build(method, Setting(lm, tuple(prompts)), chosen)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return built


def row(ids: Sequence[int]) -> dict[str, Tensor]:
    """Return one row as the keyword arguments of transformers."""
    return {"input_ids": torch.tensor([list(ids)]), "attention_mask": torch.ones(1, len(ids)).long()}


def padded(left: bool) -> dict[str, Tensor]:
    """Put the rows LONG and SHORT into one batch."""
    gap = len(LONG) - len(SHORT)
    short = [0] * gap + SHORT if left else SHORT + [0] * gap
    seen = [0] * gap + [1] * len(SHORT) if left else [1] * len(SHORT) + [0] * gap
    return {"input_ids": torch.tensor([LONG, short]), "attention_mask": torch.tensor([[1] * len(LONG), seen])}


class Scores(LogitsProcessor):
    """Keeps the logits of every step of `generate`, and changes nothing."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        self.steps.append(scores.clone())
        return scores

    def stacked(self) -> Tensor:
        """Return the logits [steps, B, V]."""
        return torch.stack(self.steps)
