"""`softprompt.distill` is defined here: a text is distilled by a call in Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .. import methods
from .._system.display import shown
from .._system.quiet import quietly
from ..config.load import recipe_from_dict
from ..lm.base import LanguageModel
from ..lm.loading import load
from ..methods.keyword_arguments import in_python, sections
from ..methods.typed_options import MethodOptions
from ..training.arguments import base_given, method_section
from ..training.tune import Hooks
from .recipe import recipe_of
from .requests import Requests
from .run import distil
from .several import NAME, distil_several, refuse_for_several
from .texts import check_text, checked
from .vectors import AUTO
from .work import Arguments


@in_python
@quietly
def distill(
    lm: LanguageModel | str | Path,
    text: str | Path | Mapping[str, str | Path],
    requests: Requests | None = None,
    *,
    role: Literal["system", "document"] = "system",
    measure: Requests | None = None,
    field: str | None = None,
    count: int | None = None,
    vectors: int | Literal["auto"] = 64,
    time: float | None = None,
    seeds: int | None = None,
    price_hour: float | None = None,
    method: str | MethodOptions | None = None,
    output: str | Path = "runs/distilled",
    chat: bool | None = None,
    hooks: Hooks | None = None,
    overwrite: bool = False,
    restart: bool = False,
    apart: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> Any:
    """Turn a text that every request repeats into vectors, and measure how much of its effect they keep.

    `text` is the text, or the Path of a file that holds it; `role` says whether it is a system prompt or a
    document. A document that the model's context does not hold is read in chunks of `chunk_tokens`.
    `requests` are texts, rows, or a file of rows, whose field `field` holds a request; some are kept apart to
    measure on, or those of `measure` are. Without them the model writes `count` requests itself (default 96,
    for a document 256). With `chat` (default: where the model has a chat template) the text is the system
    text, else it comes ahead of each request. `vectors` is the method's `length`, or "auto", which tries
    several side by side, within `time` (seconds) where that is given; the method is by default
    prefix-tuning, or prompt-tuning for a model that takes no prefix. `settings` are those of `tune`. The
    vectors are trained with `seeds` seeds (default 3) side by side, and the best on the dev rows is kept.
    `price_hour` is what an hour of this machine costs, for prices in the report. The result is `Distilled`:
    it has `tuned`, `share` (the share of the text's effect with its interval) and `report()`. Several texts
    by name become a table of prompts, or with `apart` an artifact each; `together` trains them to be attached
    at once, and these are trained with one seed. That result is `Several`: `shares` and `at_once`.
    `hooks` are called along the way. Raises SoftPromptError for a text or requests that cannot be used.
    """
    if not isinstance(text, Mapping):
        check_text(text)
    base = base_given(lm)
    loaded = load(base) if isinstance(base, str) else base
    named = sections(settings, "distill")
    chosen = {**method_section(method or "prefix-tuning"), "length": vectors, **named["method"]}
    changes = {name: named[name] for name in ("data", "template", "task", "train", "base")}
    changes["teacher"] = {**named["teacher"], "role": role}
    if isinstance(text, Path):
        changes["teacher"] |= {"context": None, "file": str(text)}
    if isinstance(text, Mapping):
        changes["teacher"] |= {"context": None, "texts": checked(text)}
        changes["data"] = {"train": "rows in memory", "prompt_field": NAME, **changes["data"]}
    tree = recipe_of({**changes, "output": str(output)}, str(text), chat=_is_chat(loaded, chat))
    tree["model"] = loaded.origin.recipe(loaded.name)
    tree["method"] = chosen if chosen["name"] != tree["method"]["name"] else tree["method"] | chosen
    recipe = recipe_from_dict(tree, method_option_names=methods.option_names())
    any_method, anew = method is None, {"restart": restart, "overwrite": overwrite}
    if isinstance(text, Mapping):
        refuse_for_several({"measure": measure, "time": time, "vectors=auto": vectors == AUTO or None})
        refuse_for_several({"seeds": seeds, "price_hour": price_hour})
        options: dict[str, Any] = {"field": field, "count": count, "lm": loaded, "any_method": any_method}
        options |= {"apart": apart, "hooks": hooks, **anew}
        with shown(progress):
            return distil_several(recipe, requests, **options)
    given = Arguments(requests, measure, field, count, loaded, any_method, seeds, time)
    with shown(progress):
        return distil(recipe, given, hooks=hooks, price_hour=price_hour, **anew)


def _is_chat(lm: LanguageModel, chat: bool | None) -> bool:
    return bool(getattr(lm.tokenizer, "chat_template", None)) if chat is None else chat
