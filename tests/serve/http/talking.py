"""Conversations with OpenAI's client for Python, each reply's message sent back in one of its forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

TURNS = ("one", "two", "three")
COMMON = {"temperature": 0, "max_tokens": 900}


def create(client, **more) -> Any:
    return client.chat.completions.create(**COMMON, **more).choices[0].message


def streamed(client, **more) -> Any:
    with client.chat.completions.stream(**COMMON, **more) as stream:
        return stream.get_final_completion().choices[0].message


def parsed(client, **more) -> Any:
    return client.chat.completions.parse(**COMMON, **more).choices[0].message


def pieces(client, **more) -> dict[str, Any]:
    """Put together from the pieces by hand, with all that they have."""
    message: dict[str, Any] = {}
    for chunk in client.chat.completions.create(**COMMON, **more, stream=True):
        for choice in chunk.choices:
            for name, value in choice.delta.model_dump().items():
                before = message.get(name)
                message[name] = (before or "") + value if name == "content" and value else value or before
    return message


BACK: dict[str, Callable[[Any], Any]] = {
    "object": lambda message: message,
    "model_dump": lambda message: message.model_dump(),
    "to_dict": lambda message: message.to_dict(),
    "json": lambda message: json.loads(message.model_dump_json()),
}


def talk(ask: Callable[..., Any], back: Callable[[Any], Any]) -> list[Any]:
    messages: list[Any] = []
    for text in TURNS:
        messages.append({"role": "user", "content": text})
        messages.append(back(ask(messages=messages)))
    return messages


def text_of(message: Any) -> str:
    return message["content"] if isinstance(message, dict) else message.content


def by_hand(ask: Callable[..., Any]) -> str:
    """The same conversation with role and content alone."""
    return text_of(talk(ask, lambda message: {"role": "assistant", "content": text_of(message)})[-1])
