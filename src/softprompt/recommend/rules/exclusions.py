"""These rules exclude a method that the model does not support, or that does not meet a requirement."""

from __future__ import annotations

from ..candidates import CANDIDATES
from ..estimates import first_token_seconds, served_bytes
from ..requirements import Needs
from .base import ALL, FEW_SHOT, LORA, MULTITASK, PREFIXES, TRAINED, Evidence, Rule, by_construction, required


def _over_memory(name: str, needs: Needs) -> bool:
    return needs.required.memory is not None and served_bytes(CANDIDATES[name], needs) > needs.required.memory


def _over_latency(name: str, needs: Needs) -> bool:
    """Hold only where the plain model meets the limit: else no method can help (`rules.cost`)."""
    seconds, limit = first_token_seconds(CANDIDATES[name], needs), needs.required.latency
    if seconds is None or limit is None or needs.input_seconds is None:
        return False
    return needs.input_seconds <= limit < seconds


def _no_room(name: str, needs: Needs) -> bool:
    vectors = int(CANDIDATES[name].options.get("length", 0))
    return needs.longest * (1 + CANDIDATES[name].shots) + vectors > needs.context


#: What is not supported.
EXCLUSIONS = (
    Rule(
        "no prefix on this model",
        lambda n: "prefix" in n.limits,
        "the model takes no prefix (measured when it is loaded)",
        PREFIXES,
        "this model takes no prefix",
        by_construction(
            "ModelSpec.limits, from a probe of the model: docs/models.md lists what each family can do",
            "",
        ),
        excludes=True,
    ),
    Rule(
        "the base may not change",
        required("frozen"),
        "--frozen",
        (LORA,),
        "it changes the base model's weights",
        by_construction(
            "LoRA adds to the weights; every other candidate leaves the base byte for byte as it is"
        ),
        excludes=True,
    ),
    Rule(
        "prompts share a batch",
        required("one_batch"),
        "--one-batch",
        (LORA,),
        "its weights are the batch's, so rows of different prompts cannot share one",
        Evidence(
            "field practice: S-LoRA, Punica",
            "serving many LoRAs in one batch takes custom kernels (S-LoRA up to 4 times PEFT, Punica "
            "12 times); "
            "prompts and prefixes are per row by construction (tests/conformance/test_batches.py)",
            "true of this library and of plain transformers; servers with such kernels do mix LoRAs",
        ),
        excludes=True,
    ),
    Rule(
        "demonstrations cannot be shown",
        lambda n: n.model_kind == "encoder" or n.kind in ("embedding", "preference"),
        "the model is an encoder, or the task is embedding or preference",
        (FEW_SHOT,),
        "no text is continued, so no rows can be shown",
        by_construction("demonstrations are a text to continue; see docs/tasks.md"),
        excludes=True,
    ),
    Rule(
        "too few rows",
        lambda n: n.rows < 8,
        "fewer than 8 rows",
        TRAINED,
        "there are too few rows to train on some and choose by others",
        by_construction("the state that is kept is chosen on dev rows, which are carved out of the rows", ""),
        excludes=True,
    ),
    Rule(
        "nothing to share",
        lambda n: n.prompts < 2,
        "the rows name one prompt",
        (MULTITASK,),
        "with one prompt there is nothing to share",
        by_construction(
            "it is a shared prompt times small factors of each prompt; with one it is prompt tuning"
        ),
        excludes=True,
    ),
    Rule(
        "does not fit the context",
        lambda n: True,
        "the longest row, with what is added, is longer than the model's context",
        ALL,
        "the longest row, with what it adds, does not fit the model's context",
        by_construction(
            "the tokens of the longest row, its demonstrations and soft tokens, against ModelSpec.context"
        ),
        excludes=True,
        each=_no_room,
    ),
    Rule(
        "does not fit the memory",
        required("memory"),
        "--memory",
        ALL,
        "the base and all prompts together take more than that memory",
        by_construction(
            "the base's weights, and the bytes of each prompt times the number of prompts",
            "activations and the requests' own keys and values come on top; LoRA's size is an estimate",
        ),
        excludes=True,
        each=_over_memory,
    ),
    Rule(
        "too slow to the first token",
        required("latency"),
        "--latency",
        ALL,
        "a median input takes longer than that to its first token",
        by_construction(
            "one pass over a median input, timed on this machine, scaled by the positions that are added",
            "timed without a queue or a batch; a server's own overhead comes on top",
        ),
        excludes=True,
        each=_over_latency,
    ),
)
