"""What a person should know of a run that is no error: one line each, once.

A note goes to whoever follows the work (`progress`); else to Python's logger `softprompt._system.notes`.
"""

from __future__ import annotations

import logging
import multiprocessing

from ..errors import WORDING
from .progress import follower, say

logger = logging.getLogger("softprompt._system.notes")
_said: set[str] = set()


def note(text: str) -> None:
    """Say it, unless this process has said it before; a comparison's workers leave it to their parent."""
    if text in _said or multiprocessing.parent_process() is not None:
        return
    _said.add(text)
    if follower() is not None:
        say(f"note: {text}")
    else:
        logger.warning("note: %s", WORDING.get()(text))
