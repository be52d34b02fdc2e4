"""Compiled prompts are found by name, with their encoders; their vectors stay on disk.

Content is checked once before its first use: hash, sizes and finiteness. So missing or damaged content is
refused before vLLM is asked for it. The interface is that of `serve.registry`.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ...artifacts.interop.kv_cache.folder import AFTER, Entry, Folder
from ...config.load import recipe_from_dict
from ...data.encode import Encoder
from ...data.from_recipe import encoder_of, room_of, template_of
from ...errors import SoftPromptError
from ..file_stamps import remember, stamp_of
from ..names import Entry as Listed
from ..request import BrokenPrompt, UnknownPrompt

if TYPE_CHECKING:
    from torch import Tensor

    from ...config.schema import Recipe

log = logging.getLogger("softprompt.serve")
Ids = Sequence[int]
KEPT = 10_000  # remembered names and checked contents


@dataclass(frozen=True, slots=True)
class CompiledPrompt:
    """One version of a prompt, which has no vectors in memory."""

    name: str
    entry: Entry
    encoder: Encoder
    recipe: Recipe
    index: int = 0
    outdated: bool = False

    @property
    def fingerprint(self) -> str:
        return self.entry.sha256

    @property
    def method_name(self) -> str:
        return self.entry.method

    @property
    def vectors(self) -> tuple[int, int]:
        """The number of its vectors, all of which take places of vLLM's context as placeholders."""
        return self.entry.length, self.entry.length


@final
class CompiledRegistry:
    """The prompts of a compiled folder are found here. Any thread may call this."""

    def __init__(self, folder: str | Path, tokenizer: Any, context: int) -> None:
        self.folder = Folder(Path(folder))
        self.base = self.folder.base()
        self.tokenizer, self.context = tokenizer, context
        self._loaded: OrderedDict[str, tuple[Any, CompiledPrompt]] = OrderedDict()
        self._checked: OrderedDict[str, Any] = OrderedDict()
        self._good: OrderedDict[str, CompiledPrompt] = OrderedDict()  # by name, what answered last
        self._outdated: OrderedDict[str, str] = OrderedDict()  # by name, why the version on disk does not
        self._lock = threading.Lock()

    def names(self) -> Iterator[Listed]:
        for name in self.folder.names():
            yield replace(self._entry(name.partition(":")[0], name), models=(name,))

    def holds(self, name: str) -> bool:
        return self.folder.holds(name)

    def describe(self, name: str) -> Listed:
        """Describe a prompt, or an artifact of several. Raises UnknownPrompt."""
        if self.folder.holds(name):
            return self._entry(name, name)
        if held := tuple(self.folder.prompts_of(name)):
            entry = self._entry(name, f"{name}:{held[0]}")
            return Listed(entry.name, entry.path, entry.modified, prompts=held)
        raise self._unknown(name)

    def get(self, name: str) -> CompiledPrompt:
        """Return a prompt as it is on disk now. Raises UnknownPrompt and BrokenPrompt."""
        if not self.folder.holds(name):
            raise self._unknown(name)
        try:
            loaded = self._current(name)
            self.check(loaded.entry)
        except SoftPromptError as error:
            return self._last_good(name, error)
        except (TypeError, ValueError, LookupError, AttributeError) as error:  # a damaged record
            return self._last_good(name, SoftPromptError(f"'{name}' is damaged", why=str(error)))
        remember(self._good, name, loaded, KEPT, self._lock)
        if self._outdated.pop(name, None) is not None:
            log.info("the version of '%s' on disk is served again", name)
        return loaded

    def _last_good(self, name: str, error: SoftPromptError) -> CompiledPrompt:
        """Return what the name meant before, if its content still exists. Raises BrokenPrompt."""
        last = self._good.get(name)
        why = f"{error.what}: {error.why}"
        try:
            if last is None:
                raise error
            self.check(last.entry)
        except SoftPromptError:
            self._forget(name)
            raise BrokenPrompt(f"prompt '{name}' cannot be served", why=why, fix=error.fix) from None
        if self._outdated.get(name) != why:
            remember(self._outdated, name, why, KEPT, self._lock)
            message = "the version of '%s' on disk cannot be served, the one before it answers on: %s"
            log.warning(message, name, why)
        return replace(last, outdated=True)

    def check(self, entry: Entry, *, again: bool = False) -> None:
        """Raise SoftPromptError unless its content exists, whole and finite; read it once, or `again`."""
        stamp = stamp_of(self.folder.content(entry.sha256))
        if not again and stamp and stamp == self._checked.get(entry.sha256):
            return
        tensors = self.folder.load(entry)
        sizes = self._sizes(entry)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes != sizes or not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise SoftPromptError(
                f"the content of '{entry.name}' cannot be served",
                why="its sizes are wrong" if shapes != sizes else "not all of its numbers are finite",
                fix="compile it again",
            )
        remember(self._checked, entry.sha256, stamp, KEPT, self._lock)

    def soft(self, entry: Entry, ids: Ids, answered: Ids = ()) -> Tensor:
        """Return embeddings [n + Q + m, H] of an input, the soft tokens after it, and an answer's first ids.

        Raises BrokenPrompt where a file of them is missing or damaged.
        """
        try:
            after = self.folder.load(entry)[AFTER]
            parts = [self._embedded(ids), after, self._embedded(answered)]
        except SoftPromptError as error:
            why = f"{error.what}: {error.why}"
            raise BrokenPrompt(f"prompt '{entry.name}' cannot be served", why=why, fix=error.fix) from None
        import torch

        return torch.cat([part.to(after.dtype) for part in parts if len(part)])

    def _embedded(self, ids: Ids) -> Any:
        return self.folder.embeddings(ids) if ids else ()

    @property
    def outdated(self) -> int:
        return len(self._outdated)

    @property
    def bytes(self) -> int:
        return 0

    def _unknown(self, name: str) -> UnknownPrompt:
        self._forget(name)
        return UnknownPrompt(f"no prompt '{name}'", fix="ask for a prompt that is listed")

    def _forget(self, name: str) -> None:
        with self._lock:
            self._outdated.pop(name, None)

    def _current(self, name: str) -> CompiledPrompt:
        stamp = stamp_of(self.folder.name_file(name))
        held = self._loaded.get(name)
        if held is not None and held[0] == stamp:
            return held[1]
        entry = self.folder.entry(name)
        recipe = recipe_from_dict(dict(entry.recipe))
        soft_tokens = entry.length, 0, entry.length  # vLLM has a place in its context for each vector
        room = room_of(recipe, soft_tokens, self.context)
        prompts, labels = (entry.prompt,), list(entry.labels) or None
        encoder = encoder_of(recipe, self.tokenizer, template_of(recipe), prompts, labels, room=room)
        loaded = CompiledPrompt(name, entry, encoder, recipe)
        remember(self._loaded, name, (stamp, loaded), KEPT, self._lock)
        return loaded

    def _entry(self, shown: str, name: str) -> Listed:
        path = self.folder.name_file(name)
        try:
            modified = path.stat().st_mtime
        except OSError:  # removed meanwhile
            modified = 0.0
        return Listed(shown, path, modified)

    def _sizes(self, entry: Entry) -> dict[str, tuple[int, ...]]:
        if entry.kind == "after":
            return {AFTER: (entry.length, self.base.hidden_size)}
        layers = enumerate(self.base.layers)
        return {f"{part}.{i}": (entry.length, *sizes) for i, sizes in layers for part in "kv"}
