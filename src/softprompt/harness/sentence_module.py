"""A tuned prompt is a module of sentence-transformers, so that its evaluators and tools take it.

    SentenceTransformer(modules=[SentenceModule(tuned)])

The module gives the vectors of `Tuned.encode`, of length 1. It needs the package sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..data.collate import collate
from ..errors import SoftPromptError
from ..evaluation.encoding import encoded
from ..lm.apply import injection_for
from ..lm.contrastive import unit
from ..tuned import check_vectors

if TYPE_CHECKING:
    from ..tuned import Tuned

try:
    from sentence_transformers.models import InputModule  # pyright: ignore[reportMissingImports]
except ImportError:
    raise SoftPromptError(
        "sentence-transformers is not installed, or is older than 5.1",
        fix="pip install 'softprompt[sentence-transformers]'",
    ) from None


class SentenceModule(InputModule):
    """Gives the vectors [B, H] of texts under a tuned prompt.

    `prompt` names one of several prompts. Texts are queries, and documents where sentence-transformers says
    so (`encode_document`) or with `document=True`. The base model is the prompt's own, and is not copied.
    Raises SoftPromptError for a prompt of another task than embeddings.
    """

    def __init__(self, tuned: Tuned, prompt: str | None = None, *, document: bool = False) -> None:
        super().__init__()
        check_vectors(tuned.recipe)
        self._tuned, self._document = tuned, document
        self._prompt = tuned.artifact.prompts[tuned.artifact.index(prompt)]
        self.base, self.method = tuned.lm.model, tuned.method  # so that both move to a device together
        self.tokenizer = tuned.lm.tokenizer

    @property
    def max_seq_length(self) -> int:
        """The largest number of tokens of a text, special tokens included."""
        limits = self._tuned.encoder.limits
        free = self._tuned.lm.spec.context - limits.room.soft
        return min(free, limits.max_input_tokens or free)

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        """Raise SoftPromptError: a prompt reads texts as it was tuned to."""
        raise SoftPromptError(
            f"max_seq_length={value} cannot be set",
            why="a text is cut as the prompt was tuned to, and refused where it does not fit",
            fix=f"tune a prompt with max_input_tokens={value}, or shorten the texts",
        )

    def get_embedding_dimension(self) -> int:
        """Return the length of a vector."""
        return self._tuned.lm.spec.hidden_size

    get_sentence_embedding_dimension = get_embedding_dimension

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **options: Any) -> dict[str, Any]:
        """Encode texts. Raises SoftPromptError for an empty one, and for one that does not fit."""
        document = self._document or options.get("task") == "document"
        texts = [(prompt or "") + text for text in inputs]
        examples = encoded(self._tuned.encoder, texts, document=document, prompt=self._prompt)
        batch = collate(examples, targets=False)
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.input_mask.long(),
            "prompt_ids": batch.prompt_ids,
            "examples": examples,
        }

    def tokenize(self, texts: Sequence[str], **options: Any) -> dict[str, Any]:
        """Encode texts, as earlier versions of sentence-transformers call it."""
        return self.preprocess(texts, **options)

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Add the vectors [B, H] of the texts as `sentence_embedding`."""
        lm = self._tuned.lm
        batch = collate(features["examples"], lm.device, targets=False)
        vectors: Tensor = lm.logits(batch, injection_for(lm, self._tuned.method, batch))[:, 0]
        features["sentence_embedding"] = unit(vectors)
        return features

    def save(self, output_path: str, *arguments: Any, **options: Any) -> None:
        """Raise SoftPromptError: the artifact is what is saved already."""
        raise SoftPromptError(
            "a tuned prompt is not saved by sentence-transformers",
            why=f"it is an artifact already: {self._tuned.artifact}",
            fix="copy that folder, and open it with softprompt.open_prompt(FOLDER)",
        )
