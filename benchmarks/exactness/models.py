"""The tiny random models of both sides, and prompts of random vectors on them."""

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

LONG, SHORT = [5, 17, 80, 33, 9, 71, 3], [60, 61, 7]  # two rows of unlike lengths
LENGTH = 4  # vectors of a prompt
CONFIGS = {  # by our name of the method
    "prompt-tuning": "PromptTuningConfig",
    "prefix-tuning": "PrefixTuningConfig",
    "p-tuning": "PromptEncoderConfig",
}
METHODS = {"soft prompt": "prompt-tuning", "prefix": "prefix-tuning"}


def peft_config(method: str, task: str = "CAUSAL_LM", **options: Any) -> Any:
    """PEFT's configuration of a method by our name."""
    import peft

    options |= {"encoder_hidden_size": 8} if method == "p-tuning" else {}
    return getattr(peft, CONFIGS[method])(task_type=task, num_virtual_tokens=LENGTH, **options)


def in_peft(method: str, base: Any = "llama", task: str = "CAUSAL_LM", **options: Any) -> Any:
    """A PEFT model with a prompt of random vectors, ready to answer."""
    import peft

    model = tiny(base) if isinstance(base, str) else base
    torch.manual_seed(3)
    return peft.get_peft_model(model, peft_config(method, task, **options)).eval()


def here(family: str = "llama") -> LanguageModel:
    """The same tiny model as ours."""
    return (Seq2SeqLM if family in ENCODER_DECODERS else CausalLM)(tiny(family), None, f"tiny-{family}")


def prompt(
    lm: LanguageModel, method: str, prompts: Sequence[str] = ("default",), **options: Any
) -> SoftPrompt:
    """A method with random vectors, ahead of the input unless told otherwise."""
    torch.manual_seed(3)
    chosen = {"length": LENGTH, "placement": "before", "init": "random", **options}
    built = methods.build(method, Setting(lm, tuple(prompts)), chosen)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return built


def row(ids: Sequence[int]) -> dict[str, Tensor]:
    """One row as transformers takes it."""
    return {"input_ids": torch.tensor([list(ids)]), "attention_mask": torch.ones(1, len(ids)).long()}


def padded(left: bool) -> dict[str, Tensor]:
    """The rows LONG and SHORT as one batch."""
    gap = len(LONG) - len(SHORT)
    short = [0] * gap + SHORT if left else SHORT + [0] * gap
    seen = [0] * gap + [1] * len(SHORT) if left else [1] * len(SHORT) + [0] * gap
    return {"input_ids": torch.tensor([LONG, short]), "attention_mask": torch.tensor([[1] * len(LONG), seen])}


class Scores(LogitsProcessor):
    """Changes nothing, and keeps the logits of every step that `generate` takes."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        self.steps.append(scores.clone())
        return scores

    def stacked(self) -> Tensor:
        """Logits [steps, B, V]."""
        return torch.stack(self.steps)
