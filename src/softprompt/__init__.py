"""softprompt: tune a frozen language model with learned vectors instead of changing its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import SoftPromptError

if TYPE_CHECKING:
    from .api import Tuned, average, compare_methods, concatenate, open_prompt, scale, search, tune
    from .lm.heads import Head
    from .lm.loading import load

__version__ = "0.1.0"
__all__ = [
    "Head",
    "SoftPromptError",
    "Tuned",
    "__version__",
    "average",
    "compare_methods",
    "concatenate",
    "load",
    "open_prompt",
    "scale",
    "search",
    "tune",
]

_HOMES = {
    "load": "lm.loading",
    "Head": "lm.heads",
    **dict.fromkeys(("Tuned", "average", "compare_methods", "concatenate", "open_prompt"), "api"),
    **dict.fromkeys(("scale", "search", "tune"), "api"),
}


def __getattr__(name: str) -> Any:
    """Heavy parts are imported when first used, so that `import softprompt` and `--help` answer at once."""
    if name in _HOMES:
        import importlib

        from .collector import rare_collection

        with rare_collection():
            return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'softprompt' has no attribute '{name}'")
