"""Workers of a comparison import packages, and see nothing that a notebook registered."""

from __future__ import annotations

from collections.abc import Sequence

from ... import methods
from ...config.schema import Recipe
from ...errors import SoftPromptError
from ...evaluation.metrics import METRICS
from ..candidates import Candidate
from ..measures.constraints import CONSTRAINTS


def check_importable(recipe: Recipe, candidates: Sequence[Candidate]) -> None:
    """Raise SoftPromptError for a method, metric or constraint that was registered in this process only."""
    used = [(methods.METHODS, candidate.recipe.method.name) for candidate in candidates]
    used += [(METRICS, name) for name in recipe.task.metrics or ()]
    used += [(CONSTRAINTS, name) for name in recipe.compare.constraint or ()]
    for registry, name in used:
        origin = registry.origin(name)
        if origin is not None and not origin.distribution:
            raise SoftPromptError(
                f"the {registry.kind} '{name}' cannot be compared in other processes",
                why=f"{origin.target} was registered in this process, and workers start without it",
                fix=f"make it a package with an entry point `{registry.group}` (docs/own-method.md)",
            )
