"""The parts of a recipe that decide a run's numbers, with every default filled in. See `config.identity`.

All of `train`, `task` and `base` counts unless it is named here, so that a new setting counts by default.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from .. import methods
from .._system.files import sha256
from ..artifacts.hub.download import folder_of
from ..config.schema import Recipe
from ..config.sections.model import WHERE
from ..config.sections.task import text_hash
from ..data.example import Example
from ..data.teacher_texts import teacher_text, teacher_texts
from ..lm import finetune
from .learner import Optimization

#: Where and how numbers are computed: they agree to rounding. The precision that was chosen counts.
HOW = {"dtype", "weights", "threads", "gradient_checkpointing", "apart"}
#: The rows of general text count, and not the file that they come from.
HOW |= {"keep_text", "cache", "cache_budget_mb", "cache_disk_mb", "cache_folder", *WHERE}
#: What the encoded rows contain already, or what has its own place in the identity.
IN_ROWS = {"labels", "words", "tags", "choices", "references", "verbalizer"}
IN_ROWS |= {"negatives", "score", "score_range"}
#: Fields of an example that follow from others, or are counted as texts.
DERIVED = ("rendered", "reference", "teacher")
#: Options that name a place: its content counts, not its name.
PLACES = ("artifact", "encoder")


def optimization(recipe: Recipe) -> Optimization:
    """Return the recipe's training settings, with the default learning rates filled in."""
    settings = {f.name: getattr(recipe.train, f.name) for f in fields(Optimization) if f.name != "base_lr"}
    settings["average"] = recipe.train.average or 0.0
    settings["lr"] = recipe.train.lr or methods.find(recipe.method.name).lr
    settings["base_lr"] = recipe.base.lr or finetune.LEARNING_RATE.get(recipe.base.mode, 0.0)
    return Optimization(**settings)


def options(recipe: Recipe) -> dict[str, Any]:
    """Return the method's options, defaults included."""
    defaults = {name: p.default for name, p in methods.find(recipe.method.name).options().items()}
    return defaults | recipe.method.options()


def settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that count, by dotted name. Neither rows nor a model are needed."""
    numbers, sections = optimization(recipe), recipe.to_dict()
    counted: dict[str, Any] = {"method": recipe.method.name}
    if (
        origin := methods.METHODS.origin(recipe.method.name)
    ) is not None:  # another version may train in another way
        counted["method.package"] = str(origin)
    given = options(recipe)
    counted |= {f"method.{key}": value for key, value in given.items() if key not in PLACES}
    if given.get("init") == "nearest":  # its prompts may become more (see `content`), so the place counts
        counted["method.artifact"] = str(given.get("artifact"))
    for section, left_out in (("train", HOW), ("task", IN_ROWS), ("base", set[str]())):
        counted |= {f"{section}.{key}": v for key, v in sections[section].items() if key not in left_out}
    texts = {name: text_hash(text) for name, text in teacher_texts(recipe).items()}
    if texts or (text := teacher_text(recipe)) is not None:  # its content, not its place
        counted["teacher.context"] = texts or text_hash(str(text))
        counted["teacher.top_k"] = recipe.teacher.top_k
        counted["teacher.on_policy"] = recipe.teacher.on_policy
        if recipe.teacher.role != "system":
            counted["teacher.role"] = recipe.teacher.role
            counted["teacher.chunk_tokens"] = recipe.teacher.chunk_tokens
    filled_in = {
        "train.lr": numbers.lr,
        "base.lr": numbers.base_lr,
        "train.eval_every": numbers.steps_between_evaluations,
    }
    counted |= {key: value for key, value in filled_in.items() if key in counted}
    counted["train.average"] = numbers.average  # also where it is not set: a checkpoint holds it or does not
    if recipe.base.mode != "lora":
        counted = {k: v for k, v in counted.items() if k not in ("base.rank", "base.alpha", "base.targets")}
    return counted


def about(recipe: Recipe) -> dict[str, Any]:
    """Return what decides how rows are read and encoded, by dotted name; only the rows themselves count."""
    sections, places = recipe.to_dict(), ("train", "dev", "test")
    named = {f"template.{key}": value for key, value in sections["template"].items()}
    named |= {f"data.{key}": value for key, value in sections["data"].items() if key not in places}
    task = sections["task"]
    return named | {f"task.{key}": task[key] for key in sorted(IN_ROWS) if key in task}


def content(recipe: Recipe) -> dict[str, str]:
    """Hash the files of the prompt that the method starts from, if there is one."""
    place = recipe.method.options().get("artifact")
    # the prompts that `nearest` chooses from may become more: the run is the same
    if place is None or recipe.method.options().get("init") == "nearest":
        return {}
    files = sorted(folder_of(str(place))[0].glob("*.safetensors"))
    hashes = [f"{file.name} {sha256(file)}" for file in files]
    return {"method.artifact": hashlib.sha256("\n".join(hashes).encode()).hexdigest()}


def rows(examples: Sequence[Example]) -> str:
    """Hash encoded rows in their order (sha256, hex): token ids and all else that training or scores use."""
    digest = hashlib.sha256()
    for example in examples:
        text = example.rendered
        texts = text.input, text.target, text.choices, text.references, text.words, text.tags
        parts = {name: getattr(example, name) for name in Example.__dataclass_fields__ if name not in DERIVED}
        if not example.rejected_ids:  # as in earlier versions, whose checkpoints resume
            del parts["rejected_ids"]
        for name in ("demonstration", "begin", "documents", "side"):  # likewise
            if parts[name] in (None, ()):
                del parts[name]
        digest.update(repr((sorted(parts.items()), texts)).encode("utf-8", "replace"))
    return digest.hexdigest()
