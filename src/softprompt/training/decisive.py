"""What of a recipe decides a run's numbers, with every default filled in. See `identity`.

All of `train`, `task` and `base` counts unless it is named here, so that a new setting counts by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import methods
from .._system.files import sha256
from ..config.schema import Recipe
from ..data.example import Example
from ..lm import finetune
from .learner import Optimization

#: Where and how numbers are computed: they agree to rounding. The precision counts as it came out.
HOW = {"dtype", "threads", "gradient_checkpointing", "apart"}
HOW |= {"cache", "cache_budget_mb", "cache_disk_mb", "cache_folder"}
#: What is in the encoded rows, or in the identity by itself.
IN_ROWS = {"labels", "words", "tags", "choices", "references", "verbalizer"}
#: Options that name something by its place: what is there counts.
PLACES = ("artifact", "encoder")


def optimization(recipe: Recipe) -> Optimization:
    """The recipe's training numbers, with the method's and the base's own learning rates filled in."""
    train = recipe.train
    lr = train.lr or methods.find(recipe.method.name).lr
    base_lr = recipe.base.lr or finetune.LEARNING_RATE.get(recipe.base.mode, 0.0)
    return Optimization(
        train.steps,
        lr,
        train.batch_size,
        base_lr,
        train.weight_decay,
        train.warmup,
        train.schedule,
        train.clip,
        train.eval_every,
        train.patience,
        train.seed,
        train.batch_tokens,
    )


def options(recipe: Recipe) -> dict[str, Any]:
    """The method's options, those that are not given at their defaults."""
    defaults = {name: p.default for name, p in methods.find(recipe.method.name).options().items()}
    return defaults | recipe.method.options()


def settings(recipe: Recipe) -> dict[str, Any]:
    """By dotted name. Known before rows are read and a model is loaded."""
    how, said = optimization(recipe), recipe.to_dict()
    found: dict[str, Any] = {"method": recipe.method.name}
    found |= {f"method.{key}": value for key, value in options(recipe).items() if key not in PLACES}
    for section, left_out in (("train", HOW), ("task", IN_ROWS), ("base", set[str]())):
        found |= {f"{section}.{key}": v for key, v in said[section].items() if key not in left_out}
    own = {"train.lr": how.lr, "base.lr": how.base_lr, "train.eval_every": how.steps_between_evaluations}
    found |= {key: value for key, value in own.items() if key in found}
    if recipe.base.mode != "lora":
        found = {k: v for k, v in found.items() if k not in ("base.rank", "base.alpha", "base.targets")}
    return found


def about(recipe: Recipe) -> dict[str, Any]:
    """What decides how rows are read and encoded, by dotted name: the rows themselves are what counts."""
    said = recipe.to_dict()
    places = ("train", "dev", "test")
    found = {f"template.{key}": value for key, value in said["template"].items()}
    found |= {f"data.{key}": value for key, value in said["data"].items() if key not in places}
    return found | {f"task.{key}": said["task"][key] for key in sorted(IN_ROWS) if key in said["task"]}


def content(recipe: Recipe) -> dict[str, str]:
    """Hashes of the files of a prompt that the method starts from."""
    place = recipe.method.options().get("artifact")
    if place is None:
        return {}
    files = sorted(Path(str(place)).expanduser().glob("*.safetensors"))
    hashes = [f"{file.name} {sha256(file)}" for file in files]
    return {"method.artifact": hashlib.sha256("\n".join(hashes).encode()).hexdigest()}


def rows(examples: Sequence[Example]) -> str:
    """sha256 (hex) of encoded rows in their order: token ids, and all else that is trained or measured on."""
    found = hashlib.sha256()
    for example in examples:
        text = example.rendered
        texts = text.input, text.target, text.choices, text.references, text.words, text.tags
        parts = {name: getattr(example, name) for name in Example.__dataclass_fields__ if name != "rendered"}
        found.update(repr((sorted(parts.items()), texts)).encode("utf-8", "replace"))
    return found.hexdigest()
