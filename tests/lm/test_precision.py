"""`dtype=auto` depends on the hardware alone."""

from __future__ import annotations

import pytest
import torch

import softprompt
from softprompt.lm import precision
from softprompt.lm.precision import pick_dtype


@pytest.fixture
def machine(monkeypatch):
    """A processor with the given instruction sets, and no limits in the environment."""

    def make(*features: str, capability: str = "AVX512") -> None:
        for variable in precision.LIMITS:
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(precision, "cpu_features", lambda: dict.fromkeys(features, True))
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)

    return make


@pytest.mark.parametrize(
    ("features", "kind", "why"),
    [
        (["avx512_bf16"], "bfloat16", "AVX512-BF16"),
        (["amx_bf16"], "bfloat16", "AMX-BF16"),
        (["avx512_f", "avx2"], "float32", "neither AVX512-BF16 nor AMX-BF16"),
        (["bf16"], "float32", "neither"),  # of ARM
    ],
)
def test_a_processor_decides_by_its_instructions(machine, features, kind, why):
    machine(*features)
    picked, reason = pick_dtype("cpu")
    assert picked == kind and why in reason


@pytest.mark.parametrize("capability", ["AVX2", "DEFAULT"])
def test_torch_may_be_kept_from_them(machine, capability):
    machine("avx512_bf16", capability=capability)
    assert pick_dtype("cpu") == ("float32", "ATEN_CPU_CAPABILITY keeps torch from using AVX512")


@pytest.mark.parametrize(
    ("limit", "kind"),
    [("AVX512_CORE", "float32"), ("avx2", "float32"), ("AVX512_CORE_BF16", "bfloat16"), ("ALL", "bfloat16")],
)
def test_so_may_onednn(machine, monkeypatch, limit, kind):
    machine("avx512_bf16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    picked, reason = pick_dtype("cpu")
    assert picked == kind and (kind == "bfloat16") != (f"ONEDNN_MAX_CPU_ISA={limit}" in reason)


@pytest.mark.parametrize(("supported", "kind"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_decides_by_its_products(monkeypatch, supported, kind):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert pick_dtype("cuda:0")[0] == kind


def test_other_devices_compute_in_float32():
    assert pick_dtype("mps")[0] == "float32"


def test_a_model_says_why(model_folder, monkeypatch):
    monkeypatch.setattr("softprompt.lm.precision.pick_dtype", lambda device: ("bfloat16", "of this machine"))
    lm = softprompt.load(str(model_folder))
    assert lm.dtype == torch.bfloat16 and lm.why_dtype == "of this machine"
    assert softprompt.load(str(model_folder), dtype="float32").why_dtype == "as asked for"


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning", "generated-prefix", "llama-adapter"])
def test_prompts_stay_in_float32(model_folder, method, setting):
    from softprompt import methods

    lm = softprompt.load(str(model_folder), dtype="bfloat16")
    prompt = methods.build(method, setting(lm), {"length": 3})
    assert lm.dtype == torch.bfloat16 and {p.dtype for p in prompt.parameters()} == {torch.float32}
