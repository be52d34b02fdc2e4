"""PEFT's side of time-to-accuracy trains its prompt or prefix, at its best.

It starts from the same vectors as softprompt's methods (text, or keys and values of real rows, which are
better than its random ones), takes batches of similar lengths, and the same rows, schedule and warm-up. It
is evaluated by label scores of rows of equal length, so that it sees no padding.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from softprompt.data.example import Example
from softprompt.training.sampler import BatchSampler

from .options import Options
from .ours import Ours
from .race import SHOWN, TEXT, Race, Trial, prepared
from .theirs import Peft

WARMUP = 0.05  # of the steps, as in our recipes
STARTS: dict[str, dict[str, Any]] = {
    "prompt-tuning": {"init": "text", "text": TEXT, "length": 8},
    "prefix-tuning": {"init": "context"},
}
#: Each runs with the bare template, and with the one that shows four reviews; both need one pass a row.
CONTESTANTS: dict[str, dict[str, dict[str, Any]]] = {
    **{name: {} for name in STARTS},
    **{f"{name}, four reviews shown": {"template": SHOWN} for name in STARTS},
}


def run(options: Options, contestant: str, rate: float, seed: int, dtype: str, give_up: float) -> Trial:
    """Train until the target, `options.search_steps`, or `give_up` seconds; evaluations are not timed."""
    method = contestant.partition(",")[0]
    ready = prepared(options, f"{method}/before", seed, dtype, CONTESTANTS[contestant])
    ours = Ours(ready.lm, method, ready.train, **STARTS[method])
    peft = Peft(options.model, dtype, ours)
    race = Race(options.target, give_up)
    with tempfile.TemporaryDirectory() as folder:
        trainer = peft.trainer(
            in_like_lengths(ready.train, options.search_steps, options.batch, seed),
            options.search_steps,
            options.batch,
            folder,
            ordered=True,
            learning_rate=rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, round(WARMUP * options.search_steps)),
            seed=seed,
        )
        trainer.add_callback(_looking(race, peft.model, ready.dev, options.every))
        trainer.train()
        steps = trainer.state.global_step
    return Trial("peft", contestant, rate, seed, dtype, race.reached, race.seconds, steps, race.best)


def in_like_lengths(rows: Sequence[Example], steps: int, batch: int, seed: int) -> list[Example]:
    """Draw `steps` whole batches with rows of similar length, as softprompt does."""
    order = BatchSampler([len(row.input_ids) for row in rows], batch, seed)
    chosen: list[Example] = []
    step = 0
    while len(chosen) < steps * batch:
        part = order.batch(step)
        # the last batch of an epoch may be a part of one, and would shift all that follow it
        chosen += [rows[i] for i in part] if len(part) == batch or len(rows) < batch else []
        step += 1
    return chosen


def _looking(race: Race, model: Any, dev: Sequence[Example], every: int) -> Any:
    """Return a callback that starts the clock, evaluates every `every` steps, and ends the race."""
    from transformers import TrainerCallback

    class Looking(TrainerCallback):
        def on_train_begin(self, *args: Any, **named: Any) -> None:
            with race.paused():
                pass
            race.seconds = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if state.global_step % every == 0 or state.global_step == state.max_steps:
                with race.paused():
                    race.note(accuracy(model, dev))
            control.should_training_stop |= race.over

    return Looking()


def accuracy(model: Any, rows: Sequence[Example]) -> float:
    """Return the share of rows whose likeliest label is right."""
    likeliest = predicted(model, rows)
    return sum(a == row.target_ids for a, row in zip(likeliest, rows, strict=True)) / len(rows)


@torch.no_grad()
def predicted(model: Any, rows: Sequence[Example], rows_at_once: int = 64) -> list[tuple[int, ...]]:
    """Return each row's likeliest label by all of its tokens; a batch has rows of equal length."""
    model.eval()
    device = next(model.parameters()).device
    # by length of sequence and label; candidates that differ in their last token only share a sequence
    groups: dict[tuple[int, int], dict[tuple[int, ...], None]] = defaultdict(dict)
    for row in rows:
        for label in row.candidates or ():
            sequence = row.input_ids + label[:-1]
            groups[len(sequence), len(label)][sequence] = None
    log_probs: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    for (_, tokens), sequences in groups.items():
        listed = list(sequences)
        for start in range(0, len(listed), rows_at_once):
            part = listed[start : start + rows_at_once]
            ids = torch.tensor(part, device=device)
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -tokens:]
            # clones: a view would keep the whole batch's logits
            log_probs |= {
                (tokens, s): x.clone() for s, x in zip(part, logits.float().log_softmax(-1), strict=True)
            }

    def score(row: Example, label: tuple[int, ...]) -> float:
        scores = log_probs[len(label), row.input_ids + label[:-1]]  # [T, V]
        return scores[range(len(label)), list(label)].sum().item()

    return [max(row.candidates or (), key=partial(score, row)) for row in rows]
