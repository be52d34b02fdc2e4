"""An average of a run's parameters over its last steps is scored and saved in place of the last values.

    a ← a + (θ − a) / min(t, M),    M = max(1, average × steps)

θ are the parameters after step t. Up to step M the average is the mean of all steps; then older steps fade
(Polyak & Juditsky 1992; as an exponential mean with a memory of M steps). Training itself is not changed, so
one that is trained with and without takes the same steps. This file knows no models and no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .learner import Optimization


@final
class Average:
    """Holds the average of named parameters, `values`; before the first step it is where they start."""

    def __init__(self, parameters: Mapping[str, Tensor], optimization: Optimization) -> None:
        self.values = {name: p.detach().clone() for name, p in parameters.items()}
        self._memory = max(1.0, optimization.average * optimization.steps)

    @torch.no_grad()
    def add(self, parameters: Mapping[str, Tensor], step: int) -> None:
        """Count the parameters as they are after `step` steps."""
        for name, value in self.values.items():
            value.lerp_(parameters[name].detach(), 1 / min(float(step), self._memory))

    @contextmanager
    @torch.no_grad()
    def in_place_of(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """Let the parameters hold the average inside the block, and their own values afterwards."""
        present = {name: p.detach().clone() for name, p in parameters.items()}
        _copy(self.values, parameters)
        try:
            yield
        finally:
            _copy(present, parameters)


def _copy(values: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
