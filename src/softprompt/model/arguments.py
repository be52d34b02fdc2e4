"""The arguments of `attach` are checked before the model is touched, by the rules of recipes and rows."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Any

from ..config.load import recipe_from_dict
from ..data.from_recipe import template_of
from ..data.spelling import refuse_twins
from ..errors import SoftPromptError
from ..lm import attachment


def check(base: Any, prompts: Any, template: Any, tokenizer: Any) -> None:
    """Raise SoftPromptError for an argument of `attach` that no prompt can be trained or saved with."""
    _check_names(prompts)
    _check_template(template)
    if tokenizer is not None and not callable(tokenizer):
        raise SoftPromptError(
            f"tokenizer={tokenizer!r} is no tokenizer",
            why="it cannot be called with a text",
            fix="give AutoTokenizer.from_pretrained(…)",
        )
    check_free(base)


def check_free(base: Any) -> None:
    """Raise SoftPromptError for a model that softprompt.load holds, which would be run in two ways."""
    held = attachment.attached(base)
    if held is None or attachment.PROMPT in vars(base) or not held.is_used:
        return
    gc.collect()  # a loaded model that nothing names any more is freed late
    if held.is_used:
        raise SoftPromptError(
            "the model belongs to a loaded one already",
            why="softprompt.load holds it, and detach would close that one as well",
            fix="call close() on what softprompt.load gave, or attach to a model that you loaded yourself",
        )


def _check_names(prompts: Any) -> None:
    is_list = isinstance(prompts, Sequence) and not isinstance(prompts, str | bytes)
    names: list[Any] = [*prompts] if is_list else []
    wrong = [name for name in names if not isinstance(name, str) or not name.strip()]
    if not names or wrong:
        fix = f'prompts=["{prompts}"]' if isinstance(prompts, str) and prompts.strip() else 'prompts=["joke"]'
        raise SoftPromptError(
            f"prompts={prompts!r} are no names of a table",
            why=f"{wrong[0]!r} is no name" if wrong else "a list of one name or more is needed",
            fix=f"give a text for each prompt: {fix}",
        )
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise SoftPromptError(
            f"prompts holds {twice[0]!r} twice",
            why="a name means one prompt",
            fix="give each prompt a name of its own",
        )
    refuse_twins(names, "prompts")


def _check_template(template: Any) -> None:
    if template is None:
        return
    given = dict(template) if isinstance(template, Mapping) else template
    try:
        template_of(recipe_from_dict({"data": "rows.jsonl", "template": given}))
    except SoftPromptError as error:
        raise SoftPromptError(
            f"template={given!r} is no template of a recipe",
            why=": ".join(part for part in (error.what.removeprefix("recipe: "), error.why) if part),
            fix=error.fix or 'give its keys as in a recipe: template={"input": "{{ text }}"}',
        ) from error
