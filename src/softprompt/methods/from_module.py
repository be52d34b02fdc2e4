"""A module that the user has built is taken where a method is named.

A class that the registry knows keeps its name, with the options that the module has as attributes. Any other
class gets an entry for this process, which copies the module; its name ends in a hash of the module's values,
so that two modules of a class are two methods.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from .. import methods
from ..errors import SoftPromptError
from ..injection import Injection
from .base import Setting, SoftPrompt
from .materialised import fits, materialise
from .method import Method
from .typed_options import MethodOptions

SUMMARY = "a module of the user's own"
LEARNING_RATE = 1e-2  # of a class that has no `lr`


def options_of(module: SoftPrompt) -> MethodOptions:
    """Return the method and the options under which a module is trained and saved.

    Raises SoftPromptError for a module that has nothing to train.
    """
    kind = type(module)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise SoftPromptError(
            f"{kind.__name__} has nothing to train",
            why="none of its parameters has requires_grad",
            fix="hold its vectors as torch.nn.Parameter",
        )
    name = methods.name_of(kind)
    if name is None or methods.find(name).summary == SUMMARY:
        return methods.options(_registered(module))
    attributes = {option: getattr(module, option, None) for option in methods.find(name).options()}
    plain = {key: value for key, value in attributes.items() if isinstance(value, (bool, int, float, str))}
    return methods.options(name, **plain)


def named(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Replace modules in a recipe that is given as a mapping, also in what it compares, by their options."""

    def replaced(method: Any) -> Any:
        return options_of(method) if isinstance(method, SoftPrompt) else method

    recipe = {key: replaced(value) for key, value in recipe.items()}
    compared = recipe.get("compare")
    if isinstance(compared, Mapping) and compared.get("methods"):
        given = compared["methods"]
        if isinstance(given, Mapping):
            chosen: Any = {name: replaced(method) for name, method in given.items()}
        else:
            chosen = [replaced(method) for method in given]
        recipe["compare"] = {**compared, "methods": chosen}
    return recipe


def is_for_this_process(name: Any) -> bool:
    """Tell whether a method is a module that other processes do not know."""
    return name in methods.METHODS and methods.METHODS[name].summary == SUMMARY


def check(module: SoftPrompt, setting: Setting, chosen: MethodOptions) -> None:
    """Raise SoftPromptError where a module does not suit the model, the prompts or its own options.

    The options of a registered class have to build a module of the same shapes: else nobody could load what
    is saved.
    """
    kind, prompts = type(module).__name__, setting.prompts
    if module.num_prompts != len(prompts):
        raise SoftPromptError(
            f"{kind} has {module.num_prompts} prompts, and {len(prompts)} are needed",
            why=f"the table has: {', '.join(prompts[:10])}",
            fix=f"build it for {len(prompts)} prompts",
        )
    static = materialise(module)
    if static is not None and not all(fits(injection, setting.lm) for injection in static.prompts):
        raise SoftPromptError(
            f"the vectors of {kind} do not fit the model",
            why=f"the model's hidden size is {setting.lm.spec.hidden_size}, and its layers have other sizes",
            fix="build it for this model: softprompt.load(…).spec has the sizes",
        )
    if not is_for_this_process(chosen.name):
        _check_options(module, setting, chosen)


def digest(module: SoftPrompt) -> str:
    """Hash the class and the values of a module (hex)."""
    hashed = hashlib.sha256(type(module).__qualname__.encode())
    for name, tensor in sorted(module.state_dict().items()):
        hashed.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def _registered(module: SoftPrompt) -> str:
    """Register a copy of the module in this process; return its name."""
    kind, start = type(module), copy.deepcopy(module)
    name = f"{kind.__name__}-{digest(module)[:6]}"

    def build(setting: Setting) -> SoftPrompt:
        check(start, setting, methods.options(name))
        return copy.deepcopy(start)

    lr = getattr(module, "lr", LEARNING_RATE)
    methods.METHODS[name] = Method(build, float(lr), SUMMARY, lambda options: _positions(start), kind)
    return name


def _positions(module: SoftPrompt) -> tuple[int, int, int]:
    """Count the positions that the vectors take: in the input's sequence, in a decoder, at one place."""
    static = materialise(module)
    if static is None:
        length = int(getattr(module, "length", 0))
        return length, 0, length
    counts = [
        [0 if part is None else part.vectors.shape[1] for part in (each.before, each.after, each.decoder)]
        for each in static.prompts
    ]
    before, after, decoder = (max(column) for column in zip(*counts, strict=True))
    return before + after, decoder, max(before, after, decoder)


def _check_options(module: SoftPrompt, setting: Setting, chosen: MethodOptions) -> None:
    name, options = chosen.name, chosen.options()
    built = methods.build(name, setting, methods.options_to_load(name, options))
    if _shapes(built) != _shapes(module):
        raise SoftPromptError(
            f"the options of this {type(module).__name__} are not known",
            why=f"a prompt of the method '{name}' is saved with them, and {options} build another module",
            fix=f"keep them as its attributes: {', '.join(methods.find(name).options())}",
        )


def _shapes(module: SoftPrompt) -> Any:
    def of(injection: Injection) -> Any:
        sizes: list[Any] = [*injection.channels()]
        injection.map_rows(lambda tensor: sizes.append(tuple(tensor.shape)) or tensor)
        return sizes

    static = materialise(module)
    state = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    return state, None if static is None else [of(injection) for injection in static.prompts]
