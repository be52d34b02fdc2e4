"""What the report and the playground share: the base style sheet, and hashes for their security policies."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources


def content_hash(text: str) -> str:
    """SHA-256 as a content security policy names a script or a style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def base_style() -> str:
    """Colours, type and the frame of every page."""
    return (resources.files("softprompt._system") / "base.css").read_text(encoding="utf-8")
