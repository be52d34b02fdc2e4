"""A prompt that another starts from (`init=artifact`): its vectors, and the base model it was tuned on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ..errors import SoftPromptError
from ..injection import SoftTokens
from ..lm.base import LanguageModel
from ..lm.loading import load_saved
from ..lm.vocabulary import shared_tokens
from ..methods.base import flatten
from ..methods.transfer import OtherBase
from . import artifact as artifacts
from . import tensors as stored
from .artifact import Artifact
from .manifest import BASE, VECTORS


def notes(path: str, prompts: Sequence[str]) -> list[str]:
    """Say which of `prompts` start from another one's vectors, and which of the artifact's are left out."""
    there = artifacts.load(path).prompts
    if set(prompts) == set(there) or len(there) == len(prompts) == 1:
        return []
    first = [name for name in prompts if name not in there]
    left = [name for name in there if name not in prompts]
    sentences = []
    if first:
        sentences.append(
            f"{', '.join(first)}: starts from '{there[0]}', the first prompt of {path}, "
            "which has none of that name"
        )
    if left:
        sentences.append(
            f"{', '.join(left)}: in {path}, but in no row, so the new prompts do not hold it; "
            "to keep it, leave its rows in, or serve both folders"
        )
    return sentences


def vectors(path: str, prompt: str) -> dict[str, Tensor]:
    """Return a prompt's vectors: `before` or `after` [P, H], or `keys` and `values` [P, D].

    The first prompt of the artifact is taken where it has none of that name. Raises SoftPromptError where it
    holds no fixed vectors, or vectors of several kinds.
    """
    artifact = artifacts.load(path)
    name = prompt if prompt in artifact.prompts else artifact.prompts[0]
    if not artifact.is_static:
        raise SoftPromptError(
            f"'{path}' generates its prompts from the input",
            why="it holds no fixed vectors",
            fix="start from a static prompt or prefix",
        )
    static = stored.read_prompts(artifact.path / VECTORS, artifact.prompts)
    injection = static.prompts[artifact.prompts.index(name)]
    if not injection.channels():
        raise SoftPromptError(
            f"'{path}' holds no vectors",
            why=f"its method, {artifact.manifest['method']}, trains no prompt and no prefix"
            + (", only weights of the base model" if BASE in artifact.manifest["files"] else ""),
            fix="start from a tuned prompt or prefix, or choose another method.init",
        )
    if len(injection.channels()) > 1:
        raise SoftPromptError(
            f"'{path}' holds vectors of several kinds ({', '.join(injection.channels())})",
            why="another prompt starts from one kind",
            fix="start from a prompt of one placement (one that it was made of, for a composition)",
        )
    ((channel, part),) = injection.channels().items()
    if isinstance(part, SoftTokens):
        return {channel: part.vectors[0]}
    keys, values = flatten(part.layers)
    return {"keys": keys[0], "values": values[0]}


def other_base(lm: LanguageModel) -> Callable[[str], OtherBase | None]:
    """Return `Setting.other_base`: it maps a prompt's folder to the base it was tuned on, None for `lm`."""

    def of(path: str) -> OtherBase | None:
        artifact = artifacts.load(path)
        if not artifact.differences(lm):
            return None
        name = artifact.manifest["base"]["name"]
        return OtherBase(name, lambda: shared_tokens(source_base(artifact), lm))

    return of


def source_base(artifact: Artifact) -> LanguageModel:
    """Load the base model that an artifact names, on the CPU, with the weights that were trained with it.

    Raises SoftPromptError where it is missing now, or is another model.
    """
    saved = artifact.manifest["base"]
    try:
        lm = load_saved(saved, dtype=saved.get("dtype", "float32"), device="cpu")
    except SoftPromptError as error:
        raise SoftPromptError(
            f"the base model of {artifact} cannot be read: {error.what}",
            why="its embeddings are needed to carry the prompt to another model"
            + (f"; {error.why}" if error.why else ""),
            fix=f"bring '{saved['name']}' back, or start without init=artifact",
        ) from error
    # the rest of the configuration does not change what an embedding is
    if changed := [part for part in artifact.differences(lm) if part in ("weights", "tokenizer")]:
        raise SoftPromptError(
            f"'{saved['name']}' is not the base model that {artifact} was trained on",
            why=f"its {' and '.join(changed)} differ, so the prompt's vectors do not belong to its tokens",
            fix="bring the original model back under that name",
        )
    artifact.load_base(lm)
    return lm
