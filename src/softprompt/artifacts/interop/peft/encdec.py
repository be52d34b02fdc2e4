"""Encoder-decoder models as PEFT 0.21.2 really treats them, found by calling it.

    soft prompt       of [2n, H] stored the encoder reads the first n, and nobody the others
    multitask prompt  of [2n, H] encoder and decoder read n each in `forward`; in `generate` the decoder
                      reads none
    prefix            N entries of keys and values, [P, 2N · kv_dim]: layer l of the decoder's own attention
                      reads entry 2l mod N; its encoder and its cross-attention read none

A prefix was checked on T5 and its kin. On others (BART) PEFT raises.
"""

from __future__ import annotations

from ....errors import SoftPromptError
from ....lm import per_layer_inputs
from ....lm.base import LanguageModel

TASKS = {"decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}  # by our kind of a model


def is_encdec(lm: LanguageModel) -> bool:
    """Whether the model has an encoder and a decoder."""
    return lm.spec.kind == "encoder-decoder"


def prefixed_sites(lm: LanguageModel) -> list[int]:
    """The attention layers that PEFT gives a prefix to."""
    return [i for i, spec in enumerate(lm.spec.layers) if not is_encdec(lm) or spec.stack == "decoder"]


def entry(layer: int, entries: int) -> int:
    """The entry that layer number `layer` of a decoder reads."""
    return 2 * layer % entries


def check_embeddings(lm: LanguageModel) -> None:
    """Raises SoftPromptError where tokens are embedded otherwise beside soft tokens, here and in PEFT."""
    reason = ""
    if getattr(lm.model.get_encoder() if is_encdec(lm) else None, "embed_scale", 1.0) != 1.0:
        reason = "the model scales its embeddings, and PEFT puts the tokens in beside the prompt unscaled"
    elif per_layer_inputs.has_one(lm.model):
        reason = "the model looks up a second embedding of every token, which PEFT leaves out beside a prompt"
    if reason:
        raise SoftPromptError(
            f"a soft prompt for {lm.spec.family} does not go from one library to the other",
            why=reason,
            fix="use it with the library that trained it",
        )
