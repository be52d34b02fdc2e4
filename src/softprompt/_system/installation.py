"""The metadata of packages tell what is installed of the library's dependencies and extras.

No package is imported here. `packaging` comes with transformers and with huggingface-hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

NAME = "softprompt"
TESTS = ("dev", "docs")  # extras for people who work on the library


@dataclass(frozen=True, slots=True)
class Need:
    """A package that the library, or one of its extras, needs, and what is installed of it."""

    name: str
    wanted: str  # the range of versions; empty: any
    installed: str | None
    fits: bool

    def __str__(self) -> str:
        if self.installed is None:
            return f"{self.name} is not installed"
        return f"{self.name} {self.installed}" + ("" if self.fits else f" is not {self.wanted}")


@dataclass(frozen=True, slots=True)
class Extra:
    """An optional part of the library, and the packages that it needs here."""

    name: str
    needs: tuple[Need, ...]

    @property
    def missing(self) -> list[Need]:
        """The packages that are absent, or of a version outside the range."""
        return [need for need in self.needs if not need.fits]

    @property
    def command(self) -> str:
        """The command that installs it."""
        return f"pip install '{NAME}[{self.name}]'"


def dependencies() -> list[Need]:
    """List what the library needs in any case. Empty where its own metadata is missing (a source tree)."""
    return list(_needs(""))


def extras() -> list[Extra]:
    """List the extras, in the order of pyproject.toml, but for those of the library's own development."""
    described = _metadata()
    names = [] if described is None else described.get_all("Provides-Extra") or []
    listed = [Extra(name, tuple(_needs(name))) for name in names if name not in TESTS]
    return [extra for extra in listed if extra.needs]  # none where its packages need another Python


def _metadata() -> metadata.PackageMetadata | None:
    try:
        return metadata.metadata(NAME)
    except metadata.PackageNotFoundError:
        return None


def _needs(extra: str) -> Iterator[Need]:
    from packaging.requirements import Requirement

    for line in _metadata_requires():
        requirement = Requirement(line)
        marker = requirement.marker
        if extra:
            belongs = (
                marker is not None
                and marker.evaluate({"extra": extra})
                and not marker.evaluate({"extra": ""})
            )
        else:
            belongs = marker is None or marker.evaluate({"extra": ""})
        if belongs:
            yield _need(requirement.name, requirement.specifier)


def _metadata_requires() -> list[str]:
    try:
        return metadata.requires(NAME) or []
    except metadata.PackageNotFoundError:
        return []


def _need(name: str, specifier: object) -> Need:
    wanted = str(specifier)
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Need(name, wanted, None, False)
    return Need(name, wanted, installed, specifier.contains(installed, prereleases=True))  # type: ignore[attr-defined]
