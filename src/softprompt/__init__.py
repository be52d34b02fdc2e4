"""softprompt: tune a frozen language model with learned vectors instead of changing its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import SoftPromptError

if TYPE_CHECKING:
    from .api import Tuned, open_prompt, tune
    from .lm.heads import Head
    from .lm.loading import load

__version__ = "0.1.0"
__all__ = ["Head", "SoftPromptError", "Tuned", "__version__", "load", "open_prompt", "tune"]

_HOMES = {"load": "lm.loading", "Head": "lm.heads", "tune": "api", "open_prompt": "api", "Tuned": "api"}


def __getattr__(name: str) -> Any:
    """Heavy parts are imported when first used, so that `import softprompt` and `--help` answer at once."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'softprompt' has no attribute '{name}'")
