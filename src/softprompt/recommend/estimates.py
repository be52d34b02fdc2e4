"""What a contestant takes to keep and to serve, from sizes alone. Bytes are of float32, as artifacts are."""

from __future__ import annotations

from .candidates import MethodChoice
from .requirements import Needs

NUMBER = 4  # bytes of a float32
LORA_RANK = 8
BOTTLENECK = 64


def artifact_bytes(contestant: MethodChoice, needs: Needs) -> float:
    """Of one prompt, about; what all prompts share is in `shared_bytes`."""
    length = int(contestant.options.get("length", 0))
    if contestant.base == "lora":
        # two factors on each of two projections in every layer, as if both kept the hidden size
        return NUMBER * needs.depth * 4 * LORA_RANK * needs.hidden_size
    if contestant.method == "multitask-prompt-tuning":
        return NUMBER * (length + needs.hidden_size)
    return NUMBER * length * _numbers(contestant, needs)


def shared_bytes(contestant: MethodChoice, needs: Needs) -> float:
    """Of what is kept once for a whole table of prompts: a generator, a shared prompt."""
    if contestant.method == "multitask-prompt-tuning":
        return NUMBER * int(contestant.options["length"]) * needs.hidden_size
    if contestant.method.startswith("generated"):
        return NUMBER * BOTTLENECK * (needs.hidden_size + _numbers(contestant, needs))
    return 0.0


def served_bytes(contestant: MethodChoice, needs: Needs) -> float:
    """The base and all prompts in memory, without activations and the requests' own keys and values."""
    prompts = needs.tasks * artifact_bytes(contestant, needs) if contestant.is_trained else 0.0
    return needs.weight_bytes + prompts + shared_bytes(contestant, needs)


def first_token_seconds(contestant: MethodChoice, needs: Needs) -> float | None:
    """Until the first token of a median input: its own pass, scaled by the positions that run through it."""
    if needs.input_seconds is None:
        return None
    row = needs.input_tokens + needs.target_tokens
    added = contestant.shots * row
    if contestant.depth == "embedding":
        added += int(contestant.options.get("length", 0))
    return needs.input_seconds * (needs.input_tokens + added) / max(1.0, needs.input_tokens)


def _numbers(contestant: MethodChoice, needs: Needs) -> int:
    """In one vector of the contestant."""
    return needs.kv_numbers if contestant.depth == "kv" else needs.hidden_size
