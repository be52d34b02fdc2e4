"""The harness's `--model_args` name a prompt on its base model, or a plain base model, which is loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .. import methods
from ..artifacts import artifact as artifacts
from ..build import saved_base
from ..data.encode import Encoder
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.loading import load
from ..methods.base import Setting, SoftPrompt
from ..tuned import Tuned, opened

log = logging.getLogger(__name__)
DEFAULT_LENGTH = 2048  # of a model that does not say its length, as of the harness's own models


@dataclass(frozen=True)
class Subject:
    """A subject is what is evaluated: a base model under one prompt, or alone."""

    lm: LanguageModel
    method: SoftPrompt
    prompt: int = 0  # the number of the prompt in the method's table
    encoder: Encoder | None = None  # of an artifact: it has the template
    is_plain: bool = False  # the prompt is left out
    facts: dict[str, str] | None = None  # for the harness's results

    @property
    def name(self) -> str | None:
        """Return the prompt's name; None where there is no artifact."""
        return None if self.encoder is None else self.encoder.prompts[self.prompt]


def subject_of(
    artifact: str | None,
    model: str | None,
    prompt: str | None,
    loading: Mapping[str, Any],
    *,
    other_base: bool = False,
    plain: bool = False,
    lm: LanguageModel | None = None,
) -> Subject:
    """Load what `--model_args` name. Raises SoftPromptError where they name nothing that can be evaluated.

    `loading` are options of `softprompt.load`; None is the default. `plain` leaves the prompt out.
    `lm` is a base model that the caller has loaded.
    """
    options = {name: value for name, value in loading.items() if value is not None}
    if "device" in options and (device := _present(options.pop("device"))) is not None:
        options["device"] = device
    if artifact is None:
        if prompt is not None:
            raise SoftPromptError(
                f"prompt={prompt} names a prompt of no artifact",
                why="artifact= is not given",
                fix="add artifact=FOLDER, or leave prompt= out",
            )
        if model is None and lm is None:
            raise SoftPromptError(
                "neither an artifact nor a model is named",
                why="the harness evaluates a tuned prompt, or a plain base model",
                fix="--model_args artifact=FOLDER, or --model_args model=NAME for a plain model",
            )
        lm = lm or load(str(model), **options)
        _check(lm)
        return Subject(lm, methods.build("none", Setting(lm)), facts={"base": lm.name, "method": "none"})
    saved = artifacts.load(str(artifact))
    index = saved.index(prompt)
    lm = lm or saved_base(saved, model, **options)
    _check(lm)
    return subject_of_tuned(opened(saved, lm, other_base=other_base, plain=plain), index, plain=plain)


def subject_of_tuned(tuned: Tuned, prompt: int, *, plain: bool = False) -> Subject:
    """Take a prompt that is open already; `prompt` is its number in the table."""
    _check(tuned.lm)
    facts = {
        "artifact": str(tuned.artifact),
        "prompt": tuned.artifact.prompts[prompt],
        "method": "none" if plain else tuned.artifact.manifest["method"],
        "base": tuned.lm.name,
    }
    return Subject(tuned.lm, tuned.method, prompt, tuned.encoder, plain, facts)


def _present(device: str) -> str | None:
    """Return the device; None (the best there is) for a GPU that is missing, since `lm-eval` asks for one by
    default.
    """
    kind = str(device).partition(":")[0]
    present = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if kind in present and not present[kind]():
        log.warning(f"device {device} is not available; the best that is available is used")
        return None
    return str(device)


def _check(lm: LanguageModel) -> None:
    """Raise SoftPromptError for a model whose answers are no texts that it continues."""
    if lm.answers == "next":
        return
    reads = "a head of labels" if lm.head is not None else "masks"
    raise SoftPromptError(
        f"lm-evaluation-harness cannot evaluate '{lm.name}'",
        why=f"it answers at {reads}, and the harness asks how likely a text is after another",
        fix="score it with `softprompt eval ARTIFACT --data FILE`",
    )


def room_of(subject: Subject, given: int | None) -> int:
    """Return how many tokens of text a row may have: as given, at most what the model has.

    The positions of soft tokens are not among them.
    """
    lm, encoder = subject.lm, subject.encoder
    wanted = int(given or _length_of(lm.model.config, lm.tokenizer))
    soft = 0 if encoder is None or subject.is_plain else encoder.limits.room.soft
    room = lm.spec.context - soft
    if given is not None and given > room:
        raise SoftPromptError(
            f"max_length={given} is more than a row of '{lm.name}' can have",
            why=f"it has {lm.spec.context} positions, and {soft} of them are of soft tokens",
            fix=f"max_length={room}, or leave it out",
        )
    return min(wanted, room)


def rows_of(batch_size: int | str | None) -> int | None:
    """Return the most rows of a batch; None for "auto". Raises SoftPromptError for anything else."""
    if batch_size is None or str(batch_size).partition(":")[0] == "auto":
        return None
    try:
        rows = int(batch_size)
    except ValueError:
        rows = 0
    if rows < 1:
        raise SoftPromptError(
            f"batch_size={batch_size} is no size of a batch",
            why="it is the most rows that go through the model at once",
            fix="--batch_size auto, or a number from 1",
        )
    return rows


def _length_of(config: Any, tokenizer: Any) -> int:
    """Return the context that a model's files name, as the harness's own `hf` model reads it."""
    config = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    length = getattr(tokenizer, "model_max_length", None)
    return DEFAULT_LENGTH if length is None or length > 10**9 else int(length)
