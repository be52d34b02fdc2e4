"""`softprompt.distill` is defined here: a text is distilled by a call in Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import methods
from .._system.display import shown
from .._system.quiet import quietly
from ..config.load import recipe_from_dict
from ..lm.base import LanguageModel
from ..lm.loading import load
from ..methods.keyword_arguments import in_python, sections
from ..methods.typed_options import MethodOptions
from ..training.arguments import base_given, method_section
from ..training.output_folder import check_room
from ..training.tune import Hooks
from ..tuned import Rows
from .run import Distilled, distil, recipe_of


@in_python
@quietly
def distill(
    lm: LanguageModel | str | Path,
    text: str,
    requests: Rows | Sequence[str] | str | None = None,
    *,
    field: str | None = None,
    count: int = 96,
    vectors: int = 64,
    method: str | MethodOptions = "prefix-tuning",
    output: str | Path = "runs/distilled",
    chat: bool | None = None,
    hooks: Hooks | None = None,
    overwrite: bool = False,
    restart: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> Distilled:
    """Turn a text that every request repeats into vectors, and measure how much of its effect they keep.

    `requests` are texts, rows, or a file of rows, whose field `field` holds a request; some are kept apart to
    measure on. Without them the model writes `count` requests itself. With `chat` (default: where the model
    has a chat template) the text is the system text, else it comes ahead of each request. `vectors` is the
    method's `length`; `settings` are those of `tune`. The result has `tuned`, `share` (the share of the
    text's effect with its interval) and `report()`.
    Raises SoftPromptError for a text or requests that cannot be used.
    """
    base = base_given(lm)
    loaded = load(base) if isinstance(base, str) else base
    named = sections(settings, "distill")
    chosen = {**method_section(method), "length": vectors, **named["method"]}
    changes = {name: named[name] for name in ("data", "template", "task", "train", "base")}
    tree = recipe_of({**changes, "output": str(output)}, text, chat=_is_chat(loaded, chat))
    tree["model"] = loaded.origin.recipe(loaded.name)
    tree["method"] = chosen if chosen["name"] != tree["method"]["name"] else tree["method"] | chosen
    recipe = recipe_from_dict(tree, method_option_names=methods.option_names())
    check_room(recipe, restart=restart, overwrite=overwrite)
    with shown(progress):
        return distil(
            recipe,
            requests,
            field=field,
            count=count,
            lm=loaded,
            hooks=hooks,
            restart=restart,
            overwrite=overwrite,
        )


def _is_chat(lm: LanguageModel, chat: bool | None) -> bool:
    return bool(getattr(lm.tokenizer, "chat_template", None)) if chat is None else chat
