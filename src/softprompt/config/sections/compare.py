"""The section `compare` says which methods are compared, on which rows, and what is measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from softprompt.config.sections.base import Inside, Name, Positive, Rate, Seconds, Section, mistake


class UnseenConfig(Section):
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
            raise mistake(
                f"`unseen` needs one of file, field and clusters, not {' and '.join(named) or 'none'}"
            )
        if self.values is not None and self.field is None:
            raise mistake("`values` need a `field`")
        return self


class CompareConfig(Section):
    """The comparison that `softprompt compare` makes; it changes no run, and is in no fingerprint."""

    # names, or what each changes in the recipe (`key: value` as on the command line); None: the default ones
    methods: list[Name] | dict[Name, dict[str, Any]] | None = None
    rates: Annotated[list[Rate], Field(min_length=1)] = [1e-3, 3e-3, 1e-2, 3e-2]
    base_rates: Annotated[list[Rate], Field(min_length=1)] = [1e-4, 3e-4, 1e-3, 3e-3]  # of lora and full
    lengths: list[Positive] = []  # searched after the rate; of LoRA: ranks
    inits: list[Name | dict[str, Any]] = []  # searched last; names, or options of the method
    seeds: Positive = 3
    # within it methods are equal: hundredths of the metric's range, else (perplexity) of the best score
    margin: Annotated[float, Field(ge=0, lt=100)] = 2.0
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
    # training seconds of each method, its search and finals together; None: `train.steps` of every trial.
    # Text has a unit: 10m
    budget: Seconds | None = None
    within: Seconds | None = None  # for all calls together; the report says what is left out
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
