"""A recipe's template and encoder are built here from a tokenizer, without a model or torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from softprompt.config.schema import Recipe
from softprompt.data.capacity import Room
from softprompt.data.encode import Encoder
from softprompt.data.task import WRITTEN, ChatSettings, Limits, ModelSide, Task
from softprompt.data.template import Template


def template_of(recipe: Recipe, mask: str | None = "[MASK]", *, mask_is_known: bool = False) -> Template:
    """Return the template of the recipe's rows; `mask` is what `{{ mask }}` writes (None: a field)."""
    tagged = recipe.task.kind == "token-classification"
    return Template(
        recipe.template.input,
        recipe.template.target,
        chat=recipe.template.chat,
        system=recipe.template.system,
        prompt_field=recipe.data.prompt_field,
        choices_field=recipe.task.choices,
        references_field=recipe.task.references,
        rejected=recipe.template.rejected,
        negatives_field=recipe.task.negatives if recipe.task.kind == "embedding" else None,
        score_field=recipe.task.score,
        words_field=recipe.task.words if tagged else None,
        tags_field=recipe.task.tags if tagged else None,
        mask=mask,
        mask_is_known=mask_is_known,
    )


def room_of(
    recipe: Recipe,
    soft_tokens: tuple[int, int, int],
    context: int | None,
    answer_context: int | None = None,
    *,
    apart: bool = False,
    limit: str = "",
) -> Room:
    """Return the positions that a row of the recipe has in a model; see `Room` for the arguments.

    `soft_tokens`: how many there are in the input's sequence, in a separate decoder, and in each place.
    """
    soft, answer_soft, length = soft_tokens
    return Room(
        context,
        soft,
        answer_context,
        answer_soft,
        apart=apart,
        new_tokens=recipe.task.max_new_tokens if recipe.task.kind in WRITTEN else 0,
        length=length,
        limit=limit,
    )


def encoder_of(
    recipe: Recipe,
    tokenizer: Any,
    template: Template,
    prompts: Sequence[str],
    labels: Sequence[str] | None = None,
    *,
    room: Room,
    model: ModelSide | None = None,
) -> Encoder:
    """Return the encoder of the recipe's rows; `model` is by default a decoder-only model's side."""
    task, data, settings = recipe.task, recipe.data, recipe.template
    encoder = Encoder(
        tokenizer,
        template,
        Task(
            task.kind,
            labels=labels or task.labels,
            prompts=prompts,
            verbalizer=task.verbalizer or {},
            score_range=None if task.score is None else task.score_range,
            names_labels=task.labels is not None,
        ),
        model,
        Limits(data.max_input_tokens, data.max_target_tokens, room),
        ChatSettings(settings.chat_options or {}, settings.chat_date),
    )
    encoder.continues = settings.continues
    return encoder
