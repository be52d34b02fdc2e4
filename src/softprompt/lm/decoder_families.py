"""These are the settings of the tiny decoder-only models in `lm.families`."""

from __future__ import annotations

from typing import Any

VOCAB, HIDDEN, LAYERS, CONTEXT, WINDOW = 101, 32, 4, 256, 4

SIZES = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": 48}
_GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
USUAL = SIZES | _GROUPED
_GPT = {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": CONTEXT}
_WIDE = {"head_dim": 16}  # heads wider than hidden / heads
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
_HALF = ["sliding_attention", "full_attention"] * (LAYERS // 2)
_LATENT = {
    **USUAL,
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
DECODERS: dict[str, dict[str, Any]] = {
    "llama": USUAL,
    "mistral": USUAL | {"sliding_window": WINDOW},
    "mixtral": USUAL | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": USUAL,
    "qwen3": USUAL | _WIDE,
    "qwen3_moe": USUAL | _WIDE | _EXPERTS | {"num_experts": 4},
    "gemma": USUAL | _WIDE,
    "gemma2": USUAL | _WIDE | {"sliding_window": WINDOW, "query_pre_attn_scalar": 16},
    "gemma3_text": USUAL
    | _WIDE
    | {"sliding_window": WINDOW, "query_pre_attn_scalar": 16, "layer_types": _HALF},
    "gemma4_text": USUAL
    | {
        "head_dim": 8,
        "global_head_dim": 16,
        "sliding_window": WINDOW,
        "layer_types": _HALF,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCAB,
    },
    "gemma3n_text": USUAL
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
    "phi3": USUAL,
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
    "gpt_neox": SIZES | {"num_attention_heads": 4, "max_position_embeddings": CONTEXT},
    "opt": {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "ffn_dim": 48,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "word_embed_proj_dim": HIDDEN,
    },
    "olmo2": USUAL,
    "stablelm": USUAL,
    "starcoder2": USUAL | {"sliding_window": WINDOW},
    "granite": USUAL | {"logits_scaling": 3.0, "attention_multiplier": 0.3, "embedding_multiplier": 2.0},
    "gpt_oss": USUAL
    | _WIDE
    | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW, "layer_types": _HALF},
    "smollm3": USUAL,
    "glm": USUAL | _WIDE,
    "nemotron": USUAL | {"head_dim": 8},
    "cohere2": USUAL | {"sliding_window": WINDOW, "layer_types": _HALF, "logit_scale": 1.0},
    "deepseek_v2": _LATENT | {"q_lora_rank": None},
    "deepseek_v3": _LATENT | {"q_lora_rank": 16},
    "qwen3_next": USUAL
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
    "jamba": USUAL
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
    "granitemoehybrid": USUAL
    | _STATES
    | {
        "layer_types": ["mamba", "attention"] * (LAYERS // 2),
        "mamba_chunk_size": 8,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "shared_intermediate_size": 24,
    },
    "bamba": USUAL | _STATES | {"attn_layer_indices": [1, 3], "mamba_chunk_size": 8},
    "falcon_h1": USUAL | _STATES | {"mamba_d_ssm": 64, "mamba_chunk_size": 8},
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
    "llama4_text": USUAL  # attention in chunks
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
    "diffllama": USUAL,  # two calls of attention a layer
    "phi3 (longrope)": USUAL  # other rotations for all of a batch where its longest row has more positions
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
    "llama (dynamic rope)": USUAL
    | {
        "model_type": "llama",
        "max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    },
}
