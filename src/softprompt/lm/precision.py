"""`dtype=auto` means bfloat16 where the hardware multiplies it, float32 elsewhere.

A CPU either has instructions for bfloat16 products, several times as fast as float32's, or imitates them
several times as slowly. The answer depends on the hardware alone, never on how busy the machine is: a
checkpoint can be resumed only in the precision that it began in.
"""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

import torch

from ..errors import SoftPromptError, unknown
from .library_internals import cpu_features

Dtype = Literal["float32", "bfloat16"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Weights = Literal["auto", "float32", "bfloat16", "int8"]
FEATURES = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16"}
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # oneDNN, which multiplies for torch, obeys them
# the values that leave no bfloat16 products
WITHOUT = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}


def precision(wanted: Precision | torch.dtype | str, device: str) -> tuple[str, str]:
    """Return the precision that was asked for, and why; "auto" is `pick_dtype`.

    Raises SoftPromptError for any other.
    """
    name = str(wanted).removeprefix("torch.")
    if name == "auto":
        return pick_dtype(device)
    if name in get_args(Precision):
        return name, "as asked for"
    fix = "give one of these, or a torch.dtype of that name; quantization_config makes weights smaller"
    raise unknown("dtype", name, get_args(Precision), fix=fix)


def with_weights(wanted: Any, weights: str) -> Any:
    """Return the precision to load in, once the form of the frozen weights is known too.

    `float32` and `bfloat16` are plain weights, so the model computes in that precision. Raises
    SoftPromptError where the two say different things, and for any other form.
    """
    if weights not in get_args(Weights):
        raise unknown("weights", weights, get_args(Weights))
    name = str(wanted).removeprefix("torch.")
    if weights in ("auto", "int8") or name == weights:
        return wanted
    if name != "auto":
        raise SoftPromptError(
            f"weights={weights} and dtype={name} say different things",
            why=f"weights={weights} are plain weights, with which the model computes in {weights}",
            fix=f"weights={weights} alone; or dtype={name} alone",
        )
    return weights


def pick_dtype(device: str) -> tuple[Dtype, str]:
    """Return bfloat16 or float32 for this device, and why."""
    if device.startswith("cuda"):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the GPU has bfloat16 products"
        return "float32", "the GPU has no bfloat16 products"
    if not device.startswith("cpu"):
        return "float32", f"it is not known whether '{device}' has bfloat16 products"
    names = [name for feature, name in FEATURES.items() if cpu_features().get(feature)]
    if not names:
        return "float32", f"the processor has neither {' nor '.join(FEATURES.values())}"
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX", "AVX2"):
        return "float32", "ATEN_CPU_CAPABILITY keeps torch from using AVX512"
    for variable in LIMITS:
        if (limit := os.environ.get(variable, "")).upper() in WITHOUT:
            return "float32", f"{variable}={limit} leaves out bfloat16 products"
    return "bfloat16", f"the processor has bfloat16 products ({' and '.join(names)})"
