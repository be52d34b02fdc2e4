"""A tuned prompt on disk: a folder that says what it is, verifies itself, and loads anywhere.

    softprompt.json      method, options, base fingerprints, template, data, metrics, versions, hashes
    prompt.safetensors   the materialised prompts: what serving loads (absent where the input is read)
    state.safetensors    everything trainable, so a reparameterizer or generator is never lost
    base.safetensors     the base weights that were trained (lora, full), and a head's
    README.md            a model card

`softprompt.json` is written last, so a folder that has one is whole. No pickle anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import methods
from .errors import SoftPromptError, unknown
from .files import read_tensors, sha256, write_tensors, write_text
from .injection import Injection, LayerKV, Prefix, SoftTokens
from .lm import adapt
from .lm.base import LanguageModel
from .lm.features import size
from .lm.loading import fingerprint
from .lm.shapes import Shapes
from .methods.base import Setting, SoftPrompt, flatten
from .methods.materialised import Materialised, materialise

SCHEMA = 1
MANIFEST = "softprompt.json"
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
        served = "prompt.safetensors" if "prompt.safetensors" in files else "state.safetensors"
        return sum(files[name]["bytes"] for name in (served, "base.safetensors") if name in files)

    def method(self, lm: LanguageModel, *, trainable: bool = False, other_base: bool = False) -> SoftPrompt:
        """The prompts, ready to inject into `lm`; as trained parameters or, by default, materialised.

        A trained base (lora, full) or head is loaded into `lm` in place. Raises SoftPromptError where `lm` is
        another base than the one it was trained on, unless `other_base`.
        """
        if not other_base:
            self._check_base(lm)
        self.load_base(lm)
        if trainable and "sources" in self.manifest:
            raise SoftPromptError(
                f"{self.path} was made of other prompts",
                why="nothing of it was trained, so there is no training to go on with",
                fix=f"start a method from it: method.init=artifact method.artifact={self.path}",
            )
        if not trainable and (self.path / "prompt.safetensors").exists():
            static = _read_prompts(self.path / "prompt.safetensors", self.prompts, lm.device)
            if any(not _fits(injection, lm) for injection in static.prompts):
                raise self._other_shape(lm)
            return static
        setting = Setting(Shapes(lm), self.prompts, feature_size=lambda reads: size(lm, reads))
        start = ("text", "artifact", "transfer")
        options = {k: v for k, v in self.manifest["options"].items() if k not in start}
        if "init" in options:  # the values come from the file; any start of the right shape will do
            options["init"] = "vocab"
        method = methods.build(self.manifest["method"], setting, options)
        try:
            method.load_state_dict(read_tensors(self.path / "state.safetensors"))
        except RuntimeError:
            raise self._other_shape(lm) from None
        return method.to(lm.device)

    def load_base(self, lm: LanguageModel) -> None:
        """The base weights that were trained along (lora, full, a head), into `lm` in place, if any."""
        base = self.manifest["base"]
        if "base.safetensors" in self.manifest["files"]:
            adapt.unfreeze(lm, base["mode"], **base["options"])
            adapt.load_weights(lm, read_tensors(self.path / "base.safetensors"))
            lm.model.requires_grad_(False)

    def differences(self, lm: LanguageModel) -> list[str]:
        """What of `lm` (config, weights, tokenizer) is not as it was in training; empty: the same base."""
        saved, given = self.manifest["base"]["fingerprint"], fingerprint(lm)
        return [part for part in saved if saved[part] != given[part]]

    def index(self, prompt: str | None) -> int:
        """The number of a prompt by name; None means the only one."""
        if prompt is None and len(self.prompts) == 1:
            return 0
        if prompt is None:
            raise SoftPromptError(
                f"{self.path} holds {len(self.prompts)} prompts: {', '.join(self.prompts)}",
                why="which one is meant is not said",
                fix=f"add --prompt {self.prompts[0]}",
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

    def _check_base(self, lm: LanguageModel) -> None:
        if differing := self.differences(lm):
            raise SoftPromptError(
                f"{self.path} was trained on another base model than '{lm.name}'",
                why=f"base '{self.manifest['base']['name']}': its {' and '.join(differing)} differ",
                fix=f"load --model {self.manifest['base']['name']}, or insist with --other-base",
            )


def save(path: Path, method: SoftPrompt, lm: LanguageModel, manifest: Mapping[str, Any]) -> Artifact:
    """Write the folder. `manifest` holds what the caller knows: method, options, prompts, task, metrics, …"""
    files = {"state.safetensors": dict(method.state_dict())}
    static = materialise(method)
    if static is not None:
        files["prompt.safetensors"] = _prompt_tensors(static, manifest["prompts"])
    base = adapt.trained_weights(lm)
    if base:
        files["base.safetensors"] = base
    written = {}
    for name, tensors in files.items():
        write_tensors(path / name, tensors)
        written[name] = {"sha256": sha256(path / name), "bytes": (path / name).stat().st_size}
    full = {"schema": SCHEMA, **manifest, "positions": POSITIONS, "files": written}
    write_text(path / "README.md", model_card(full))
    write_text(path / MANIFEST, json.dumps(full, indent=2, ensure_ascii=False) + "\n")
    return Artifact(path, full)


def load(path: str | Path, *, verify: bool = True) -> Artifact:
    """Open and verify a folder. Raises SoftPromptError for a missing, unfinished, newer or damaged one.

    Without `verify` the files' contents are taken on trust, for whoever has verified them before.
    """
    path = Path(path)
    file = path / MANIFEST
    if not file.exists():
        unfinished = (path / "checkpoint").exists()
        raise SoftPromptError(
            f"no tuned prompt at {path}",
            why="its training has not finished" if unfinished else f"there is no {MANIFEST} in it",
            fix="run `softprompt tune` on its recipe again to go on"
            if unfinished
            else "give the folder that `tune` wrote",
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        schema, files = manifest["schema"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise SoftPromptError(
            f"{file} is damaged", why=str(error), fix="restore it from a copy, or train again"
        ) from None
    if schema > SCHEMA:
        raise SoftPromptError(
            f"{path} has schema {schema}",
            why=f"this version reads up to {SCHEMA}",
            fix="pip install --upgrade softprompt",
        )
    for name, facts in files.items() if verify else ():
        if not (path / name).exists() or sha256(path / name) != facts["sha256"]:
            raise SoftPromptError(
                f"{path / name} is damaged or missing",
                why="its content does not match the hash in softprompt.json",
                fix="restore it from a copy, or train again",
            )
    return Artifact(path, manifest)


def vectors(path: str, prompt: str) -> dict[str, Tensor]:
    """One prompt's vectors, to start another from: `before` / `after` [P, H], or `keys`, `values` [P, D]."""
    artifact = load(path)
    name = prompt if prompt in artifact.prompts else artifact.prompts[0]
    file = artifact.path / "prompt.safetensors"
    if not file.exists():
        raise SoftPromptError(
            f"'{path}' generates its prompts from the input",
            why="it holds no fixed vectors",
            fix="start from a static prompt or prefix",
        )
    injection = _read_prompts(file, artifact.prompts, torch.device("cpu")).prompts[
        artifact.prompts.index(name)
    ]
    if len(injection.channels()) > 1:
        raise SoftPromptError(
            f"'{path}' holds vectors of several kinds ({', '.join(injection.channels())})",
            why="another prompt starts from one kind",
            fix="start from a prompt of one placement (one that it was made of, for a composition)",
        )
    found: dict[str, Tensor] = {}
    for channel, part in injection.channels().items():
        if isinstance(part, SoftTokens):
            found[channel] = part.vectors[0]
        else:
            keys, values = flatten(part.layers)
            found["keys"], found["values"] = keys[0], values[0]
    return found


def _fits(injection: Injection, lm: LanguageModel) -> bool:
    """Whether its vectors have the sizes of the model's layers."""
    for part in injection.channels().values():
        if isinstance(part, SoftTokens):
            if part.vectors.shape[-1] != lm.spec.hidden_size:
                return False
            continue
        if len(part.layers) != len(lm.spec.layers):
            return False
        for layer, spec in zip(part.layers, lm.spec.layers, strict=True):
            if layer is None:
                continue
            if spec is None or (spec.kv_heads, spec.head_dim) != (layer.key.shape[1], layer.key.shape[3]):
                return False
    return True


def _prompt_tensors(static: Materialised, prompts: list[str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, injection in zip(prompts, static.prompts, strict=True):
        for channel, part in injection.channels().items():
            if isinstance(part, SoftTokens):
                tensors[f"{name}/{channel}/vectors"] = part.vectors[0]
                continue
            for index, layer in enumerate(part.layers):
                if layer is None:
                    continue
                prefix = f"{name}/{channel}/{index}"
                tensors[f"{prefix}/key"], tensors[f"{prefix}/value"] = layer.key[0], layer.value[0]
                if layer.gate is not None:
                    tensors[f"{prefix}/gate"] = layer.gate[0]
    # how many layers there are, for those above the last injected one
    depths = [len(p.layers) for i in static.prompts for p in i.channels().values() if isinstance(p, Prefix)]
    if depths:
        tensors["layers"] = torch.tensor(depths[0])
    return tensors


def _read_prompts(file: Path, prompts: tuple[str, ...], device: torch.device) -> Materialised:
    tensors = {name: tensor.to(device) for name, tensor in read_tensors(file).items()}
    depth = int(tensors.pop("layers", torch.tensor(0)))
    grouped: dict[str, dict[str, dict[str, Tensor]]] = {}
    for key, tensor in tensors.items():
        name, channel, rest = _split_key(key, prompts)
        grouped.setdefault(name, {}).setdefault(channel, {})[rest] = tensor[None]
    return Materialised([_injection(grouped.get(name, {}), depth) for name in prompts])


def _split_key(key: str, prompts: tuple[str, ...]) -> tuple[str, str, str]:
    # a prompt's own name may hold slashes
    name = next(p for p in sorted(prompts, key=len, reverse=True) if key.startswith(p + "/"))
    channel, rest = key[len(name) + 1 :].split("/", 1)
    return name, channel, rest


def _injection(channels: Mapping[str, Mapping[str, Tensor]], depth: int) -> Injection:
    parts: dict[str, Any] = {}
    for channel, tensors in channels.items():
        if "vectors" in tensors:
            rows = tensors["vectors"]
            parts[channel] = SoftTokens(
                rows, torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
            )
            continue
        layers = tuple(
            LayerKV(tensors[f"{i}/key"], tensors[f"{i}/value"], tensors.get(f"{i}/gate"))
            if f"{i}/key" in tensors
            else None
            for i in range(depth)
        )
        key = next(layer.key for layer in layers if layer is not None)
        parts[channel] = Prefix(layers, torch.ones(1, key.shape[2], dtype=torch.bool, device=key.device))
    return Injection(**parts)


def model_card(manifest: Mapping[str, Any]) -> str:
    """README.md of an artifact."""
    from jinja2 import Template

    dev = manifest["dev"]
    scores = []
    for name, value in dev["metrics"].items():
        interval = " to ".join(f"{end:.4g}" for end in dev["intervals"][name])
        scores.append((name, f"{value:.4g} (95 %: {interval}; n = {dev['rows'][name]})"))
    options = ", ".join(f"{key}={value}" for key, value in manifest["options"].items())
    template = Template(_CARD, trim_blocks=True, lstrip_blocks=True)
    return template.render(options_shown=options, scores=scores, **manifest)


_CARD = """\
# {{ method }} for {{ base.name }}

{{ 'Composed' if sources else 'Trained' }} vectors for a frozen language model,
made by softprompt {{ versions.softprompt }} on {{ created }}.

| | |
|---|---|
| method | {{ method }} ({{ options_shown }}) |
| base model | {{ base.name }} ({{ base.mode }}; weights {{ base.fingerprint.weights }}) |
| prompts | {{ prompts | join(", ") }} |
{% if imported %}
| imported from | {{ imported }} |
{% elif sources %}
{% for source in sources %}
| made of | {{ source.folder }}, prompt {{ source.prompt }} (vectors {{ source.sha256[:16] }}) |
{% endfor %}
{% else %}
| trained parameters | {{ "{:,}".format(trained_parameters) }} |
| training rows | {{ data.rows }} (data {{ data.fingerprint[:16] }}) |
{% endif %}
{% for name, shown in scores %}
| dev {{ name }} | {{ shown }} |
{% endfor %}

Positions: {{ positions }}.

Use it:

    softprompt generate FOLDER "your input"{% if prompts | length > 1 %} --prompt {{ prompts[0] }}{% endif %}


Made by: `{{ command }}`
"""
