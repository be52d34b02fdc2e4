"""Artifacts and adapters of tiny models, and the same rows through both libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from softprompt import methods
from softprompt.artifacts.artifact import Artifact
from softprompt.artifacts.interop import foreign
from softprompt.data.collate import batch_of_ids
from softprompt.lm.causal import CausalLM
from softprompt.methods.base import Setting

ROWS = ([5, 61, 7, 88, 20, 3, 44, 9, 71], [12, 90, 33, 4, 57])  # of two lengths: one is padded


@pytest.fixture
def artifact_of(perturb, tmp_path) -> Callable[..., Artifact]:
    """`artifact_of(lm, method, prompts, **options)`: an artifact of random vectors."""

    def make(lm: CausalLM, method: str, prompts: Sequence[str] = ("default",), **options) -> Artifact:
        start = {"init": "vocab"} if "init" in methods.find(method).options() else {}
        built = perturb(methods.build(method, Setting(lm, tuple(prompts)), options | start))
        out = tmp_path / f"artifact-{method}"
        return foreign.save(out, lm, method, options, built.state_dict(), tuple(prompts), "a test")

    return make


@pytest.fixture
def our_logits() -> Callable[..., list[Tensor]]:
    """`our_logits(lm, artifact, index)`: logits [len(row), V] of each of `ROWS`, one batch."""

    def run(lm: CausalLM, artifact: Artifact | None, index: int = 0) -> list[Tensor]:
        batch = batch_of_ids([row[:1] for row in ROWS], [[*row[1:], 0] for row in ROWS])
        ids = torch.full((len(ROWS),), index)
        injection = None if artifact is None else artifact.method(lm)(ids)
        logits = lm.logits(batch, injection)
        return [logits[i, -len(row) :] for i, row in enumerate(ROWS)]

    return run


@pytest.fixture
def peft_logits() -> Callable[..., list[Tensor]]:
    """`peft_logits(model)`: the same of a PEFT model, which pads on the right, as it does in training."""

    def run(model, **options) -> list[Tensor]:
        width = max(map(len, ROWS))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in ROWS])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ROWS])
        with torch.no_grad():
            logits = model.eval()(input_ids=ids, attention_mask=mask, **options).logits
        ahead = logits.shape[1] - width  # PEFT returns logits of a prompt's own positions too
        return [logits[i, ahead : ahead + len(row)] for i, row in enumerate(ROWS)]

    return run


@pytest.fixture
def in_peft() -> Callable[..., object]:
    """`in_peft(model, folder)`: the adapter on a model, loaded by PEFT itself."""

    def load(model, folder: Path):
        import peft

        return peft.PeftModel.from_pretrained(model, str(folder)).eval()

    return load


@pytest.fixture
def same(close) -> Callable[..., None]:
    """Two lists of logits are equal to 1e-5 of their size, and not those of the plain model."""

    def check(ours: list[Tensor], theirs: list[Tensor], plain: list[Tensor]) -> None:
        for a, b, without in zip(ours, theirs, plain, strict=True):
            close(a, b, 1e-5)
            assert (a - without).abs().max() > 1e-2

    return check
