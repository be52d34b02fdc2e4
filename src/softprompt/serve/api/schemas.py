"""What clients may send. Types are strict and unknown fields are errors: nothing is ignored in silence.

The names are OpenAI's; `row`, `rendering` and `strength` are this server's own; `top_k`, `min_tokens`,
`repetition_penalty` and `ignore_eos` are those that other servers have added.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenKey = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
Strength = Annotated[float, Field(ge=0, le=2, description="Of the prompt: 0 the plain model, 1 as trained.")]
Row = Annotated[dict[str, Any], Field(min_length=1, description="Fields of the prompt's template.")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Body(Strict):
    """A request. Text that UTF-8 cannot hold is refused wherever it stands, since no tokenizer takes it."""

    @model_validator(mode="before")
    @classmethod
    def _unicode(cls, given: Any) -> Any:
        try:
            json.dumps(given, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise PydanticCustomError("invalid_unicode", "a text holds half of a surrogate pair") from None
        except TypeError:  # no JSON: its content type was another
            pass
        return given


class StreamOptions(Strict):
    include_usage: bool | None = None


class SamplingFields(Body):
    """What completions and chat share."""

    model: Name
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: (
        Annotated[float, Field(ge=0, le=2, description="By itself 1; 0 takes the likeliest.")] | None
    ) = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31, description="0 and -1: all tokens.")] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: (
        Annotated[float, Field(gt=0, le=2, description="By itself 1, whatever the checkpoint ships.")] | None
    ) = None
    logit_bias: Annotated[dict[TokenKey, Bias], Field(max_length=1024)] | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    ignore_eos: bool | None = None
    strength: Strength | None = None
    user: str | None = None  # taken and not used
    metadata: dict[str, str] | None = None  # taken and not used

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with the tokens that were used."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionRequest(SamplingFields):
    """A text (or its token ids) as it is; or a `row`, which the prompt's template makes the text of."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
        | None
    ) = None
    row: Row | None = None
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=128, description="n, if anything.")] | None = None
    suffix: None = None


class TextPart(Strict):
    type: Literal["text"]
    text: str


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None  # taken and not used

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ResponseFormat(Strict):
    type: Literal["text"]


class ChatRequest(SamplingFields):
    """Messages. What of them the model reads is `rendering`'s to say; see docs/serving.md."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    rendering: Literal["auto", "template", "chat"] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None


class ClassifyRequest(Body):
    """Texts or rows to classify."""

    model: Name
    input: str | Row | Annotated[list[str | Row], Field(min_length=1)]
    strength: Strength | None = None
