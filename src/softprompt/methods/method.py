"""An entry of the registry of methods, and how one is read from the object of an entry point.

The object is a `Method`, a subclass of `SoftPrompt`, or a module. A class or a module has `build`, `lr` and,
if it likes, `summary` and `soft_tokens`: the fields of `Method` under the same names.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..config.schema import SECTIONS, Recipe
from ..errors import SoftPromptError
from .base import Placement, SoftPrompt
from .init import Init, PrefixInit

#: Names that a comparison has for the base's own training and for its references.
RESERVED = ("lora", "full", "zero-shot", "few-shot", "tf-idf")
#: Settings that a method of the library has too, so that the command line asks for `method.rank` already.
AMBIGUOUS = ("rank",)
SKELETON = (
    "write `lr = 1e-2` and `def build(setting, *, length: int = 16): return MyMethod(…)` (docs/own-method.md)"
)


@dataclass(frozen=True, slots=True)
class Method:
    """An entry says how to build a method, at which learning rate (AdamW) it learns well, and what it is.

    `soft_tokens` takes the options, defaults included, and returns how many positions of the input's sequence
    the vectors take (or the three numbers of `methods.soft_tokens`). It is needed only by a method of soft
    tokens whose number is not `length`. `module` is the class of the modules that it builds.
    """

    build: Callable[..., SoftPrompt]
    lr: float
    summary: str
    soft_tokens: Callable[[Mapping[str, Any]], int | tuple[int, int, int]] | None = None
    module: type[SoftPrompt] | None = None

    def options(self) -> dict[str, inspect.Parameter]:
        """Return the options by name, with defaults."""
        parameters = inspect.signature(self.build).parameters
        return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def hints(self) -> dict[str, Any]:
        """Return the types of the options by name, and under "return" that of the modules."""
        names = {self.module.__name__: self.module} if self.module else None
        return typing.get_type_hints(self.build, localns=names)

    def makes(self) -> Any:
        """Return the class of the modules that it builds; None where the code does not say it."""
        return self.module or self.hints().get("return")

    @property
    def is_soft(self) -> bool:
        """Return True where it makes soft tokens, which take positions in the sequence."""
        return self.hints().get("placement") == Placement

    @property
    def has_init(self) -> bool:
        """Return True where its initial vectors are chosen among those of `methods.init`."""
        return self.hints().get("init") in (Init, PrefixInit)


def method_of(name: str, target: Any) -> Method:
    """Make an entry of the object that an entry point names.

    Raises SoftPromptError where it has another form, or an option that cannot be one.
    """
    method = target if isinstance(target, Method) else _described(target)
    if name in RESERVED:
        raise SoftPromptError(
            f"the name '{name}' is reserved", why="comparisons give it another meaning", fix="rename it"
        )
    try:
        hints, options = method.hints(), method.options()
    except (NameError, TypeError, ValueError) as error:
        raise SoftPromptError(f"the types of its `build` cannot be read: {error}", fix=SKELETON) from error
    taken = {key: section for section, model in SECTIONS.items() for key in model.model_fields}
    taken |= dict.fromkeys(Recipe.model_fields, "recipe")
    taken = {key: section for key, section in taken.items() if key not in AMBIGUOUS}
    for option, parameter in options.items():
        if parameter.default is inspect.Parameter.empty or option not in hints:
            lacks = "default" if option in hints else "type"
            raise SoftPromptError(f"option '{option}' of its `build` has no {lacks}", fix=SKELETON)
        if option in taken:
            raise SoftPromptError(
                f"option '{option}' of its `build` has the name of a setting (of the {taken[option]})",
                why=f"`{option}=…` on the command line would then mean two things",
                fix="give the option another name",
            )
    if method.is_soft and "length" not in options and method.soft_tokens is None:
        raise SoftPromptError(
            "it makes soft tokens and says nowhere how many",
            why="they take positions, which are counted before the method is built",
            fix="give `build` an option `length`, or the method a function `soft_tokens(options) -> int`",
        )
    return method


def _described(target: Any) -> Method:
    """Read a class or a module that has the fields of a `Method`."""
    is_class = isinstance(target, type) and issubclass(target, SoftPrompt)
    if not is_class and not inspect.ismodule(target):
        kind = f"the class {target.__name__}" if isinstance(target, type) else f"a {type(target).__name__}"
        raise SoftPromptError(
            f"a method is a subclass of SoftPrompt, a module or a Method, not {kind}", fix=SKELETON
        )
    module: Any = target if is_class else None
    build: Any = getattr(target, "build", None)
    lr = getattr(target, "lr", None)
    if not callable(build) or not isinstance(lr, (int, float)) or isinstance(lr, bool) or lr < 0:
        lacks = "`build`" if not callable(build) else "`lr`, the learning rate at which it learns well"
        raise SoftPromptError(f"it has no {lacks}", fix=SKELETON)
    first = (inspect.getdoc(target) or target.__name__).strip().splitlines()[0].rstrip(".")
    summary = str(getattr(target, "summary", "") or first)
    fields: Any = target
    return Method(fields.build, float(lr), summary, getattr(target, "soft_tokens", None), module)
