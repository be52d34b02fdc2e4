"""Watches that the base of a model stays frozen, at every call and at little cost.

The parameters of a large model are many, and walking through its modules at every call takes longer than
reading their flags: the walk is repeated only when a module was added or replaced, as LoRA does.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from typing import Any, final

from torch import nn

from ..errors import SoftPromptError


@final
class FrozenBase:
    """Knows the modules of a model outside the one that is trained. It holds their tables, no tensors.

    `head` names the parameters of the base that are trained too.
    """

    def __init__(self, model: nn.Module, trained: str, head: Collection[str] = ()) -> None:
        self._trained, self._head = trained, head
        self._read(model)

    def _read(self, model: nn.Module) -> None:
        inside = set(model.get_submodule(self._trained).modules())
        modules = [module for module in model.modules() if module not in inside]
        self._children = [module._modules for module in modules if module._modules]
        self._parameters = [module._parameters for module in modules if module._parameters]
        self._allowed = {id(p) for name, p in model.named_parameters() if name in self._head}
        self._known = self._now()

    def _now(self) -> list[Any]:
        return [*chain.from_iterable(table.values() for table in self._children)]

    def check(self, model: nn.Module) -> None:
        """Raise SoftPromptError where a parameter of the base would be trained."""
        if self._now() != self._known:
            self._read(model)
        every = (p for table in self._parameters for p in table.values() if p is not None and p.requires_grad)
        if all(id(p) in self._allowed for p in every):
            return
        named = [name for name, p in model.named_parameters() if p.requires_grad]
        names = [n for n in named if n not in self._head and not n.startswith(f"{self._trained}.")]
        if not names:  # the head's parameters were replaced
            self._read(model)
            return
        raise SoftPromptError(
            f"{len(names)} weights of the base would be trained ({names[0]}, …)",
            why="their requires_grad was set after the prompt was attached",
            fix="set their requires_grad to False; softprompt.tune(…, base='lora') trains a base as well",
        )
