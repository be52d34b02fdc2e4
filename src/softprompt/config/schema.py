"""A recipe holds everything that decides a run: its sections, and the rules between them.

This file does NOT know which methods, metrics or models exist (their registries check the names), and
reads no files: `softprompt.config.load` makes recipes from YAML, dicts and `key=value` overrides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import model_validator

from softprompt.config.sections.base import Name, Section, mistake
from softprompt.config.sections.compare import CompareConfig
from softprompt.config.sections.model import (
    ADDED,
    CACHE_PLACE,
    WHERE,
    BaseConfig,
    MethodConfig,
    ModelConfig,
    TrainConfig,
)
from softprompt.config.sections.task import (
    EMBEDDING,
    FIELDS,
    DataConfig,
    TaskConfig,
    TeacherConfig,
    TemplateConfig,
)
from softprompt.config.sections.track import TrackConfig


class Recipe(Section):
    """Everything that decides a run. Made by `config.load_recipe` or `config.recipe_from_dict`."""

    model: ModelConfig = ModelConfig()
    data: DataConfig
    template: TemplateConfig = TemplateConfig()
    task: TaskConfig = TaskConfig()
    teacher: TeacherConfig = TeacherConfig()
    method: MethodConfig = MethodConfig()
    base: BaseConfig = BaseConfig()
    train: TrainConfig = TrainConfig()
    output: Name = "runs/prompt"
    compare: CompareConfig = CompareConfig()
    track: TrackConfig = TrackConfig()

    @model_validator(mode="before")
    @classmethod
    def _fields_of_pairs(cls, given: Any) -> Any:
        """Name the usual fields of preference and embedding rows in the templates that are not given."""
        task = given.get("task") if isinstance(given, dict) else None
        if not isinstance(task, dict) or task.get("kind") not in FIELDS:
            return given
        written = given.get("template") or {}
        return {**given, "template": FIELDS[task["kind"]] | written} if isinstance(written, dict) else given

    @model_validator(mode="after")
    def _sections_fit_the_task(self) -> Recipe:
        if self.template.rejected is not None and self.task.kind != "preference":
            raise mistake(f"`template.rejected` belongs to `kind: preference`, but kind is {self.task.kind}")
        if self.task.objective == "distil" and not self.teacher.has_text:
            raise mistake("`objective: distil` needs the teacher's text: `teacher: {file: system.txt}`")
        if not self.train.steps and self.task.objective != "distil":
            raise mistake("`train.steps: 0` trains nothing: give 1 or more (0 is for `objective: distil`)")
        if self.train.together and self.task.objective != "distil":
            raise mistake("`train.together` belongs to `task.objective: distil`")
        if self.train.together and self.train.apart:
            raise mistake("`train.together` needs prompts that are trained in one table, not `apart: true`")
        if self.teacher.on_policy:
            self._check_on_policy()
        if self.task.objective != "distil" and self.teacher != TeacherConfig():
            raise mistake("`teacher` has an effect only with `task.objective: distil`")
        self._check_weights()
        return self

    def _check_weights(self) -> None:
        """Refuse a form of the weights in which what is trained cannot be."""
        weights = f"`train.weights: {self.train.weights}`"
        if self.train.weights == "int8" and self.base.mode != "frozen":
            raise mistake(
                f"{weights} needs `base.mode: frozen`, but mode is {self.base.mode}: the weights are rounded "
                "once, and stay as they are; leave out one of the two"
            )
        trained = "the base's weights" if self.base.mode == "full" else "a head"
        if self.train.weights == "bfloat16" and (self.base.mode == "full" or self.task.needs_head):
            raise mistake(
                f"{weights} cannot be combined with {trained} to train: small updates vanish in bfloat16; "
                "leave `train.weights` out, or set it to float32"
            )

    def _check_on_policy(self) -> None:
        share = f"`teacher.on_policy: {self.teacher.on_policy:g}`"
        if self.task.objective != "distil":
            raise mistake(f"{share} belongs to `task.objective: distil`, but objective is targets")
        if self.base.mode != "frozen":
            raise mistake(
                f"{share} needs `base.mode: frozen`, but mode is {self.base.mode}: the teacher is the model "
                "before training, and it scores answers while the run trains"
            )
        if self.train.shard:
            raise mistake(
                f"{share} cannot be combined with `train.shard: true`: one process writes the answers, and a "
                "split base needs all; leave out one of them"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `recipe_from_dict(recipe.to_dict())` gives an equal recipe."""
        # keys that were added later are written only if they are set, so that fingerprints stay the same
        unset: dict[str, Any] = {}
        if self.compare.budget is None:
            unset["compare"] = True if self.compare == CompareConfig() else {"budget"}
        added = ("chat_options", "chat_date", "rejected", "continues")
        unset["template"] = {key for key in added if not getattr(self.template, key)}
        unset["task"] = set() if self.task.kind == "preference" else {"beta"}
        unset["task"] |= set() if self.task.kind == "embedding" else set(EMBEDDING)
        unset["task"] |= {"query"} if self.task.query is None else set()
        unset["train"] = {key for key in (*WHERE, "together") if not getattr(self.train, key)}
        unset["train"] |= {"weights"} if self.train.weights == "auto" else set()
        unset["train"] |= {key for key in ADDED if getattr(self.train, key) is None}
        tracked = self.track.chosen()
        unset["track"] = set(TrackConfig.model_fields) - set(tracked) if tracked else True
        if self.task.objective == "targets":
            unset["task"] |= {"objective"}
            unset["teacher"] = True
        else:
            later = {"sha256": None, "texts": None, "role": "system", "chunk_tokens": None, "on_policy": 0.0}
            unset["teacher"] = {key for key, value in later.items() if getattr(self.teacher, key) == value}
        return self.model_dump(mode="json", exclude=unset)

    def with_settings(
        self, settings: Mapping[str, Any], *, method_option_names: Collection[str] = ()
    ) -> Recipe:
        """Return the recipe with some settings changed: keys as on the command line, values as plain data.

        Raises SoftPromptError as `key=value` on the command line does.
        """
        from softprompt.config.load import changed

        return changed(self, settings, method_option_names=method_option_names)

    def untracked(self) -> Recipe:
        """Return the recipe without its trackers: an address of theirs may hold a password."""
        return self.model_copy(update={"track": TrackConfig()})

    def for_text(self, name: str) -> Recipe:
        """Return the recipe with one text of `teacher.texts`, for rows that need not name it."""
        data = self.data.model_copy(update={"prompt_field": None})
        return self.model_copy(update={"teacher": self.teacher.of(name), "data": data})

    def recorded(self) -> Recipe:
        """Return the recipe as results keep it: without trackers, and without a teacher's text.

        The text may be private, and results are passed on; its hash stays, also of a text in a file.
        """
        return self.untracked().model_copy(update={"teacher": self.teacher.recorded()})

    def fingerprint(self) -> str:
        """Return the sha256 (hex) of the recipe without places: equal for runs that train the same prompt."""
        left_out = ("output", "compare", "track")
        content = {key: value for key, value in self.to_dict().items() if key not in left_out}
        content["train"] = {k: v for k, v in content["train"].items() if k not in (*CACHE_PLACE, *WHERE)}
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


SECTIONS: dict[str, type[Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "template": TemplateConfig,
    "task": TaskConfig,
    "teacher": TeacherConfig,
    "method": MethodConfig,
    "base": BaseConfig,
    "train": TrainConfig,
    "compare": CompareConfig,
    "track": TrackConfig,
}
SHORTHAND = {
    "model": "id",
    "data": "train",
    "task": "kind",
    "method": "name",
    "base": "mode",
}  # `method: NAME`
MOVED = {  # keys that are another way to write a setting
    ("model", "dtype"): ("train", "dtype"),
    ("model", "weights"): ("train", "weights"),
    ("model", "quantization_config"): ("model", "quantization"),
}
PREFERRED = {"lr": "train"}  # a leaf name of several sections, and the one meant when none is named
