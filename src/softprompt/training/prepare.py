"""From a recipe to encoded rows, a base model, a fresh method and a plan: all that comes before a step.

Nothing here trains or prints.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import methods
from .._system import threads
from .._system.memory import free_memory
from .._system.world import ALONE, World
from ..artifacts.nearest import Candidate, Nearest, candidates_in, mean_inputs, nearest
from ..build import base_options, build_method, dated, encoder_of, pinned, template_of
from ..cache import InputFeatures
from ..cache.plan import Plan
from ..cache.planning import plan_inputs, with_checkpointing
from ..config.identity import FORMAT
from ..config.schema import Recipe
from ..data.encode import Encoder
from ..data.example import Example
from ..data.labels import distinct_labels
from ..data.recipe_rows import read_split
from ..data.row_fields import name_in
from ..data.sources import Row, fingerprint
from ..data.spelling import distinct, refuse_twins
from ..data.teacher_texts import with_texts
from ..errors import SoftPromptError
from ..evaluation.evaluator import ranking
from ..evaluation.metrics import check_metrics
from ..lm import finetune
from ..lm.base import LanguageModel
from ..lm.from_recipe import check_head, check_one_device, check_weights, load_base
from ..lm.loading import fingerprint as base_fingerprint
from ..methods import from_module
from ..methods.base import SoftPrompt
from ..methods.transfer import Carried
from ..tracking import registry as tracking
from . import data_parallel, decisive, demonstrations, embedding_rows, together
from .activation_memory import backward_bytes, largest_batch
from .keep import GeneralText, general_text_of
from .micro_batch import at_once
from .sampler import BatchSampler, row_lengths
from .teachers import Beginnings, taught_by_prompt
from .trained import trained_parameters


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before the first step: encoded rows, the model, the method, the plan."""

    recipe: Recipe
    lm: LanguageModel
    encoder: Encoder
    train: list[Example]
    dev: list[Example]
    prompts: tuple[str, ...]
    data_fingerprint: str
    method: SoftPrompt
    plan: Plan
    base: dict[str, str]  # fingerprint of the base as it was loaded; training may change it
    carried: Carried | None = None  # how the start came from another base model
    raw: Mapping[str, str] = field(default_factory=dict)  # hashes of the rows as they were read
    world: World = ALONE  # the processes that train it together
    keep: GeneralText | None = None  # text on which the model stays near the plain one
    inputs: Mapping[str, Tensor] = field(default_factory=dict)  # by prompt: see `artifacts.nearest`
    candidates: Sequence[Candidate] = ()  # that `init=nearest` chooses from
    nearest: Mapping[str, Nearest] = field(default_factory=dict)  # by prompt: what it starts from
    start: str | None = None  # hash of the module that the user built and gave as the start
    combinations: tuple[tuple[int, ...], ...] = ()  # of `together.expanded`: what a row's prompt number means
    start_seconds: float = 0.0  # that building the method took: its start from a text, say

    def step_rows(self, step: int, rows: Sequence[int]) -> list[int]:
        """Return a step's training rows, by number, and its rows of general text, numbered -1, -2, …"""
        if self.keep is None:
            return list(rows)
        general = self.keep.rows(step, [self.train[i] for i in rows])
        return [*rows, *(-1 - i for i in general)]

    @property
    def trained_parameters(self) -> int:
        """The number of numbers that training changes: the prompt's, and the base's if it is trained."""
        return trained_parameters(self.lm, self.method)

    def identity(self) -> dict[str, Any]:
        """Return what decides the run's numbers (see `config.identity`). A checkpoint must agree on it."""
        content = decisive.content(self.recipe)
        if self.method.reads is not None and self.method.reads.kind == "encoder":
            content["method.encoder"] = InputFeatures(self.lm, self.method.reads).key
        if self.start is not None:
            content["method"] = self.start
        general = {} if self.keep is None else {"keep": self.keep.fingerprint}
        return {
            "format": FORMAT,
            "settings": decisive.settings(self.recipe)
            | {"prompts": list(self.prompts), "labels": list(self.encoder.labels or ())},
            "rows": {"train": decisive.rows(self.train), "dev": decisive.rows(self.dev)} | general,
            "base": self.base,
            # dtype=auto depends on the machine
            "dtype": self.lm.precision,
            "content": content,
            "raw": {**self.raw, **general},
            "about": decisive.about(self.recipe),
        }


def prepare(
    recipe: Recipe,
    *,
    lm: LanguageModel | None = None,
    rows: Iterable[Mapping[str, Any]] | None = None,
    dev_rows: Iterable[Mapping[str, Any]] | None = None,
    world: World = ALONE,
    module: SoftPrompt | None = None,
    demonstrations_first: int | None = None,
    beside: Prepared | None = None,
) -> Prepared:
    """Read, split and encode the rows, load the base, build the method and make the plan.

    Rows are read before the model is loaded, so that a mistake in them is reported at once. Sets torch's
    number of threads (train.threads), unfreezes the parts of the base that the recipe trains (base.mode), and
    sets the model's gradient checkpointing as planned. A copy of `module`, which the user has built, is the
    start where it is given. `demonstrations_first` is how many rows, the first ones, may be demonstrations of
    `init=demonstrations`; by default all of them. `beside` is a run of the same recipe on the
    same model, which will go side by side: the base is not hashed again, nor the memory of a step measured.
    """
    tracking.check(recipe.track)
    methods.check_options(recipe.method.name, recipe.method.options())
    recipe = with_texts(demonstrations.continuing(pinned(recipe)))
    check_metrics(recipe.task.metrics or (), recipe.task.kind, **ranking(recipe.task))
    embedding_rows.check_recipe(recipe, world)
    if recipe.train.shard:
        data_parallel.check_shard(recipe, world, is_loaded=lm is not None)
    refuse_twins(recipe.task.labels or (), "task.labels")
    template = template_of(recipe)
    train_rows, held = read_split(recipe, rows, dev_rows)
    prompts = _prompt_names(train_rows, recipe.data.prompt_field)
    threads.use(recipe.train.threads)
    # a head's size is that of the labels, so that they must be known before the model is loaded
    labels = recipe.task.labels
    if recipe.task.needs_head and recipe.task.kind != "regression":
        labels = labels or distinct_labels(train_rows, template)
    lm = lm or load_base(recipe, labels)
    check_one_device(lm)
    check_weights(recipe, lm)
    check_head(recipe, labels, lm)
    recipe = dated(recipe, lm)
    encoder = encoder_of(recipe, lm, template_of(recipe, lm), prompts, labels)
    train, dev = encoder.encode_parts([train_rows, held])
    embedding_rows.check(recipe, train)
    base, texts = base_fingerprint(lm) if beside is None else beside.base, Beginnings()
    if recipe.task.objective == "distil":
        (train, dev), texts = taught_by_prompt(recipe, lm, prompts, [train, dev])
    shown = None
    if demonstrations.starts_with_demonstrations(recipe):
        recipe, train, shown = demonstrations.chosen(recipe, lm, encoder, train, dev, demonstrations_first)
    keep = general_text_of(recipe, lm, prompts)  # of the plain model: before the base is trained
    carried: list[Carried] = []
    means = mean_inputs(lm, prompts, train)
    candidates, near = (), {}
    if recipe.method.options().get("init") == "nearest":
        candidates = candidates_in(recipe, base) if beside is None else beside.candidates
        near = nearest(candidates, means, without=Path(recipe.output))
    started = time.perf_counter()
    method = build_method(
        recipe,
        lm,
        encoder,
        train,
        prompts,
        replaced=texts,
        shown=shown,
        nearest=near,
        on_carried=carried.append,
        module=module,
    )
    start_seconds = time.perf_counter() - started
    together.check(recipe, prompts, method)
    finetune.unfreeze(lm, recipe.base.mode, **base_options(recipe), seed=recipe.train.seed)
    if recipe.train.shard:
        data_parallel.check_lockstep(lm)
    chosen = make_plan(recipe, lm, method, train, dev, measured=beside is None)
    lm.set_gradient_checkpointing(chosen.checkpointing)
    return Prepared(
        recipe,
        lm,
        encoder,
        train,
        dev,
        prompts,
        fingerprint([*train_rows, *held]),
        method,
        chosen,
        base,
        carried[0] if carried else None,
        {"train": fingerprint(train_rows), "dev": fingerprint(held)},
        world,
        keep,
        means,
        candidates,
        near,
        None if module is None else from_module.digest(module),
        start_seconds=start_seconds,
    )


def make_plan(
    recipe: Recipe,
    lm: LanguageModel,
    method: SoftPrompt,
    train: list[Example],
    dev: list[Example],
    needed: Sequence[Example] | None = None,
    *,
    measured: bool = True,
) -> Plan:
    """Decide which inputs are cached, and whether layers are computed twice to save memory.

    `needed` are the training rows that steps will read; by default those of the recipe's steps. Without
    `measured`, the memory of a step is not measured, and layers are computed twice only as the recipe says.
    """
    options = recipe.train
    rows = min(options.batch_size, len(train))
    sampler = BatchSampler(
        row_lengths(train, options.batch_tokens), options.batch_size, options.seed, options.batch_tokens
    )
    if options.batch_tokens is not None:
        rows = round(len(train) / sampler.per_epoch)
    if needed is None:
        needed = [train[i] for i in sampler.needed(options.steps)]
    chosen = plan_inputs(recipe, lm, method, [*train, *dev], rows, [*needed, *dev])
    saved = 0
    if measured and options.gradient_checkpointing == "auto" and not lm.is_sharded:
        shape = largest_batch(train, options.batch_size, options.batch_tokens)
        if (
            chosen.mode == "full" and recipe.task.kind != "embedding"
        ):  # a step goes through the model in passes of so many positions
            most = at_once(str(lm.device))[0] // (shape.tokens + chosen.soft_tokens)
            shape = replace(shape, rows=min(shape.rows, max(1, most)))
        saved = backward_bytes(lm, method, shape, full=chosen.mode == "full")
    free, possible = free_memory(str(lm.device)), bool(lm.checkpointable_layers)
    return with_checkpointing(chosen, options.gradient_checkpointing, saved, free, possible=possible)


def _prompt_names(rows: list[Row], field: str | None) -> tuple[str, ...]:
    """Return the distinct prompt names in order of appearance; spellings that look the same count once."""
    if field is None:
        return ("default",)
    names = distinct(name for row in rows if (name := name_in(row, field)) is not None)
    if not names:
        raise SoftPromptError(
            f"no row names its prompt in the column '{field}'",
            why="data.prompt_field says that they do",
            fix=f"add '{field}' to the rows, or leave data.prompt_field out",
        )
    return tuple(names)
