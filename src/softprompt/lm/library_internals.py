"""The private names of torch and transformers that this package uses, each in one function.

A release may rename them without notice; `tests/lm/test_library_internals.py` says which one is gone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig


def supports_sdpa(model: Any) -> bool:
    """Return whether the model's family has fused attention in transformers."""
    return bool(model._supports_sdpa)


def supports_flash(model: Any) -> bool:
    """Return whether transformers runs flash attention in the model's family."""
    return bool(getattr(model, "_supports_flash_attn", False))


def attention_of(config: Any) -> str | None:
    """Return the name of the attention function that layers with this configuration call."""
    return getattr(config, "_attn_implementation", None)


def set_attention_of(config: Any, name: str) -> None:
    """Let layers with this configuration, and with those inside it, call the function of that name."""
    config._attn_implementation = name


def unread_parameters(model: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that no checkpoint brought; none where no parameter has the mark.

    transformers marks each parameter that it reads from a checkpoint. One that the checkpoint lacks, or has
    in another size, has no mark.
    """
    unread = {name for name, p in model.named_parameters() if not getattr(p, "_is_hf_initialized", False)}
    return frozenset(unread) if len(unread) < sum(1 for _ in model.parameters()) else frozenset()


def position_bucket(layer: Any, distance: Tensor) -> Tensor:
    """Return the row of each distance in the table of biases of a T5 attention layer."""
    settings = {
        "bidirectional": not layer.is_decoder,
        "num_buckets": layer.relative_attention_num_buckets,
        "max_distance": layer.relative_attention_max_distance,
    }
    named = inspect.signature(layer._relative_position_bucket).parameters  # UMT5 reads them itself
    return layer._relative_position_bucket(distance, **{k: v for k, v in settings.items() if k in named})


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """Return the dict in which torch keeps a module's own buffers by name; changes to it take effect."""
    return module._buffers


def generation_defaults() -> dict[str, Any]:
    """Return the values that `generate` takes for options that nobody gives."""
    return GenerationConfig._get_default_generation_params()


def softmax_gradient(of_weights: Tensor, weights: Tensor) -> Tensor:
    """Compute the gradient of softmax's input over the last dimension: w · (dw - sum of w · dw)."""
    return torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)


def cpu_features() -> Mapping[str, Any]:
    """Return the processor's instruction sets by name, "avx512_bf16" and "amx_bf16" among them."""
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    # releases before that function; every processor that has AMX tiles multiplies bfloat16 in them
    return {
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx_bf16": torch.cpu._is_amx_tile_supported(),
    }


def onednn_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return a linear layer's product, from a copy of its weight [out, in] in oneDNN's own layout."""
    ops = torch.ops.mkldnn
    packed = ops._reorder_linear_weight(weight.detach(), None)
    return lambda rows: ops._linear_pointwise(rows, packed, bias, "none", [], "")


def float16_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return a linear layer's product in float32, from a copy of its weight [out, in] in float16."""
    ops = torch.ops.quantized
    packed = ops.linear_prepack_fp16(weight.detach(), bias)
    return lambda rows: ops.linear_dynamic_fp16(rows, packed)


def packed_flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Run FlashAttention-2 on packed sequences; its log-sum-exp is returned too.

    query [n, heads, d], key and value [m, kv_heads, d] on a GPU in 16 bits; `starts` are int32
    [sequences + 1] of queries and keys. Returns [n, heads, d] and [heads, n] in float32. The same as
    `torch.nn.attention.varlen.varlen_attn`, which older releases lack and whose gradient takes one block.
    """
    # with one query a sequence the kernel lays grouped heads side by side, and torch returns their
    # log-sum-exps in another order
    most = (max(2, longest[0]), longest[1])
    ops = torch.ops.aten
    out, lse, *_ = ops._flash_attention_forward(
        query, key, value, *starts, *most, 0.0, causal, False, scale=scale
    )
    return out, lse


def packed_flash_gradient(
    above: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    starts: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value of `packed_flash`, from any output and log-sum-exp."""
    # the state of the random numbers of a dropout that there is not
    state = torch.zeros(2, dtype=torch.uint64, device=query.device), torch.empty(0, device=query.device)
    given = (above, query, key, value, out, lse, *starts, *longest, 0.0, causal, *state)
    return torch.ops.aten._flash_attention_backward(*given, scale=scale)


def row_flash(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Run flash attention on a CPU: [1, heads, q, d], and the log-sum-exp [1, heads, q].

    query [1, heads, q, d], key and value [1, kv_heads, k, d]; mask [q, k] is added to the scores.
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, key, value, attn_mask=mask, scale=scale)


def row_flash_gradient(
    above: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    mask: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value of `row_flash`, from any output and log-sum-exp."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return kernel(above, query, key, value, out, lse, 0.0, False, attn_mask=mask, scale=scale)


def int8_product(weight: Tensor, scale: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return a linear layer's product from its int8 weight [out, in]; vectors are rounded to bfloat16."""
    if weight.shape[1] % 16:  # torch's kernel reads beyond the end of such rows
        raise RuntimeError("torch has no product of int8 rows of this length")
    in_bfloat16 = scale.bfloat16()

    def product(rows: Tensor) -> Tensor:
        flat = rows.reshape(-1, rows.shape[-1]).bfloat16()
        out = torch.ops.aten._weight_int8pack_mm(flat, weight, in_bfloat16).to(rows.dtype)
        return out.view(*rows.shape[:-1], -1) if bias is None else out.view(*rows.shape[:-1], -1) + bias

    return product
