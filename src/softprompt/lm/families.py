"""A tiny random model of every family that is checked: for `softprompt models` and the conformance suite.

Weights are drawn ten times larger than a real model's start: at 0.02 a random model hardly reads its
input, and every equality would hold for the wrong reason.
"""

from __future__ import annotations

from typing import Any

import torch

from .decoder_families import CONTEXT, DECODERS, HIDDEN, LAYERS, LENGTHS, SIZES, USUAL, VOCAB
from .heads import Head, auto_class

_T5 = {
    "vocab_size": VOCAB,
    "d_model": HIDDEN,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "initializer_factor": 1.5,
}
_BART = {
    "vocab_size": VOCAB,
    "d_model": HIDDEN,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": CONTEXT,
    "init_std": 0.2,
}

ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": _T5,
    "mt5": _T5,
    "bart": _BART,
    "mbart": _BART,
    "pegasus": _BART | {"scale_embedding": True},
}

_BERT = SIZES | {"num_attention_heads": 4, "max_position_embeddings": CONTEXT}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT,  # counts positions from behind its padding id
    "distilbert": {
        "vocab_size": VOCAB,
        "dim": HIDDEN,
        "n_layers": LAYERS,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": CONTEXT,
    },
    "modernbert": _BERT  # rotary, with a window in every other layer
    | {"local_attention": 6, "global_attn_every_n_layers": 2, "cls_token_id": 97, "sep_token_id": 98},
    "albert": _BERT | {"embedding_size": 16},  # one layer, run through again and again
    "deberta-v2": _BERT  # disentangled attention
    | {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
}

#: One family of each kind that needs something of its own; `tests/lm` holds them to it.
KINDS: dict[str, dict[str, Any]] = {
    "nanochat": USUAL,  # rotates its keys the other way round
    "hunyuan_v1_dense": USUAL | {"head_dim": 8},  # norms its keys when they are rotated
    "xlm-roberta (decoder)": _BERT  # counts positions from behind its padding id
    | {"model_type": "xlm-roberta", "is_decoder": True, "pad_token_id": 1},
    "rwkv": {  # recurrent: runs over padding, and so on rows of one length
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "attention_hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "intermediate_size": 48,
        "context_length": CONTEXT,
    },
    "marian (decoder)": _BART  # its decoder used alone ignores the mask
    | {"model_type": "marian", "is_encoder_decoder": False, "is_decoder": True, "encoder_layers": 3}
    | {"pad_token_id": 0, "decoder_start_token_id": 1},
    "mvp": _BART | {"pad_token_id": 0, "decoder_start_token_id": 1, "forced_eos_token_id": None},
}

FAMILIES = DECODERS | LENGTHS | KINDS | ENCODER_DECODERS | ENCODERS


def tiny(family: str, seed: int = 0, head: Head | None = None, **changes: Any):
    """A random float32 model of the family, an encoder with its masked-word head or with `head`.

    Norms and biases are made unlike 1 and 0.
    """
    from transformers import AutoConfig

    common: dict[str, Any] = {"initializer_range": 0.2, "bos_token_id": None, "eos_token_id": None}
    common |= {"pad_token_id": VOCAB - 1 if family in ENCODERS else None, **FAMILIES[family]}
    if family in ENCODER_DECODERS:
        common |= {"pad_token_id": 0, "decoder_start_token_id": 1, "forced_eos_token_id": None}
    if head is not None and head.size:
        common["num_labels"] = head.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = common | changes
        config = AutoConfig.for_model(settings.pop("model_type", family), **settings)
        config.eos_token_id = settings["eos_token_id"]  # GLM's configuration takes None for its own three
        model = auto_class(config, head).from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()
