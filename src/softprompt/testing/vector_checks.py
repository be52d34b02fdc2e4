"""These contracts are of the vectors that a method gives: shapes, prompts, and the same start."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import methods
from ..injection import Injection, Prefix, SoftTokens
from ..lm.apply import injection_for
from .broken import ContractBroken
from .material import PROMPTS, MethodOnModel, difference, injection_of, row_of, rows_with

ROUNDING = 1e-5  # of logits in float32
CHANNELS = {
    "before": {"before", "kv_before", "adapter"},
    "after": {"after", "kv_after"},
    "decoder": {"decoder"},
    "both": {"before", "decoder"},
}
_SOFT = ("before", "after", "decoder")


def injection_is_well_formed(subject: MethodOnModel) -> None:
    """Check shapes, types, masks and the place of the vectors, and that their number is the announced one."""
    method = subject.method
    if method.num_prompts != len(PROMPTS):
        raise ContractBroken(
            f"num_prompts is {method.num_prompts} for the {len(PROMPTS)} prompts of the table",
            "set self.num_prompts = len(setting.prompts)",
        )
    injection = injection_of(subject)
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
    start, twin, again = (_tensors(injection_of(subject, method)) for method in (first, second, first))
    if any(difference(a, b) > 0 for other in (twin, again) for a, b in zip(start, other, strict=True)):
        raise ContractBroken(
            "forward gives different vectors at a second call",
            "keep dropout and random numbers out of forward: a resumed run ends with the same bytes",
        )


def prompt_ids_choose(subject: MethodOnModel) -> None:
    """Check that row i has the vectors of its prompt, in whatever order, and that prompts differ."""
    if subject.method.reads is not None:
        rows = rows_with([[5, 6, 7], [5, 6, 7], [5, 6, 7]], [1, 0, 1])
    else:
        rows = rows_with([[5], [5], [5]], [1, 0, 1])
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
