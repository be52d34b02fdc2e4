"""Whether a prefix of PEFT's was made for a model of this shape, as far as its config says."""

from __future__ import annotations

from ....errors import SoftPromptError
from ....lm.base import LanguageModel
from . import config
from .files import Adapter
from .layout import shared_layer


def check_geometry(adapter: Adapter, lm: LanguageModel, entries: int) -> tuple[str, ...]:
    """What of the config is not taken, as PEFT does not take it.

    Raises SoftPromptError where layers and heads are of another size, although the rows are as wide.
    """
    spec, said = shared_layer(lm), adapter.config
    depth, heads = config.number(said, "num_layers"), config.number(said, "num_attention_heads")
    width, own = config.number(said, "token_dim"), spec.kv_heads * spec.head_dim
    grouped = hasattr(lm.model.config.get_text_config(decoder=True), "num_key_value_heads")
    notes: tuple[str, ...] = ()
    if grouped and width not in (None, own):  # it cannot be of these rows, so it tells nothing of the model
        heads = width = None
        notes = (
            f"its {config.NAME} says token_dim: {said['token_dim']}, and its vectors have {own} a layer; "
            "PEFT takes the model's sizes instead, and so does the import",
        )
    found = [
        f"{what} {given}, the model {wanted}"
        for what, given, wanted in (
            ("layers", depth, entries),
            ("heads", heads, spec.kv_heads),
            ("numbers a head", width and heads and width // heads, spec.head_dim),
        )
        if given is not None and given != wanted
    ]
    if found:
        raise SoftPromptError(
            "this prefix was trained on a model of another shape",
            why=f"its {config.NAME} has {'; '.join(found)}",
            fix="give --model the base model that the adapter was trained on; if that is this one, set "
            "num_layers, num_attention_heads and token_dim to null there: then the model's own are taken",
        )
    return notes
