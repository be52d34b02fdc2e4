"""Tensors that an adapter holds beside its vectors are checked here.

PEFT loads every tensor whose name the model has, and silently ignores every other one.
"""

from __future__ import annotations

from torch import Tensor

from ....errors import SoftPromptError
from ....lm.base import LanguageModel
from . import config
from .adaption import parse
from .files import Adapter

VECTORS, FACTORS = "prompt_embeddings", ("prefix_task_cols", "prefix_task_rows")


def check(adapter: Adapter, lm: LanguageModel) -> tuple[str, ...]:
    """Return notes on tensors that are ignored, as PEFT ignores them.

    Raises SoftPromptError where weights of the model were trained too, or the vectors are missing.
    """
    is_adaption = adapter.kind == config.ADAPTION
    vectors = {VECTORS, *FACTORS}
    others = {n: t for n, t in adapter.tensors.items() if n not in vectors and not (is_adaption and parse(n))}
    if not is_adaption:
        _check_vectors(adapter)
        _check_modules(adapter, lm)
    prefix = "base_model.model." if is_adaption else "base_model."
    return _sorted_out(others, prefix, lm)


def _check_vectors(adapter: Adapter) -> None:
    if VECTORS in adapter.tensors:
        return
    raw = next((name for name in adapter.tensors if "prompt_encoder." in name), None)
    if raw is not None:
        raise SoftPromptError(
            f"the tensors have the names of a training checkpoint ('{raw}')",
            why=f"PEFT loads an adapter by the name '{VECTORS}', which save_pretrained gives",
            fix="in Python: config = peft.PeftConfig.from_pretrained(FOLDER); config.inference_mode = False; "
            "model = peft.get_peft_model(BASE, config); model.load_state_dict(TENSORS, strict=False); "
            "model.save_pretrained(NEW_FOLDER)",
        )
    raise SoftPromptError(
        f"the adapter has no '{VECTORS}'",
        why=f"it holds {', '.join(adapter.tensors) or 'nothing'}",
        fix="copy both files of the folder that save_pretrained wrote",
    )


def _check_modules(adapter: Adapter, lm: LanguageModel) -> None:
    """Check that a module is in the file where the config says that it was trained."""
    modules = [name for name, _ in lm.model.named_modules()]
    for wanted in adapter.config.get("modules_to_save") or ():
        for name in modules:
            there = any(key.startswith(f"base_model.{name}.") for key in adapter.tensors)
            if (name == wanted or name.endswith(f".{wanted}")) and not there:
                raise SoftPromptError(
                    f"{config.NAME} says that '{wanted}' of the model was trained too (modules_to_save)",
                    why="the adapter does not hold its weights, and PEFT does not load it without them",
                    fix="save the adapter again with PEFT's save_pretrained, and import one that was trained "
                    "without modules_to_save",
                )


def _sorted_out(others: dict[str, Tensor], prefix: str, lm: LanguageModel) -> tuple[str, ...]:
    if not others:
        return ()
    weights = lm.model.state_dict()
    weights = {prefix + name: tensor for name, tensor in weights.items()}
    weights["word_embeddings.weight"] = lm.model.get_input_embeddings().weight
    unknown = [name for name in others if name not in weights]
    for name in (name for name in others if name in weights):
        ours, theirs = weights[name].detach().cpu(), others[name]
        if ours.shape != theirs.shape or not bool((theirs.to(ours.dtype) == ours).all()):
            raise SoftPromptError(
                f"the adapter holds more than its vectors ('{name}')",
                why="weights of the model were trained too, and the vectors alone would answer differently",
                fix="train it without modules_to_save and without new tokens, or use it with PEFT",
            )
    if not unknown:
        return ()
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return (f"'{unknown[0]}'{more} is left out: the model has no such weight, and PEFT ignores it too",)
