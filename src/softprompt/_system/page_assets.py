"""The report and the playground share a style sheet, and hashes for their security policies."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources


def content_hash(text: str) -> str:
    """Return the SHA-256 by which a content security policy names a script or a style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def base_style() -> str:
    """Return the style sheet of every page: colours, type and frame."""
    return (resources.files("softprompt._system") / "base.css").read_text(encoding="utf-8")
