"""Packages and names that have moved are still found under their old names, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, cast

ROOT = "softprompt"


class MovedPackages:
    """Finds `softprompt.OLD` and its modules at their new place; both names give the same module object."""

    def __init__(self, moved: Mapping[str, str]) -> None:
        """Take the new name of each moved package by its old one, both relative to `softprompt`."""
        self._moved = moved

    def install(self) -> None:
        """Ask here before the file system, which would load the modules of a moved package a second time."""
        sys.meta_path.insert(0, self)

    def load(self, old: str, stacklevel: int) -> ModuleType:
        """Import the module that had the full name `old`. The first import of a package warns."""
        new = self._new(old)
        if old.count(".") == 1:  # its modules come after the package, which has warned
            warnings.warn(f"{old} is {new} now", DeprecationWarning, stacklevel=stacklevel + 1)
        module = import_module(new)
        # Modules that it has loaded too: to import one later would put it over a function of the same name.
        for name in [name for name in sys.modules if name == new or name.startswith(f"{new}.")]:
            sys.modules.setdefault(old + name.removeprefix(new), sys.modules[name])
        sys.modules[old] = module  # in the place of the empty module, see `exec_module`
        return module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer Python's import system; None for what is not in a moved package."""
        if not (new := self._new(fullname)) or (spec := find_spec(new)) is None:
            return None
        is_package = spec.submodule_search_locations is not None
        return ModuleSpec(fullname, cast("Any", self), origin=spec.origin, is_package=is_package)

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create an empty module, which `exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        """Replace the empty module in `sys.modules`, from where Python takes the result of an import."""
        self.load(module.__name__, stacklevel=2)

    def _new(self, old: str) -> str:
        root, _, rest = old.partition(".")
        package, dot, module = rest.partition(".")
        moved = self._moved.get(package) if root == ROOT else None
        return f"{ROOT}.{moved}{dot}{module}" if moved else ""


def renamed(package: str, names: Mapping[str, str], name: str) -> Any:
    """Return what `package` exported as `name`; `names` maps it to "module.new name". The first use warns.

    Raises AttributeError for another name.
    """
    if name not in names:
        raise AttributeError(f"module '{package}' has no attribute '{name}'")
    module, new = names[name].split(".")
    warnings.warn(f"{package}.{name} is {package}.{module}.{new} now", DeprecationWarning, stacklevel=3)
    value = getattr(import_module(f"{package}.{module}"), new)
    setattr(sys.modules[package], name, value)  # `from package import name` looks for it twice
    return value
