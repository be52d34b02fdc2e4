"""Every measure uses a base model, a folder of random prompts, and engines on it."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from softprompt import methods
from softprompt.artifacts import artifact as artifacts
from softprompt.config.load import recipe_from_dict
from softprompt.lm.causal import CausalLM
from softprompt.lm.loading import fingerprint
from softprompt.methods.base import Setting, SoftPrompt
from softprompt.serve.engine import Engine
from softprompt.serve.registry import Registry
from softprompt.serve.request import Finished, Request, Sampling, Token


@dataclass(frozen=True)
class Bench:
    """Holds the model, the folder and the sizes."""

    lm: CausalLM
    folder: Path  # of the prompts
    prompts: int = 32
    length: int = 16  # vectors of a prompt
    inputs: tuple[int, ...] = (16, 64)  # tokens of an input
    tokens: int = 32  # of an answer
    repeats: int = 5
    clients: int = 64  # at once, and the prompts that they request
    seconds: float = 600.0  # of the load
    artifacts: int = 100_000  # in one tree
    clock: Callable[[], float] = time.perf_counter
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    def ids(self, count: int) -> tuple[int, ...]:
        """Draw random tokens, new ones at every call, so that no cache knows them."""
        known = min(self.lm.spec.vocab_size, len(self.lm.tokenizer))
        return tuple(self.draw.randrange(5, known) for _ in range(count))

    @property
    def exact(self) -> bool:
        """True if answers can be compared: in half precision, rounding depends on the batch."""
        return self.lm.dtype == torch.float32

    def in_turns(
        self, sides: Mapping[str, Callable[[], Any]], *, warm: bool = True
    ) -> dict[str, list[float]]:
        """Return the seconds of each side's turns; a first one, which warms it up, is not counted."""
        times: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(not warm, self.repeats + 1):
            for name, work in sides.items():
                started = self.clock()
                work()
                if turn:
                    times[name].append(self.clock() - started)
        return times

    def publish(self, name: str, method: str, options: Mapping[str, Any], seed: int = 0) -> str:
        """Save an artifact of random vectors, and return its name."""
        folder = self.folder / name
        if (folder / "softprompt.json").exists():
            return name
        recipe = recipe_from_dict(
            {
                "model": self.lm.name,
                "data": {"train": "rows in memory"},
                "method": {"name": method, **options},
                "output": str(folder),
            }
        )
        built = methods.build(method, Setting(self.lm, seed=seed), options)
        _stir(built, seed)
        base = {"name": self.lm.name, "mode": "frozen", "options": {}, "fingerprint": fingerprint(self.lm)}
        manifest = {
            "method": method,
            "options": {k: p.default for k, p in methods.find(method).options().items()} | dict(options),
            "prompts": ["default"],
            "labels": None,
            "base": base,
            "recipe": recipe.to_dict(),
            "data": {"fingerprint": "", "rows": 0, "dev_rows": 0},
            "trained_parameters": 0,
            "dev": {"metrics": {}, "intervals": {}, "rows": {}, "n": 0},
            "versions": {"softprompt": "0"},
            "created": "",
            "command": "python -m benchmarks.serving",
        }
        with torch.no_grad():
            artifacts.save(folder, built, self.lm, manifest)
        return name

    @contextlib.contextmanager
    def engine(self, **options: Any) -> Iterator[Engine]:
        """Run an engine on the prompts."""
        engine = Engine(self.lm, Registry(self.folder, self.lm), **options)
        engine.start()
        try:
            yield engine
        finally:
            engine.stop()


def _stir(method: SoftPrompt, seed: int) -> None:
    """Fill layers that start at zero with random numbers, so that the vectors depend on the input."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in method.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02, generator=generator)


def request(prompt: str | None, ids: Sequence[int], tokens: int) -> Request:
    """Request exactly `tokens` tokens, the likeliest."""
    return Request(prompt, tuple(ids), Sampling(max_tokens=tokens, ignore_eos=True))


def answers(engine: Engine, requests: Sequence[Request]) -> list[list[int]]:
    """Submit all requests at once and return the tokens of each. Raises RuntimeError if one failed."""
    streams = [engine.submit(each) for each in requests]
    results = []
    for answer in streams:
        items = list(answer)
        end = items[-1]
        if not isinstance(end, Finished) or end.error is not None:
            raise RuntimeError(f"not answered: {end}")
        results.append([item.id for item in items if isinstance(item, Token)])
    return results


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Return the median of the turns' ratios."""
    return median(a / b for a, b in zip(of, to, strict=True))
