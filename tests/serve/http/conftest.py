"""Real servers on loopback ports, over an engine that is not real."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="NO SERVER TESTS: pip install softprompt[serve]")

from tests.serve.http.fake_engine import FakeEngine, FakeRegistry

from softprompt.serve.http import create_app
from softprompt.serve.http.server import LOOPBACK_NAMES, Server, address_of, listen

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
RECIPES: dict[str, dict[str, Any] | None] = {
    "team-a/reviews": {
        "template": {"input": "Review: {{ text }}\nMood:", "target": "{{ label }}"},
        "task": {"kind": "classification", "labels": ["good", "bad"]},
    },
    "team-a/pairs": {"template": {"input": "{{ first }} / {{ second }}", "target": "{{ target }}"}},
    "team-a/voices": {
        "prompts": ("joke", "fact"),
        "data": {"train": "rows.jsonl", "prompt_field": "voice"},
        "task": {"kind": "generation", "max_new_tokens": 40},
    },
    "team-b/chat": {"template": {"input": "Q: {{ input }}", "chat": True, "system": "Be kind."}},
    "team-b/broken": None,
}


class Running:
    """A server in a thread; `url`, and the engine behind it."""

    def __init__(self, app: Any, engine: FakeEngine, drain: float) -> None:
        self.engine, self.app, ready = engine, app, threading.Event()
        bound = listen("127.0.0.1", 0)
        self.url = address_of(bound)
        self.server = Server(app, drain=drain, ready=ready.set)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [bound]}, daemon=True)
        self.thread.start()
        assert ready.wait(30)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def serving(
    lm: Any,
    folder: Path,
    *,
    model_name: str = "tiny",
    context: int = 256,
    max_tokens: int = 2**13,
    **more: Any,
) -> Iterator[Running]:
    """A server of the folder's prompts over an engine that is real; `more` are options of `create_app`."""
    from softprompt.serve.engine import Engine
    from softprompt.serve.registry import Registry

    engine = Engine(lm, Registry(folder, lm), max_tokens=max_tokens)
    engine.start()
    names = {"model_name": model_name, "tokenizer": lm.tokenizer, "context": context}
    running = Running(create_app(engine, engine.registry, **names, **more), engine, 5.0)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def talker(new_lm) -> Any:
    """A tiny model whose tokenizer has a chat template."""
    lm = new_lm("llama")
    lm.tokenizer.chat_template = CHAT
    return lm


@pytest.fixture
def serve(talker) -> Iterator[Callable[..., Running]]:
    """`serve(delay=0.0, drain=5.0, recipes=RECIPES, **create_app's)`."""
    running: list[Running] = []

    def start(
        delay: float = 0.0, drain: float = 5.0, recipes: dict | None = None, lm: Any = None, **more: Any
    ) -> Running:
        lm = lm or talker
        engine = FakeEngine(lm.tokenizer, delay)
        registry = FakeRegistry(lm, RECIPES if recipes is None else recipes)
        names = {"model_name": "tiny", "tokenizer": lm.tokenizer, "context": 256, "hosts": LOOPBACK_NAMES}
        running.append(Running(create_app(engine, registry, **(names | more)), engine, drain))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def served(serve) -> Running:
    return serve()


@pytest.fixture
def client(served) -> Any:
    """The real one."""
    import openai

    return openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0)
