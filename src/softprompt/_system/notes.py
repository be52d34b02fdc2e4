"""Notes tell the user something that is no error: one line each, and each once.

A note goes to the follower of the work (`progress`), else to Python's logger `softprompt._system.notes`.
"""

from __future__ import annotations

import logging
import multiprocessing

from ..errors import WORDING
from .progress import follower, say

logger = logging.getLogger("softprompt._system.notes")
_shown: set[str] = set()


def note(text: str) -> None:
    """Show a note once in this process; a comparison's workers leave notes to their parent."""
    if text in _shown or multiprocessing.parent_process() is not None:
        return
    _shown.add(text)
    if follower() is not None:
        say(f"note: {text}")
    else:
        logger.warning("note: %s", WORDING.get()(text))
