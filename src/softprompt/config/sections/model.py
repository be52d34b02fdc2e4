"""The sections `model`, `method`, `base` and `train` say what is trained, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_serializer, model_validator

from softprompt.config.sections.base import (
    Count,
    Fraction,
    Name,
    NonNegative,
    Positive,
    Rate,
    Section,
    Seed,
    Share,
    mistake,
)


class ModelConfig(Section):
    """The base model is a hub id, a folder, a GGUF file or an alias; the other keys say how it is loaded.

    A key that is not set has no effect. The precision is `train.dtype` (`dtype` here is another way to write
    it). The token is never written anywhere.
    """

    id: Name = "smollm2"
    revision: Name | None = None  # of a hub id: a branch, a tag or a commit
    token: Annotated[Name | None, Field(exclude=True, repr=False)] = None  # for the hub; `$NAME` is expanded
    device_map: Name | dict[str, int | str] | None = None  # as transformers takes it: auto, …
    quantization: dict[str, Any] | None = None  # the fields of transformers' quantization configurations
    attn_implementation: Name | None = None  # sdpa, flash or eager; None: sdpa where the family has it
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


class MethodConfig(Section):
    """A method is named by its published name; every other key is an option, which its registry checks."""

    model_config = ConfigDict(extra="allow")
    name: Name = "prompt-tuning"

    def options(self) -> dict[str, Any]:
        """Return a copy of the method's options, as written."""
        return dict(self.model_extra or {})


class BaseConfig(Section):
    """The base model's weights are frozen or trained; rank, alpha and targets are those of LoRA."""

    mode: Literal["frozen", "lora", "full"] = "frozen"
    rank: Positive = 8
    alpha: Positive = 16
    targets: list[Name] | None = None
    lr: Rate | None = None


class TrainConfig(Section):
    """The optimisation has these settings; `lr` None means the method's own default."""

    steps: Count = 200  # 0: the vectors stay as they start, where a text is distilled
    batch_size: Positive = 32
    batch_tokens: Positive | None = None  # padded tokens a step, in place of batch_size rows
    lr: Rate | None = None
    weight_decay: NonNegative = 0.0
    warmup: Fraction = 0.05  # fraction of the steps
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip: NonNegative = 1.0  # largest gradient norm; 0 does not clip
    eval_every: Positive | None = None
    patience: Positive | None = None  # evaluations without a new best before training stops
    # share of the steps that an average of the trained values remembers, in place of the last values; None: 0
    average: Fraction | None = None
    seed: Seed = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    # form of the frozen weights; auto: a second, faster one where answers stay the same; float32, bfloat16:
    # plain ones in that precision; int8: 8 bits, a quarter of the memory, which moves the logits
    weights: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    cache: Literal["auto", "ram", "disk", "off"] = "auto"  # where keys and values of the inputs are kept
    cache_dtype: Literal["auto", "int8"] = "auto"  # auto: the model's own precision
    cache_budget_mb: Positive | None = None  # of memory; None: 40 % of what is free
    cache_disk_mb: Positive | None = None  # of disk, all caches together; None: 40 % of what is free
    cache_folder: Name | None = None  # None: kv/ in $SOFTPROMPT_CACHE or ~/.cache/softprompt
    threads: Positive | None = None  # None: the physical cores that this process may use
    gradient_checkpointing: bool | Literal["auto"] = "auto"  # auto: if memory is short
    devices: Positive | Literal["auto"] | None = None  # processes on this machine, one for each GPU
    shard: bool = False  # the frozen base is split over the devices, instead of a copy on each
    together: bool | Positive = False  # a row sees its own prompt and others; how many at most (true: 8)
    # general text on which the model stays as without vectors, as a share of the training tokens; None: 0, or
    # KEEP where a text is distilled or `keep_text` is given
    keep: Share | None = None
    keep_text: Name | None = None  # a file of general text; None: the plain model writes it
    apart: bool = False  # each prompt of `data.prompt_field` alone: optimizer, early stop, artifact

    @model_validator(mode="after")
    def _weights_have_the_precision(self) -> TrainConfig:
        if self.weights in ("float32", "bfloat16") and self.dtype not in ("auto", self.weights):
            raise mistake(
                f"`train.weights: {self.weights}` are plain weights, with which the model computes in "
                f"{self.weights}, but dtype is {self.dtype}: leave out one of the two"
            )
        return self

    @property
    def precision(self) -> Literal["auto", "float32", "bfloat16"]:
        """Return the precision of the computation: `dtype`, or that of plain weights."""
        return self.weights if self.weights in ("float32", "bfloat16") else self.dtype

    @property
    def kept_share(self) -> float:
        """Return the share of general text among the training tokens."""
        return (KEEP if self.keep_text is not None else 0.0) if self.keep is None else self.keep


KEEP = 0.02  # the default share of general text, where there is any
CACHE_PLACE = ("cache_folder", "cache_disk_mb")
ADDED = ("keep", "keep_text", "average")  # later than the others: written only where they are set
WHERE = ("devices", "shard")  # which devices compute; the numbers agree to rounding
