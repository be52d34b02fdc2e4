"""The names of all methods' options, of which most are known without importing another package."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import final

from ..config.schema import SECTIONS, Recipe
from .method import AMBIGUOUS, Method


@final
class OptionNames(Collection[str]):
    """Holds the options of the methods that `methods()` goes through, each time anew.

    The registry goes through the library's methods first, and imports a package when it is reached. So no
    package is imported for a name that is a setting of a recipe, which is no option of another package
    (`method_of` refuses it), nor for an option of the library.
    """

    def __init__(self, methods: Callable[[], Iterable[Method]]) -> None:
        self._methods = methods  # no mapping: asking for its length would import all packages

    def __contains__(self, name: object) -> bool:
        if name in Recipe.model_fields or any(name in section.model_fields for section in SECTIONS.values()):
            return name in AMBIGUOUS
        return any(name == option for option in self)

    def __iter__(self) -> Iterator[str]:
        seen: set[str] = set()
        for method in self._methods():
            new = [option for option in method.options() if option not in seen]
            seen.update(new)
            yield from new

    def __len__(self) -> int:
        return sum(1 for _ in self)
