"""Checks the shapes in annotations at every call. `conftest.py` imports this before any of these modules."""

from __future__ import annotations

from jaxtyping import install_import_hook

LM = [f"softprompt.lm.{name}" for name in ("base", "capture", "context", "rotary")]

install_import_hook(["softprompt.injection", "softprompt.methods", *LM], "beartype.beartype")
