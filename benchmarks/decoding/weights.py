"""Each form of the frozen weights is compared with plain float32: logits, steps, and bytes.

`auto` reads a second form of the same numbers, and `int8` two: floats made of its integers for many
positions, and the integers themselves for few. So logits are computed once over whole inputs, and once in
pieces of few positions, as decoding reads them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor
from transformers import DynamicCache

import softprompt
from benchmarks.training import tiny
from benchmarks.training.clock import now
from benchmarks.training.line import Line
from benchmarks.training.ours import Ours, kept
from softprompt.data.encode import Encoder
from softprompt.data.task import Task
from softprompt.data.template import Template
from softprompt.lm import held_weights
from softprompt.lm.causal import CausalLM
from softprompt.lm.kv_store import Running
from softprompt.lm.loading import Weights

from .steps import joined
from .subject import Subject, best

ROWS = (1, 8)
TEXTS, PIECE = 12, 8  # inputs whose logits are compared; positions of a piece
TRAINED = 3  # steps of a timed block
REVIEWS = ("a tired film that never finds its way", "warm, funny and quietly moving", "loud and hollow")
PLAIN = "float32"


@dataclass(frozen=True)
class Form:
    """Holds the arguments of `load`, and how far logits may move, as a share of their spread."""

    weights: Weights
    dtype: Literal["float32", "bfloat16"]
    allowed: float


FORMS = {
    PLAIN: Form("float32", "float32", 0.0),
    "auto, float32": Form("auto", "float32", 1e-4),
    "bfloat16": Form("bfloat16", "bfloat16", 0.2),
    "int8, float32": Form("int8", "float32", 0.5),
    "int8, bfloat16": Form("int8", "bfloat16", 0.5),
}


def measure(subject: Subject) -> Iterator[Line]:
    """Yield lines for each form: how its logits differ, its bytes, and its times."""
    least = 0 if subject.is_short else held_weights.LEAST
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(held_weights, "LEAST", least):
        name = tiny.make(Path(folder))[0] if subject.is_short else "smollm2"
        forms = {key: form for key, form in FORMS.items() if key == PLAIN or form.dtype in subject.precisions}
        models = {key: _load(name, form) for key, form in forms.items()}
        yield from _logits(subject, models)
        size = {key: _bytes(lm) for key, lm in models.items()}
        yield from _beside(subject, "weights", size, "MB", 1e-6)
        for rows in ROWS:
            sides = {key: _decoding(lm, rows) for key, lm in models.items()}
            case = f"a decoding step, {rows} row{'s' * (rows > 1)}"
            yield from _beside(subject, case, best(sides, subject.repeats, now), "ms", 1000)
        for rows in ROWS:
            sides = {key: _training(lm, rows) for key, lm in models.items()}
            case = f"a cached training step, {rows} row{'s' * (rows > 1)}"
            yield from _beside(subject, case, best(sides, subject.repeats, now), "ms", 1000 / TRAINED)


def _load(name: Any, form: Form) -> CausalLM:
    lm = softprompt.load(name, weights=form.weights, dtype=form.dtype)
    assert isinstance(lm, CausalLM)
    held_weights.hold(lm)
    return lm


def _bytes(lm: CausalLM) -> float:
    return sum(t.untyped_storage().nbytes() for t in {t.data_ptr(): t for t in _tensors(lm)}.values())


def _tensors(lm: CausalLM) -> list[Tensor]:
    return [*lm.model.parameters(), *lm.model.buffers()]


def _beside(subject: Subject, case: str, values: dict[str, float], unit: str, scale: float) -> Iterator[Line]:
    """Yield a line for each form but plain float32, which is theirs."""
    theirs = values[PLAIN]
    for key, ours in values.items():
        if key != PLAIN:
            ratio = ours / theirs if unit == "MB" else theirs / ours
            yield Line("weights", f"{key}: {case}", scale * ours, scale * theirs, unit, ratio)


@torch.no_grad()
def _logits(subject: Subject, models: dict[str, CausalLM]) -> Iterator[Line]:
    examples = subject.material(models[PLAIN])[1][:TEXTS]
    texts = [torch.tensor([example.input_ids]) for example in examples]
    right = [_whole(models[PLAIN], ids) for ids in texts]
    for key, lm in models.items():
        held, ways = held_weights.known(lm), {}
        if FORMS[key].weights != "auto":  # whose numbers are plain ones
            ways["read whole"] = partial(_whole, lm)
        if not isinstance(held, nullcontext):
            ways[f"read by {PIECE}"] = partial(_pieces, lm, held)
        for way, call in ways.items() if key != PLAIN else ():
            yield _difference(
                f"{key}: logits, {way}", right, [call(ids) for ids in texts], FORMS[key].allowed
            )


def _whole(lm: CausalLM, ids: Tensor) -> Tensor:
    return lm.model(input_ids=ids).logits[0].float()


def _pieces(lm: CausalLM, held: AbstractContextManager[None], ids: Tensor) -> Tensor:
    """Return the logits of an input that is read in pieces, from the second form where there is one."""
    cache, parts = DynamicCache(), []
    with held:
        for part in ids.split(PIECE, dim=1):
            parts.append(lm.model(input_ids=part, past_key_values=cache, use_cache=True).logits[0].float())
    return torch.cat(parts)


def _difference(case: str, right: Sequence[Tensor], logits: Sequence[Tensor], allowed: float) -> Line:
    """Return the line of logits [T, V] beside those of plain float32, over all positions of all texts."""
    expected, given = torch.cat([*right]), torch.cat([*logits])
    centre = expected.mean(-1, keepdim=True)
    moved = ((given - expected).norm() / (expected - centre).norm()).item()
    same = (given.argmax(-1) == expected.argmax(-1)).float().mean().item()
    log_p, log_q = expected.log_softmax(-1), given.log_softmax(-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()
    note = f"logits move by {moved:.1e} of their spread; likeliest token the same in {same:.1%}"
    # not `>`, which NaN would pass
    wrong = "" if moved <= allowed else f"logits move by {moved:.1e} of their spread, allowed {allowed:g}"
    return Line("weights", case, abs(divergence), None, "nats", note=f"{note} of {len(given)}", wrong=wrong)


def _decoding(lm: CausalLM, rows: int) -> Callable[[], Any]:
    running = Running(lm)
    with torch.no_grad():
        running.join(joined(lm, rows).run(lm), range(rows))
    held = held_weights.known(lm)

    def step() -> None:
        with torch.no_grad(), held:
            running.step([5] * rows)

    return step


def _training(lm: CausalLM, size: int) -> Callable[[], Any]:
    encoder = Encoder(lm.tokenizer, Template("{{ input }}", "{{ target }}"), Task())
    rows = [encoder.encode({"input": REVIEWS[i % 3], "target": ("good", "bad")[i % 2]}) for i in range(size)]
    side = Ours(lm, "prefix-tuning", rows, "cached", kept(lm, rows))
    run = partial(side.train, range(size), TRAINED, size)
    run()
    return run
