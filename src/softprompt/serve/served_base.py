"""One base serves prompts that answer in text, and prompts that answer by a head of their own."""

from __future__ import annotations

import threading
from typing import Any, final

from ..errors import SoftPromptError
from ..lm.causal import CausalLM
from ..lm.loading import fingerprint
from ..lm.shared_head import SharedHeads

OTHER_BASE = "it was made for another base"


@final
class ServedBase:
    """Holds a base and its fingerprints, without a head and with one. Any thread may call this."""

    def __init__(self, lm: Any) -> None:
        self.lm = lm
        self._heads = SharedHeads(lm) if isinstance(lm, CausalLM) else None
        self._fingerprints: dict[int, dict[str, str] | SoftPromptError] = {0: fingerprint(lm)}
        self._lock = threading.Lock()

    def fingerprint(self, head: int = 0) -> dict[str, str]:
        """Return the fingerprint of the base under a head of so many outputs (0: none), without the head.

        Raises SoftPromptError where the base cannot have one.
        """
        with self._lock:
            if head not in self._fingerprints:
                try:
                    self._fingerprints[head] = fingerprint(self._with_head(head))
                except SoftPromptError as error:
                    self._fingerprints[head] = SoftPromptError(error.what, error.why, error.fix)
            result = self._fingerprints[head]
        if isinstance(result, SoftPromptError):
            raise result
        return result

    def model(self, head: int = 0) -> Any:
        """Return the base; under a head of so many outputs, whose weights are still to be loaded, if not 0.

        Raises SoftPromptError where the base cannot have one.
        """
        with self._lock:
            return self._with_head(head) if head else self.lm

    def problem(self, head: int, weights: str | None) -> str | None:
        """Return why a prompt with such a head, made for a base of these weights, cannot be served."""
        try:
            mine = self.fingerprint(head)["weights"]
        except SoftPromptError as error:
            return f"{error.what}: {error.why}"
        return None if weights in (None, mine) else OTHER_BASE

    def _with_head(self, size: int) -> CausalLM:
        if self._heads is None:
            raise SoftPromptError(f"'{self.lm.name}' has no head", why="it is no decoder-only model")
        return self._heads.make(size)
