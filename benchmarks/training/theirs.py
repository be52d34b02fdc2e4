"""PEFT's side trains the same prompt or prefix with transformers' Trainer.

"As run" means rows in random order, padded on the right. "At its best" means softprompt's batches, with rows
of similar length. Nothing is logged or saved; loading the model and building the Trainer are not timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import base_models
from softprompt.data.example import Example

from .clock import now
from .ours import LENGTH, LR, Block, Ours


class Peft:
    """Holds a PEFT model that starts from softprompt's vectors, again for every block."""

    def __init__(self, model: str, dtype: str, ours: Ours) -> None:
        from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

        base = base_models.beside(ours.lm, model, dtype)
        ours.reset()
        start = their_form(ours)
        kind = PromptTuningConfig if ours.injection().before is not None else PrefixTuningConfig
        config = kind(task_type="CAUSAL_LM", num_virtual_tokens=start.shape[0])
        self.model: Any = get_peft_model(base, config).to(ours.lm.device)
        self._start = start.to(self.weight.dtype)
        self.reset()

    @property
    def weight(self) -> Tensor:
        """All parameters that are trained."""
        return self.model.prompt_encoder["default"].embedding.weight

    def reset(self) -> None:
        """Set the vectors back to softprompt's start."""
        with torch.no_grad():
            self.weight.copy_(self._start)

    def train(self, rows: Sequence[Example], steps: int, batch: int, *, ordered: bool) -> Block:
        """Take `steps` steps from the start; `ordered` keeps the rows' order, which is else random."""
        self.reset()
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.trainer(rows, steps, batch, folder, ordered=ordered, learning_rate=LR)
            clock = _Clock()
            trainer.add_callback(clock.callback())
            trainer.train()
        return Block(clock.seconds, [loss.item() for loss in trainer.seen])

    def trainer(
        self,
        rows: Sequence[Example],
        steps: int,
        batch: int,
        folder: str,
        *,
        ordered: bool,
        **arguments: Any,
    ) -> Any:
        """Build a Trainer for the rows, which also keeps every step's loss as `seen`."""
        from transformers import PrinterCallback, Trainer, TrainingArguments

        class Recording(Trainer):
            def __init__(self, *args: Any, **named: Any) -> None:
                super().__init__(*args, **named)
                self.seen: list[Tensor] = []

            def training_step(self, *args: Any, **named: Any) -> Tensor:
                self.seen.append(super().training_step(*args, **named))
                return self.seen[-1]

        chosen: dict[str, Any] = {"lr_scheduler_type": "constant", **arguments}
        settings = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=batch,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=self.weight.device.type == "cpu",
            train_sampling_strategy="sequential" if ordered else "random",
            label_names=["labels"],
            **chosen,
        )
        features = [
            {
                "input_ids": [*r.input_ids, *r.target_ids],
                "labels": [-100] * len(r.input_ids) + [*r.target_ids],
            }
            for r in rows
        ]
        trainer = Recording(self.model, settings, data_collator=padded_right, train_dataset=features)
        trainer.remove_callback(PrinterCallback)
        return trainer


def their_form(ours: Ours) -> Tensor:
    """Return the vectors as PEFT keeps them: [P, H], or [P, 2 · L · kv_dim] (docs/peft.md)."""
    injection = ours.injection()
    if injection.before is not None:
        return injection.before.vectors[0].detach().clone()
    assert injection.kv_before is not None
    layers = ours.lm.move(injection.kv_before.layers, LENGTH)  # PEFT's keys have positions 0 … P-1
    pairs = [t[0].transpose(0, 1).flatten(1) for kv in layers if kv for t in (kv.key, kv.value)]
    return torch.cat(pairs, dim=1).detach()


def padded_right(features: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Pad a batch on the right, as transformers' own collators do."""
    width = max(len(f["input_ids"]) for f in features)

    def column(key: str, fill: int) -> Tensor:
        return torch.tensor([f[key] + [fill] * (width - len(f[key])) for f in features])

    seen = [[1] * len(f["input_ids"]) + [0] * (width - len(f["input_ids"])) for f in features]
    batch = {"input_ids": column("input_ids", 0), "labels": column("labels", -100)}
    return batch | {"attention_mask": torch.tensor(seen)}


class _Clock:
    """Counts the seconds between the start of the first step and the end of the last."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0

    def callback(self) -> Any:
        from transformers import TrainerCallback

        clock = self

        class Clocked(TrainerCallback):
            def on_train_begin(self, *args: Any, **named: Any) -> None:
                clock._started = now()

            def on_train_end(self, *args: Any, **named: Any) -> None:
                clock.seconds = now() - clock._started

        return Clocked()
