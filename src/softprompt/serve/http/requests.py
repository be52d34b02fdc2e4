"""What clients may send. Types are strict and unknown fields are errors: nothing is ignored in silence.

The names are OpenAI's; `row`, `rendering` and `strength` are this server's own; `top_k`, `min_tokens`,
`repetition_penalty`, `ignore_eos` and `continuous_usage_stats` are those that other servers have added. What
else they have, and OpenAI, is in neutral_fields.py: taken where it says nothing.
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
    """Unknown fields are refused, and an optional one that is empty is as if it were not there."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _said(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if not cls._silent(name, value)}

    @classmethod
    def _silent(cls, name: str, value: Any) -> bool:
        field = cls.model_fields.get(name)
        if field is None or field.is_required():
            return False
        return value is None or (neutral_fields.is_empty(value) and name not in neutral_fields.EMPTY_SAYS)


class Body(create_model("Known", __base__=Strict, **neutral_fields.fields(neutral_fields.REQUEST))):
    """A request. Text that UTF-8 cannot hold is refused wherever it stands, since no tokenizer takes it."""

    model: Name
    strength: Strength | None = None
    user: str | None = None  # this and the next four are taken and not used
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    session_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _unicode(cls, given: Any) -> Any:
        try:
            json.dumps(given, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            message = "holds a text with half of a surrogate pair"
            raise PydanticCustomError("invalid_unicode", message) from None
        except TypeError:  # no JSON: its content type was another
            pass
        return given


class StreamOptions(
    create_model("KnownOptions", __base__=Strict, **neutral_fields.fields(neutral_fields.STREAM))
):
    """What a stream says of tokens: at its end, or in every piece how many there were so far."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class SamplingFields(Body):
    """What completions and chat share."""

    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: Annotated[Stop | Annotated[list[Stop], Field(max_length=16)], ONE_OF] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: (
        Annotated[float, Field(ge=0, le=2, description="By itself 1; 0 takes the likeliest.")] | None
    ) = None
    top_p: Annotated[float, Field(ge=0, le=1, description="0 takes the likeliest.")] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31, description="0 and -1: all tokens.")] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: (
        Annotated[float, Field(gt=0, le=2, description="By itself 1, whatever the checkpoint ships.")] | None
    ) = None
    logit_bias: Annotated[dict[TokenKey, Bias], Field(max_length=1024)] | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    ignore_eos: bool | None = None

    @property
    def length_field(self) -> str:
        """The field that says how long an answer may be."""
        return "max_completion_tokens" if getattr(self, "max_completion_tokens", None) else "max_tokens"

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with the tokens that were used."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def tells_progress(self) -> bool:
        """Whether every piece of a stream has the tokens that were used so far."""
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)


class CompletionRequest(SamplingFields):
    """A text (or its token ids) as it is; or a `row`, which the prompt's template makes the text of."""

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
        """A chat's `false`."""
        return None if given is False else given


class TextPart(create_model("KnownOfPart", __base__=Strict, **neutral_fields.fields(neutral_fields.PART))):
    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, given: Any) -> Any:
        """Parts of other types have other fields, of which a message would say too much."""
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
    name: str | None = None  # taken and not used

    @model_validator(mode="before")
    @classmethod
    def _said_nothing(cls, given: Any) -> Any:
        """An answer may have had no text, as OpenAI has it where a tool was called."""
        if isinstance(given, dict) and given.get("role") == "assistant" and not given.get("content"):
            return {**given, "content": ""}
        return given

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(
    create_model("KnownOfChat", __base__=SamplingFields, **neutral_fields.fields(neutral_fields.CHAT))
):
    """Messages. What of them the model reads is `rendering`'s to say; see docs/serving.md."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    rendering: Literal["auto", "template", "chat"] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class ClassifyRequest(
    create_model("KnownOfClassify", __base__=Body, **neutral_fields.fields(neutral_fields.SCORED))
):
    """Texts or rows to classify."""

    input: Annotated[str | Row | Annotated[list[Annotated[str | Row, ONE_OF]], Field(min_length=1)], ONE_OF]
