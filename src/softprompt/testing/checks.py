"""The contracts of a method, each as a function that raises `ContractBroken`.

    check(subject: MethodOnModel) -> None

The conformance suite of the library runs the same functions over its own methods and all families of models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from .. import methods
from ..artifacts import artifact as artifacts
from ..artifacts.interop.foreign import manifest_of
from ..data.collate import Batch, batch_of_ids
from ..errors import SoftPromptError
from ..injection import Injection, Prefix, SoftTokens
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..methods.base import SoftPrompt
from ..methods.materialised import materialise
from .broken import ContractBroken
from .material import PROMPTS, MethodOnModel, difference, row_of, tiny_lm, weights_of

Check = Callable[[MethodOnModel], None]
ROUNDING = 1e-5  # of logits in float32
EFFECT = 1e-3
DEAD = 1e-6  # gradients below this share of the largest are rounding
NEW = 5  # tokens that are generated
CHANNELS = {
    "before": {"before", "kv_before", "adapter"},
    "after": {"after", "kv_after"},
    "decoder": {"decoder"},
    "both": {"before", "decoder"},
}


def base_stays_as_it_was(subject: MethodOnModel) -> None:
    """Check that building the method and calling it change nothing on the base: weights, modes, gradients."""
    before = weights_of(subject.lm)
    _of(subject, subject.build())
    _compare_base(subject, before)


def injection_is_well_formed(subject: MethodOnModel) -> None:
    """Check shapes, types, masks and the place of the vectors, and that their number is the announced one."""
    method = subject.method
    if method.num_prompts != len(PROMPTS):
        raise ContractBroken(
            f"num_prompts is {method.num_prompts} for the {len(PROMPTS)} prompts of the table",
            "set self.num_prompts = len(setting.prompts)",
        )
    injection = _of(subject)
    if not injection.channels():
        raise ContractBroken(
            "forward gives an empty Injection", "return soft_injection(…) or kv_injection(…)"
        )
    for channel, part in injection.channels().items():
        _check_part(channel, part, subject)
    placement = subject.options.get("placement")
    if placement in CHANNELS and not set(injection.channels()) <= CHANNELS[placement]:
        raise ContractBroken(
            f"placement={placement} gives vectors in {', '.join(injection.channels())}",
            "pass the option `placement` on to soft_injection or kv_injection",
        )
    widths = {name: part.mask.shape[1] for name, part in injection.channels().items() if name in _SOFT}
    counted = methods.soft_tokens(subject.name, subject.options)
    actual = (widths.get("before", 0) + widths.get("after", 0), widths.get("decoder", 0))
    if counted[:2] != actual:
        raise ContractBroken(
            f"{sum(actual)} soft tokens are injected and {sum(counted[:2])} were announced",
            "make as many as the option `length`, or define soft_tokens(options) -> int",
        )


def same_seed_same_start(subject: MethodOnModel) -> None:
    """Check that the same seed gives the same vectors, and that `forward` gives the same at every call."""
    first, second = subject.build(seed=3), subject.build(seed=3)
    for name, tensor in first.state_dict().items():
        if not torch.equal(tensor, second.state_dict()[name]):
            raise ContractBroken(
                f"two methods that were built with one seed differ in '{name}'",
                "draw random numbers from setting.generator(), or from torch's global generator",
            )
    start, twin, again = (_tensors(_of(subject, method)) for method in (first, second, first))
    if any(difference(a, b) > 0 for other in (twin, again) for a, b in zip(start, other, strict=True)):
        raise ContractBroken(
            "forward gives different vectors at a second call",
            "keep dropout and random numbers out of forward: a resumed run ends with the same bytes",
        )


def prompt_ids_choose(subject: MethodOnModel) -> None:
    """Check that row i has the vectors of its prompt, in whatever order, and that prompts differ."""
    if subject.method.reads is not None:
        rows = _batch([[5, 6, 7], [5, 6, 7], [5, 6, 7]], [1, 0, 1])
    else:
        rows = _batch([[5], [5], [5]], [1, 0, 1])
    mixed = injection_for(subject.lm, subject.method, rows)
    alone = [injection_for(subject.lm, subject.method, row_of(rows, i)) for i in (0, 1)]
    for i, single in enumerate((*alone, alone[0])):
        picked = mixed.select(torch.tensor([i]))
        pairs = zip(_tensors(picked), _tensors(single), strict=True)
        if any(difference(a, b) > ROUNDING for a, b in pairs):
            raise ContractBroken(
                f"row {i} of prompts [1, 0, 1] does not have the vectors of its own prompt",
                "look vectors up by prompt_ids, for example self.table[prompt_ids]",
            )
    pairs = zip(_tensors(alone[0]), _tensors(alone[1]), strict=True)
    if all(difference(a, b) == 0 for a, b in pairs):
        raise ContractBroken(
            "both prompts have the same vectors, after each parameter was changed at random",
            "give each prompt numbers of its own, and look them up by prompt_ids",
        )


def prompts_are_independent(subject: MethodOnModel) -> None:
    """Check that rows of one prompt give no gradient to the numbers that another prompt has alone."""
    single = subject.build(prompts=PROMPTS[:1]).state_dict()
    method = subject.method
    method.zero_grad(set_to_none=True)
    rows = _batch([[5, 17, 80], [42, 3]], [0, 0])
    loss_of(subject.lm, method, rows).backward()
    for name, parameter in method.named_parameters():
        axes = [i for i, n in enumerate(single[name].shape) if n != parameter.shape[i]]
        if len(axes) != 1 or parameter.grad is None:
            continue
        if parameter.grad.select(axes[0], 1).abs().max() > 0:
            raise ContractBroken(
                f"rows of prompt '{PROMPTS[0]}' give a gradient to the numbers of '{PROMPTS[1]}' in '{name}'",
                "use only the rows prompt_ids of a table in forward",
            )


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
        if apart > ROUNDING:
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


def gradients_reach_the_method_alone(subject: MethodOnModel) -> None:
    """Check that every parameter of the method gets a gradient, and that training leaves the base alone."""
    lm, before = subject.lm, weights_of(subject.lm)
    method = subject.method
    method.zero_grad(set_to_none=True)
    loss_of(lm, method, subject.batch).backward()
    sizes = {
        n: p.grad.abs().max().item() if p.grad is not None else 0.0 for n, p in method.named_parameters()
    }
    if not sizes:
        raise ContractBroken("it has no parameters", "keep what is trained as torch.nn.Parameter")
    if dead := [name for name, size in sizes.items() if not size > DEAD * max(sizes.values())]:
        raise ContractBroken(
            f"no gradient reaches {', '.join(dead)}",
            "use the parameter in forward without detach(), or keep it as a buffer (register_buffer)",
        )
    buffers = {name: tensor.clone() for name, tensor in method.named_buffers()}
    train(lm, subject.build(), subject.batch, steps=2, lr=1e-2)
    _compare_base(subject, before)
    if any(not torch.equal(tensor, buffers[name]) for name, tensor in method.named_buffers()):
        raise ContractBroken("a buffer changes in forward", "keep state out of forward")


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


def bfloat16_base(subject: MethodOnModel) -> None:
    """Check that it runs on a base in bfloat16, and that its own numbers stay float32."""
    lm = tiny_lm(subject.lm.name.removeprefix("tiny-"), torch.bfloat16)
    method = MethodOnModel(subject.name, subject.options, lm, subject.folder).build()
    kinds = {str(p.dtype) for p in method.parameters()}
    if kinds != {"torch.float32"}:
        raise ContractBroken(
            f"parameters on a bfloat16 base are {', '.join(sorted(kinds))}",
            "call .float() on what comes from the base: small steps are lost in bfloat16",
        )
    with torch.no_grad():
        logits = lm.logits(subject.batch, injection_for(lm, method, subject.batch))
    if not logits.isfinite().all():
        raise ContractBroken("logits on a bfloat16 base are not finite", "compute in float32")


def learns(subject: MethodOnModel) -> None:
    """Check that it fits four rows at its own learning rate."""
    method = subject.build()
    losses = train(subject.lm, method, subject.batch, steps=40, lr=methods.find(subject.name).lr)
    if not losses[-1] < losses[0] - 0.02:
        raise ContractBroken(
            f"after 40 steps at lr={methods.find(subject.name).lr:g} the loss of 4 rows went from "
            f"{losses[0]:.3f} to {losses[-1]:.3f}",
            "choose another `lr`, and look at the scale of the initial vectors (methods.init)",
        )


#: In the order in which they run: the first that fails is usually the cause of those behind it.
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        base_stays_as_it_was,
        injection_is_well_formed,
        same_seed_same_start,
        row_alone,
        prompt_ids_choose,
        prompts_are_independent,
        cached_input,
        generate_equals_forward,
        gradients_reach_the_method_alone,
        saved_and_loaded,
        bfloat16_base,
        learns,
    )
}


def refusal(subject: MethodOnModel) -> SoftPromptError | None:
    """Return the error with which the method refuses the model, or the model a well-formed injection."""
    try:
        subject.build()
        injection = _of(subject)
    except SoftPromptError as error:
        return error
    try:
        with torch.no_grad():
            subject.lm.logits(subject.batch, injection)
    except SoftPromptError as error:
        with contextlib.suppress(ContractBroken):
            injection_is_well_formed(subject)
            return error
    return None


#: Checks that run on the first of the families only.
ONCE = ("bfloat16_base", "learns")
_SOFT = ("before", "after", "decoder")


def loss_of(lm: LanguageModel, method: SoftPrompt, rows: Batch) -> Tensor:
    """Return the mean cross entropy of the targets' tokens."""
    logits = lm.logits(rows, injection_for(lm, method, rows))
    return torch.nn.functional.cross_entropy(logits[rows.target_mask], rows.target_ids[rows.target_mask])


def train(lm: LanguageModel, method: SoftPrompt, rows: Batch, *, steps: int, lr: float) -> list[float]:
    """Take steps of AdamW on one batch; return the loss ahead of each step, and the last."""
    optimizer, losses = torch.optim.AdamW(method.parameters(), lr=lr, weight_decay=0.0), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(lm, method, rows)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return [*losses, loss_of(lm, method, rows).item()]


def greedy(lm: LanguageModel, rows: Batch, injection: Injection, count: int) -> list[list[int]]:
    """Decode naively: whole rows are computed anew for every token."""
    output: list[list[int]] = [[] for _ in range(rows.size)]
    for _ in range(count):
        logits = lm.logits(rows.with_targets([[*ids, 0] for ids in output]), injection)
        for ids, best in zip(output, logits[:, -1].argmax(-1).tolist(), strict=True):
            ids.append(best)
    return output


def _compare_base(subject: MethodOnModel, before: str) -> None:
    lm = subject.lm
    if weights_of(lm) != before or any(p.grad is not None for p in lm.model.parameters()):
        raise ContractBroken(
            "the base model is not as it was",
            "only read the base, through setting.lm; its weights are frozen, and other prompts share them",
        )


def _batch(inputs: list[list[int]], prompts: list[int]) -> Batch:
    return batch_of_ids(inputs, [[11]] * len(inputs), prompts)


@torch.no_grad()
def _of(subject: MethodOnModel, method: SoftPrompt | None = None) -> Injection:
    return injection_for(subject.lm, method or subject.method, subject.batch)


def _tensors(injection: Injection) -> list[Tensor]:
    """Return all tensors of an injection with one copy for each row, in order."""
    tensors: list[Tensor] = []
    injection.map_rows(lambda tensor: tensors.append(tensor.float()) or tensor)
    return tensors


def _check_part(channel: str, part: SoftTokens | Prefix, subject: MethodOnModel) -> None:
    rows, spec = subject.batch.size, subject.lm.spec
    fix = "see the shapes of softprompt.injection; soft_injection and kv_injection make them"
    if part.mask.dtype != torch.bool or part.mask.shape[0] not in (1, rows):
        raise ContractBroken(f"the mask of '{channel}' is {part.mask.dtype} {list(part.mask.shape)}", fix)
    if isinstance(part, SoftTokens):
        tensors, wanted = [part.vectors], (*part.mask.shape, spec.hidden_size)
        if part.vectors.shape != wanted:
            raise ContractBroken(
                f"the vectors of '{channel}' are {list(part.vectors.shape)}, not {list(wanted)}", fix
            )
    else:
        if len(part.layers) != len(spec.layers):
            raise ContractBroken(f"'{channel}' has {len(part.layers)} layers of {len(spec.layers)}", fix)
        present = [(i, kv) for i, kv in enumerate(part.layers) if kv is not None]
        tensors = [tensor for _, kv in present for tensor in (kv.key, kv.value)]
        for i, kv in present:
            layer, width = spec.layers[i], part.mask.shape[1]
            for tensor, size in ((kv.key, layer.head_dim), (kv.value, layer.v_head_dim)):
                if tensor.shape[1:] != (layer.kv_heads, width, size) or tensor.shape[0] not in (1, rows):
                    raise ContractBroken(
                        f"layer {i} of '{channel}' has {list(tensor.shape)}, not "
                        f"[{rows} or 1, {layer.kv_heads}, {width}, {size}]",
                        fix,
                    )
    if any(tensor.dtype != torch.float32 for tensor in tensors):
        raise ContractBroken(f"the vectors of '{channel}' are not float32", "keep the method in float32")
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise ContractBroken(f"the vectors of '{channel}' are not finite", "look for a division by zero")
