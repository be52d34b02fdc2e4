"""`attach` lets a transformers model of the user's own take a table of prompts.

It keeps its object and its place in a script. Its class becomes a subclass of its own (torch's FSDP2 does the
same), and one submodule, `soft_prompt`, holds all that is trained. A wrapper around the model was the other
way: TRL's trainers check for `PreTrainedModel` or PEFT's class, replace `forward` on the model that they get
and call its backbone, all of which a wrapper has to imitate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from .. import methods
from .._system.quiet import quietly
from ..artifacts import artifact as artifacts
from ..artifacts.manifest import BASE
from ..errors import SoftPromptError
from ..lm import in_memory
from ..lm.base import LanguageModel
from ..lm.features import size
from ..lm.finetune import refuse_adapters
from ..lm.loading import fingerprint, load
from ..methods import from_module
from ..methods.base import Setting, SoftPrompt
from ..methods.typed_options import MethodOptions
from . import arguments, heads
from .frozen import FrozenBase
from .holder import MODULE, NAME, TRAINERS_CHANGE, Holder, state_of
from .prompt_model import subclass


@quietly
def attach(
    base: PreTrainedModel | str | Path,
    tokenizer: Any = None,
    method: MethodOptions | SoftPrompt | str = "prefix-tuning",
    *,
    prompts: Sequence[str] = ("default",),
    template: Mapping[str, Any] | None = None,
    rows: Sequence[str] = (),
    seed: int = 0,
    **loading: Any,
) -> Any:
    """Attach a table of prompts to a model and freeze it; return the same object, now a `SoftPromptModel`.

    `base` is a transformers model, or what `softprompt.load` takes: a hub id, a folder, a GGUF file, loaded
    with the `loading` options of `load` (`revision`, `device_map`, …). `method`: a configuration
    (`softprompt.PrefixTuning(length=32)`), a name, or a `SoftPrompt` of one's own.
    `prompts`: the names of the table. `rows`: some texts of the training rows to start from; without them
    init=context becomes init=vocab. `template`: the template section of the recipe that is saved with the
    prompt, for `softprompt generate`, `eval` and `serve`. `seed` draws what the vectors start from.
    A classification head that the checkpoint did not bring is trained with the prompt and saved with it.
    Raises SoftPromptError where the method does not suit the model, and for a model that has a prompt
    already. The model is then left as it was.
    """
    if isinstance(base, (str, Path)):
        base, tokenizer = _loaded(base, tokenizer, loading)
    elif loading:
        raise SoftPromptError(
            f"{' and '.join(loading)} cannot be set for a model that is loaded",
            why="they say how a model is loaded",
            fix="give them to from_pretrained, or give the model's name",
        )
    _check_model(base)
    arguments.check(base, prompts, template, tokenizer)
    lm = in_memory.wrapped(base, tokenizer, trains_head=heads.is_fresh(base))
    try:
        config = _options(method)
        options = config.options()
        method_entry = methods.find(config.name)
        known = method_entry.options()
        if not rows and method_entry.has_init and options.get("init", known["init"].default) == "context":
            options["init"] = "vocab"
        examples = tuple(tuple(lm.text_ids(text)) for text in rows)
        setting = Setting(
            lm,
            tuple(prompts),
            examples=examples,
            examples_by_prompt=dict.fromkeys(range(len(prompts)), examples) if examples else {},
            seed=seed,
            feature_size=lambda reads: size(lm, reads),
        )
        if isinstance(method, SoftPrompt):
            from_module.check(module := method, setting, config)
        else:
            module = methods.build(config.name, setting, options)
        full = {name: known[name].default for name in known} | options
        heads.train(base, lm)
        if not any(True for _ in module.parameters()) and not lm.head_names:
            raise SoftPromptError(
                f"the method '{config.name}' has nothing to train",
                why="it puts no vectors into the model, which stays frozen",
                fix='give another, method="prompt-tuning" for example',
            )
        return _put(base, module, _holder(base, lm, prompts, template, config.name, full))
    except BaseException:
        lm.close()
        raise


def _options(method: MethodOptions | SoftPrompt | str) -> MethodOptions:
    if isinstance(method, SoftPrompt):
        return from_module.options_of(method)
    return method if isinstance(method, MethodOptions) else methods.options(method)


@quietly
def attach_artifact(base: PreTrainedModel, folder: str | Path, tokenizer: Any = None) -> Any:
    """Attach a saved prompt: see `SoftPromptModel.from_pretrained`."""
    artifact = artifacts.load(folder)
    _check_model(base)
    arguments.check_free(base)
    lm = in_memory.wrapped(base, tokenizer, trains_head=BASE in artifact.manifest["files"])
    try:
        trainable = "sources" not in artifact.manifest
        module = artifact.method(lm, trainable=trainable)
        about = artifact.manifest
        template = about["recipe"]["template"]
        if trainable:
            heads.train(base, lm)
        holder = _holder(base, lm, artifact.prompts, template, about["method"], about["options"])
        return _put(base, module, holder)
    except BaseException:
        lm.close()
        raise


def _holder(
    base: Any,
    lm: LanguageModel,
    prompts: Sequence[str],
    template: Mapping[str, Any] | None,
    method: str,
    options: Mapping[str, Any],
) -> Holder:
    about = fingerprint(lm)
    return Holder(lm, tuple(prompts), type(base), about, method, options, template or {})


def _put(base: Any, module: SoftPrompt, holder: Holder) -> Any:
    """Put the trained module on the model. Its numbers stay float32, whatever the base's precision is."""
    with torch.no_grad():
        first = (
            module.to(base.device)(torch.zeros(1, dtype=torch.long, device=base.device))
            if module.reads is None
            else None
        )
    holder.splits = first is None or first.after is not None or first.kv_after is not None
    holder.settings = {key: vars(base.config)[key] for key in TRAINERS_CHANGE if key in vars(base.config)}
    base.__class__ = subclass(type(base))
    vars(base)[NAME] = holder
    base.add_module(MODULE, module)
    holder.weights = state_of(base)
    holder.frozen = FrozenBase(base, MODULE, holder.lm.head_names)
    module.train(base.training)
    return base


def _loaded(name: str | Path, tokenizer: Any, loading: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    """Load a model by its name, as transformers has it."""
    lm = load(name, **loading)
    model, own_tokenizer = lm.model, lm.tokenizer
    lm.close()
    return model, own_tokenizer if tokenizer is None else tokenizer


def _check_model(base: Any) -> None:
    """Raise SoftPromptError for what is no model of transformers, or carries LoRA weights."""
    if not isinstance(base, PreTrainedModel):
        raise SoftPromptError(
            f"a prompt cannot be attached to {type(base).__name__}",
            why="it is no model of transformers",
            fix="give AutoModelForCausalLM.from_pretrained(…), without a wrapper around it",
        )
    refuse_adapters(base)
