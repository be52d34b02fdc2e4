"""A tiny random model of every family that is checked: for `softprompt models` and the conformance suite.

Weights are drawn ten times larger than a real model's start: at 0.02 a random model hardly reads its
input, and every equality would hold for the wrong reason. Windows are shorter than the test inputs.
"""

from __future__ import annotations

from typing import Any

import torch

from .heads import Head, auto_class

VOCAB, HIDDEN, LAYERS, CONTEXT, WINDOW = 101, 32, 4, 256, 4

_SIZES = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": 48}
_GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
_USUAL = _SIZES | _GROUPED
_GPT = {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": CONTEXT}
_WIDE = {"head_dim": 16}  # heads wider than hidden / heads
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
_HALF = ["sliding_attention", "full_attention"] * (LAYERS // 2)
_LATENT = {
    **_USUAL,
    **_EXPERTS,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 2,
}
_STATES = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8}
_MAMBA = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "state_size": 8}
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

DECODERS: dict[str, dict[str, Any]] = {
    "llama": _USUAL,
    "mistral": _USUAL | {"sliding_window": WINDOW},
    "mixtral": _USUAL | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": _USUAL,
    "qwen3": _USUAL | _WIDE,
    "qwen3_moe": _USUAL | _WIDE | _EXPERTS | {"num_experts": 4},
    "gemma": _USUAL | _WIDE,
    "gemma2": _USUAL | _WIDE | {"sliding_window": WINDOW, "query_pre_attn_scalar": 16},
    "gemma3_text": _USUAL
    | _WIDE
    | {"sliding_window": WINDOW, "query_pre_attn_scalar": 16, "layer_types": _HALF},
    "gemma4_text": _USUAL
    | {
        "head_dim": 8,
        "global_head_dim": 16,
        "sliding_window": WINDOW,
        "layer_types": _HALF,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCAB,
    },
    "gemma3n_text": _USUAL
    | _WIDE
    | {
        "sliding_window": WINDOW,
        "layer_types": _HALF,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCAB,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0] * LAYERS,
    },
    "phi3": _USUAL,
    "gpt2": _GPT,
    "gptj": _GPT | {"rotary_dim": 4},
    "gpt_neo": {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_layers": LAYERS,
        "num_heads": 4,
        "max_position_embeddings": CONTEXT,
        "attention_types": [[["global", "local"], LAYERS // 2]],
        "window_size": WINDOW,
    },
    "gpt_neox": _SIZES | {"num_attention_heads": 4, "max_position_embeddings": CONTEXT},
    "opt": {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "ffn_dim": 48,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "word_embed_proj_dim": HIDDEN,
    },
    "olmo2": _USUAL,
    "stablelm": _USUAL,
    "starcoder2": _USUAL | {"sliding_window": WINDOW},
    "granite": _USUAL | {"logits_scaling": 3.0, "attention_multiplier": 0.3, "embedding_multiplier": 2.0},
    "gpt_oss": _USUAL
    | _WIDE
    | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW, "layer_types": _HALF},
    "smollm3": _USUAL,
    "glm": _USUAL | _WIDE,
    "nemotron": _USUAL | {"head_dim": 8},
    "cohere2": _USUAL | {"sliding_window": WINDOW, "layer_types": _HALF, "logit_scale": 1.0},
    "deepseek_v2": _LATENT | {"q_lora_rank": None},
    "deepseek_v3": _LATENT | {"q_lora_rank": 16},
    "qwen3_next": _USUAL
    | _WIDE
    | _EXPERTS
    | {
        "num_experts": 4,
        "shared_expert_intermediate_size": 24,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"] * (LAYERS // 2),
    },
    "jamba": _USUAL
    | {
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
    },
    "granitemoehybrid": _USUAL
    | _STATES
    | {
        "layer_types": ["mamba", "attention"] * (LAYERS // 2),
        "mamba_chunk_size": 8,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "shared_intermediate_size": 24,
    },
    "bamba": _USUAL | _STATES | {"attn_layer_indices": [1, 3], "mamba_chunk_size": 8},
    "falcon_h1": _USUAL | _STATES | {"mamba_d_ssm": 64, "mamba_chunk_size": 8},
    "mamba": _MAMBA,
    "mamba2": _MAMBA | {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
    "bloom": {"vocab_size": VOCAB, "hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": 4},
    "falcon": {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "alibi": False,
    },
    "mpt": {"vocab_size": VOCAB, "d_model": HIDDEN, "n_layers": LAYERS, "n_heads": 4, "max_seq_len": CONTEXT},
}

_SPARSE = {"q_lora_rank": 16, "index_n_heads": 32, "index_head_dim": 16, "index_topk": 6}

#: Families, and variants of them, whose attention depends on how long a row is. Their settings are shorter
#: than the rows of tests, but for those beyond which rows are refused.
LENGTHS: dict[str, dict[str, Any]] = {
    "llama4_text": _USUAL  # attention in chunks
    | _WIDE
    | {
        "attention_chunk_size": 6,
        "intermediate_size_mlp": 48,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "moe_layers": [],
        "no_rope_layers": [1, 1, 1, 0],
    },
    "deepseek_v32": _LATENT | _SPARSE,  # a query sees the keys that an index chooses
    "glm_moe_dsa": _LATENT | _SPARSE,
    "diffllama": _USUAL,  # two calls of attention a layer
    "phi3 (longrope)": _USUAL  # other rotations for all of a batch where its longest row has more positions
    | {
        "model_type": "phi3",
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 64,
        },
    },
    "llama (dynamic rope)": _USUAL
    | {
        "model_type": "llama",
        "max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    },
}

ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": _T5,
    "mt5": _T5,
    "bart": _BART,
    "mbart": _BART,
    "pegasus": _BART | {"scale_embedding": True},
}

_BERT = _SIZES | {"num_attention_heads": 4, "max_position_embeddings": CONTEXT}
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
    "nanochat": _USUAL,  # turns its keys the other way round
    "hunyuan_v1_dense": _USUAL | {"head_dim": 8},  # norms its keys when they are turned
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
    if head is not None:
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
