"""Serving is measured beside PEFT and the plain model, as in benchmarks.serving, at the sizes of a GPU."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

from benchmarks import base_models
from benchmarks.serving import mixed, switching
from benchmarks.serving.bench import Bench
from benchmarks.training.line import Line

from .piece import Subject


def beside_plain(subject: Subject, model: str, prompts: int = 32) -> Iterator[Line]:
    """Measure a batch in which each row has its own prompt, beside the plain model in the same engine."""
    yield from mixed.measure(_bench(subject, model, prompts, 3))


def beside_peft(subject: Subject, model: str, prompts: int = 16) -> Iterator[Line]:
    """Measure requests for many prompts, beside PEFT's switching."""
    yield from switching.measure(_bench(subject, model, prompts, 1))  # a turn of PEFT's takes long


def _bench(subject: Subject, model: str, prompts: int, repeats: int) -> Bench:
    """Return a model with an empty folder of prompts."""
    folder = subject.folder / "prompts" / model
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lm: Any = base_models.load(subject.model(model), "float32" if subject.short else "bfloat16")
    if subject.short:
        return Bench(lm, folder, 3, 3, (5,), 4, 1)
    return Bench(lm, folder, prompts, inputs=(64,), repeats=repeats)
