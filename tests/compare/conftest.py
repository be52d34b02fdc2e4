"""Rows, and prompts overfitted to a few of them, on the tiny Llama."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from softprompt import methods
from softprompt.data.collate import collate
from softprompt.data.encode import Encoder
from softprompt.data.task import Task
from softprompt.data.template import Template
from softprompt.evaluation.evaluator import Evaluator
from softprompt.training.losses import next_token

WORDS = ("sun", "mud", "ox", "a tree")


@pytest.fixture(scope="session")
def evaluator(llama) -> Callable[..., Evaluator]:
    """`evaluator(kind, labels, **generate options)` of rows {"input", "target"} of prompts joke and fact."""

    def make(kind: str = "generation", labels: Any = None, lm: Any = None, **options: Any) -> Evaluator:
        lm = lm or llama
        template = Template(prompt_field="prompt")
        encoder = Encoder(lm.tokenizer, template, Task(kind, labels=labels, prompts=("joke", "fact")))
        return Evaluator(lm, encoder, max_new_tokens=8, generate_options=options)

    return make


@pytest.fixture(scope="session")
def overfit(llama) -> Callable[..., Any]:
    """The method, trained on the examples until it gives their targets."""

    def train(method, examples, steps: int = 150, lr: float = 0.1):
        batch = collate(examples)
        optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = next_token(llama, method, batch)
            loss.backward()
            optimizer.step()
            if loss.item() < 0.01:
                break
        return method

    return train


@pytest.fixture(scope="session")
def rows() -> list[dict[str, str]]:
    """The same inputs under both prompts, each with a target of its own."""
    output = {"joke": "yes", "fact": "no"}
    return [{"input": word, "target": output[p], "prompt": p} for word in WORDS for p in output]


@pytest.fixture(scope="session")
def forcing(llama, setting, evaluator, overfit, rows):
    """Two prompts, overfitted so that each forces its own answer on any of the inputs."""
    torch.manual_seed(0)
    method = methods.build("prefix-tuning", setting(llama), {"length": 4})
    return overfit(method, evaluator().encoder.encode_rows(rows))
