"""Models with sliding windows: prefixes stay visible at any distance, and no way of computing differs."""

from __future__ import annotations

import pytest
import torch

from softprompt.injection import Injection, Prefix
from softprompt.lm.causal import CausalLM

WINDOW = 4
INPUT = [[5, 17, 80, 33, 9, 71, 3, 22, 8, 60], [42], [60, 61, 7, 12, 90, 33]]
TARGET = [[11, 12, 4], [90], [4, 70]]


@pytest.fixture(scope="module", params=["mistral", "gemma3_text"])
def windowed(request):
    """Windows of four tokens: in every layer (mistral), or in two of three (gemma 3, which soft-caps too)."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    layers = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    config = AutoConfig.for_model(
        request.param,
        vocab_size=101,
        hidden_size=32,
        num_hidden_layers=3,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=WINDOW,
        initializer_range=0.2,
        pad_token_id=0,
        eos_token_id=None,
        bos_token_id=None,
        **(layers if request.param != "mistral" else {}),
    )
    return CausalLM(AutoModelForCausalLM.from_config(config, dtype=torch.float32), None, request.param)


def injections(lm):
    kv = Prefix(lm.kv_of([3, 4, 5, 6, 7, 8]), torch.ones(1, 6, dtype=torch.bool))
    from softprompt.injection import SoftTokens

    soft = SoftTokens(lm.embed(torch.tensor([[9, 10, 11]])).detach(), torch.ones(1, 3, dtype=torch.bool))
    return {
        "plain": Injection(),
        "kv_before": Injection(kv_before=kv),
        "kv_after": Injection(kv_after=kv),
        "before": Injection(before=soft),
        "after": Injection(after=soft),
        "all": Injection(before=soft, after=soft, kv_before=kv, kv_after=kv),
    }


KINDS = ["plain", "kv_before", "kv_after", "before", "after", "all"]


@pytest.mark.parametrize("kind", KINDS)
def test_cached_equals_full_beyond_the_window(windowed, kind, rows_to_batch, close):
    batch = rows_to_batch(INPUT, TARGET)
    injection = injections(windowed)[kind]
    full = windowed.logits(batch, injection)[batch.target_mask]
    close(windowed.logits(batch, injection, windowed.prefill(batch, injection))[batch.target_mask], full)
    for i in range(batch.size):
        alone = windowed.logits(rows_to_batch([INPUT[i]], [TARGET[i]]), injection)[0]
        mixed = windowed.logits(batch, injection)[i][batch.target_mask[i]]
        close(mixed, alone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [{}, {"use_cache": False}, {"cache_implementation": "static"}])
def test_decoding_equals_recompute_beyond_the_window(windowed, kind, way, rows_to_batch):
    batch = rows_to_batch(INPUT)
    injection = injections(windowed)[kind]
    made = windowed.generate(batch, injection, max_new_tokens=6, do_sample=False, **way).tolist()
    ids: list[list[int]] = [[] for _ in INPUT]
    for _ in range(6):
        logits = windowed.logits(batch.with_targets([[*row, 0] for row in ids]), injection)
        for row, best in zip(ids, logits[:, -1].argmax(-1).tolist(), strict=True):
            row.append(best)
    assert made == ids


def test_prefix_is_seen_at_any_distance(windowed, rows_to_batch):
    """The input is longer than the window; the prefix still changes the last token's logits."""
    batch = rows_to_batch(INPUT[:1], TARGET[:1])
    plain = windowed.logits(batch)
    assert (windowed.logits(batch, injections(windowed)["kv_before"]) - plain).abs().max() > 1e-2


def test_the_window_matters_here(windowed, rows_to_batch):
    """Else none of the above would say anything: a token beyond the window changes nothing in mistral."""
    if windowed.name != "mistral":
        return
    a, b = (rows_to_batch([[first, *range(20, 40)]], [[1]]) for first in (3, 77))
    assert torch.equal(windowed.logits(a), windowed.logits(b))
