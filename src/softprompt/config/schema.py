"""A recipe holds everything that decides a run: pydantic models with their defaults.

This file does NOT know which methods, metrics or models exist (their registries check the names), and
reads no files: `softprompt.config.load` makes recipes from YAML, dicts and `key=value` overrides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator
from pydantic_core import PydanticCustomError

Positive = Annotated[int, Field(ge=1, le=10**12)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # a learning rate
Name = Annotated[str, Field(min_length=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class _Section(BaseModel):
    # Frozen: a recipe is fingerprinted, so it must not change under a run. Numbers become text where
    # text is asked for, so that `labels: [0, 1]` needs no quotes.
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class ModelConfig(_Section):
    """The base model is a hub id, a folder, a GGUF file or an alias; the other keys say how it is loaded.

    A key that is not set has no effect. The precision is `train.dtype` (`dtype` here is another way to write
    it). The token is never written anywhere.
    """

    id: Name = "smollm2"
    revision: Name | None = None  # of a hub id: a branch, a tag or a commit
    token: Annotated[Name | None, Field(exclude=True, repr=False)] = None  # for the hub; `$NAME` is expanded
    device_map: Name | dict[str, int | str] | None = None  # as transformers takes it: auto, …
    quantization: dict[str, Any] | None = None  # the fields of transformers' quantization configurations
    attn_implementation: Name | None = None  # sdpa or eager; None: sdpa where the family has it
    trust_remote_code: bool = False  # run code that comes with the checkpoint

    def __str__(self) -> str:
        return self.id

    def settings(self, *, token: bool = False) -> dict[str, Any]:
        """Return the keys that are set, by name; with the token only where `token` is true."""
        values = {key: getattr(self, key) for key in type(self).model_fields if token or key != "token"}
        return {key: v for key, v in values.items() if key == "id" or v not in (None, False)}

    @model_serializer
    def _written(self) -> str | dict[str, Any]:
        settings = self.settings()
        return self.id if len(settings) == 1 else settings


class DataConfig(_Section):
    """The places that rows are read from, each a file, a folder or `hf:NAME[:SPLIT]`."""

    train: Name
    dev: Name | None = None
    test: Name | None = None
    prompt_field: Name | None = None  # the column that names each row's prompt
    limit: Positive | None = None  # train rows kept, after a seeded shuffle
    dev_fraction: Inside = 0.1  # taken from train if `dev` is not given
    dev_limit: Positive | None = 500
    max_input_tokens: Positive | None = None  # longer inputs lose their first tokens
    max_target_tokens: Positive | None = None  # longer generation targets lose their last tokens


class TemplateConfig(_Section):
    """The templates are Jinja2 over a row's fields, used literally (spaces are kept)."""

    input: Name = "{{ input }}"
    target: Name = "{{ target }}"
    rejected: Name | None = None  # preference: the answer that the target is preferred to
    chat: bool = False  # wrap the input in the model's own chat template
    system: str | None = None
    chat_options: dict[str, Any] = {}  # variables of the chat template: enable_thinking, …
    chat_date: Name | None = None  # the date that a chat template may write, as 2024-07-26

    @model_validator(mode="after")
    def _needs_chat(self) -> TemplateConfig:
        if self.system is not None and not self.chat:
            raise _mistake("`system` has an effect only with `chat: true`; else put the text into `input`")
        for key in ("chat_options", "chat_date"):
            if getattr(self, key) and not self.chat:
                raise _mistake(f"`{key}` has an effect only with `chat: true`")
        return self


class TaskConfig(_Section):
    """The task is what is predicted, and how it is scored."""

    kind: Literal[
        "generation", "classification", "choice", "token-classification", "regression", "preference"
    ] = "generation"
    labels: list[Name] | None = None  # classification; None: the distinct targets of the training rows
    head: bool = False  # classification: a trained head predicts labels that are no words
    verbalizer: dict[Name, Name] | None = None  # masked words: the word for each label
    words: Name = "words"  # token-classification: the field that holds the row's list of words
    tags: Name = "tags"  # and the one that holds their tags
    choices: Name | None = None  # choice: the field that holds the row's list of choices
    references: Name | None = None  # generation: the field that holds a list of reference texts
    beta: Rate = 0.1  # preference: how strongly DPO keeps to the reference model
    objective: Literal["targets", "distil"] = "targets"  # the tokens themselves, or a teacher's distributions
    metrics: list[Name] | None = None
    max_new_tokens: Positive = 64

    @model_validator(mode="after")
    def _fields_fit_kind(self) -> TaskConfig:
        if self.kind == "choice" and self.choices is None:
            raise _mistake("`kind: choice` needs `choices`, the field that holds a row's list of choices")
        if self.kind != "choice" and self.choices is not None:
            raise _mistake(f"`choices` belongs to `kind: choice`, but kind is {self.kind}")
        for key in ("head", "verbalizer"):
            if getattr(self, key) and self.kind != "classification":
                raise _mistake(f"`{key}` belongs to `kind: classification`, but kind is {self.kind}")
        if "beta" in self.model_fields_set and self.kind != "preference":
            raise _mistake(f"`beta` belongs to `kind: preference`, but kind is {self.kind}")
        if self.references is not None and self.kind == "preference":
            raise _mistake("`references` belongs to `kind: generation`, but kind is preference")
        if self.head and self.verbalizer:
            raise _mistake("`verbalizer` names words, but with `head: true` labels are no words")
        if self.objective == "distil" and self.kind != "generation":
            raise _mistake(f"`objective: distil` belongs to `kind: generation`, but kind is {self.kind}")
        if self.labels is None:
            return self
        if self.kind not in ("classification", "token-classification"):
            raise _mistake(f"`labels` belongs to `kind: classification`, but kind is {self.kind}")
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            raise _mistake(f"`labels` holds {', '.join(map(repr, twice))} more than once")
        if len(self.labels) < 2:
            raise _mistake("`labels` needs at least two labels")
        return self

    @property
    def needs_head(self) -> bool:
        """Return whether a head answers, which is trained and saved with the prompt."""
        return self.head or self.kind in ("token-classification", "regression")


#: The templates of a preference task, for rows as they are usually published.
PAIRS = {"input": "{{ prompt }}", "target": "{{ chosen }}", "rejected": "{{ rejected }}"}


class TeacherConfig(_Section):
    """The teacher of `task.objective: distil` is the frozen model with this text ahead of each input."""

    text: Name | None = None
    file: Name | None = None  # that holds the text
    top_k: Positive = 20  # of its likeliest tokens whose probabilities are kept; the rest is one class

    @model_validator(mode="after")
    def _one_text(self) -> TeacherConfig:
        if self.text is not None and self.file is not None:
            raise _mistake("`teacher` needs a text or the file that holds it, not both")
        return self


class MethodConfig(_Section):
    """A method is named by its published name; every other key is an option, which its registry checks."""

    model_config = ConfigDict(extra="allow")
    name: Name = "prompt-tuning"

    def options(self) -> dict[str, Any]:
        """Return a copy of the method's options, as written."""
        return dict(self.model_extra or {})


class BaseConfig(_Section):
    """The base model's weights are frozen or trained; rank, alpha and targets are those of LoRA."""

    mode: Literal["frozen", "lora", "full"] = "frozen"
    rank: Positive = 8
    alpha: Positive = 16
    targets: list[Name] | None = None
    lr: Rate | None = None


class TrainConfig(_Section):
    """The optimisation has these settings; `lr` None means the method's own default."""

    steps: Positive = 200
    batch_size: Positive = 32
    batch_tokens: Positive | None = None  # padded tokens a step, in place of batch_size rows
    lr: Rate | None = None
    weight_decay: NonNegative = 0.0
    warmup: Fraction = 0.05  # fraction of the steps
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip: NonNegative = 1.0  # largest gradient norm; 0 does not clip
    eval_every: Positive | None = None
    patience: Positive | None = None  # evaluations without a new best before training stops
    seed: Seed = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    cache: Literal["auto", "ram", "disk", "off"] = "auto"  # where keys and values of the inputs are kept
    cache_dtype: Literal["auto", "int8"] = "auto"  # auto: the model's own precision
    cache_budget_mb: Positive | None = None  # of memory; None: 40 % of what is free
    cache_disk_mb: Positive | None = None  # of disk, all caches together; None: 40 % of what is free
    cache_folder: Name | None = None  # None: kv/ in $SOFTPROMPT_CACHE or ~/.cache/softprompt
    threads: Positive | None = None  # None: the physical cores that this process may use
    gradient_checkpointing: bool | Literal["auto"] = "auto"  # auto: if memory is short
    devices: Positive | Literal["auto"] | None = None  # processes on this machine, one for each GPU
    shard: bool = False  # the frozen base is split over the devices, instead of a copy on each
    apart: bool = False  # each prompt of `data.prompt_field` alone: optimizer, early stop, artifact


class UnseenConfig(_Section):
    """Unseen rows come from a file, or are rows with certain values of a field, or clusters of inputs."""

    file: Name | None = None
    field: Name | None = None
    values: list[Name] | None = None  # of the field; None: drawn by seed, about `share` of the rows
    clusters: Annotated[int, Field(ge=2)] | None = None  # of the inputs' mean token embeddings
    share: Inside = 0.2  # of the rows that is held out, about

    @model_validator(mode="after")
    def _one_way(self) -> UnseenConfig:
        named = [key for key in ("file", "field", "clusters") if getattr(self, key) is not None]
        if len(named) != 1:
            raise _mistake(
                f"`unseen` needs one of file, field and clusters, not {' and '.join(named) or 'none'}"
            )
        if self.values is not None and self.field is None:
            raise _mistake("`values` need a `field`")
        return self


class CompareConfig(_Section):
    """The comparison that `softprompt compare` makes; it changes no run, and is in no fingerprint."""

    # names, or what each changes in the recipe (`key: value` as on the command line); None: the default ones
    methods: list[Name] | dict[Name, dict[str, Any]] | None = None
    rates: Annotated[list[Rate], Field(min_length=1)] = [1e-3, 3e-3, 1e-2, 3e-2]
    base_rates: Annotated[list[Rate], Field(min_length=1)] = [1e-4, 3e-4, 1e-3, 3e-3]  # of lora and full
    lengths: list[Positive] = []  # searched after the rate; of LoRA: ranks
    inits: list[Name | dict[str, Any]] = []  # searched last; names, or options of the method
    seeds: Positive = 3
    prune: bool = True  # rates that are behind at half time are stopped
    shots: Positive = 4  # of few-shot
    test_fraction: Inside = 0.2  # taken from train if `data.test` is not given
    test_limit: Positive | None = 1000  # test rows, and unseen rows, at most
    text_rows: Positive | None = 100  # test rows of a generation task that are answered in text; None: all
    unseen: UnseenConfig | None = None  # or a file, or `auto`: clusters
    curve: list[Positive] = []  # numbers of training rows
    growth: list[Positive] = []  # numbers of prompts in one table
    newcomer_rows: Positive = 16  # rows of each prompt that `unseen: {field: the prompts' column}` holds out
    control: bool | list[Literal["swap", "dose", "leakage", "composition", "adherence"]] = True
    control_rows: Positive = 32
    constraint: dict[str, Any] | None = None  # that answers must satisfy
    serving: bool = True  # time the first token, and tokens a second
    goal: float | None = None  # has no effect; recipes of earlier versions may set it
    within: Rate | None = None  # seconds for all calls together; the report says what is left out
    workers: Positive | None = None  # processes; None: one for two cores
    executor: Literal["local", "ray"] = "local"
    output: Name | None = None  # folder; None: the recipe's `output` and "-compare"

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, given: Any) -> Any:
        """Expand `unseen: auto` and `unseen: FILE`."""
        if isinstance(given, dict) and isinstance(unseen := given.get("unseen"), str):
            return {**given, "unseen": {"clusters": 8} if unseen == "auto" else {"file": unseen}}
        return given


class TrackerConfig(_Section):
    """The runs of a tracker have a place and a name; other keys are given to the tracker's own library."""

    model_config = ConfigDict(extra="allow")
    project: Name | None = None  # None: softprompt
    name: Name | None = None  # of the run; None: the output folder's
    group: Name | None = None
    dir: Name | None = None  # where files are written

    def options(self) -> dict[str, Any]:
        """Return a copy of the library's own options, as written."""
        return dict(self.model_extra or {})


class TrackConfig(_Section):
    """Each tracker has a section of its name. Trackers change no run, and are in no fingerprint."""

    tensorboard: TrackerConfig | None = None
    trackio: TrackerConfig | None = None
    wandb: TrackerConfig | None = None
    mlflow: TrackerConfig | None = None
    aim: TrackerConfig | None = None
    clearml: TrackerConfig | None = None
    comet_ml: TrackerConfig | None = None
    dvclive: TrackerConfig | None = None
    swanlab: TrackerConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, given: Any) -> Any:
        return track_section(given)

    def chosen(self) -> dict[str, TrackerConfig]:
        """Return the trackers that are set, by name."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


def track_section(given: Any) -> Any:
    """Expand `track: wandb`, `track: [tensorboard, {wandb: {project: mood}}]` and `track: {wandb: null}`."""
    if given is None or given is False:
        return {}
    if isinstance(given, str):
        names = [name.strip() for name in given.split(",")]
        return {name: {} for name in names if name not in ("", "none", "off")}
    if isinstance(given, (list, tuple)) and all(isinstance(item, str | Mapping) for item in given):
        return {name: options for item in given for name, options in track_section(item).items()}
    if isinstance(given, Mapping):
        expanded = {name: {} if value is None or value is True else value for name, value in given.items()}
        return {name: value for name, value in expanded.items() if value is not False}
    return given


class Recipe(_Section):
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
        """Name the usual fields of preference rows in the templates that are not given."""
        task = given.get("task") if isinstance(given, dict) else None
        if not isinstance(task, dict) or task.get("kind") != "preference":
            return given
        written = given.get("template") or {}
        return {**given, "template": PAIRS | written} if isinstance(written, dict) else given

    @model_validator(mode="after")
    def _sections_fit_the_task(self) -> Recipe:
        if self.template.rejected is not None and self.task.kind != "preference":
            raise _mistake(f"`template.rejected` belongs to `kind: preference`, but kind is {self.task.kind}")
        has_text = self.teacher.text is not None or self.teacher.file is not None
        if self.task.objective == "distil" and not has_text:
            raise _mistake("`objective: distil` needs the teacher's text: `teacher: {file: system.txt}`")
        if self.task.objective != "distil" and self.teacher != TeacherConfig():
            raise _mistake("`teacher` has an effect only with `task.objective: distil`")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `recipe_from_dict(recipe.to_dict())` gives an equal recipe."""
        # keys that were added later are written only if they are set, so that fingerprints stay the same
        unset: dict[str, Any] = {"compare": True} if self.compare == CompareConfig() else {}
        added = ("chat_options", "chat_date", "rejected")
        unset["template"] = {key for key in added if not getattr(self.template, key)}
        unset["task"] = set() if self.task.kind == "preference" else {"beta"}
        unset["train"] = {key for key in WHERE if not getattr(self.train, key)}
        tracked = self.track.chosen()
        unset["track"] = set(TrackConfig.model_fields) - set(tracked) if tracked else True
        if self.task.objective == "targets":
            unset["task"] |= {"objective"}
            unset["teacher"] = True
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

    def fingerprint(self) -> str:
        """Return the sha256 (hex) of the recipe without places: equal for runs that train the same prompt."""
        left_out = ("output", "compare", "track")
        content = {key: value for key, value in self.to_dict().items() if key not in left_out}
        content["train"] = {k: v for k, v in content["train"].items() if k not in (*CACHE_PLACE, *WHERE)}
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


SECTIONS: dict[str, type[_Section]] = {
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
CACHE_PLACE = ("cache_folder", "cache_disk_mb")
WHERE = ("devices", "shard")  # which devices compute; the numbers agree to rounding
SHORTHAND = {
    "model": "id",
    "data": "train",
    "task": "kind",
    "method": "name",
    "base": "mode",
}  # `method: NAME`
MOVED = {  # keys that are another way to write a setting
    ("model", "dtype"): ("train", "dtype"),
    ("model", "quantization_config"): ("model", "quantization"),
}
PREFERRED = {"lr": "train"}  # a leaf name of several sections, and the one meant when none is named


def _mistake(text: str) -> PydanticCustomError:
    # Braces would be read as placeholders of pydantic's message template.
    return PydanticCustomError("mistake", "{text}", {"text": text})
