"""Settings in an adapter's `adapter_config.json` are read here, with the checks of PEFT 0.21.2.

PEFT's versions since 0.3 wrote different sets of keys, so a missing key has PEFT's default. A key is checked
only where PEFT uses it, so that nothing is refused that PEFT loads. This file knows nothing of tensors and
models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....errors import SoftPromptError

NAME = "adapter_config.json"
#: PEFT's task types: two that answer in text, and those that train a head.
HEADS = {
    "SEQ_CLS": "a classification head",
    "TOKEN_CLS": "a head that labels tokens",
    "QUESTION_ANS": "a head that marks the answer in a text",
    "FEATURE_EXTRACTION": "the model's hidden states",
}
TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", *HEADS)
ADAPTION, CPT, CARTRIDGE, MULTITASK = "ADAPTION_PROMPT", "CPT", "CARTRIDGE", "MULTITASK_PROMPT_TUNING"
_SOURCES = ("AVERAGE_SOURCE_TASKS", "EXACT_SOURCE_TASK", "ONLY_SOURCE_SHARED")

Config = Mapping[str, Any]


def number(config: Config, key: str, least: int = 1) -> int | None:
    """Return a whole number; None where the key is missing or null.

    Raises SoftPromptError for other values.
    """
    value = config.get(key)
    if value is not None and (type(value) is not int or value < least):
        raise SoftPromptError(
            f"{NAME} says {key}: {value!r}",
            why=f"it must be a whole number, {least} or more",
            fix=f"write the number there that the adapter was trained with (without quotes), or {_again()}",
        )
    return value


def vectors(config: Config) -> int:
    """Return the number of vectors ahead of the input, or of each side of an encoder-decoder model."""
    key = "adapter_len" if config["peft_type"] == ADAPTION else "num_virtual_tokens"
    if config["peft_type"] == CPT:
        return len(config.get("cpt_token_ids") or [0])
    count = number(config, key)
    if count is None:
        raise SoftPromptError(
            f"{NAME} does not say {key}",
            why="PEFT loads no such adapter",
            fix=f"add {key}: how many vectors it has, or {_again()}",
        )
    return count


def copies(config: Config) -> int:
    """Return how many copies of its vectors an adapter holds: 2 for two sides, unless the config differs."""
    if config["peft_type"] == CPT:
        return 1
    default = 2 if config.get("task_type") == "SEQ_2_SEQ_LM" else 1
    return number(config, "num_transformer_submodules") or default


def frozen(config: Config) -> int:
    """Return the number of vectors that PEFT freezes at the start of a cartridge; 0 for other adapters."""
    if config["peft_type"] != CARTRIDGE:
        return 0
    count = number({"num_frozen_tokens": 1, **config}, "num_frozen_tokens", least=0)
    if count is None or count > vectors(config):
        raise SoftPromptError(
            f"{NAME} says num_frozen_tokens: {count} of {vectors(config)} vectors",
            why="PEFT loads no such adapter",
            fix=f"write a number from 0 to {vectors(config)} there, or {_again()}",
        )
    return count


def check(config: Config) -> None:
    """Raise SoftPromptError for settings that PEFT refuses before it looks at tensors and models."""
    task, kind = config.get("task_type"), config["peft_type"]
    if task is not None and task not in TASKS:
        raise SoftPromptError(
            f"{NAME} says task_type: {task!r}",
            why=f"PEFT loads no such adapter: it knows {', '.join(TASKS)}",
            fix="write one of these there: CAUSAL_LM for a prompt of a decoder",
        )
    if kind == CPT:
        _check_cpt(config, task)
    if kind in ("PROMPT_TUNING", MULTITASK) and (reason := _bad_start(config)):
        raise SoftPromptError(
            f"PEFT refuses this {NAME}",
            why=f"{reason}; it checks that also after training",
            fix="write prompt_tuning_init: RANDOM and tokenizer_kwargs: null there; it says how training "
            "starts, and trained vectors do not change",
        )
    frozen(config)


def _check_cpt(config: Config, task: str | None) -> None:
    lists = [config.get(key) for key in ("cpt_token_ids", "cpt_mask", "cpt_tokens_type_mask")]
    lengths = {len(values) for values in lists if values is not None}
    if task == "CAUSAL_LM" and len(lengths) <= 1:
        return
    raise SoftPromptError(
        f"PEFT refuses this {NAME}",
        why="an adapter of type CPT has task_type CAUSAL_LM, and as many cpt_token_ids as entries of "
        "cpt_mask and of cpt_tokens_type_mask",
        fix=_again(),
    )


def _bad_start(config: Config) -> str:
    """Say why PEFT refuses the settings of the start of training; empty where it does not."""
    start, path = config.get("prompt_tuning_init"), config.get("prompt_tuning_init_state_dict_path")
    if start == "TEXT" and not config.get("tokenizer_name_or_path"):
        return "prompt_tuning_init is TEXT, and tokenizer_name_or_path is missing"
    if start == "TEXT" and config.get("prompt_tuning_init_text") is None:
        return "prompt_tuning_init is TEXT, and prompt_tuning_init_text is missing"
    if config.get("tokenizer_kwargs") and start != "TEXT":
        return "tokenizer_kwargs is given, and prompt_tuning_init is not TEXT"
    if start in _SOURCES and config["peft_type"] == MULTITASK and not _is_file(path):
        return f"prompt_tuning_init is {start}, and prompt_tuning_init_state_dict_path leads to no file"
    return ""


def _is_file(path: Any) -> bool:
    from pathlib import Path

    return isinstance(path, str) and Path(path).is_file()


def _again() -> str:
    return "save the adapter again with PEFT's save_pretrained"
