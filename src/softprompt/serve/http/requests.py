"""The requests that clients may send: types are strict, and unknown fields are errors.

The names are OpenAI's; `row`, `rendering` and `strength` belong to this server; `top_k`, `min_tokens`,
`repetition_penalty`, `ignore_eos` and `continuous_usage_stats` are additions of other servers. Other fields
of theirs are in neutral_fields.py: they are allowed where they change nothing.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from . import neutral_fields
from .validation_errors import ONE_OF

Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenKey = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
Strength = Annotated[float, Field(ge=0, le=2, description="Of the prompt: 0 the plain model, 1 as trained.")]
Row = Annotated[dict[str, Any], Field(min_length=1, description="Fields of the prompt's template.")]


class Strict(BaseModel):
    """Refuses unknown fields, and drops optional ones that are empty."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if not cls._is_neutral(name, value)}

    @classmethod
    def _is_neutral(cls, name: str, value: Any) -> bool:
        field = cls.model_fields.get(name)
        if field is None or field.is_required():
            return False
        return value is None or (neutral_fields.is_empty(value) and name not in neutral_fields.EMPTY_COUNTS)


class Body(create_model("Known", __base__=Strict, **neutral_fields.fields(neutral_fields.REQUEST))):
    """Refuses text that UTF-8 cannot hold, in any field, since no tokenizer accepts it."""

    model: Name
    strength: Strength | None = None
    user: str | None = None  # this and the next four are accepted and not used
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    session_id: str | None = None

    @property
    def scale(self) -> float:
        """The strength of the prompt, which is 1 by default."""
        return 1.0 if self.strength is None else float(self.strength)

    @model_validator(mode="before")
    @classmethod
    def _unicode(cls, given: Any) -> Any:
        try:
            json.dumps(given, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            message = "contains a text with half of a surrogate pair"
            raise PydanticCustomError("invalid_unicode", message) from None
        except TypeError:  # the body is no JSON
            pass
        return given


class StreamOptions(
    create_model("KnownOptions", __base__=Strict, **neutral_fields.fields(neutral_fields.STREAM))
):
    """A stream can report its numbers of tokens at its end, or in every chunk."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class SamplingFields(Body):
    """The fields that completions and chat have in common."""

    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: Annotated[Stop | Annotated[list[Stop], Field(max_length=16)], ONE_OF] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: (
        Annotated[float, Field(ge=0, le=2, description="Default 1; 0 takes the likeliest.")] | None
    ) = None
    top_p: Annotated[float, Field(ge=0, le=1, description="0 takes the likeliest.")] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31, description="0 and -1: all tokens.")] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: (
        Annotated[float, Field(gt=0, le=2, description="Default 1, whatever the checkpoint says.")] | None
    ) = None
    logit_bias: Annotated[dict[TokenKey, Bias], Field(max_length=1024)] | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    ignore_eos: bool | None = None

    @property
    def length_field(self) -> str:
        """The name of the field that limits the answer's length."""
        return "max_completion_tokens" if getattr(self, "max_completion_tokens", None) else "max_tokens"

    @property
    def tells_usage(self) -> bool:
        """True means that a stream ends with its numbers of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def tells_progress(self) -> bool:
        """True means that every chunk of a stream has the numbers of tokens so far."""
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)


class CompletionRequest(SamplingFields):
    """A text (or its token ids) that is read as it is, or a `row` for the prompt's template."""

    prompt: (
        Annotated[
            str
            | Annotated[list[str], Field(min_length=1)]
            | Annotated[list[TokenId], Field(min_length=1)]
            | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)],
            ONE_OF,
        ]
        | None
    ) = None
    row: Row | None = None
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=128, description="n, if anything.")] | None = None

    @field_validator("logprobs", mode="before")
    @classmethod
    def _none(cls, given: Any) -> Any:
        """Accept a chat's `false` as null."""
        return None if given is False else given


class TextPart(create_model("KnownOfPart", __base__=Strict, **neutral_fields.fields(neutral_fields.PART))):
    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, given: Any) -> Any:
        """Name an unsupported type before its fields, which would only add errors."""
        kind = given.get("type") if isinstance(given, dict) else None
        if isinstance(kind, str) and kind != "text":
            shown = kind if kind.isidentifier() and len(kind) < 40 else "this type"
            raise PydanticCustomError("unsupported", f"{shown} is not supported, text alone")  # type: ignore[arg-type]
        return given


class Message(
    create_model("KnownOfMessage", __base__=Strict, **neutral_fields.fields(neutral_fields.MESSAGE))
):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str | Annotated[list[TextPart], Field(min_length=1)], ONE_OF]
    name: str | None = None  # accepted and not used

    @model_validator(mode="before")
    @classmethod
    def _allow_no_text(cls, given: Any) -> Any:
        """Allow an answer without text, which OpenAI sends where a tool was called."""
        if isinstance(given, dict) and given.get("role") == "assistant" and not given.get("content"):
            return {**given, "content": ""}
        return given

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(
    create_model("KnownOfChat", __base__=SamplingFields, **neutral_fields.fields(neutral_fields.CHAT))
):
    """A conversation is sent; `rendering` decides what the model reads of them (docs/serving.md)."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    rendering: Literal["auto", "template", "chat"] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class ClassifyRequest(
    create_model("KnownOfClassify", __base__=Body, **neutral_fields.fields(neutral_fields.SCORED))
):
    """The texts or rows that are to be classified."""

    input: Annotated[str | Row | Annotated[list[Annotated[str | Row, ONE_OF]], Field(min_length=1)], ONE_OF]
