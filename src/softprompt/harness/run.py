"""`softprompt eval --harness` runs tasks of lm-evaluation-harness in this process."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from lm_eval.evaluator import simple_evaluate
from lm_eval.utils import make_table

from .._system.quiet import verbose
from ..errors import SoftPromptError
from .model import SoftPromptLM
from .tasks import loaded, manager_for


@dataclass(frozen=True)
class Outcome:
    """An outcome holds the results of tasks, as the harness writes them and as its tables."""

    results: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]
    text: str


def run(
    model: SoftPromptLM,
    tasks: list[str],
    *,
    include_path: str | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    chat: bool = False,
    use_cache: str | None = None,
) -> Outcome:
    """Evaluate a model on tasks; `limit` is the number of rows of each, `num_fewshot` of rows shown ahead.

    `chat` writes contexts by the tokenizer's chat template. `use_cache` is the file in which the harness
    keeps the answers to requests. Raises SoftPromptError for tasks that cannot be loaded.
    """
    logging.getLogger("lm_eval").setLevel(logging.INFO if verbose() else logging.ERROR)
    manager, names = manager_for(tasks, include_path)
    objects = loaded(manager, names)
    if chat and not model.tokenizer.chat_template:
        raise SoftPromptError(
            f"the tokenizer of '{model.lm.name}' has no chat template",
            why="contexts were to be written by it",
            fix="leave out --template chat, or use a model that was trained for chats",
        )
    try:
        results = simple_evaluate(
            model=model,
            model_args=dict(model.subject.facts or {}),
            tasks=objects,
            task_manager=manager,
            num_fewshot=num_fewshot,
            limit=limit,
            use_cache=use_cache,
            batch_size=model.batch_size,
            device=str(model.device),
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
        )
    except SoftPromptError:
        raise
    except Exception as error:  # of a task's own code, or of the harness
        raise SoftPromptError(
            f"lm-evaluation-harness ended with {type(error).__name__} while it ran {', '.join(tasks)}",
            why=(str(error).strip() or "it gave no reason").splitlines()[0],
            fix="correct the task's file, or the options for it; -v shows where it ended",
        ) from error
    assert results is not None
    plain: dict[str, Any] = {**results}
    samples = plain.pop("samples", {})
    text = make_table(plain)
    if plain.get("groups"):
        text += "\n" + make_table(plain, "groups")
    return Outcome(plain, samples, text)
