"""Estimates what a method takes to keep and to serve, from sizes alone. Bytes are those of float32."""

from __future__ import annotations

from .candidates import MethodChoice
from .requirements import Needs

NUMBER = 4  # bytes of a float32
LORA_RANK = 8
BOTTLENECK = 64


def artifact_bytes(candidate: MethodChoice, needs: Needs) -> float:
    """Estimate the bytes of one prompt, without what all prompts share (`shared_bytes`)."""
    length = int(candidate.options.get("length", 0))
    if candidate.base == "lora":
        # two factors on each of two projections in every layer, as if both kept the hidden size
        return NUMBER * needs.depth * 4 * LORA_RANK * needs.hidden_size
    if candidate.method == "multitask-prompt-tuning":
        return NUMBER * (length + needs.hidden_size)
    return NUMBER * length * _numbers(candidate, needs)


def shared_bytes(candidate: MethodChoice, needs: Needs) -> float:
    """Estimate the bytes that are kept once for a whole table of prompts: a generator, a shared prompt."""
    if candidate.method == "multitask-prompt-tuning":
        return NUMBER * int(candidate.options["length"]) * needs.hidden_size
    if candidate.method.startswith("generated"):
        return NUMBER * BOTTLENECK * (needs.hidden_size + _numbers(candidate, needs))
    return 0.0


def served_bytes(candidate: MethodChoice, needs: Needs) -> float:
    """Estimate the memory of base and prompts, without activations and the requests' own keys and values."""
    prompts = needs.tasks * artifact_bytes(candidate, needs) if candidate.is_trained else 0.0
    return needs.weight_bytes + prompts + shared_bytes(candidate, needs)


def first_token_seconds(candidate: MethodChoice, needs: Needs) -> float | None:
    """Estimate the time to the first token of a median input: its own pass, scaled by the added positions."""
    if needs.input_seconds is None:
        return None
    row = needs.input_tokens + needs.target_tokens
    added = candidate.shots * row
    if candidate.depth == "embedding":
        added += int(candidate.options.get("length", 0))
    return needs.input_seconds * (needs.input_tokens + added) / max(1.0, needs.input_tokens)


def _numbers(candidate: MethodChoice, needs: Needs) -> int:
    """Return how many numbers one of the candidate's vectors has."""
    return needs.kv_numbers if candidate.depth == "kv" else needs.hidden_size
