"""The training loop: one optimizer over the method's parameters (and the base's, where it is trained).

Everything random is a function of (seed, epoch), and the checkpoint holds the rest, so a run that was
killed at any step ends with the same bytes as one that was not. This file knows nothing of files other
than its checkpoint, of templates, or of how dev scores are made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from .checkpoint import Progress, read_checkpoint, write_checkpoint
from .lm.adapt import trained_weights
from .lm.base import LanguageModel
from .methods.base import SoftPrompt
from .order import Order

Schedule = Literal["cosine", "linear", "constant"]
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DevScore:
    """How good the dev rows are now. Higher `key` is better; `shown` is what a person reads."""

    key: tuple[float, ...]
    name: str
    shown: float


@dataclass(frozen=True, slots=True)
class Event:
    """What a progress display is told after a step."""

    step: int
    steps: int
    loss: float
    lr: float
    seconds_left: float
    dev: DevScore | None = None  # where this step was evaluated
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. The method holds the best parameters, unless `stopped` is "interrupted"."""

    stopped: Literal["finished", "early", "interrupted", "nan"]
    step: int
    best_step: int
    seconds: float  # of training and dev evaluation, over all resumed parts
    history: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Optimization:
    """Numbers of the optimizer (AdamW) and its schedule."""

    steps: int
    lr: float
    batch_size: int = 32
    base_lr: float = 0.0
    weight_decay: float = 0.0
    warmup: float = 0.05
    schedule: Schedule = "cosine"
    clip: float = 1.0
    eval_every: int | None = None
    patience: int | None = None
    seed: int = 0
    batch_tokens: int | None = None  # padded tokens a step, in place of `batch_size` rows

    @property
    def steps_between_evaluations(self) -> int:
        """`eval_every`, or five evaluations a run and at least one every 100 steps."""
        return self.eval_every or max(1, min(100, self.steps // 5))

    def factor(self, step: int) -> float:
        """Learning rate of step 0 … steps-1, as a share of the largest."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1 - done if self.schedule == "linear" else 1.0


def fit(
    lm: LanguageModel,
    method: SoftPrompt,
    loss_of: Callable[[list[int]], Tensor],
    lengths: Sequence[int],
    dev_score: Callable[[], DevScore],
    how: Optimization,
    *,
    folder: Path | None = None,
    identity: str = "",
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train until the steps are done, patience ends, the loss is not finite, or `should_stop`.

    `loss_of(rows)` is the loss of a batch of row numbers; `lengths` are the rows' lengths. With a
    `folder`, goes on from the checkpoint there and keeps writing one; `identity` must match it.
    """
    parameters = named_parameters(lm, method)
    optimizer = _optimizer(parameters, how)
    state = Progress()
    best = {name: p.detach().clone() for name, p in parameters.items()}
    if folder is not None and (found := read_checkpoint(folder, identity, parameters, optimizer)):
        state, best = found
    every = how.steps_between_evaluations
    order = Order(lengths, how.batch_size, how.seed, how.batch_tokens)
    saved = started = time.perf_counter()
    earlier = state.seconds
    stopped: Literal["finished", "early", "interrupted", "nan"] = "finished"

    def save() -> None:
        nonlocal saved
        state.seconds = earlier + time.perf_counter() - started
        if folder is not None:
            write_checkpoint(folder, identity, parameters, optimizer, state, best)
        saved = time.perf_counter()

    done_here = 0
    while state.step < how.steps:
        if should_stop():
            stopped = "interrupted"
            break
        if how.patience is not None and state.evaluations_without_best >= how.patience:
            stopped = "early"
            break
        loss = loss_of(order.batch(state.step))
        if not torch.isfinite(loss):
            stopped = "nan"
            break
        rate = _step(optimizer, parameters, loss, how, state.step)
        if rate is None:
            stopped = "nan"
            break
        state.step += 1
        done_here += 1
        dev, is_best = None, False
        if state.step % every == 0 or state.step == how.steps:
            dev = dev_score()
            is_best = state.note(dev.key)
            if is_best:
                best = {name: p.detach().clone() for name, p in parameters.items()}
            state.history.append({"step": state.step, "loss": loss.item(), dev.name: dev.shown})
        if dev is not None or time.perf_counter() - saved > CHECKPOINT_SECONDS:
            save()
        if on_event:
            pace = (time.perf_counter() - started) / done_here
            on_event(
                Event(state.step, how.steps, loss.item(), rate, pace * (how.steps - state.step), dev, is_best)
            )
    save()
    if stopped == "nan" or (stopped != "interrupted" and state.best is not None):
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(best[name])
    return Outcome(stopped, state.step, state.best_step, state.seconds, state.history)


def named_parameters(lm: LanguageModel, method: SoftPrompt) -> dict[str, Tensor]:
    """Everything that is trained: the prompt's parameters and, where it is not frozen, the base's."""
    own = {f"prompt.{name}": p for name, p in method.named_parameters() if p.requires_grad}
    return own | {f"base.{name}": p for name, p in trained_weights(lm).items()}


def _optimizer(parameters: dict[str, Tensor], how: Optimization) -> torch.optim.AdamW:
    groups = []
    for prefix, lr in (("prompt.", how.lr), ("base.", how.base_lr)):
        members = [p for name, p in parameters.items() if name.startswith(prefix)]
        if members:
            groups.append({"params": members, "lr": lr, "peak": lr})
    return torch.optim.AdamW(groups, weight_decay=how.weight_decay)


def _step(
    optimizer: torch.optim.AdamW, parameters: dict[str, Tensor], loss: Tensor, how: Optimization, step: int
) -> float | None:
    """One update; the learning rate it used, or None (and no update) where the gradient is not finite."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), how.clip or math.inf)
    if not torch.isfinite(norm):
        return None
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * how.factor(step)
    optimizer.step()
    return optimizer.param_groups[0]["lr"]
