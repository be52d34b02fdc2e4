"""Access tokens are left out of what is written: commands in manifests, and overrides that errors quote."""

from __future__ import annotations

import re

#: The value of a key that ends in `token`, in a setting (`model.token=…`) or a mapping (`{token: …}`).
_VALUE = re.compile(r"""(\btoken\b["']?\s*[=:]\s*)(?!\$)[^\s,}\]]+""", re.IGNORECASE)
#: A token of the hub, whatever is around it.
_HUB = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


def without_secrets(text: str) -> str:
    """Return the text with `…` in place of each access token."""
    return _HUB.sub("…", _VALUE.sub(r"\1…", text))
