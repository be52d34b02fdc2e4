"""The base model that a saved prompt was trained on, loaded for its vocabulary."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.loading import load
from ..lm.vocabulary import shared_tokens
from ..methods.transfer import OtherBase
from . import artifact as artifacts
from .artifact import Artifact


def other_base(lm: LanguageModel) -> Callable[[str], OtherBase | None]:
    """For `Setting.other_base`: of a prompt's folder, the base it was trained on; None where that is `lm`."""

    def of(path: str) -> OtherBase | None:
        artifact = artifacts.load(path)
        if not artifact.differences(lm):
            return None
        name = artifact.manifest["base"]["name"]
        return OtherBase(name, lambda: shared_tokens(source_base(artifact), lm))

    return of


def source_base(artifact: Artifact) -> LanguageModel:
    """The base model that an artifact names, on the CPU, with the weights that were trained along.

    Raises SoftPromptError where it is not there any more, or is another model by now.
    """
    saved = artifact.manifest["base"]
    try:
        lm = load(saved["name"], dtype=saved.get("dtype", "float32"), device="cpu")
    except SoftPromptError as error:
        raise SoftPromptError(
            f"the base model of {artifact.path} cannot be read: {error.what}",
            why="its embeddings are needed to carry the prompt to another model"
            + (f"; {error.why}" if error.why else ""),
            fix=f"bring '{saved['name']}' back, or start without init=artifact",
        ) from error
    # the rest of the configuration does not change what an embedding is
    if changed := [part for part in artifact.differences(lm) if part in ("weights", "tokenizer")]:
        raise SoftPromptError(
            f"'{saved['name']}' is not the base model that {artifact.path} was trained on",
            why=f"its {' and '.join(changed)} differ, so the prompt's vectors do not lie among its tokens",
            fix="bring the original model back under that name",
        )
    artifact.load_base(lm)
    return lm
