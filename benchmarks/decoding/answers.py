"""The plain model's answers to the demo's rows: side by side, beside padded batches of 12 rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

from benchmarks.training.clock import now
from benchmarks.training.line import Line
from softprompt import methods
from softprompt.evaluation import writing
from softprompt.evaluation.evaluator import Evaluator
from softprompt.lm import decoding, held_weights
from softprompt.lm.generation import answering
from softprompt.methods.base import Setting

from .subject import Subject

PADDED = 12  # rows that the demo answered at a time
GOAL = 3.0


def measure(subject: Subject) -> Iterator[Line]:
    """Yield a line for each precision, without and with held weights; making them is counted."""
    for precision in subject.precisions:
        lm = subject.model(precision)
        evaluator, examples = subject.material(lm)
        padded, seconds = [], now()
        with mock.patch.object(decoding, "suits", lambda *_: False):
            for start in range(0, len(examples), PADDED):
                padded += _texts(evaluator, examples[start : start + PADDED])
        seconds = now() - seconds
        for held in (False, True):
            least = 2**60 if not held else 0 if subject.is_short else held_weights.LEAST
            after = 1 if subject.is_short else decoding.HELD
            with (
                mock.patch.object(held_weights, "LEAST", least),
                mock.patch.object(decoding, "HELD", after),
            ):
                started = now()
                texts = _texts(evaluator, examples)
                took = now() - started
            same = sum(a == b for a, b in zip(padded, texts, strict=True))
            wrong = "" if precision != "float32" or same == len(texts) else "texts differ in float32"
            case = f"{len(texts)} rows, {precision}" + (", held weights" if held else "")
            note = f"{same} of {len(texts)} texts the same"
            yield Line("answers", case, took, seconds, "s", seconds / took, GOAL, note=note, wrong=wrong)


def _texts(evaluator: Evaluator, examples) -> list[str]:
    lm, texts = evaluator.lm, [""] * len(examples)
    plain = methods.build("none", Setting(lm, evaluator.encoder.prompts))
    batches = list(evaluator._orders(examples, [evaluator.max_new_tokens] * len(examples)))
    options = answering(lm, evaluator.max_new_tokens)
    for numbers, output in writing.written(lm, plain, examples, batches, options):
        for number, ids in zip(numbers, output, strict=True):
            end = next((i for i, token in enumerate(ids) if token in lm.ends), len(ids))
            texts[number] = evaluator.encoder.decode(ids[:end])
    return texts
