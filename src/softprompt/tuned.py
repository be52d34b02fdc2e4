"""A `Tuned` is a prompt on its base model; `open_prompt` loads one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import methods
from ._system.display import shown
from ._system.quiet import quietly
from .artifacts import artifact as artifacts
from .artifacts import view
from .artifacts.artifact import Artifact
from .artifacts.hub import upload
from .build import encoder_of, saved_base, template_of
from .config.load import Recipe, recipe_from_dict
from .data.encode import Encoder
from .data.sources import read_rows
from .errors import SoftPromptError
from .evaluation import encoding, reranking
from .evaluation.answering import listed, texts
from .evaluation.evaluator import Evaluator, evaluator_of
from .evaluation.records import Evaluation
from .evaluation.row_answers import BATCH_TOKENS
from .lm.base import LanguageModel
from .lm.from_recipe import check_head
from .methods.base import Setting, SoftPrompt
from .methods.keyword_arguments import in_python

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Iterable[Mapping[str, Any]]
Inputs = str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]


@dataclass(frozen=True, repr=False)
class Tuned:
    """A tuned prompt on its base model, which is ready to use.

    `tune` and `open_prompt` make it. `lm` is the base model, `artifact` the saved prompt, `method` the
    prompt's module, `encoder` writes rows as token ids, and `recipe` is that of the training.
    """

    lm: LanguageModel
    artifact: Artifact
    method: SoftPrompt
    encoder: Encoder
    recipe: Recipe

    @property
    def metrics(self) -> dict[str, float]:
        """Return the metrics of the dev rows."""
        return self.artifact.manifest["dev"]["metrics"]

    def __repr__(self) -> str:
        return view.text(self.artifact)

    def _repr_html_(self) -> str:
        return view.html(self.artifact)

    def plot_training(self) -> list[Axes]:
        """Draw the loss of the training's steps, and the dev score along the way with the best step.

        The result is a list of two of matplotlib's axes (`pip install 'softprompt[plot]'`); their `figure` is
        one. Raises SoftPromptError for a prompt whose training is not recorded: it was composed or imported.
        """
        return view.plot_training(self.artifact)

    def evaluator(self) -> Evaluator:
        """Make the evaluator that scores rows as the recipe says."""
        return evaluator_of(self.recipe, self.lm, self.encoder)

    @quietly
    @in_python
    def evaluate(
        self, rows: Rows | str, *, prompt: str | None = None, progress: bool | None = None
    ) -> Evaluation:
        """Compute metrics with 95 % intervals on `rows` (mappings with targets), or on a file of rows.

        `prompt` names one of several prompts, where the rows do not; `progress` is as in `tune`. Raises
        SoftPromptError for rows that cannot be used, all of them named.
        """
        with shown(progress):
            examples = self.encoder.encode_rows(read_rows(rows, split="test"), prompt=prompt)
            return self.evaluator().run(self.method, examples)

    @quietly
    @in_python
    def generate(self, inputs: Inputs, *, prompt: str | None = None, **options: Any) -> Any:
        """Answer an input: with generated text, or with the likeliest label or choice.

        One of `inputs` (a text, or a row as a mapping) gives one text; a list, or any other iterable, a list.
        `num_return_sequences=N` gives a list of N texts in place of each. The tags of an input are one text,
        split by spaces; the number of a regression is text too.

        A string is the value of the template's only field. `options` are transformers' generation options
        (see docs/running.md); a prompt that writes no text takes none. `prompt` names one of several prompts.
        Raises SoftPromptError for an unknown option or prompt, for an input that does not fit, and for a
        prompt that gives vectors.
        """
        many, single = listed(inputs)
        if not many:
            return []
        check_answers(self.recipe)
        name = (
            self.artifact.prompts[self.artifact.index(prompt)] if prompt or not _names_prompt(many) else None
        )
        wanted = options.get("max_new_tokens")
        encoder = self.encoder.settled(wanted if isinstance(wanted, int) and wanted > 0 else None)
        examples = [encoder.encode(row, with_target=False, prompt=name) for row in many]
        answers = texts(
            self.lm, self.method, self.encoder, examples, self.recipe.task.max_new_tokens, options
        )
        return answers[0] if single else answers

    @quietly
    @in_python
    def encode(
        self,
        inputs: Inputs,
        *,
        prompt: str | None = None,
        document: bool = False,
        normalize: bool = True,
        batch_tokens: int = BATCH_TOKENS,
        convert_to_tensor: bool = False,
    ) -> Any:
        """Return the vectors of texts: a numpy array [N, H] in float32, or [H] of a single text.

        The `inputs`, texts or rows as mappings, are queries, written by the template's input; with `document`
        they are documents, written by its target. `prompt` names one of several prompts. Vectors have the
        length 1 unless `normalize` is false. `batch_tokens` go through the model at once, padding included.
        With `convert_to_tensor` the result is a tensor on the CPU. Raises SoftPromptError for an empty text,
        and for a prompt of another task.
        """
        check_vectors(self.recipe)
        many, single = listed(inputs)
        name = (
            self.artifact.prompts[self.artifact.index(prompt)] if prompt or not _names_prompt(many) else None
        )
        examples = encoding.encoded(self.encoder, many, document=document, prompt=name)
        result = encoding.vectors(
            self.lm, self.method, examples, batch_tokens=batch_tokens, normalize=normalize
        )
        result = result[0] if single else result
        return result if convert_to_tensor else result.numpy()

    def rank(
        self, query: str, documents: Iterable[str], *, prompt: str | None = None
    ) -> list[tuple[int, float]]:
        """Rank documents by how well they fit a query: `(place in documents, number)`, the best first.

        The prompt is a reranker: a regression with `task.query`, whose template names the query and one other
        field, which is the document's. `prompt` names one of several prompts. Documents with the same number
        keep their order. Raises SoftPromptError for another prompt, for a single text in place of
        documents, and for a text that does not fit into the model.
        """
        field = reranking.document_field(self.recipe, self.encoder.template)
        if isinstance(documents, str):
            raise SoftPromptError(
                "documents are one text",
                why="its characters would be ranked as documents",
                fix="give a list of texts: rank(query, [document, …])",
            )
        rows = [{str(self.recipe.task.query): query, field: document} for document in documents]
        numbers = [float(text) for text in self.generate(rows, prompt=prompt)] if rows else []
        return sorted(enumerate(numbers), key=lambda pair: -pair[1])

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Upload the artifact to `repo_id` on the Hugging Face hub.

        `options`, the result and what is raised are those of `push`.
        """
        return upload.push(self.artifact.path, repo_id, **options)


@in_python
@quietly
def open_prompt(
    path: str | Path,
    lm: LanguageModel | None = None,
    *,
    model: str | None = None,
    other_base: bool = False,
    plain: bool = False,
    **loading: Any,
) -> Tuned:
    """Load and verify a saved prompt on its base model, which is loaded too where none is given.

    `path` is a folder, or `hf:ID@REVISION` for one on the Hugging Face hub (a branch, a tag or a commit).
    The base has the revision, precision and quantization that the prompt was trained with. `model` names
    another place to load it from, and `loading` are options of `softprompt.load` (`token`, `device_map`, …).
    Code that comes with the base's checkpoint runs only with `trust_remote_code=True` given here.
    `lm` is the base model where it is loaded already: one that differs from the base of the training is
    refused, unless `other_base`. `plain` leaves the prompt out: the base model as it was, with the prompt's
    template. Raises SoftPromptError for a folder that holds no prompt or a damaged one, and for a base that
    cannot be loaded.
    """
    artifact = artifacts.load(path)
    if lm is not None and loading:
        raise SoftPromptError(
            f"{' and '.join(loading)} cannot be set beside lm",
            why="the base model is loaded already",
            fix="give them to softprompt.load, or leave lm out",
        )
    return opened(artifact, lm or saved_base(artifact, model, **loading), other_base=other_base, plain=plain)


def opened(
    artifact: Artifact,
    lm: LanguageModel,
    *,
    other_base: bool = False,
    plain: bool = False,
    encoder: Callable[[Recipe, Artifact], Encoder] | None = None,
) -> Tuned:
    """Join a loaded artifact and a loaded base.

    `encoder` gives the encoder, for callers that share encoders between artifacts.
    """
    recipe = recipe_from_dict(artifact.manifest["recipe"])
    labels = artifact.manifest["labels"]
    check_head(recipe, labels, lm)
    artifact.check_method()
    if plain:
        method = methods.build("none", Setting(lm, artifact.prompts))
    else:
        method = artifact.method(lm, other_base=other_base)
    if encoder is not None:
        return Tuned(lm, artifact, method, encoder(recipe, artifact), recipe)
    own_encoder = encoder_of(recipe, lm, template_of(recipe, lm), artifact.prompts, labels)
    return Tuned(lm, artifact, method, (own_encoder.begun() if plain else own_encoder).settled(), recipe)


def check_vectors(recipe: Recipe) -> None:
    """Raise SoftPromptError for a prompt that answers, and gives no vectors."""
    if recipe.task.kind != "embedding":
        raise SoftPromptError(
            f"a {recipe.task.kind} prompt gives no vectors of texts",
            why="it was trained to answer, and its base model is loaded for that",
            fix="tune a prompt with task.kind=embedding, or run: softprompt generate",
        )


def check_answers(recipe: Recipe) -> None:
    """Raise SoftPromptError for a prompt that answers nothing: it gives vectors."""
    if recipe.task.kind == "embedding":
        raise SoftPromptError(
            "an embedding prompt writes no answers",
            why="it was trained to give vectors of texts",
            fix="tuned.encode(texts), or: softprompt embed FOLDER TEXT",
        )


def _names_prompt(rows: list) -> bool:
    """Return True where the rows may name their prompts."""
    return any(isinstance(row, Mapping) for row in rows)
