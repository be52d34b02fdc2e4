"""The precision is what this machine is fast in, whatever else it does while that is measured."""

from __future__ import annotations

import pytest
import torch

import softprompt
from softprompt.lm import precision
from softprompt.lm.precision import MANY, MARGIN, pick_dtype, speedup


class Clock:
    """Products that take these seconds, turn by turn; the last ones go on."""

    def __init__(self, exact: list[float], half: list[float]) -> None:
        self.left = {torch.float32: exact, torch.bfloat16: half}
        self.asked: list[torch.dtype] = []

    def __call__(self, kind: torch.dtype) -> float:
        self.asked.append(kind)
        return self.left[kind].pop(0) if len(self.left[kind]) > 1 else self.left[kind][0]


def test_in_turns_and_after_a_warm_up():
    clock = Clock([9.0, 1.0], [90.0, 0.2])
    assert speedup(clock) == pytest.approx(5.0)  # the first of each does not count
    assert clock.asked[::2] == [torch.float32] * (len(clock.asked) // 2)
    assert clock.asked[1::2] == [torch.bfloat16] * (len(clock.asked) // 2)
    assert len(clock.asked) < 2 * MANY  # all agreed


def test_a_disturbance_does_not_decide():
    clock = Clock([1.0, 1.0, 9.0, 1.0], [4.0, 4.0, 0.5, 4.0])  # one pair says the opposite
    assert speedup(clock) == pytest.approx(0.25)
    assert len(clock.asked) == 2 * (1 + MANY)


@pytest.mark.parametrize(("ratio", "kind"), [(0.2, "float32"), (1.1, "float32"), (3.0, "bfloat16")])
def test_bfloat16_must_be_clearly_faster(monkeypatch, ratio, kind):
    precision._measured.cache_clear()
    monkeypatch.setattr(precision, "speedup", lambda seconds: ratio)
    assert (kind == "bfloat16") == (ratio >= MARGIN)
    dtype, why = pick_dtype("cpu")
    assert dtype == kind and "measured" in why and f"{ratio:.2g} times" in why
    monkeypatch.setattr(precision, "speedup", lambda seconds: 1 / ratio)
    assert pick_dtype("cpu") == (dtype, why)  # the same for the whole of a process
    precision._measured.cache_clear()


@pytest.mark.parametrize(("has", "kind"), [(True, "bfloat16"), (False, "float32")])
def test_on_a_gpu(monkeypatch, has, kind):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has)
    assert pick_dtype("cuda:0")[0] == kind


def test_real_products_take_time():
    assert all(precision.product_seconds(kind) > 0 for kind in (torch.float32, torch.bfloat16))


def test_a_model_says_why(model_folder, monkeypatch):
    monkeypatch.setattr("softprompt.lm.loading.pick_dtype", lambda device: ("bfloat16", "so it is"))
    lm = softprompt.load(str(model_folder))
    assert lm.dtype == torch.bfloat16 and lm.why_dtype == "so it is"
    assert softprompt.load(str(model_folder), dtype="float32").why_dtype == "as asked for"


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning", "generated-prefix", "llama-adapter"])
def test_prompts_stay_in_float32(model_folder, method, setting):
    from softprompt import methods

    lm = softprompt.load(str(model_folder), dtype="bfloat16")
    made = methods.build(method, setting(lm), {"length": 3})
    assert lm.dtype == torch.bfloat16 and {p.dtype for p in made.parameters()} == {torch.float32}
