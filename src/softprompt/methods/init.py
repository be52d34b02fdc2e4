"""Initial values of learned vectors are computed here, apart from the modules that hold them.

Initialisation decides whether a soft prompt learns (N(0,1) costs tens of points), so every
initialiser works at the model's own scale:

- `random`: normal, with the mean and deviation of the model's embeddings (or keys and values);
- `vocab`: embeddings (or KV) of tokens sampled from the training text, or from the vocabulary;
- `text`: of a text that the user gives;  `labels`: of the class labels;
- `context`: of real training rows (CT-KV, Cartridges: the best known start of a prefix);
- `demonstrations`: of the demonstrations of a few-shot prompt, whole (CT-KV; prefixes only);
- `matched`: chosen and fitted so that attention gives out what it does over a text (prefixes only);
- `artifact`: of another trained prompt (warm start, SPoT-style transfer); one of another base model is
  carried over as `transfer` says (see `transfer.py`), and never copied;
- `nearest`: of the prompt in a folder whose training inputs are most like those of this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SoftPromptError
from ..injection import Layers
from .base import PrefixLayers, Setting, flatten
from .matched_start import matched
from .transfer import TRANSFERS, Carried, Transfer

Init = Literal["random", "vocab", "text", "labels", "context", "artifact", "nearest"]
PrefixInit = Literal[
    "random", "vocab", "text", "labels", "context", "artifact", "nearest", "demonstrations", "matched"
]

OF_PROMPTS = ("artifact", "nearest")  # a start from another trained prompt


def soft_tokens(
    setting: Setting,
    length: int,
    init: Init,
    text: str | None,
    artifact: str | None,
    transfer: Transfer | None = None,
) -> Float[Tensor, "prompts prefix hidden"]:
    """Return initial soft tokens in float32."""
    if init in OF_PROMPTS:
        starts = _soft_artifacts(setting, artifact, transfer)
        return torch.stack([_resize(vectors, length) for vectors in starts])
    if transfer is not None:
        raise SoftPromptError(
            f"transfer={transfer} cannot be combined with init={init}",
            why="it says how a prompt trained on another base model is carried to this one",
            fix="add method.init=artifact method.artifact=FOLDER, or leave transfer out",
        )
    rows = []
    for index in range(len(setting.prompts)):
        if init == "random":
            sample = _embed(setting, _sampled_ids(setting, index, 512))
            noise = torch.randn(length, sample.shape[1], generator=setting.generator(index))
            rows.append(sample.mean(0) + sample.std(0) * noise)
        else:
            rows.append(_embed(setting, start_ids(setting, index, length, init, text)))
    return torch.stack(rows)


def prefix(
    setting: Setting,
    places: PrefixLayers,
    length: int,
    init: PrefixInit,
    text: str | None,
    artifact: str | None,
    *,
    keep_first: bool = False,
) -> tuple[Float[Tensor, "prompts prefix keys"], Float[Tensor, "prompts prefix values"]]:
    """Return initial keys and values in float32; `keep_first`: the first column will not be trained."""
    rows: list[tuple[Tensor, Tensor]] = []
    for index, name in enumerate(setting.prompts):
        if init in OF_PROMPTS:
            rows.append(_kv_artifact(setting, *_source(setting, artifact, name), length))
        elif init == "demonstrations":
            rows.append(_flat(places, setting.lm.kv_of(_demonstrations(setting))))
        elif init == "matched":
            rows.append(_flat(places, matched(setting, index, length, text, keep_first)))
        elif init == "random":
            sample = _flat(places, setting.lm.kv_like(_sampled_ids(setting, index, 128)))
            generator = setting.generator(index)
            rows.append(
                tuple(  # type: ignore[arg-type]
                    part.mean(0) + part.std(0) * torch.randn(length, part.shape[1], generator=generator)
                    for part in sample
                )
            )
        else:
            rows.append(_flat(places, setting.lm.kv_of(start_ids(setting, index, length, init, text))))
    keys, values = zip(*rows, strict=True)
    return torch.stack(keys), torch.stack(values)


def start_ids(setting: Setting, index: int, length: int, init: Init, text: str | None) -> list[int]:
    """Return the token ids that the vectors of prompt `index` start as, repeated or cut to `length`."""
    if init == "text":
        if not text:
            raise SoftPromptError("init=text needs a text", fix="add method.text='…', or use init=vocab")
        return _fit(setting.lm.text_ids(text), length)
    if init == "labels":
        if not setting.labels:
            raise SoftPromptError(
                "init=labels needs class labels", why="the task has none", fix="use init=vocab or init=text"
            )
        return _fit([i for label in setting.labels for i in setting.lm.text_ids(" " + label.strip())], length)
    if init == "context":
        rows = _rows_of(setting, index)
        if not rows:
            raise SoftPromptError("init=context needs training rows", fix="use init=vocab or init=text")
        order = torch.randperm(len(rows), generator=setting.generator(index)).tolist()
        return _fit([i for row in order for i in rows[row]], length)
    return _sampled_ids(setting, index, length)


def _demonstrations(setting: Setting) -> tuple[int, ...]:
    if setting.demonstrations:
        return setting.demonstrations
    raise SoftPromptError(
        "init=demonstrations needs training rows",
        why="they are the demonstrations, and none was given with the model",
        fix="softprompt tune or softprompt distill --demonstrations FILE, which read them; or init=vocab",
    )


def _rows_of(setting: Setting, index: int) -> Sequence[Sequence[int]]:
    return setting.examples_by_prompt.get(index) or setting.examples


def _sampled_ids(setting: Setting, index: int, length: int) -> list[int]:
    """Sample tokens of the training rows, as often as they occur there; without rows, of the vocabulary."""
    ids = [i for row in _rows_of(setting, index) for i in row]
    if not ids:
        # a BPE vocabulary begins with its most frequent pieces
        ids = list(range(min(5000, setting.lm.spec.vocab_size)))
    picks = torch.randint(len(ids), (length,), generator=setting.generator(index))
    return [ids[i] for i in picks.tolist()]


def _fit(ids: list[int], length: int) -> list[int]:
    if not ids:
        raise SoftPromptError("the text to start from has no token", fix="give a longer text")
    return (ids * (length // len(ids) + 1))[:length]


@torch.no_grad()
def _embed(setting: Setting, ids: list[int]) -> Float[Tensor, "prefix hidden"]:
    return setting.lm.embed(torch.tensor(ids, device=_device(setting))).float().cpu()


@torch.no_grad()
def _flat(
    places: PrefixLayers, layers: Layers
) -> tuple[Float[Tensor, "prefix keys"], Float[Tensor, "prefix values"]]:
    keys, values = flatten(places.only(layers))
    return keys[0].float().cpu(), values[0].float().cpu()


def _device(setting: Setting):
    return getattr(setting.lm, "device", "cpu")


def _source(setting: Setting, artifact: str | None, name: str) -> tuple[str | None, str]:
    """Return the folder and the name of the prompt that prompt `name` starts from."""
    return setting.nearest.get(name, (artifact, name))


def _read(setting: Setting, artifact: str | None, name: str) -> Mapping[str, Tensor]:
    if not artifact:
        raise SoftPromptError(
            "init=artifact needs a path", fix="add method.artifact=FOLDER, a trained prompt"
        )
    if setting.read_prompt is None:
        raise SoftPromptError(
            "init=artifact needs a reader",
            fix="give Setting(read_prompt=softprompt.artifacts.warm_start.vectors)",
        )
    return setting.read_prompt(artifact, name)


def _soft_artifacts(
    setting: Setting, artifact: str | None, transfer: Transfer | None
) -> list[Float[Tensor, "_ hidden"]]:
    """Return the vectors that each prompt starts from, on this base model."""
    starts = [_soft_vectors(setting, *_source(setting, artifact, name)) for name in setting.prompts]
    other = _other_base(setting, artifact)
    if other is None:
        return starts
    if transfer is None:
        raise SoftPromptError(
            f"'{artifact}' was trained on another base model",
            why=f"its vectors are among the tokens of '{other.name}', not among this model's",
            fix="add method.transfer=nearest or method.transfer=linear, which carry them over",
        )
    shared = other.shared()
    carried, explained = TRANSFERS[transfer](torch.cat(starts), shared)
    setting.on_carried(Carried(transfer, other.name, shared.source.shape[0], explained))
    return list(carried.split([vectors.shape[0] for vectors in starts]))


def _other_base(setting: Setting, artifact: str | None):
    if setting.other_base is None or artifact is None or setting.nearest:  # nearest takes this base's alone
        return None
    return setting.other_base(artifact)


def _soft_vectors(setting: Setting, artifact: str | None, name: str) -> Float[Tensor, "prefix hidden"]:
    tensors = _read(setting, artifact, name)
    channels = ("before", "after", "decoder")
    vectors = next((tensors[channel] for channel in channels if channel in tensors), None)
    if vectors is None:
        raise SoftPromptError(
            f"'{artifact}' holds no soft tokens", why="it is a prefix", fix="use a prefix method"
        )
    return vectors


def _kv_artifact(
    setting: Setting, artifact: str | None, name: str, length: int
) -> tuple[Float[Tensor, "prefix keys"], Float[Tensor, "prefix values"]]:
    tensors = _read(setting, artifact, name)
    if "keys" not in tensors:
        raise SoftPromptError(
            f"'{artifact}' holds no prefix", why="it is a soft prompt", fix="use prompt-tuning"
        )
    if (other := _other_base(setting, artifact)) is not None:
        raise SoftPromptError(
            f"the prefix in '{artifact}' was trained on another base model",
            why=f"keys and values of the layers of '{other.name}' mean nothing in this model's layers",
            fix="start with init=context, or carry a soft prompt over: method=prompt-tuning transfer=linear",
        )
    return _resize(tensors["keys"], length), _resize(tensors["values"], length)


def _resize(vectors: Float[Tensor, "given numbers"], length: int) -> Float[Tensor, "prefix numbers"]:
    """Cut or repeat vectors to `length`."""
    return vectors.repeat(length // vectors.shape[0] + 1, 1)[:length].float().clone()
