"""An engine and a registry with the real ones' interface, and answers that a test can tell beforehand.

It says the prompt's name, then what it read; each token is a character and takes `delay` seconds.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from softprompt.build import encoder_of, template_of
from softprompt.config.load import Recipe, recipe_from_dict
from softprompt.data import Encoder
from softprompt.serve.request import BrokenPrompt, Busy, Finished, Request, Stopped, Token, UnknownPrompt

VECTORS = 5
END = 96  # of the tiny tokenizer


@dataclass(frozen=True)
class Entry:
    name: str
    modified: float = 1_700_000_000.0
    prompts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    served: bool = True


@dataclass(frozen=True)
class Loaded:
    name: str
    encoder: Encoder
    recipe: Recipe
    index: int = 0
    method_name: str = "prompt-tuning"
    fingerprint: str = "0f" * 8
    vectors: tuple[int, int] = (VECTORS, 0)
    outdated: bool = False


class FakeRegistry:
    """`recipes`: by name, the parts of a recipe that the HTTP side reads; None: a broken artifact."""

    def __init__(self, lm: Any, recipes: dict[str, dict[str, Any] | None]) -> None:
        self.lm, self.recipes, self.asked = lm, dict(recipes), []  # a copy: tests take prompts away

    def names(self) -> Iterator[Entry]:
        for name in sorted(self.recipes):
            prompts = (self.recipes[name] or {}).get("prompts", ())
            yield Entry(name, models=tuple(f"{name}:{one}" for one in prompts) or (name,))

    def holds(self, name: str) -> bool:
        return name.partition(":")[0] in self.recipes

    def describe(self, name: str) -> Entry:
        folder, _, prompt = name.partition(":")
        if folder not in self.recipes:
            raise UnknownPrompt(f"no prompt '{name}' in /secret/folder")
        names = (self.recipes[folder] or {}).get("prompts", ("default",))
        return Entry(name, prompts=(prompt,) if prompt else tuple(names))

    def get(self, name: str) -> Loaded:
        self.asked.append(name)
        folder, _, prompt = name.partition(":")
        if folder not in self.recipes:
            raise UnknownPrompt(f"no prompt '{name}' in /secret/folder")
        if self.recipes[folder] is None:
            raise BrokenPrompt("damaged", why="/secret/folder/softprompt.json")
        output = dict(self.recipes[folder])
        prompts = tuple(output.pop("prompts", ("default",)))
        if (prompt or prompts[0]) not in prompts or (len(prompts) > 1 and not prompt):
            raise UnknownPrompt(f"no prompt '{name}'")
        recipe = recipe_from_dict({"data": "rows.jsonl", "method": {"name": "prompt-tuning"}, **output})
        encoder = encoder_of(recipe, self.lm, template_of(recipe, self.lm), prompts)
        return Loaded(name, encoder, recipe, prompts.index(prompt or prompts[0]))


class FakeAnswer:
    def __init__(self, engine: FakeEngine, request: Request) -> None:
        self.engine, self.request, self.cancelled = engine, request, False
        self.echoed: tuple[Token, ...] = ()
        if request.echo:
            ids = request.input_ids
            self.echoed = tuple(self._token(id, None if i == 0 else -0.5) for i, id in enumerate(ids))

    def cancel(self) -> None:
        self.cancelled = True

    def _token(self, id: int, logprob: float | None, text: str | None = None) -> Token:
        piece = self.engine.tokenizer.decode([id])
        top = () if logprob is None else ((id, piece, logprob), (0, "!", logprob - 1))
        wanted = self.request.sampling.logprobs
        return Token(id, piece if text is None else text, logprob, top[: wanted or 0])

    def _said(self) -> str:
        request, how = self.request, self.request.sampling
        text = self.engine.tokenizer.decode(list(request.input_ids))
        output = f"{request.prompt or 'plain'}[{request.scale:g}]:{text}"
        if how.temperature > 0:
            drawn = random.Random(how.seed)
            output = "".join(drawn.choice("abcdefgh") for _ in range(8)) + output
        return output

    async def __aiter__(self) -> AsyncIterator[Token | Finished]:
        engine, how, output = self.engine, self.request.sampling, self._said()
        ends = [output.find(stop) for stop in how.stop if stop in output]
        output, count, reason = output[: min(ends)] if ends else output, 0, "stop"
        engine.running += 1
        try:
            for character in output:
                if engine.fails and count >= engine.fails_after:
                    yield self._finished("error", count, engine.fails)
                    return
                await asyncio.sleep(engine.delay)
                if self.cancelled:
                    yield self._finished("cancelled", count)
                    return
                if engine.ended.is_set():
                    yield self._finished("error", count, Stopped("stopped"))
                    return
                if count == how.max_tokens:
                    reason = "length"
                    break
                count += 1
                yield self._token(engine.tokenizer.encode(character)[0], -0.25, character)
            yield self._finished(reason, count)
        finally:
            engine.running -= 1
            engine.left += self.cancelled

    def _finished(self, reason: Any, count: int, error: Any = None) -> Finished:
        vectors = VECTORS if self.request.prompt else 0
        return Finished(reason, error, len(self.request.input_ids), count, vectors)


class FakeEngine:
    where, capacity, ill = "", 10**9, None

    def __init__(self, tokenizer: Any, delay: float = 0.0) -> None:
        self.tokenizer, self.delay = tokenizer, delay
        self.requests: list[Request] = []
        self.room, self.running, self.left, self.fails, self.fails_after = 10**9, 0, 0, None, 0
        self.stopping, self.ended = threading.Event(), threading.Event()

    def submit(self, request: Request, loaded: Any = None) -> FakeAnswer:
        if self.stopping.is_set():
            raise Stopped("stopped")
        if self.room <= 0:
            raise Busy("full", retry_after=2.5)
        assert (loaded is None) == (request.prompt is None)
        self.room -= 1
        self.requests.append(request)
        return FakeAnswer(self, request)

    def classifying(
        self, prompt: str, rows: Sequence[Any], *, scale: float = 1.0, loaded: Any = None
    ) -> Coroutine[Any, Any, list[dict[str, float]]]:
        texts = [row.rendered.input for row in rows]

        async def later() -> list[dict[str, float]]:
            await asyncio.sleep(self.delay)
            return [
                {"good": (good := 0.5 + 0.2 * scale * (1 if "fun" in text else -1)), "bad": 1 - good}
                for text in texts
            ]

        return later()

    async def problem(self) -> Any:
        return self.ill

    def numbers(self) -> dict[str, float]:
        return {"running": float(self.running)}

    def stop(self, *, drain: float = 0) -> None:
        self.stopping.set()
        end = time.monotonic() + drain
        while self.running and time.monotonic() < end:
            time.sleep(0.01)
        self.ended.set()
