"""The application is created from a folder of compiled prompts and vLLM's address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...artifacts.interop.kv_cache.folder import Folder
from ...data.tokens import vocabulary_fingerprint
from ...errors import SoftPromptError
from ..http import create_app
from ..http.limits import Limits
from .client import Vllm
from .engine import VllmEngine
from .faults import named
from .registry import CompiledRegistry


def create_gateway(
    folder: Path, url: str, tokenizer: Any, *, model: str, name: str, key: str | None = None, **options: Any
) -> Any:
    """Create the application for the compiled prompts of `folder`, with vLLM at `url` (`key` is vLLM's).

    `tokenizer` is that of the base `model`, which clients call `name`. `options` are those of `create_app`.
    Raises SoftPromptError where vLLM, folder and tokenizer do not fit together.
    """
    if vocabulary_fingerprint(tokenizer) != Folder(folder).base().fingerprint["tokenizer"]:
        raise SoftPromptError(
            f"the tokenizer of '{model}' is not that of the compiled prompts",
            why="inputs would become other tokens than in training",
            fix="give --model, the base that they were compiled for",
        )
    vllm = Vllm(url, key)
    served = vllm.models()[0]
    context = served.get("max_model_len")
    if not isinstance(context, int):
        raise SoftPromptError(
            f"{named(vllm.url, served['id'])} does not say how long its context is",
            why="its list of models has no max_model_len",
            fix="give --vllm-url the address of vLLM itself, or of a balancer that forwards its answers",
        )
    registry = CompiledRegistry(folder, tokenizer, context)
    limits = options.get("limits") or Limits()
    engine = VllmEngine(vllm, registry, served["id"], tokenizer, limits.requests)
    _check_name(registry, name)
    return create_app(engine, registry, model_name=name, tokenizer=tokenizer, context=context, **options)


def _check_name(registry: CompiledRegistry, called: str) -> None:
    """Raise SoftPromptError where a prompt has the base's name, as earlier versions compiled it."""
    folder = registry.folder
    names = (
        [called] if folder.holds(called) else [f"{called}:{prompt}" for prompt in folder.prompts_of(called)]
    )
    if names:
        files = ", ".join(str(folder.name_file(name)) for name in names)
        raise SoftPromptError(
            f"'{called}' is the base model's name and a prompt's",
            why="a request names its prompt, or the base, by the name alone",
            fix=f"remove {files}; rename the prompt's folder, and compile it again",
        )
