"""The subject of a measurement holds a model and the rows that it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from softprompt.data.encode import Encoder
from softprompt.data.example import Example
from softprompt.data.task import Task
from softprompt.data.template import Template
from softprompt.evaluation.evaluator import Evaluator
from softprompt.lm import loading
from softprompt.lm.causal import CausalLM
from softprompt.testing.material import tiny_tokenizer

TINY = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
NEW_TOKENS = 48


@dataclass(frozen=True)
class Subject:
    """A model by its precision, rows, and how often each side is timed."""

    rows: int
    repeats: int
    precisions: Sequence[str]
    is_short: bool

    def model(self, precision: str) -> CausalLM:
        """Return a frozen model with 16-bit weights, in this precision."""
        if not self.is_short:
            lm = loading.load("smollm2", dtype=precision)
            assert isinstance(lm, CausalLM)
            return lm
        torch.manual_seed(0)
        config = LlamaConfig(**TINY, num_attention_heads=4, initializer_range=0.2)
        tiny = LlamaForCausalLM(config).to(torch.bfloat16).to(getattr(torch, precision)).eval()
        tiny.generation_config.eos_token_id = list(range(3, 99, 8))  # so that rows end at many lengths
        lm = CausalLM(tiny, tiny_tokenizer(), "tiny")
        lm.is_loaded_here = True
        return lm

    def material(self, lm: CausalLM) -> tuple[Evaluator, list[Example]]:
        """Return an evaluator and the demo's test rows, each with its instruction."""
        template = Template("{{ instruction }}\n\n{{ input }}", "{{ target }}", chat=not self.is_short)
        encoder = Encoder(lm.tokenizer, template, Task())
        if self.is_short:
            rows = [
                {"instruction": "say", "input": "w" * (1 + i % 7), "target": ""} for i in range(self.rows)
            ]
        else:
            from softprompt_demo.corpus import INSTRUCTIONS, demo_rows

            test = demo_rows().test[: self.rows]
            rows = [{**row, "instruction": INSTRUCTIONS[row["prompt"]]} for row in test]
        tokens = 8 if self.is_short else NEW_TOKENS
        return Evaluator(lm, encoder, max_new_tokens=tokens), [
            encoder.encode(row, with_target=False) for row in rows
        ]


def best(sides: dict[str, Callable[[], Any]], repeats: int, now: Callable[[], float]) -> dict[str, float]:
    """Return the shortest seconds of each side; the sides take turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            started = now()
            side()
            times[name].append(now() - started)
    return {name: min(seconds) for name, seconds in times.items()}
