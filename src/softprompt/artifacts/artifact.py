"""A tuned prompt on disk: a folder that says what it is, verifies itself, and loads anywhere.

    softprompt.json      method, options, base fingerprints, template, data, metrics, versions, hashes
    prompt.safetensors   the materialised prompts: what serving loads (absent where the input is read)
    state.safetensors    everything trainable, so a reparameterizer or generator is never lost
    base.safetensors     the base weights that were trained (lora, full), and a head's
    README.md            a model card

`softprompt.json` is written last, so a folder that has one is whole. `load` is the one verification for
every way in: the manifest's digest and schema (`manifest`), sizes, hashes, and regular files alone. What the
list of files does not name is never read. Vectors are checked where they are read (`stored`). No pickle.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import methods
from .._system.files import (
    RESTORE,
    check_pulled,
    check_tensors_fit,
    open_regular,
    read_tensors,
    sha256,
    write_tensors,
    write_text,
)
from .._system.paths import expanded, kind_of
from .._system.run_lock import held
from ..config.identity import base_differs
from ..errors import SoftPromptError, unknown
from ..lm import finetune
from ..lm.base import LanguageModel
from ..lm.features import size
from ..lm.loading import fingerprint
from ..lm.shape_only import Shapes
from ..methods.base import Setting, SoftPrompt
from ..methods.materialised import materialise
from . import manifest as manifests
from . import tensors as stored
from .manifest import BASE, MANIFEST, SCHEMA, STATE, VECTORS
from .model_card import model_card

__all__ = ["MANIFEST", "SCHEMA", "Artifact", "load", "save"]

POSITIONS = (
    "real tokens keep their natural positions; prefix keys stand at -P..-1 of the first token that sees them"
)


@dataclass(frozen=True)
class Artifact:
    """A folder that was verified: its manifest, and ways to load what it holds."""

    path: Path
    manifest: dict[str, Any]

    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of the prompts in it."""
        return tuple(self.manifest["prompts"])

    @property
    def bytes(self) -> int:
        """Size of its tensors that serving needs."""
        files = self.manifest["files"]
        served = VECTORS if self.is_static else STATE
        return sum(files[name]["bytes"] for name in (served, BASE) if name in files)

    @property
    def is_static(self) -> bool:
        """Whether it holds materialised prompts, which do not read the input."""
        return VECTORS in self.manifest["files"]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Of one of its files. Raises SoftPromptError where it is not listed, or of no use."""
        if name not in self.manifest["files"]:
            raise SoftPromptError(
                f"{self.path} holds no {name}", why=f"{MANIFEST} does not list it", fix=RESTORE
            )
        return stored.checked(read_tensors(self.path / name), self.path / name)

    def method(self, lm: LanguageModel, *, trainable: bool = False, other_base: bool = False) -> SoftPrompt:
        """The prompts, ready to inject into `lm`; as trained parameters or, by default, materialised.

        A trained base (lora, full) or head is loaded into `lm` in place. Raises SoftPromptError where `lm` is
        another base than the one it was trained on, unless `other_base`.
        """
        if not other_base:
            self.check_base(lm)
        self.load_base(lm)
        if trainable and "sources" in self.manifest:
            raise SoftPromptError(
                f"{self.path} was made of other prompts",
                why="nothing of it was trained, so there is no training to go on with",
                fix=f"start a method from it: method.init=artifact method.artifact={self.path}",
            )
        if not trainable and self.is_static:
            static = stored.read_prompts(self.path / VECTORS, self.prompts, lm.device)
            if any(not stored.fits(injection, lm) for injection in static.prompts):
                raise self._other_shape(lm)
            if not static.prompts[0].channels() and self.tensors(STATE):
                raise SoftPromptError(
                    f"{self.path / VECTORS} holds no vectors", why="something was trained", fix=RESTORE
                )
            return static
        setting = Setting(Shapes(lm), self.prompts, feature_size=lambda reads: size(lm, reads))
        start = ("text", "artifact", "transfer")
        options = {k: v for k, v in self.manifest["options"].items() if k not in start}
        if "init" in options:  # the values come from the file; any start of the right shape will do
            options["init"] = "vocab"
        method = methods.build(self.manifest["method"], setting, options)
        self.load_state(method, lm)
        return method.to(lm.device)

    def load_state(self, method: SoftPrompt, lm: LanguageModel) -> None:
        """Everything trainable, into a method of the same options."""
        try:
            method.load_state_dict(self.tensors(STATE))
        except RuntimeError as error:
            raise self._other_shape(lm) from error

    def load_base(self, lm: LanguageModel) -> None:
        """The base weights that were trained along (lora, full, a head), into `lm` in place, if any."""
        base = self.manifest["base"]
        if BASE not in self.manifest["files"]:
            return
        tensors = self.tensors(BASE)
        try:
            finetune.unfreeze(lm, base["mode"], **base["options"])
            finetune.load_weights(lm, tensors)
        except (RuntimeError, LookupError, TypeError):
            raise self._other_shape(lm) from None
        lm.model.requires_grad_(False)

    def differences(self, lm: LanguageModel, given: Mapping[str, str] | None = None) -> list[str]:
        """What of `lm` is not as it was in training, as far as that was recorded; empty: the same base.

        `given` is `lm`'s fingerprint, where it is known.
        """
        saved = self.manifest["base"]["fingerprint"]
        chat = bool((self.manifest["recipe"].get("template") or {}).get("chat"))
        return base_differs(saved, fingerprint(lm) if given is None else given, chat=chat)

    def check_base(self, lm: LanguageModel, given: Mapping[str, str] | None = None) -> None:
        """Raises SoftPromptError where `lm` is another base than the one it was trained on."""
        if found := self.differences(lm, given):
            name = self.manifest["base"]["name"]
            raise SoftPromptError(
                f"{self.path} was trained on another base model than '{lm.name}'",
                why=f"base '{name}': its {' and '.join(found)} differ",
                fix=f"load --model {name}, or insist with --other-base"
                if name != lm.name
                else f"bring '{name}' back as it was, or insist with --other-base",
            )

    def index(self, prompt: str | None) -> int:
        """The number of a prompt by name; None means the only one."""
        if prompt is None and len(self.prompts) == 1:
            return 0
        if prompt is None:
            raise SoftPromptError(
                f"{self.path} holds {len(self.prompts)} prompts: {', '.join(self.prompts)}",
                why="which one is meant is not said",
                fix=f"add --prompt {shlex.quote(self.prompts[0])}",
            )
        if prompt not in self.prompts:
            raise unknown("prompt", prompt, self.prompts, fix="use a prompt of this artifact")
        return self.prompts.index(prompt)

    def _other_shape(self, lm: LanguageModel) -> SoftPromptError:
        return SoftPromptError(
            f"the vectors of {self.path} do not fit '{lm.name}'",
            why=f"they were made for '{self.manifest['base']['name']}', whose layers have other sizes",
            fix="use the base model it was trained on, or train one for this model",
        )


def save(path: Path, method: SoftPrompt, lm: LanguageModel, manifest: Mapping[str, Any]) -> Artifact:
    """Write the folder. `manifest` holds what the caller knows: method, options, prompts, task, metrics, …"""
    files = {STATE: dict(method.state_dict())}
    static = materialise(method)
    if static is not None:
        files[VECTORS] = stored.tensors_of(static, manifest["prompts"])
    base = finetune.trained_weights(lm)
    if base:
        files[BASE] = base
    written = {}
    with held([path]):
        for name, tensors in files.items():
            write_tensors(path / name, tensors)
            written[name] = {"sha256": sha256(path / name), "bytes": (path / name).stat().st_size}
        full = {"schema": SCHEMA, **manifest, "positions": POSITIONS, "files": written}
        write_text(path / "README.md", model_card(full))
        write_text(path / MANIFEST, manifests.text_of(full))
    return Artifact(path, full)


def load(path: str | Path, *, verify: bool = True) -> Artifact:
    """Open and verify a folder. Raises SoftPromptError for a missing, unfinished, newer or damaged one.

    Without `verify` the tensors' hashes are taken on trust, for whoever has verified them before.
    """
    path = Path(expanded(path))
    file = path / MANIFEST
    if kind_of(file, "the tuned prompt") == "missing":
        unfinished = (path / "checkpoint").exists()
        raise SoftPromptError(
            f"no tuned prompt at {path}",
            why="its training has not finished" if unfinished else f"there is no {MANIFEST} in it",
            fix="run `softprompt tune` on its recipe again to go on"
            if unfinished
            else "give the folder that `tune` wrote",
        )
    manifest = manifests.read(file)
    for name, facts in manifest["files"].items():
        _check_file(path / name, facts, verify)
    return Artifact(path, manifest)


def _check_file(file: Path, facts: Mapping[str, Any], verify: bool) -> None:
    """Raises SoftPromptError unless a file is as it was written. What is too long is not read."""
    check_pulled(file)
    cause = None
    try:
        with open_regular(file):
            pass
        if file.stat().st_size == facts["bytes"]:
            check_tensors_fit(file)
            if not verify or sha256(file) == facts["sha256"]:
                return
        why = f"its content does not match the hash in {MANIFEST}"
    except SoftPromptError as error:
        why, cause = error.why or "it is not there", error.__cause__
    raise SoftPromptError(f"{file} is damaged or missing", why=why, fix=RESTORE) from cause
