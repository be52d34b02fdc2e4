"""Checks the shapes in annotations at every call. `conftest.py` imports this before any of these modules."""

from __future__ import annotations

from jaxtyping import install_import_hook

install_import_hook(["softprompt.injection", "softprompt.methods"], "beartype.beartype")
