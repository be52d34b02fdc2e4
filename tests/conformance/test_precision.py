"""Contracts 1 and 2 in bfloat16 and float16, where the plain model itself depends on its batch by rounding.

A unit is the step between numbers of the size of the largest logit (2^-7 of it in bfloat16, 2^-10 in
float16). A row may differ from the row alone by `UNITS` of them, or by twice what the plain model differs;
from the float32 model by `TIMES` as much as the plain model does.
"""

from __future__ import annotations

import copy

import pytest
import torch

from softprompt.injection import Injection

EXACT = ("llama", "mistral", "gemma3_text", "gpt_oss", "qwen3_next", "deepseek_v3", "t5", "bart")
# a router that rounds to another expert gives another answer, with and without a prompt
WITHOUT_EXPERTS = ("llama", "gpt2", "mistral", "gemma3_text", "t5", "bart")
HALVES = (torch.bfloat16, torch.float16)
UNITS, TIMES, NEW = 6, 5, 5
_made: dict[tuple, object] = {}


@pytest.fixture(params=HALVES, ids=lambda kind: str(kind).removeprefix("torch."))
def dtype(request) -> torch.dtype:
    return request.param


@pytest.fixture
def lm(family, dtype, new_lm, lms):
    """The family's model in half precision; the suite's other fixtures take it from here."""
    if (family, dtype) not in _made:
        whole = lms(family)
        half = type(whole)(copy.deepcopy(whole.model).to(dtype), whole.tokenizer, f"{whole.name}-{dtype}")
        _made[family, dtype] = half
    return _made[family, dtype]


def unit(dtype: torch.dtype, logits: torch.Tensor) -> float:
    return torch.finfo(dtype).eps * logits.abs().max().item()


def apart(together, mixed, alone) -> float:
    """How far any row's logits are from the row's alone."""
    real = mixed.batch.target_mask
    rows = zip(together, real, alone, strict=True)
    return max((logits[own] - one).abs().max().item() for logits, own, one in rows)


@pytest.mark.parametrize("family", EXACT)
def test_a_row_is_the_row_alone_to_rounding(lm, family, dtype, mixed):
    with torch.no_grad():
        assert lm.dtype == dtype
        together = lm.logits(mixed.batch, mixed.injection).float()
        alone = [lm.logits(*one)[0].float() for one in mixed.rows]
        plain = lm.logits(mixed.batch).float()
        plain_alone = [lm.logits(single)[0].float() for single, _ in mixed.rows]
    allowed = max(UNITS * unit(dtype, together), 2 * apart(plain, mixed, plain_alone))
    assert apart(together, mixed, alone) <= allowed


@pytest.mark.parametrize("family", EXACT)
def test_generated_tokens_are_the_likeliest_alone(lm, family, dtype, mixed):
    """Two logits may be the same number in half precision: the token made is within rounding of the best."""
    made = lm.generate(mixed.batch, mixed.injection, max_new_tokens=NEW, do_sample=False)
    for ids, (single, injection) in zip(made, mixed.rows, strict=True):
        with torch.no_grad():
            logits = lm.logits(single.with_targets([ids.tolist()]), injection)[0].float()
        chosen = logits.gather(1, ids[:, None])[:, 0]
        assert (logits.max(1).values - chosen).max() <= UNITS * unit(dtype, logits)


@pytest.mark.parametrize("family", WITHOUT_EXPERTS)
def test_half_precision_is_near_the_whole(lm, lms, family, dtype, mixed):
    """The same injection in float32: a prompt loses no more to rounding than the model's own words do."""
    real = mixed.batch.target_mask

    def lost(injection: Injection) -> float:
        with torch.no_grad():
            half = lm.logits(mixed.batch, injection).float()
            whole = lms(family).logits(mixed.batch, whole_of(injection))
        return (half - whole)[real].abs().max().item()

    with torch.no_grad():
        size = unit(dtype, lms(family).logits(mixed.batch))
    assert lost(mixed.injection) <= TIMES * max(lost(Injection()), size)


def whole_of(injection: Injection) -> Injection:
    """The same numbers in float32."""
    return injection.map_rows(lambda t: t.float() if t.is_floating_point() else t)
