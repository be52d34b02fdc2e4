"""A recipe becomes encoded rows, a base model, a fresh method and a plan: all that comes before a step.

Nothing here trains or prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from . import artifact as artifacts
from . import caching, deciding, methods, plan, threads
from .activations import backward_bytes, largest_batch
from .cache import InputCache, InputFeatures
from .cache.place import Place, default_root
from .config import recipe_from_dict
from .data.chat import DATE, Chat
from .data.checking import check_rows
from .data.collate import collate
from .data.encode import Encoder, Example
from .data.labels import distinct_labels, kinds
from .data.room import Room
from .data.sources import Row, fingerprint, read_rows
from .data.spelling import distinct, refuse_twins
from .data.split import Kinds, limit_rows, split_rows
from .data.template import Template, name_in
from .errors import SoftPromptError, unknown
from .identity import FORMAT
from .lm import adapt
from .lm.base import LanguageModel
from .lm.features import size
from .lm.heads import Head
from .lm.loading import fingerprint as base_fingerprint
from .lm.loading import load
from .memory import free_memory
from .methods.base import Setting, SoftPrompt
from .methods.transfer import Carried
from .metrics import METRICS
from .notes import note
from .objectives import injection_for
from .order import Order, row_lengths
from .passes import at_once
from .paths import expanded
from .recipe import Recipe
from .vocabulary import other_base

EXAMPLES_TO_START_FROM = 64  # training rows an initialiser may look at, for each prompt


@dataclass(frozen=True)
class Prepared:
    """Rows encoded and a method built: everything known before the first step."""

    recipe: Recipe
    lm: LanguageModel
    encoder: Encoder
    train: list[Example]
    dev: list[Example]
    prompts: tuple[str, ...]
    data_fingerprint: str
    method: SoftPrompt
    plan: plan.Plan
    base: dict[str, str]  # fingerprint of the base as it was loaded; training may change it
    carried: Carried | None = None  # how the start came from another base model
    raw: Mapping[str, str] = field(default_factory=dict)  # hashes of the rows as they were read

    @property
    def trained_parameters(self) -> int:
        """Numbers that training changes: the prompt's and, where it is not frozen, the base's."""
        own = sum(p.numel() for p in self.method.parameters() if p.requires_grad)
        return own + sum(p.numel() for p in adapt.trained_weights(self.lm).values())

    def identity(self) -> dict[str, Any]:
        """What decides the run's numbers: see `identity`. A checkpoint must agree on it."""
        content = deciding.content(self.recipe)
        if self.method.reads is not None and self.method.reads.kind == "encoder":
            content["method.encoder"] = InputFeatures(self.lm, self.method.reads).key
        return {
            "format": FORMAT,
            "settings": deciding.settings(self.recipe)
            | {"prompts": list(self.prompts), "labels": list(self.encoder.labels or ())},
            "rows": {"train": deciding.rows(self.train), "dev": deciding.rows(self.dev)},
            "base": self.base,
            # dtype=auto is measured at every start, and might not come out the same
            "dtype": str(self.lm.dtype).removeprefix("torch."),
            "content": content,
            "raw": self.raw,
            "about": deciding.about(self.recipe),
        }


def prepare(
    recipe: Recipe,
    *,
    lm: LanguageModel | None = None,
    rows: Iterable[Mapping[str, Any]] | None = None,
    dev_rows: Iterable[Mapping[str, Any]] | None = None,
) -> Prepared:
    """Read, split and encode the rows, load the base and build the method.

    Rows are read before the model is loaded, so that a mistake in them is told at once.
    """
    methods.check_options(recipe.method.name, recipe.method.options())
    for metric in recipe.task.metrics or ():
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS, fix="mend task.metrics")
    refuse_twins(recipe.task.labels or (), "task.labels")
    template = template_of(recipe)
    train_rows, held = read_split(recipe, rows, dev_rows)
    prompts = _prompt_names(train_rows, recipe.data.prompt_field)
    threads.use(recipe.train.threads)  # before a precision is measured
    # a head's size is that of the labels, so that they must be known before the model is loaded
    labels = recipe.task.labels
    if recipe.task.needs_head and recipe.task.kind != "regression":
        labels = labels or distinct_labels(train_rows, template)
    lm = lm or load_base(recipe, labels)
    check_head(recipe, labels, lm)
    recipe = dated(recipe, lm)
    encoder = encoder_of(recipe, lm, template_of(recipe, lm), prompts, labels)
    train, dev = encoder.encode_parts([train_rows, held])
    base = base_fingerprint(lm)
    carried: list[Carried] = []
    method = build_method(recipe, lm, encoder, train, prompts, on_carried=carried.append)
    adapt.unfreeze(lm, recipe.base.mode, **base_options(recipe), seed=recipe.train.seed)
    chosen = plan_of(recipe, lm, method, train, dev)
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
    )


def plan_of(
    recipe: Recipe,
    lm: LanguageModel,
    method: SoftPrompt,
    train: list[Example],
    dev: list[Example],
    asked: Sequence[Example] | None = None,
) -> plan.Plan:
    """What is kept of the inputs, and whether layers are computed twice, for want of memory.

    `asked` are the training rows that steps will read; by itself those of the recipe's steps.
    """
    how = recipe.train
    rows = min(how.batch_size, len(train))
    order = Order(row_lengths(train, how.batch_tokens), how.batch_size, how.seed, how.batch_tokens)
    if how.batch_tokens is not None:
        rows = round(len(train) / order.per_epoch)
    if asked is None:
        asked = [train[i] for i in order.asked(how.steps)]
    chosen = plan_inputs(recipe, lm, method, [*train, *dev], rows, [*asked, *dev])
    kept = 0
    lm.set_gradient_checkpointing(False)  # a base that is used again may be at it
    if how.gradient_checkpointing == "auto":
        shape = largest_batch(train, how.batch_size, how.batch_tokens)
        if chosen.mode == "full":  # a step goes through the model in passes of so many positions
            most = at_once(str(lm.device))[0] // (shape.tokens + chosen.soft_tokens)
            shape = replace(shape, rows=min(shape.rows, max(1, most)))
        kept = backward_bytes(lm, method, shape, full=chosen.mode == "full")
    free, possible = free_memory(str(lm.device)), bool(lm.checkpointable_layers)
    return plan.with_checkpointing(chosen, how.gradient_checkpointing, kept, free, possible=possible)


def plan_inputs(
    recipe: Recipe,
    lm: LanguageModel,
    method: SoftPrompt,
    examples: Sequence[Example],
    rows: int,
    needed: Sequence[Example] | None = None,
) -> plan.Plan:
    """What is kept of inputs, and where; `rows` go through the model in a step. For `needed` see `decide`."""
    how = recipe.train
    with torch.no_grad():
        injection = injection_for(lm, method, collate(examples[:1], lm.device))
    return plan.decide(
        lm,
        injection,
        examples,
        rows,
        needed=needed,
        reads=method.reads,
        cache=how.cache,
        form=how.cache_dtype,
        budget_bytes=None if how.cache_budget_mb is None else how.cache_budget_mb * 10**6,
        place=cache_place(recipe),
    )


def open_caches(
    prepared: Prepared,
    lists: Sequence[Sequence[Example]],
    *,
    first: Sequence[Example] = (),
    needed: Sequence[Example] | None = None,
    progress: caching.Progress = lambda done, total: None,
    say: caching.Say = lambda text: None,
) -> tuple[list[InputCache], Prepared]:
    """A cache for each list of examples as the plan asks, and `prepared` with the plan as it came out."""
    caches, chosen = caching.open_inputs(
        prepared.plan,
        prepared.lm,
        lists,
        first=first,
        needed=needed,
        reads=prepared.method.reads,
        form=prepared.recipe.train.cache_dtype,
        place=cache_place(prepared.recipe),
        progress=progress,
        say=say,
    )
    return caches, replace(prepared, plan=chosen)


def leading(runs: Sequence[Prepared]) -> Prepared:
    """The run whose caches serve all: of keys and values where some keep them, else of what is read."""
    return max(runs, key=lambda run: (run.plan.mode != "full", run.method.reads is not None))


def read_split(
    recipe: Recipe,
    rows: Iterable[Mapping[str, Any]] | None = None,
    dev_rows: Iterable[Mapping[str, Any]] | None = None,
) -> tuple[list[Row], list[Row]]:
    """The recipe's rows to train on and to measure on; the same whenever the files are the same."""
    data, seed, kinds_of = recipe.data, recipe.train.seed, kinds_in(recipe)
    found = read_rows(rows if rows is not None else data.train)
    train = limit_rows(found, data.limit, seed, kinds=kinds_of)
    check_rows(template_of(recipe), train)
    if dev_rows is not None or data.dev is not None:
        held = read_rows(dev_rows if dev_rows is not None else str(data.dev), split="dev")
    else:
        key = template_of(recipe).render_input
        train, held = split_rows(train, data.dev_fraction, seed, key=key, kinds=kinds_of)
    return train, limit_rows(held, data.dev_limit, seed)


def kinds_in(recipe: Recipe) -> Kinds:
    """What of a row must be in the training rows too, however they are chosen: its labels and its prompt."""
    labelled = recipe.task.kind in ("classification", "token-classification")
    return kinds(template_of(recipe), labelled=labelled, prompt_field=recipe.data.prompt_field)


def load_base(recipe: Recipe, labels: Sequence[str] | None = None) -> LanguageModel:
    """The recipe's base model, with a head of the labels where it needs one.

    Full training, and that of a head, need float32 weights.
    """
    dtype, head = recipe.train.dtype, head_of(recipe, labels)
    trained = (recipe.base.mode == "full" or head is not None) and dtype == "auto"
    lm = load(recipe.model, dtype="float32" if trained else dtype, head=head)
    if trained:
        lm.why_dtype = "weights are trained"
    return lm


def saved_base(artifact: artifacts.Artifact, model: str | None = None) -> LanguageModel:
    """The base that an artifact was trained on, as it was then: its precision, and a head not yet trained.

    `model` names another place to load it from.
    """
    base = artifact.manifest["base"]
    head = head_of(recipe_from_dict(artifact.manifest["recipe"]), artifact.manifest["labels"])
    try:
        return load(model or base["name"], dtype=base["dtype"], head=head)
    except SoftPromptError as error:
        if model is not None:
            raise
        raise SoftPromptError(
            f"the base model of {artifact.path} cannot be loaded: {error.what}",
            why=f"{error.why}; the prompt was trained on '{base['name']}'",
            fix=f"--model NAME says where that model is now; or: {error.fix}",
        ) from error


def head_of(recipe: Recipe, labels: Sequence[str] | None) -> Head | None:
    """The head that the recipe's answers are read off; None where they are words."""
    if not recipe.task.needs_head:
        return None
    over = "tokens" if recipe.task.kind == "token-classification" else "sequence"
    return Head(over, 1 if recipe.task.kind == "regression" else len(labels or ()), recipe.train.seed)


def check_head(recipe: Recipe, labels: Sequence[str] | None, lm: LanguageModel) -> None:
    """A model that the caller loaded must have the head that the task needs, and no other."""
    wanted, found = head_of(recipe, labels), lm.head
    if wanted is None and found is None:
        return
    if wanted is None:
        raise SoftPromptError(
            f"'{lm.name}' was loaded with a head, which the task does not read",
            why=f"task.kind={recipe.task.kind}, without task.head=true",
            fix="task.head=true, or load the model without head=",
        )
    if found is None or (wanted.over, wanted.size) != (found.over, found.size):
        raise SoftPromptError(
            f"'{lm.name}' was loaded without the head that the task needs",
            why=f"a head of {wanted.size} over the {wanted.over}",
            fix=f'load(…, head=Head("{wanted.over}", {wanted.size})), or give the name of the model',
        )


def cache_place(recipe: Recipe) -> Place:
    """Where the recipe's caches lie on disk, and what they may take there."""
    train = recipe.train
    root = default_root() if train.cache_folder is None else Path(expanded(train.cache_folder))
    return Place(root, None if train.cache_disk_mb is None else train.cache_disk_mb * 10**6)


def template_of(recipe: Recipe, lm: LanguageModel | None = None) -> Template:
    """How the recipe's rows become text; `{{ mask }}` is the model's own, once there is a model."""
    tagged = recipe.task.kind == "token-classification"
    mask = "[MASK]" if lm is None else _mask_of(lm)
    return Template(
        recipe.template.input,
        recipe.template.target,
        chat=recipe.template.chat,
        system=recipe.template.system,
        prompt_field=recipe.data.prompt_field,
        choices_field=recipe.task.choices,
        references_field=recipe.task.references,
        words_field=recipe.task.words if tagged else None,
        tags_field=recipe.task.tags if tagged else None,
        mask=mask,
        mask_is_known=lm is not None,
    )


def _mask_of(lm: LanguageModel) -> str | None:
    """What the model's masked words are written as; None where it has none."""
    if lm.answers != "mask":
        return None
    mask = getattr(lm.tokenizer, "mask_token", None)
    if mask is None:
        raise SoftPromptError(
            f"the tokenizer of '{lm.name}' has no mask token",
            why="a masked-language model answers at masks",
            fix="set mask_token in its tokenizer_config.json, or take a head of labels: task.head=true",
        )
    return mask


def dated(recipe: Recipe, lm: LanguageModel) -> Recipe:
    """The recipe with the day written down, where the chat template writes one: see `data.chat`."""
    template = recipe.template
    if not template.chat or template.chat_date is not None or not Chat(lm.tokenizer).writes_date:
        return recipe
    return recipe.model_copy(update={"template": template.model_copy(update={"chat_date": DATE})})


def encoder_of(
    recipe: Recipe,
    lm: LanguageModel,
    template: Template,
    prompts: tuple[str, ...],
    labels: Sequence[str] | None = None,
) -> Encoder:
    """How they become token ids."""
    return Encoder(
        lm.tokenizer,
        template,
        chat=recipe.template.chat,
        system=recipe.template.system,
        chat_options=recipe.template.chat_options,
        chat_date=recipe.template.chat_date,
        labels=labels or recipe.task.labels,
        kind=recipe.task.kind,
        prompts=prompts,
        max_input_tokens=recipe.data.max_input_tokens,
        max_target_tokens=recipe.data.max_target_tokens,
        room=room_of(recipe, lm),
        answers=lm.answers,
        closed=lm.spec.kind == "encoder",
        verbalizer=recipe.task.verbalizer,
        apart=lm.spec.kind == "encoder-decoder",
        ends=lm.ends,
        vocabulary=getattr(lm, "vocabulary", None),
        named=recipe.task.labels is not None,
    )


def room_of(recipe: Recipe, lm: LanguageModel) -> Room:
    """The positions that a row of the recipe has in the model."""
    soft, answer_soft, length = methods.soft_tokens(recipe.method.name, recipe.method.options())
    return Room(
        lm.spec.context,
        soft,
        lm.spec.answer_context,
        answer_soft,
        apart=lm.spec.kind == "encoder-decoder",
        new_tokens=recipe.task.max_new_tokens if recipe.task.kind == "generation" else 0,
        length=length,
        limit=lm.spec.limits.get("length", ""),
    )


def build_method(
    recipe: Recipe,
    lm: LanguageModel,
    encoder: Encoder,
    train: list[Example],
    prompts: tuple[str, ...],
    *,
    on_carried: Callable[[Carried], None] = lambda carried: None,
) -> SoftPrompt:
    """A fresh method on the base's device, started from the training rows where its init asks for them."""
    by_prompt: dict[int, list[tuple[int, ...]]] = {}
    for example in train:
        rows = by_prompt.setdefault(example.prompt, [])
        if len(rows) < EXAMPLES_TO_START_FROM:
            rows.append((*example.input_ids, *example.target_ids))
    options = recipe.method.options()
    if options.get("init") == "artifact" and options.get("artifact"):
        for text in artifacts.starts(str(options["artifact"]), prompts):
            note(text)
    setting = Setting(
        lm,
        prompts,
        labels=tuple(encoder.labels or ()),
        examples=tuple(row for rows in by_prompt.values() for row in rows)[:EXAMPLES_TO_START_FROM],
        examples_by_prompt={index: tuple(rows) for index, rows in by_prompt.items()},
        seed=recipe.train.seed,
        feature_size=lambda reads: size(lm, reads),
        read_prompt=artifacts.vectors,
        other_base=other_base(lm),
        on_carried=on_carried,
    )
    return methods.build(recipe.method.name, setting, recipe.method.options()).to(lm.device)


def _prompt_names(rows: list[Row], field: str | None) -> tuple[str, ...]:
    """Distinct prompt names in order of appearance; several spellings of one are one."""
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


def base_options(recipe: Recipe) -> dict[str, Any]:
    """Options of the base's own training, as `lm.adapt.unfreeze` takes them."""
    base = recipe.base
    return {"rank": base.rank, "alpha": base.alpha, "targets": base.targets} if base.mode == "lora" else {}
