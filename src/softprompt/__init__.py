"""Tune a frozen language model with learned vectors instead of changing its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._system.moved import MovedPackages
from .errors import SoftPromptError

if TYPE_CHECKING:
    from .api import average, compare_methods, concatenate, distill, scale, search, tune
    from .artifacts.hub.upload import push
    from .harness.sentence_module import SentenceModule as SentenceModule
    from .lm.heads import Head
    from .lm.loading import load
    from .methods.typed_options import (
        GeneratedPrefix,
        GeneratedPrompt,
        LlamaAdapter,
        MultitaskPromptTuning,
        PrefixTuning,
        PromptTuning,
        PTuning,
        ResidualPromptTuning,
    )
    from .model import PromptCollator, SoftPromptModel, attach
    from .model.trl_trainers import DPOTrainer as DPOTrainer
    from .model.trl_trainers import GRPOTrainer as GRPOTrainer
    from .model.trl_trainers import KTOTrainer as KTOTrainer
    from .tuned import Tuned, open_prompt

    __version__: str

__all__ = [
    "GeneratedPrefix",
    "GeneratedPrompt",
    "Head",
    "LlamaAdapter",
    "MultitaskPromptTuning",
    "PTuning",
    "PrefixTuning",
    "PromptCollator",
    "PromptTuning",
    "ResidualPromptTuning",
    "SoftPromptError",
    "SoftPromptModel",
    "Tuned",
    "__version__",
    "attach",
    "average",
    "compare_methods",
    "concatenate",
    "distill",
    "load",
    "open_prompt",
    "push",
    "scale",
    "search",
    "tune",
]

_HOMES = {
    "load": "lm.loading",
    "Head": "lm.heads",
    "push": "artifacts.hub.upload",
    **dict.fromkeys(("Tuned", "average", "compare_methods", "concatenate", "open_prompt"), "api"),
    **dict.fromkeys(("distill", "scale", "search", "tune"), "api"),
    **dict.fromkeys(("PromptCollator", "SoftPromptModel", "attach"), "model"),
    # not in __all__: they need TRL, and `import *` would too
    **dict.fromkeys(("DPOTrainer", "GRPOTrainer", "KTOTrainer"), "model.trl_trainers"),
    "SentenceModule": "harness.sentence_module",  # likewise: it needs sentence-transformers
    **dict.fromkeys(
        ("GeneratedPrefix", "GeneratedPrompt", "LlamaAdapter", "MultitaskPromptTuning"),
        "methods.typed_options",
    ),
    **dict.fromkeys(
        ("PTuning", "PrefixTuning", "PromptTuning", "ResidualPromptTuning"), "methods.typed_options"
    ),
}


#: Packages that have moved. Their old names work for one more version, with a warning.
_MOVED = {
    "report": "compare.report",
    "findings": "evaluation.diagnostics",
    "choose": "recommend",
    "interop": "artifacts.interop",
}
_moved_packages = MovedPackages(_MOVED)
_moved_packages.install()


def __getattr__(name: str) -> Any:
    """Import heavy parts at their first use, so that `import softprompt` and `--help` answer at once."""
    if name in _HOMES:
        import importlib

        from ._system.gc import rare_collection

        with rare_collection():
            return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name == "__version__":  # asks git in a source tree
        from ._system.version import version

        return version()
    if name in _MOVED:
        globals()[name] = module = _moved_packages.load(f"{__name__}.{name}", stacklevel=2)
        return module
    raise AttributeError(f"module 'softprompt' has no attribute '{name}'")
