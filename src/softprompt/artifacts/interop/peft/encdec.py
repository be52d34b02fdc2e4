"""Encoder-decoder models as PEFT 0.21.2 treats them; this was found by calling it.

    soft prompt       of [2n, H] stored, the encoder reads the first n; the others are not read
    multitask prompt  of [2n, H] encoder and decoder read n each in `forward`; in `generate` the decoder
                      reads none
    prefix            N entries of keys and values, [P, 2N · kv_dim]: layer l of the decoder's own attention
                      reads entry 2l mod N; its encoder and its cross-attention read none

Prefixes were checked on the T5 family. On other models (BART) PEFT raises.
"""

from __future__ import annotations

from ....errors import SoftPromptError
from ....lm import per_layer_inputs
from ....lm.base import LanguageModel

TASKS = {"decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}  # by our kind of a model


def is_encdec(lm: LanguageModel) -> bool:
    """Tell whether the model has an encoder and a decoder."""
    return lm.spec.kind == "encoder-decoder"


def prefixed_sites(lm: LanguageModel) -> list[int]:
    """Return the attention layers that PEFT gives a prefix to."""
    return [i for i, spec in enumerate(lm.spec.layers) if not is_encdec(lm) or spec.stack == "decoder"]


def entry(layer: int, entries: int) -> int:
    """Return the entry that layer number `layer` of a decoder reads."""
    return 2 * layer % entries


def check_embeddings(lm: LanguageModel) -> None:
    """Raise SoftPromptError where PEFT embeds the tokens beside a prompt otherwise than we do."""
    reason = ""
    if getattr(lm.model.get_encoder() if is_encdec(lm) else None, "embed_scale", 1.0) != 1.0:
        reason = "the model scales its embeddings, and PEFT puts the tokens in beside the prompt unscaled"
    elif per_layer_inputs.has_one(lm.model):
        reason = "the model looks up a second embedding of every token, which PEFT leaves out beside a prompt"
    if reason:
        raise SoftPromptError(
            f"a soft prompt for {lm.spec.family} cannot be converted between the libraries",
            why=reason,
            fix="use it with the library that trained it",
        )
