"""Access tokens and passwords are left out of what is written: commands, errors, tracked runs."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager

from .environment import variable

#: The value of a key that ends in `token`, in a setting (`model.token=…`) or a mapping (`{token: …}`).
_VALUE = re.compile(r"""(\btoken\b["']?\s*[=:]\s*)(?!\$)[^\s,}\]]+""", re.IGNORECASE)
#: A token of the hub, whatever is around it.
_HUB = re.compile(r"\bhf_[A-Za-z0-9]{8,}")

#: The part of an address that holds a name and a password, and the values of its query that hold a key.
_USER = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"([?&][\w.-]*(?:key|secret|password|signature)=)[^&\s]+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Return the text with `…` in place of each access token, and addresses without their passwords."""
    text = _QUERY.sub(r"\1…", _USER.sub("", text))
    return _HUB.sub("…", _VALUE.sub(r"\1…", text))


def hub_token(token: str | None) -> AbstractContextManager[None]:
    """Give the hub's token to processes that start inside, by their environment; None changes nothing."""
    return variable("HF_TOKEN", token)
