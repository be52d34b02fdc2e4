"""Registries that other packages extend, by entry points of a group: methods, metrics, constraints.

A registry is a mapping from names to entries. Entry points are looked up at the first use and a package is
imported when its name is asked for, or when a list of the registry reaches it. A package that cannot be
imported, or whose name another one has, is an error for its own name only: the mapping leaves it out, and
`broken` gives the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Generic, TypeVar, final

from ..errors import SoftPromptError

T = TypeVar("T")
LIBRARY = "softprompt"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NAME_RULE = "a name is made of letters, digits, '-', '_' and '.', and begins with a letter or a digit"


@dataclass(frozen=True, slots=True)
class Origin:
    """The distribution that an entry comes from, its version, and the object that its entry point names.

    The distribution is empty for an entry that was registered in this process.
    """

    distribution: str
    version: str
    target: str  # module:object

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip() or f"{self.target}, registered in this process"


@final
class Registry(MutableMapping[str, T], Generic[T]):
    """The library's entries, those of installed packages, and those that were registered in this process.

    `read(name, target)` makes an entry of the object that an entry point names. It raises SoftPromptError
    where that object has another form.
    """

    def __init__(
        self, kind: str, group: str, library: Mapping[str, T], read: Callable[[str, Any], T]
    ) -> None:
        self.kind, self.group, self._read = kind, group, read
        self._library = dict(library)
        self._registered: dict[str, T] = {}
        self._origins: dict[str, Origin] = {}
        self._points: dict[str, list[metadata.EntryPoint]] | None = None
        self._loaded: dict[str, T | SoftPromptError] = {}

    def __getitem__(self, name: str) -> T:
        """Return the entry. Raises SoftPromptError for one that is broken, KeyError for an unknown name."""
        if name in self._registered:
            return self._registered[name]
        if name in self._installed():
            entry = self._installed_entry(name)
            if isinstance(entry, SoftPromptError):
                raise SoftPromptError(entry.what, entry.why, entry.fix) from entry.__cause__
            return entry
        return self._library[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether the name is known. Its package is not imported, and may turn out to be broken."""
        return name in self._registered or name in self._library or name in self._installed()

    def __iter__(self) -> Iterator[str]:
        """Go through the names of entries that can be used: the library's first, and then in order of names.

        A package is imported when its name is reached.
        """
        for name in dict.fromkeys([*self._library, *sorted(self._installed()), *self._registered]):
            is_installed = name in self._installed() and name not in self._registered
            if not is_installed or not isinstance(self._installed_entry(name), SoftPromptError):
                yield name

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __setitem__(self, name: str, entry: T) -> None:
        self._registered[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._registered[name]
        self._origins.pop(name, None)

    def register(self, name: str, target: Any) -> T:
        """Add an entry for this process only. Raises SoftPromptError where the name is taken."""
        if name in self._library or name in self._installed():
            owner = self.origin(name) or LIBRARY
            raise SoftPromptError(
                f"{self.kind} '{name}' exists already",
                why=f"it is a {self.kind} of {owner}",
                fix="use another name",
            )
        if not NAME.fullmatch(name):
            raise SoftPromptError(f"{self.kind} '{name}' cannot be registered", NAME_RULE, "use another name")
        entry = self._read(name, target)
        self._registered[name] = entry
        module, label = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
        self._origins[name] = Origin("", "", f"{module or '__main__'}:{label or type(target).__name__}")
        return entry

    def origin(self, name: str) -> Origin | None:
        """Return where an entry comes from; None for the library's own, and for an unknown name."""
        if name in self._registered:
            return self._origins.get(name, Origin("", "", name))
        points = self._installed().get(name)
        return _origin(points[0]) if points else None

    def refresh(self) -> None:
        """Look installed packages up again, for one that was installed while this process runs."""
        self._points = None
        self._loaded.clear()

    def broken(self) -> dict[str, SoftPromptError]:
        """Return the entries of installed packages that cannot be used, each with its error."""
        entries = {name: self._installed_entry(name) for name in sorted(self._installed())}
        return {name: entry for name, entry in entries.items() if isinstance(entry, SoftPromptError)}

    def _installed(self) -> dict[str, list[metadata.EntryPoint]]:
        if self._points is None:
            points: dict[str, list[metadata.EntryPoint]] = {}
            for point in metadata.entry_points(group=self.group):
                points.setdefault(point.name, []).append(point)
            self._points = points
        return self._points

    def _installed_entry(self, name: str) -> T | SoftPromptError:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> T | SoftPromptError:
        points = self._installed()[name]
        if name in self._library or len(points) > 1:
            return self._taken(name, points)
        (point,) = points
        owner = _origin(point)
        title = f"{self.kind} '{name}' of {owner} cannot be used"
        if not NAME.fullmatch(name):
            return SoftPromptError(
                title, why=NAME_RULE, fix=f"rename it in the entry points of {owner.distribution}"
            )
        try:
            target = point.load()
        except (Exception, SystemExit) as error:  # importing another package may fail in any way
            line = (str(error).strip().splitlines() or [""])[0]
            broken = SoftPromptError(
                title,
                why=f"importing {point.value} failed: {type(error).__name__}: {line}".rstrip(": "),
                fix=f"repair or update that package, or remove it: pip uninstall {owner.distribution}",
            )
            broken.__cause__ = error
            return broken
        try:
            return self._read(name, target)
        except SoftPromptError as error:
            return SoftPromptError(title, why=f"{point.value}: {error.what}", fix=error.fix)

    def _taken(self, name: str, points: list[metadata.EntryPoint]) -> SoftPromptError:
        owners = sorted({str(_origin(point)) for point in points})
        names = sorted({_origin(point).distribution for point in points})
        if name in self._library:
            owners.insert(0, f"{LIBRARY} itself")
        elif len(owners) == 1:
            owners = [f"{owners[0]} (twice)"]
        return SoftPromptError(
            f"{self.kind} '{name}' is in more than one package: {' and '.join(owners)}",
            why=f"each registers it in the entry points `{self.group}`, and it is not known which is meant",
            fix=f"pip uninstall {names[0]}"
            if name in self._library
            else f"remove one: pip uninstall {names[-1]}",
        )


def _origin(point: metadata.EntryPoint) -> Origin:
    if point.dist is None:
        return Origin("an unnamed distribution", "", point.value)
    return Origin(point.dist.name, point.dist.version, point.value)
