"""These contracts are of a model under a method: a row has one answer, however it is computed."""

from __future__ import annotations

import torch

from .. import methods
from ..artifacts import artifact as artifacts
from ..artifacts.interop.foreign import manifest_of
from ..data.collate import Batch
from ..injection import Injection
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..methods.materialised import materialise
from .broken import ContractBroken
from .material import PROMPTS, MethodOnModel, difference, row_of

ROUNDING = 1e-5  # of logits in float32
# Products of other shapes round in another order; gated linear attention (Qwen3-Next) raised that to 2e-5
# on one processor. A row that reads another, or padding, differs by far more.
ROUNDING_OF_SHAPES = 5e-5
EFFECT = 1e-3
NEW = 5  # tokens that are generated


@torch.no_grad()
def row_alone(subject: MethodOnModel) -> None:
    """Check that a row has the same logits beside other rows, with padding, as it has alone."""
    lm, rows = subject.lm, subject.batch
    together = lm.logits(rows, injection_for(lm, subject.method, rows))
    plain = (lm.logits(rows) - together).abs().amax(dim=2)[rows.target_mask].min().item()
    if not plain > EFFECT:
        raise ContractBroken(
            f"the logits of some row differ from the plain model's by {plain:.1e} only",
            "every row needs vectors that have an effect, once each parameter was changed at random",
        )
    for i in range(rows.size):
        single = row_of(rows, i)
        alone = lm.logits(single, injection_for(lm, subject.method, single))[0]
        apart = difference(together[i][rows.target_mask[i]], alone)
        if apart > ROUNDING_OF_SHAPES:
            raise ContractBroken(
                f"row {i} has other logits in a batch than alone (they differ by {apart:.1e})",
                "compute each row from its own prompt id and input: no sums over the batch, "
                "and no reading of padding (inputs.mask)",
            )


@torch.no_grad()
def cached_input(subject: MethodOnModel) -> None:
    """Check that logits on an input that was computed once equal those of the whole row."""
    lm, rows = subject.lm, subject.batch
    if "cache" in lm.spec.limits:
        return
    injection = injection_for(lm, subject.method, rows)
    full, cached = lm.logits(rows, injection), lm.logits(rows, injection, lm.prefill(rows, injection))
    apart = difference(cached[rows.target_mask], full[rows.target_mask])
    if apart > ROUNDING:
        raise ContractBroken(
            f"logits on a cached input differ by {apart:.1e}",
            "the injection must not depend on how the model is called",
        )


@torch.no_grad()
def generate_equals_forward(subject: MethodOnModel) -> None:
    """Check that greedy decoding with a cache gives the tokens that whole rows give, one by one."""
    lm, rows = subject.lm, subject.batch
    injection = injection_for(lm, subject.method, rows)
    output = lm.generate(rows, injection, max_new_tokens=NEW, do_sample=False).tolist()
    if output != greedy(lm, rows, injection, NEW):
        raise ContractBroken(
            "generate gives other tokens than the logits of whole rows",
            "the injection must not depend on how the model is called",
        )


def saved_and_loaded(subject: MethodOnModel) -> None:
    """Check that an artifact gives the same numbers: as vectors that are served, and as parameters."""
    lm, method, rows = subject.lm, subject.method, subject.batch
    with torch.no_grad():
        live = lm.logits(rows, injection_for(lm, method, rows))
    folder = subject.folder / "artifact"
    options = {name: p.default for name, p in methods.find(subject.name).options().items()}
    about = manifest_of(folder, lm, subject.name, options | dict(subject.options), PROMPTS, "a check")
    about["trained_parameters"] = sum(p.numel() for p in method.parameters())
    artifacts.save(folder, method, lm, about)
    saved = artifacts.load(folder)
    static = materialise(method)
    forms = {} if static is None else {"as plain vectors": static}
    forms |= {"saved and served": saved.method(lm), "saved and trained on": saved.method(lm, trainable=True)}
    for form, loaded in forms.items():
        with torch.no_grad():
            apart = difference(lm.logits(rows, injection_for(lm, loaded, rows)), live)
        if apart > ROUNDING:
            raise ContractBroken(
                f"{form}, it has other logits (they differ by {apart:.1e})",
                "keep all that forward uses as parameters or buffers: state_dict() is what is saved; "
                "and build the same shapes from the same options",
            )
    if not any(p.requires_grad for p in forms["saved and trained on"].parameters()):
        raise ContractBroken("a loaded method has nothing to train", "keep what is trained as nn.Parameter")


def greedy(lm: LanguageModel, rows: Batch, injection: Injection, count: int) -> list[list[int]]:
    """Decode naively: whole rows are computed anew for every token."""
    output: list[list[int]] = [[] for _ in range(rows.size)]
    for _ in range(count):
        logits = lm.logits(rows.with_targets([[*ids, 0] for ids in output]), injection)
        for ids, best in zip(output, logits[:, -1].argmax(-1).tolist(), strict=True):
            ids.append(best)
    return output
