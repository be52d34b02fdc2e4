"""Builds the parts that a recipe names: template, encoder, a fresh method, and an artifact's base model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import methods
from ._system.notes import note
from .artifacts import warm_start
from .artifacts.artifact import Artifact
from .artifacts.hub.download import folder_of
from .artifacts.hub.reference import is_reference
from .artifacts.manifest import BASE
from .artifacts.nearest import Nearest
from .config.load import recipe_from_dict
from .config.schema import Recipe
from .config.sections.model import MethodConfig
from .data import from_recipe
from .data.capacity import Room
from .data.chat import DATE, Chat
from .data.demonstrations import Demonstrations
from .data.encode import Encoder
from .data.example import Example
from .data.recipe_rows import read_split
from .data.sources import fingerprint
from .data.task import ModelSide
from .data.template import Template
from .errors import SoftPromptError
from .lm.base import LanguageModel
from .lm.features import size
from .lm.from_recipe import head_of
from .lm.loading import load_saved
from .methods import from_module
from .methods.base import Setting, SoftPrompt
from .methods.transfer import Carried

EXAMPLES_TO_START_FROM = 64  # training rows that an initialiser may read, for each prompt


def saved_base(artifact: Artifact, model: str | None = None, **options: Any) -> LanguageModel:
    """Load the base that an artifact was trained on: its revision, precision and quantization, a fresh head.

    `model` names another place to load it from. `options` are those of `lm.loading.load`. Code that comes
    with a checkpoint runs only if they say so: what the artifact says of it does not count.
    """
    base = artifact.manifest["base"]
    head = head_of(recipe_from_dict(artifact.manifest["recipe"]), artifact.manifest["labels"])
    trained = base["mode"] == "frozen" and BASE in artifact.manifest["files"]
    if head is None and (trained or "head" in artifact.manifest):
        raise SoftPromptError(
            f"{artifact} belongs to a head that no task reads",
            why=f"it was attached to a {artifact.manifest.get('head', 'model with a head')}, without a name "
            "for each label, with several labels a row, or by an earlier version",
            fix="open it in Python: SoftPromptModel.from_pretrained(model with that head, folder)",
        )
    # plain weights have a precision of their own
    dtype = "auto" if options.get("weights") in ("float32", "bfloat16") else base["dtype"]
    try:
        return load_saved(base, model, **{"dtype": dtype, "head": head, **options})
    except SoftPromptError as error:
        if model is not None or base.get("in_memory"):
            raise
        if "brings code of its own" in error.why:
            raise SoftPromptError(
                f"the base model of {artifact} cannot be loaded",
                why=f"'{base['name']}' brings code of its own, which an artifact cannot allow",
                fix="read that code and, if you trust it, add --trust-remote-code",
            ) from error
        raise SoftPromptError(
            f"the base model of {artifact} cannot be loaded: {error.what}",
            why=f"{error.why}; the prompt was trained on '{base['name']}'",
            fix=f"--model NAME says where that model is now; or: {error.fix.removeprefix('or ')}",
        ) from error


def template_of(recipe: Recipe, lm: LanguageModel | None = None) -> Template:
    """Make the template of the recipe's rows; with a model, `{{ mask }}` is the model's mask token."""
    if lm is None:
        return from_recipe.template_of(recipe)
    return from_recipe.template_of(recipe, _mask_of(lm), mask_is_known=True)


def _mask_of(lm: LanguageModel) -> str | None:
    """Return the model's mask token; None where it has none."""
    if lm.answers != "mask":
        return None
    mask = getattr(lm.tokenizer, "mask_token", None)
    if mask is None:
        raise SoftPromptError(
            f"the tokenizer of '{lm.name}' has no mask token",
            why="a masked-language model answers at masks",
            fix="set mask_token in its tokenizer_config.json, or take a head of labels: task.head=true",
        )
    return mask


def dated(recipe: Recipe, lm: LanguageModel) -> Recipe:
    """Add the date to a recipe whose chat template writes one (see `data.chat`)."""
    template = recipe.template
    if not template.chat or template.chat_date is not None or not Chat(lm.tokenizer).writes_date:
        return recipe
    return recipe.model_copy(update={"template": template.model_copy(update={"chat_date": DATE})})


def pinned(recipe: Recipe) -> Recipe:
    """Name the commit of a prompt on the hub that the method starts from: a branch may move on."""
    options = recipe.method.options()
    place = str(options.get("artifact") or "")
    if not is_reference(place):
        return recipe
    start = MethodConfig(name=recipe.method.name, **options | {"artifact": str(folder_of(place)[1])})
    return recipe.model_copy(update={"method": start})


def encoder_of(
    recipe: Recipe,
    lm: LanguageModel,
    template: Template,
    prompts: tuple[str, ...],
    labels: Sequence[str] | None = None,
) -> Encoder:
    """Make the encoder of the recipe's rows."""
    model = ModelSide(lm.answers, lm.spec.kind, lm.ends, getattr(lm, "vocabulary", None))
    room = room_of(recipe, lm)
    return from_recipe.encoder_of(recipe, lm.tokenizer, template, prompts, labels, room=room, model=model)


def room_of(recipe: Recipe, lm: LanguageModel) -> Room:
    """Return the positions that a row of the recipe has in the model."""
    return from_recipe.room_of(
        recipe,
        methods.soft_tokens(recipe.method.name, recipe.method.options()),
        lm.spec.context,
        lm.spec.answer_context,
        apart=lm.spec.kind == "encoder-decoder",
        limit=lm.spec.limits.get("length", ""),
    )


def build_method(
    recipe: Recipe,
    lm: LanguageModel,
    encoder: Encoder,
    train: list[Example],
    prompts: tuple[str, ...],
    *,
    replaced: Mapping[int, Sequence[int]] | None = None,
    shown: Demonstrations | None = None,
    nearest: Mapping[str, Nearest] | None = None,
    on_carried: Callable[[Carried], None] = lambda carried: None,
    module: SoftPrompt | None = None,
) -> SoftPrompt:
    """Build a fresh method on the base's device.

    Some inits start it from the training rows, from `replaced`, the ids of the text that each prompt (by its
    number) replaces, from the demonstrations that are `shown`, or from the `nearest` prompts.
    `module` is one that the user has built: a copy of it is the start.
    """
    by_prompt: dict[int, list[tuple[int, ...]]] = {}
    for example in train:
        rows = by_prompt.setdefault(example.prompt, [])
        if len(rows) < EXAMPLES_TO_START_FROM:
            rows.append((*example.input_ids, *example.target_ids))
    rows_by_prompt = {index: tuple(rows) for index, rows in by_prompt.items()}
    by_prompt |= {index: [tuple(ids)] for index, ids in (replaced or {}).items() if ids}
    options = recipe.method.options()
    if options.get("init") == "artifact" and options.get("artifact"):
        for text in warm_start.notes(str(options["artifact"]), prompts):
            note(text)
    setting = Setting(
        lm,
        prompts,
        labels=tuple(encoder.labels or ()),
        examples=tuple(row for rows in by_prompt.values() for row in rows)[:EXAMPLES_TO_START_FROM],
        examples_by_prompt={index: tuple(rows) for index, rows in by_prompt.items()},
        demonstrations=() if shown is None else shown.ids,
        demonstration_spans=() if shown is None else shown.spans,
        replaced={index: tuple(ids) for index, ids in (replaced or {}).items()},
        rows_by_prompt=rows_by_prompt,
        nearest={name: (each.artifact, each.prompt) for name, each in (nearest or {}).items()},
        seed=recipe.train.seed,
        feature_size=lambda reads: size(lm, reads),
        read_prompt=warm_start.vectors,
        other_base=warm_start.other_base(lm),
        on_carried=on_carried,
    )
    if module is not None:
        from_module.check(module, setting, methods.options(recipe.method.name, **options))
        return copy.deepcopy(module).to(lm.device)
    return methods.build(recipe.method.name, setting, options).to(lm.device)


def base_options(recipe: Recipe) -> dict[str, Any]:
    """Return the options of the base's own training, as `lm.finetune.unfreeze` takes them."""
    base = recipe.base
    return {"rank": base.rank, "alpha": base.alpha, "targets": base.targets} if base.mode == "lora" else {}


def start_of(artifact: Artifact, lm: LanguageModel) -> SoftPrompt:
    """Build the method as it was before its first step.

    Raises SoftPromptError where its training rows, or another prompt that it started from, are missing or
    have changed.
    """
    if "sources" in artifact.manifest:
        raise SoftPromptError("it was made of other prompts, not trained")
    if "imported" in artifact.manifest:
        raise SoftPromptError("no run of softprompt trained it, and its start was not saved")
    if "teacher" in artifact.manifest["recipe"]:
        raise SoftPromptError("it was distilled from a text, and started from the text's tokens")
    recipe = recipe_from_dict(artifact.manifest["recipe"])
    if recipe.method.options().get("init") == "nearest":
        raise SoftPromptError("it started from the nearest prompt of a folder, which may have changed")
    if recipe.template.continues:
        raise SoftPromptError("it started from demonstrations, which are not chosen again here")
    train, held = read_split(recipe)
    if fingerprint([*train, *held]) != artifact.manifest["data"]["fingerprint"]:
        raise SoftPromptError("the training rows changed since it was trained")
    encoder = encoder_of(recipe, lm, template_of(recipe, lm), artifact.prompts, artifact.manifest["labels"])
    return build_method(recipe, lm, encoder, encoder.encode_rows(train), artifact.prompts)
