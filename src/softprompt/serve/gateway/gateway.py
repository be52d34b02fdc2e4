"""The API over vLLM: a folder of compiled prompts and an address become an application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...artifacts.interop.kv_cache.folder import Folder
from ...errors import SoftPromptError
from ...lm.loading import load_tokenizer, vocabulary_fingerprint
from .. import bases
from ..http import create_app
from ..http.limits import Limits
from .client import Vllm
from .engine import VllmEngine
from .faults import named
from .registry import CompiledRegistry


def create_gateway(
    folder: Path,
    url: str,
    *,
    key: str | None = None,
    model: str | None = None,
    name: str | None = None,
    **options: Any,
) -> Any:
    """The application for the compiled prompts of `folder`, answered by vLLM at `url` (`key`: its own).

    `model`: where the base's tokenizer is, if not where it was compiled from. `name`: what clients call the
    base. `options` are `create_app`'s. Raises SoftPromptError where vLLM, folder and tokenizer do not fit.
    """
    base = Folder(folder).base()
    tokenizer = load_tokenizer(model or base.name)
    if vocabulary_fingerprint(tokenizer) != base.fingerprint["tokenizer"]:
        raise SoftPromptError(
            f"the tokenizer of '{model or base.name}' is not that of the compiled prompts",
            why="inputs would become other tokens than those that they were trained on",
            fix="give --model, the base that they were compiled for",
        )
    vllm = Vllm(url, key)
    served = vllm.models()[0]
    context = served.get("max_model_len")
    if not isinstance(context, int):
        raise SoftPromptError(
            f"{named(vllm.url, served['id'])} does not say how long its context is",
            why="its list of models has no max_model_len",
            fix="give --vllm-url the address of vLLM itself, or of a balancer that passes its answers on",
        )
    registry = CompiledRegistry(folder, tokenizer, context)
    limits = options.get("limits") or Limits()
    engine = VllmEngine(vllm, registry, served["id"], tokenizer, limits.requests)
    called = name or bases.called(model or base.name)
    _check_name(registry, called)
    return create_app(engine, registry, model_name=called, tokenizer=tokenizer, context=context, **options)


def _check_name(registry: CompiledRegistry, called: str) -> None:
    """Raises SoftPromptError where a prompt was compiled under the base's name, before that was refused."""
    folder = registry.folder
    names = [called] if folder.holds(called) else [f"{called}:{one}" for one in folder.prompts_of(called)]
    if names:
        files = ", ".join(str(folder.name_file(name)) for name in names)
        raise SoftPromptError(
            f"'{called}' is the base model's name and a prompt's",
            why="a request names its prompt, or the base, by the name alone",
            fix=f"remove {files}; rename the prompt's folder, and compile it again",
        )
