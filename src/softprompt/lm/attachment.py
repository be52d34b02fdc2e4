"""Everything that this library changes on a user's model, kept in one place and taken back by `release`.

An `Attachment` is the only attribute of ours on a model. It numbers the attention modules, holds hooks and
measurements, and keeps a journal of each attribute that was changed, on modules and on configurations. It
does not know weights: what training changed (base=lora, base=full, a head) stays.

In transformers as a whole only three names are registered, `softprompt_sdpa`, `softprompt_eager` and
`softprompt_packed` (flash kernels), when `lm.attention` is imported. They stay registered, and a released
model does not use them.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final
from weakref import WeakSet

from torch import nn
from transformers import PreTrainedConfig

from .injected import Site

NAME = "_softprompt_attachment"  # the attribute of a model
PROMPT = "_softprompt"  # another, of a model that `softprompt.attach` has put a prompt on


class _Mark(enum.Enum):
    """Stand-ins in the journal. An enum's members stay the same in a copied or pickled model."""

    ABSENT = "the object has no such attribute"
    MODEL = "the model itself: a reference to it would be a cycle, and its memory would be freed late"


@dataclass(slots=True)
class _Change:
    """One attribute of an object, as it was before and as it was set."""

    holder: Any
    name: str
    before: Any
    after: Any


@final
class Attachment:
    """One object holds what is changed on one model. Several `LanguageModel`s of the same model share it."""

    def __init__(self, model: nn.Module) -> None:
        self.sites: dict[nn.Module, Site] = {}  # the attention modules, see `lm.probe`
        self.measured: dict[str, Any] = {}  # what is measured or computed once, by name
        self._trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._journal: list[_Change] = []
        self._hooks: dict[str, list[Any]] = {}
        self._users: WeakSet[Any] = WeakSet()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_users"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _users=WeakSet())  # a copied model has no `LanguageModel` yet

    @property
    def attention_modules(self) -> dict[int, nn.Module]:
        """The attention modules by the number of each of their calls."""
        sites = self.sites.items()
        return {site.first + call: module for module, site in sites for call in range(site.calls)}

    @contextlib.contextmanager
    def changing(self, *objects: Any) -> Iterator[None]:
        """Record each attribute of these objects that is set, replaced or deleted inside."""
        before, changes = [(each, dict(vars(each))) for each in objects], []
        try:
            yield
        finally:
            for each, old in before:
                new, holder = vars(each), _Mark.MODEL if vars(each).get(NAME) is self else each
                for name in dict.fromkeys((*old, *new)):
                    was, now = old.get(name, _Mark.ABSENT), new.get(name, _Mark.ABSENT)
                    if was is not now and name != NAME:
                        changes.append(_Change(holder, name, was, now))
            self._write(changes)

    def _write(self, changes: list[_Change]) -> None:
        """Add changes to the journal, each merged with the earlier one that it follows."""
        known = {(id(c.holder), c.name): c for c in self._journal} if changes else {}
        for change in changes:
            earlier = known.get((id(change.holder), change.name))
            if earlier is not None and earlier.after is change.before:
                earlier.after = change.after
            else:
                self._journal.append(change)

    def hook(self, name: str, module: nn.Module, function: Callable[..., Any]) -> None:
        """Call `function` ahead of each forward of the module, with its keyword arguments."""
        self._hooks.setdefault(name, []).append(module.register_forward_pre_hook(function, with_kwargs=True))

    def unhook(self, name: str) -> None:
        """Remove the hooks of that name."""
        for handle in self._hooks.pop(name, ()):
            handle.remove()

    def add_user(self, user: Any) -> None:
        """Keep everything attached until `user` releases it."""
        self._users.add(user)

    @property
    def is_used(self) -> bool:
        """True while a `LanguageModel` needs what is attached."""
        return bool(self._users)

    def release(self, model: nn.Module, user: Any) -> None:
        """Give the model back as it was, when its last user releases it.

        An attribute that somebody else has changed since keeps that value.
        """
        self._users.discard(user)
        if self._users or vars(model).get(NAME) is not self:
            return
        for name in list(self._hooks):
            self.unhook(name)
        for change in reversed(self._journal):
            attributes = vars(model if change.holder is _Mark.MODEL else change.holder)
            if attributes.get(change.name, _Mark.ABSENT) is not change.after:
                continue
            if change.before is _Mark.ABSENT:
                del attributes[change.name]
            else:
                attributes[change.name] = change.before
        for parameter, trainable in self._trainable:
            parameter.requires_grad_(trainable)
        del vars(model)[NAME]
        for kept in (self.sites, self.measured, self._journal, self._trainable):
            kept.clear()  # they hold modules and tensors


def attach(model: nn.Module) -> Attachment:
    """Return the model's attachment, which is made where it has none."""
    if NAME not in vars(model):
        vars(model)[NAME] = Attachment(model)
    return vars(model)[NAME]


def attached(model: nn.Module) -> Attachment | None:
    """Return the model's attachment; None where this library has not changed the model."""
    return vars(model).get(NAME)


def configurations(model: nn.Module) -> list[Any]:
    """Every configuration that a module of the model holds, and those inside them, each once."""
    waiting = [getattr(module, "config", None) for module in model.modules()]
    configs: dict[int, Any] = {}
    for config in waiting:  # it grows while inner ones are found
        if isinstance(config, PreTrainedConfig) and id(config) not in configs:
            configs[id(config)] = config
            waiting += vars(config).values()
    return list(configs.values())
