"""Contract 3 for every cache that transformers has: rows of all kinds in one batch, as each alone, naively.

What transformers refuses for a family is skipped with its reason, after looking that we do no worse.
"""

from __future__ import annotations

import copy

import pytest
import torch

from softprompt.errors import SoftPromptError

EXACT = ("llama", "mistral", "gemma3_text", "gpt_oss", "qwen3_next", "deepseek_v3", "t5", "bart")
NEW = 7  # tokens: with the inputs, further than the families' windows of 4
CACHES = {
    "dynamic": {},
    "static": {"cache_implementation": "static"},
    "hybrid": {"cache_implementation": "hybrid"},
    "sliding window": {"cache_implementation": "sliding_window"},
    "offloaded": {"cache_implementation": "offloaded"},
    "offloaded static": {"cache_implementation": "offloaded_static"},
    "quantized": {"cache_implementation": "quantized"},
    "longer than needed": {"cache_implementation": "static", "max_cache_len": 64},
    "none": {"use_cache": False},
}
_expected: dict[str, list[list[int]]] = {}


@pytest.fixture
def expected(family, lm, mixed, greedy) -> list[list[int]]:
    """Each row decoded alone and naively, once a family."""
    if family not in _expected:
        with torch.no_grad():
            _expected[family] = [greedy(lm, single, one, NEW)[0] for single, one in mixed.rows]
    return _expected[family]


@pytest.mark.parametrize("family", EXACT)
@pytest.mark.parametrize("cache", CACHES)
def test_every_cache_in_a_mixed_batch(lm, family, cache, mixed, expected):
    how = {"max_new_tokens": NEW, "do_sample": False, **CACHES[cache]}
    refusal = refused_by_transformers(lm, mixed.batch, how)
    if refusal is not None:
        with pytest.raises((type(refusal), SoftPromptError)) as caught:
            lm.generate(mixed.batch, mixed.injection, **how)
        # as it is where it speaks of the options, else with the same exception as its reason
        assert isinstance(caught.value, type(refusal)) or type(refusal).__name__ in str(caught.value)
        pytest.skip(f"transformers refuses: {type(refusal).__name__}: {str(refusal)[:80]}")
    made = lm.generate(mixed.batch, mixed.injection, **how).tolist()
    assert dict(zip(mixed.kinds, made, strict=True)) == dict(zip(mixed.kinds, expected, strict=True))
    assert len({tuple(ids) for ids in expected}) > 2  # the kinds do not all say the same


def refused_by_transformers(lm, batch, how) -> Exception | None:
    """What a copy that this library never touched says to this way of running it."""
    model = copy.deepcopy(lm.model)
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    try:
        model.generate(input_ids=batch.input_ids, attention_mask=batch.input_mask.long(), **how)
    except Exception as error:  # whatever it is: ours must be the same
        return error
    return None
