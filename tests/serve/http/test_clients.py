"""Conversations with OpenAI's own clients; every reply's message goes back as the client gives it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.serve.http.talking import (
    BACK,
    COMMON,
    TURNS,
    by_hand,
    create,
    parsed,
    pieces,
    streamed,
    talk,
    text_of,
)

TALK = Path(__file__).parent / "talk.mjs"


@pytest.fixture
def served(serve):
    return serve(context=4096)


@pytest.mark.parametrize("back", BACK)
@pytest.mark.parametrize("way", [create, streamed, parsed])
@pytest.mark.parametrize("model", ["tiny", "team-b/chat"])
def test_openai_python(client, model, way, back):
    def ask(messages):
        return way(client, model=model, messages=messages)

    last = text_of(talk(ask, BACK[back])[-1])
    assert last == by_hand(ask) and last.count("one") > 1  # which repeats the whole conversation


def test_openai_python_in_pieces(client):
    def ask(messages):
        return pieces(client, model="tiny", messages=messages)

    assert text_of(talk(ask, lambda message: message)[-1]) == by_hand(ask)


def test_openai_python_without_waiting(served):
    import asyncio

    async def run() -> str:
        async with openai.AsyncOpenAI(base_url=served.url + "/v1", api_key="x", max_retries=0) as client:
            messages: list[Any] = []
            for text in TURNS:
                messages.append({"role": "user", "content": text})
                reply = await client.chat.completions.create(model="tiny", messages=messages, **COMMON)
                messages.append(reply.choices[0].message)
            return messages[-1].content

    assert asyncio.run(run()).count("one") > 1


@pytest.mark.process
@pytest.mark.parametrize("model", ["tiny", "team-b/chat"])
def test_openai_node(served, client, node, model):
    reported = json.loads(node(TALK.read_text(), served.url, model))
    expected = by_hand(lambda messages: create(client, model=model, messages=messages))
    assert reported["answers"] == dict.fromkeys(("create", "parse", "stream", "pieces"), expected)
    assert "team-b/chat" in reported["listed"]
