"""Rules on cost are about bytes to keep, latency, and time to train. The costs of serving come first."""

from __future__ import annotations

from ..requirements import Needs
from .base import (
    AFTER,
    ALL,
    BEFORE,
    BENCHMARK,
    BOARD,
    FEW_SHOT,
    LITTLE,
    LORA,
    MULTITASK,
    PROMPTS,
    SOFT,
    SST2,
    TABLES,
    TRAINED,
    Evidence,
    Rule,
    by_construction,
    required,
)

LONG, MANY_TASKS, MANY_LABELS = 200, 50, 20  # tokens, prompts, labels
WHOLE_INPUT = (*BEFORE, LORA)


def _keeps_inputs(needs: Needs) -> bool:
    return needs.model_kind == "decoder" and "cache" not in needs.limits


COST_RULES = (
    Rule(
        "many prompts share",
        lambda n: n.prompts >= 2 and n.tasks >= MANY_TASKS,
        f"the rows name several prompts, and there will be {MANY_TASKS} or more",
        (MULTITASK,),
        "each prompt after the shared one takes a few kilobytes",
        by_construction(
            "length + hidden size numbers a prompt at rank 1, instead of length times hidden size"
        ),
        over=PROMPTS,
    ),
    Rule(
        "many prompts to keep, small",
        lambda n: n.tasks >= MANY_TASKS,
        f"{MANY_TASKS} prompts or more",
        (*PROMPTS, "p-tuning/after"),
        "a prompt takes kilobytes",
        Evidence(
            SST2,
            "19 kB (8 vectors) and 37 kB (16) a prompt, 743 kB a prefix, 1,858 kB LoRA, 4,084 kB a generated "
            "prefix",
            "of a model of 135M; a generator is shared by the prompts of its table",
            BENCHMARK,
        ),
        over=(*TABLES, LORA),
    ),
    Rule(
        "many prompts to keep, large",
        lambda n: n.tasks >= MANY_TASKS,
        f"{MANY_TASKS} prompts or more",
        (LORA,),
        "each task takes megabytes, and a switch of weights",
        Evidence(SST2, "1,858 kB each, a hundred times a prompt", "of a model of 135M, rank 8", BENCHMARK),
        under=TABLES,
    ),
    Rule(
        "a prefix adds no positions",
        required("latency"),
        "--latency",
        TABLES,
        "its columns are read in attention only; soft tokens pass through every layer",
        Evidence(
            BOARD + "; PEFT-Bench",
            "length 200: 41 % more training time for prompts; 20 % more FLOPs and 54 % more memory",
            "of training; a prompt ahead of the input can be served as a prefix (equal to 5e-5)",
        ),
        over=SOFT,
    ),
    Rule(
        "the plain model is too slow",
        lambda n: n.required.latency is not None and (n.input_seconds or 0.0) > n.required.latency,
        "--latency, and one pass over a median input takes longer on this machine",
        ALL,
        "even the plain model takes longer than that here: a smaller model, shorter inputs or a faster "
        "machine",
        by_construction("one pass over a median input, timed here", "as busy as the machine is now"),
    ),
    Rule(
        "shown rows are read every time",
        required("latency"),
        "--latency",
        (FEW_SHOT,),
        "every request reads the shown rows again",
        by_construction(
            "demonstrations are tokens of the input", "a server that keeps shared beginnings saves most of it"
        ),
        under=(*TRAINED, "zero-shot"),
    ),
    Rule(
        "prompts with few rows of their own share",
        lambda n: n.prompts >= 2 and n.rows_a_prompt < LITTLE,
        f"several prompts, with fewer than {LITTLE} rows each",
        (MULTITASK,),
        "what the prompts have in common is learned from all rows",
        by_construction(
            "the shared part gets the gradient of every row", "how much that helps was not measured here"
        ),
        over=PROMPTS,
    ),
    Rule(
        "behind the input trains faster",
        _keeps_inputs,
        "the model can keep its inputs' keys and values",
        AFTER,
        "the input is computed once and kept, so a step runs only prompt and answer",
        Evidence(
            SST2 + "; docs/architecture.md, The plan",
            "training seconds: 95 after and 272 before for prompts, 50 and 181 for prefixes",
            "the runs before had half the batch and fewer steps; a busy machine",
            BENCHMARK,
        ),
        over=WHOLE_INPUT,
    ),
    Rule(
        "long inputs are computed once",
        lambda n: _keeps_inputs(n) and n.input_tokens >= LONG,
        f"inputs of {LONG} tokens or more, which the model can keep",
        AFTER,
        "the longer the input, the more is saved by computing it once",
        by_construction("a cached step costs prompt and target tokens alone, whatever the input's length"),
        over=WHOLE_INPUT,
    ),
    Rule(
        "everything runs in every step",
        lambda n: n.input_tokens >= LONG,
        f"inputs of {LONG} tokens or more",
        WHOLE_INPUT,
        "the whole input runs forward and backward in every step",
        by_construction(
            "what is trained comes before the input, or is the base itself (docs/architecture.md)"
        ),
        under=AFTER,
    ),
    Rule(
        "many labels, many candidates",
        lambda n: len(n.labels) >= MANY_LABELS,
        f"{MANY_LABELS} labels or more",
        TRAINED,
        "each label is scored as words, so a row costs as many passes over labels as there are; a head "
        "(task.head=true) scores all in one",
        by_construction("see docs/tasks.md", "which is better was not measured"),
    ),
)
