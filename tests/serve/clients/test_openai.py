"""openai-python: conversations in which the server's own messages are sent back, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from tests.serve.clients.snippets import snippet

TEXTS = ("Name a fruit.", "Which colour has it?", "And its taste?")
WAYS: dict[str, Callable[[Any], Any]] = {
    "as it came": lambda message: message,
    "model_dump": lambda message: message.model_dump(),
    "to_dict": lambda message: message.to_dict(),
}


@pytest.fixture
def client(url):
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0)


@pytest.fixture
def expected(plain):
    """What a greedy conversation about `TEXTS` is, with answers of 20 tokens."""
    messages = []
    for text in TEXTS:
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": plain(messages, 20)})
    return [message["content"] for message in messages[1::2]]


def test_the_snippet_has_a_conversation(served, expected):
    names: dict = {}
    exec(snippet("openai-python and openai-node", "python", served), names)
    assert [message.content for message in names["messages"][1::2]] == expected[:2]


@pytest.mark.parametrize("way", WAYS)
def test_replies_are_sent_back(client, expected, way):
    messages: list[Any] = []
    for text in TEXTS:
        messages.append({"role": "user", "content": text})
        reply = client.chat.completions.create(
            model="smollm2", messages=messages, temperature=0, max_tokens=20
        )
        messages.append(WAYS[way](reply.choices[0].message))
    assert [dict(message)["content"] for message in messages[1::2]] == expected


def test_streamed_replies_are_sent_back(client, expected):
    messages: list[Any] = []
    for text in TEXTS:
        messages.append({"role": "user", "content": text})
        asked = {"model": "smollm2", "messages": messages, "temperature": 0, "max_tokens": 20}
        with client.chat.completions.stream(**asked) as stream:
            stream.until_done()  # `get_final_completion` is an error for an answer that is cut for length
        messages.append(stream.current_completion_snapshot.choices[0].message)
    assert [message.content for message in messages[1::2]] == expected


def test_what_is_refused_says_so(client):
    def refused(**asked: Any) -> str:
        text = {"role": "user", "content": "hello"}
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**({"model": "soft-after", "messages": [text]} | asked))
        assert caught.value.code == "unsupported_parameter"
        return caught.value.message

    function = {"name": "add", "parameters": {"type": "object", "properties": {}}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    assert "tools: not supported" in refused(tools=[{"type": "function", "function": function}])
    assert "response_format: not supported" in refused(response_format={"type": "json_object"})
    assert "image_url is not supported" in refused(messages=[{"role": "user", "content": [image]}])
