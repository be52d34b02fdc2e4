"""Tuned prompts on disk: a folder that describes its content, is verified on load, and can be moved.

    softprompt.json      method, options, base fingerprints, template, data, metrics, versions, hashes
    prompt.safetensors   the materialised prompts: what serving loads (absent where the input is read)
    state.safetensors    everything trainable, reparameterizers and generators included
    base.safetensors     the base weights that were trained (lora, full), and a head's
    README.md            a model card

`softprompt.json` is written last, so a folder that has one is complete. Every reader goes through `load`,
which verifies the manifest's digest and schema (`manifest`), sizes and hashes, and accepts regular files
alone. Files that the manifest does not list are never read. Vectors are checked where they are read
(`tensors`). No pickle.
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
from .._system.paths import kind_of
from .._system.run_lock import held
from ..config.identity import base_differs
from ..errors import SoftPromptError, unknown
from ..lm import finetune
from ..lm.base import LanguageModel
from ..lm.features import size
from ..lm.loading import fingerprint
from ..lm.shape_only import Shapes
from ..methods.base import Setting, SoftPrompt
from ..methods.materialised import fits, materialise
from . import manifest as manifests
from . import tensors as stored
from .hub.download import folder_of
from .hub.reference import Reference
from .manifest import BASE, MANIFEST, SCHEMA, STATE, VECTORS
from .model_card import model_card

__all__ = ["MANIFEST", "SCHEMA", "Artifact", "load", "save"]

#: Written into every artifact; its words are part of the format.
POSITIONS = (
    "real tokens keep their natural positions; prefix keys stand at -P..-1 of the first token that sees them"
)


@dataclass(frozen=True)
class Artifact:
    """A verified folder: its manifest, and methods that load its content."""

    path: Path
    manifest: dict[str, Any]
    reference: Reference | None = None  # the repository and the commit on the hub that it is a copy of

    def __str__(self) -> str:
        return str(self.reference or self.path)

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(self.manifest["prompts"])

    @property
    def bytes(self) -> int:
        """The size of the tensors that serving needs."""
        files = self.manifest["files"]
        served = VECTORS if self.is_static else STATE
        return sum(files[name]["bytes"] for name in (served, BASE) if name in files)

    @property
    def is_static(self) -> bool:
        """True where it holds materialised prompts, which do not read the input."""
        return VECTORS in self.manifest["files"]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a file. Raises SoftPromptError where it is not listed, or not finite."""
        if name not in self.manifest["files"]:
            raise SoftPromptError(
                f"{self.path} holds no {name}", why=f"{MANIFEST} does not list it", fix=RESTORE
            )
        return stored.checked(read_tensors(self.path / name), self.path / name)

    def method(self, lm: LanguageModel, *, trainable: bool = False, other_base: bool = False) -> SoftPrompt:
        """Return the prompts to inject into `lm`: materialised, or as parameters where they are `trainable`.

        A trained base (lora, full) or head is loaded into `lm` in place. Raises SoftPromptError where `lm` is
        not the base that it was trained on, unless `other_base`, and where its method is not installed.
        """
        self.check_method()
        if not other_base:
            self.check_base(lm)
        self.load_base(lm)
        if trainable and "sources" in self.manifest:
            raise SoftPromptError(
                f"{self} was composed of other prompts",
                why="nothing in it was trained, so there is no training to continue",
                fix=f"start a method from it: method.init=artifact method.artifact={self}",
            )
        if not trainable and self.is_static:
            static = stored.read_prompts(self.path / VECTORS, self.prompts, lm.device)
            if any(not fits(injection, lm) for injection in static.prompts):
                raise self._other_shape(lm)
            if not static.prompts[0].channels() and self.tensors(STATE):
                raise SoftPromptError(
                    f"{self.path / VECTORS} holds no vectors", why="something was trained", fix=RESTORE
                )
            return static
        setting = Setting(Shapes(lm), self.prompts, feature_size=lambda reads: size(lm, reads))
        name = self.manifest["method"]
        method = methods.build(name, setting, methods.options_to_load(name, self.manifest["options"]))
        self.load_state(method, lm)
        return method.to(lm.device)

    def check_method(self) -> None:
        """Raise SoftPromptError where the package that its method comes from is not installed."""
        name, source = self.manifest["method"], self.manifest.get("distribution")
        if source is None or name in methods.METHODS:
            return
        package = source["name"]
        registered = f"softprompt.methods.register('{name}', …) with the class {source['object']}"
        raise SoftPromptError(
            f"{self.path} was trained with the method '{name}', which is not installed",
            why=f"it is a method of {package} {source['version']}"
            if package
            else f"it was registered in one process, as {source['object']}",
            fix=f"pip install '{package}=={source['version']}'" if package else f"call {registered} first",
        )

    def load_state(self, method: SoftPrompt, lm: LanguageModel) -> None:
        """Load everything trainable into a method of the same options."""
        try:
            method.load_state_dict(self.tensors(STATE))
        except RuntimeError as error:
            raise self._other_shape(lm) from error

    def load_base(self, lm: LanguageModel) -> None:
        """Load the base weights that were trained too (lora, full, a head) into `lm`, in place."""
        base = self.manifest["base"]
        if BASE not in self.manifest["files"]:
            return
        tensors = self.tensors(BASE)
        try:
            if base["mode"] != "frozen":  # a head alone is in the model already
                finetune.unfreeze(lm, base["mode"], **base["options"])
            finetune.load_weights(lm, tensors)
        except (RuntimeError, LookupError, TypeError):
            raise self._other_shape(lm) from None
        lm.model.requires_grad_(False)

    def differences(self, lm: LanguageModel, given: Mapping[str, str] | None = None) -> list[str]:
        """Return the parts of `lm` that differ from the recorded base; empty where it is the same base.

        `given` is the fingerprint of `lm`, where it is known already.
        """
        saved = self.manifest["base"]["fingerprint"]
        chat = bool((self.manifest["recipe"].get("template") or {}).get("chat"))
        if given is None:  # a head that was not trained here is a part of the base
            given = fingerprint(lm, with_head=BASE not in self.manifest["files"])
        return base_differs(saved, given, chat=chat)

    def check_base(self, lm: LanguageModel, given: Mapping[str, str] | None = None) -> None:
        """Raise SoftPromptError where `lm` is not the base that it was trained on."""
        if parts := self.differences(lm, given):
            name, revision = self.manifest["base"]["name"], self.manifest["base"].get("revision")
            here = f", and this is {lm.origin.revision}" if lm.origin.revision else ""
            trained = f" (it was trained on revision {revision}{here})" if revision else ""
            raise SoftPromptError(
                f"{self} was trained on another base model than '{lm.name}'",
                why=f"base '{name}': its {' and '.join(parts)} differ{trained}",
                fix=f"load --model {name}, or insist with --other-base"
                if name != lm.name
                else f"bring '{name}' back as it was, or insist with --other-base",
            )

    def index(self, prompt: str | None) -> int:
        """Return the number of the prompt with that name; None means the only prompt."""
        if prompt is None and len(self.prompts) == 1:
            return 0
        if prompt is None:
            raise SoftPromptError(
                f"{self} holds {len(self.prompts)} prompts: {', '.join(self.prompts)}",
                why="no name was given to choose among them",
                fix=f"add --prompt {shlex.quote(self.prompts[0])}",
            )
        if prompt not in self.prompts:
            raise unknown("prompt", prompt, self.prompts, fix="use a prompt of this artifact")
        return self.prompts.index(prompt)

    def _other_shape(self, lm: LanguageModel) -> SoftPromptError:
        return SoftPromptError(
            f"the vectors of {self} do not fit '{lm.name}'",
            why=f"they were made for '{self.manifest['base']['name']}', whose layers have other sizes",
            fix="use the base model it was trained on, or train one for this model",
        )


def save(path: Path, method: SoftPrompt, lm: LanguageModel, manifest: Mapping[str, Any]) -> Artifact:
    """Write the folder. `manifest` has the method, its options, prompts, base, recipe and scores."""
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
        full = {"schema": SCHEMA, **manifest, **_source(manifest["method"])}
        full |= {"positions": POSITIONS, "files": written}
        write_text(path / "README.md", model_card(full))
        write_text(path / MANIFEST, manifests.text_of(full))
    return Artifact(path, full)


def _source(method: str) -> dict[str, Any]:
    """Return what the manifest records about the package of a method that is not the library's own."""
    origin = methods.METHODS.origin(method)
    if origin is None:
        return {}
    return {"distribution": {"name": origin.distribution, "version": origin.version, "object": origin.target}}


def load(path: str | Path, *, verify: bool = True) -> Artifact:
    """Open and verify a folder, or `hf:ID@REVISION`, which is fetched from the hub.

    Raises SoftPromptError for a missing, unfinished, newer or damaged one. Without `verify` the hashes of the
    tensors are not checked, for callers that have verified them before.
    """
    path, reference = folder_of(path)
    file = path / MANIFEST
    if kind_of(file, "the tuned prompt") == "missing":
        unfinished = (path / "checkpoint").exists()
        raise SoftPromptError(
            f"no tuned prompt at {path}",
            why="its training has not finished" if unfinished else f"there is no {MANIFEST} in it",
            fix="run `softprompt tune` on its recipe again to resume it"
            if unfinished
            else "give the folder that `tune` wrote",
        )
    try:
        manifest = manifests.read(file)
        for name, facts in manifest["files"].items():
            _check_file(path / name, facts, verify)
    except SoftPromptError as error:
        if reference is None or error.fix != RESTORE:
            raise
        fix = f"remove the copy in {path} to fetch it again, or tell its owner"
        raise SoftPromptError(f"{reference}: {error.what}", error.why, fix) from error
    return Artifact(path, manifest, reference)


def _check_file(file: Path, facts: Mapping[str, Any], verify: bool) -> None:
    """Raise SoftPromptError unless a file is as it was written. A file of another size is not read."""
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
