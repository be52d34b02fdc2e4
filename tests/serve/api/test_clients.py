"""Conversations with OpenAI's own clients; every reply's message goes back as the client gives it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.serve.api.talking import (
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

NODE = Path(__file__).parent / "node"


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
    assert last == by_hand(ask) and last.count("one") > 1  # which repeats all that was said before


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


@pytest.fixture(scope="session")
def node() -> Callable[..., dict[str, Any]]:
    """`node(url, model)`: what talk.mjs says."""
    command = shutil.which("node")
    if command is None:
        pytest.skip("NO NODE TESTS: install node (18 or newer) and npm, then `make node`")
    if not (NODE / "node_modules/openai").is_dir():
        pytest.skip("NO NODE TESTS: `make node` installs OpenAI's client for node")

    def talk(url: str, model: str) -> dict[str, Any]:
        done = subprocess.run(
            [command, NODE / "talk.mjs", url, model], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return talk


@pytest.mark.parametrize("model", ["tiny", "team-b/chat"])
def test_openai_node(served, client, node, model):
    told = node(served.url, model)
    expected = by_hand(lambda messages: create(client, model=model, messages=messages))
    assert told["said"] == dict.fromkeys(("create", "parse", "stream", "pieces"), expected)
    assert "team-b/chat" in told["listed"]
