"""Replies have OpenAI's shapes, with `prompt_vectors` in the usage; the published schema is made of these."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

Reason = Literal["stop", "length"]


class Usage(BaseModel):
    """Tokens are counted here. The prompt's vectors are counted separately, once for each input."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_vectors: int


class Reading(BaseModel):
    """Says how the input was rendered, which messages were not read, and what was cut off."""

    rendering: Literal["text", "template", "chat"]
    unread_messages: int = 0
    cut_tokens: int = 0


class CompletionLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Reason | None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[CompletionChoice]
    usage: Usage | None
    softprompt: Reading | None = None


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class ChatMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Reason | None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChatChoice]
    usage: Usage
    softprompt: Reading


class TextFacts(BaseModel):
    """Facts about the text that a prompt was distilled from; the text itself is not with the prompt."""

    role: str  # "system" or "document"
    sha256: str | None  # of the text; None: not recorded
    chat: bool  # it was the system text of a chat; False: it came ahead of the input
    ahead: str  # a text that came before it


class PromptFacts(BaseModel):
    """Facts that describe a prompt which was requested by name."""

    kind: str
    method: str
    prompts: list[str]
    labels: list[str] | None
    fields: list[str]
    target_field: str | None
    prompt_field: str | None  # the field of rows that names the prompt
    outdated: bool  # the version on disk cannot be served (see the log), so the one before it answers
    chat: bool  # inputs are written by the model's chat template, which reads a system text
    system: str | None  # the system text that the prompt was trained with
    text: TextFacts | None = None  # None: it was not distilled from a text


class Model(BaseModel):
    """This is the base model, or a prompt: `root` is the base, `parent` the model it was tuned on."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["softprompt"] = "softprompt"
    root: str
    parent: str | None
    softprompt: PromptFacts | None = None


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
    has_more: bool


class LabelScores(BaseModel):
    index: int
    label: str
    probs: dict[str, float]


class Classification(BaseModel):
    object: Literal["list"] = "list"
    model: str
    data: list[LabelScores]


class Health(BaseModel):
    """`degraded` means that the server works and its engine does not, for `reason`."""

    status: Literal["ok", "degraded", "stopping"]
    reason: str | None = None
