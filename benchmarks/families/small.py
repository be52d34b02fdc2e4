"""Build a tiny random model of any family, from its default configuration with small sizes.

Sizes are set by the names that transformers gives them; `MORE` has what a family needs beyond that.
A family in `MORE` is checked like any other: transformers could not build it without these options.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM
from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from softprompt.lm.heads import auto_class

VOCAB, HIDDEN, LAYERS, CONTEXT = 101, 32, 4, 64
MOST = 5_000_000  # parameters: more were not made small

AS = {
    "causal": (AutoModelForCausalLM, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "seq2seq": (AutoModelForSeq2SeqLM, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    "encoder": (AutoModelForMaskedLM, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
}

_SIZES: dict[int, str] = {
    VOCAB: "vocab_size encoder_vocab_size decoder_vocab_size src_vocab_size tgt_vocab_size n_words "
    "vocab_size_per_layer_input encoder_hash_byte_group_vocab",
    HIDDEN: "hidden_size d_model n_embd dim emb_dim model_dim embedding_size word_embed_proj_dim lru_width "
    "attention_hidden_size embed_dim projection_dim input_dim entity_emb_size d_latents embedding_dim "
    "hidden_size_global",
    LAYERS: "num_hidden_layers n_layer n_layers num_layers num_decoder_layers encoder_layers decoder_layers "
    "num_encoder_layers num_blocks num_attention_heads n_head n_heads num_heads encoder_attention_heads "
    "decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads mamba_n_heads "
    "mamba_num_heads linear_num_heads num_self_attention_heads num_cross_attention_heads "
    "n_mamba_heads num_experts num_local_experts n_routed_experts moe_num_experts attention_heads "
    "sliding_window window_size attention_window local_attention attention_chunk_size "
    "linear_num_value_heads index_topk linear_conv_kernel_dim conv_l_cache local_radius global_block_size",
    2: "num_key_value_heads num_kv_heads n_head_kv num_global_key_value_heads swa_num_key_value_heads "
    "num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts num_selected_experts "
    "linear_num_key_heads sliding_window_pattern full_attention_interval global_attn_every_n_layers "
    "num_kv_shared_layers laurel_rank index_n_heads n_group num_key_value_groups num_memory_blocks "
    "num_expert_group num_self_attends_per_block",
    1: "n_shared_experts num_shared_experts moe_num_shared_experts topk_group mamba_n_groups n_groups "
    "mamba_ngroups first_k_dense_replace",
    48: "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff d_inner n_inner hidden_dim "
    "feed_forward_size expert_ffn_hidden_size ffn_hidden_size mlp_hidden_size intermediate_size_mlp",
    24: "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size "
    "moe_shared_expert_intermediate_size expert_dim shared_experts_intermediate_size",
    8: "head_dim attention_head_size d_kv kv_channels qk_nope_head_dim qk_rope_head_dim linear_key_head_dim "
    "linear_value_head_dim mamba_d_state state_size d_state mamba_d_ssm_state hidden_size_per_layer_input "
    "ssm_state_size mamba_chunk_size chunk_size index_head_dim relative_attention_num_buckets "
    "position_buckets mamba_state_dim global_head_dim swa_head_dim o_lora_rank mamba_dt_rank time_step_rank "
    "num_ngram_buckets altup_rank linear_head_dim num_latents hc_lowrank ple_embed_dim router_hidden_size",
    16: "mamba_d_head mamba_head_dim mamba_headdim q_lora_rank kv_lora_rank relative_attention_max_distance "
    "low_rank_dim",
    12: "v_head_dim",
    CONTEXT: "max_position_embeddings n_positions max_seq_len max_sequence_length max_target_positions "
    "max_source_positions n_ctx context_length max_encoder_position_embeddings "
    "max_decoder_position_embeddings max_seq_length",
}
SMALL = {name: size for size, names in _SIZES.items() for name in names.split()}
IDS = {"bos_token_id": 1, "eos_token_id": 2}
SCALES = {"initializer_range": 0.2, "init_std": 0.2}

BERT = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT |= {"intermediate_size": 48, "max_position_embeddings": CONTEXT, "initializer_range": 0.2}
HALF = ["sliding_attention", "full_attention"] * 2
DRAFTER = {"model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
DRAFTER |= {"num_kv_shared_layers": 4, "num_hidden_layers": 4}
LINEAR = {"layer_types": ["linear_attention", "full_attention"] * 2}
LINEAR |= {"mlp_layer_types": ["dense", "sparse"] * 2}
#: Options that a family needs beyond small sizes, by model_type
MORE: dict[str, dict[str, Any]] = {
    "cpmant": {"dim_head": 8, "dim_ff": 48, "position_bias_num_buckets": 32},
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "bamba": {"attn_layer_indices": [1, 3]},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "mamba_dt_rank": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "mamba_expand": 2,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "deepseek_v2": {
        "topk_method": "greedy",
        "q_lora_rank": None,
        "num_key_value_heads": 4,
        "num_experts_per_tok": 2,
    },
    "ctrl": {"dff": 48},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 48, "hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note_text": {
        "per_layer_config": {},
        "head_dim": 16,
        "layer_types": ["indexed_attention", "sliding_attention"] * 2,
        "mlp_layer_types": ["dense", "sparse"] * 2,
    },
    "dots3_note_vision_encoder": {
        "pyramid_num_routed": [-1, 4] * 2,
        "adapter_in_dim": 32,
        "adapter_out_dim": 32,
    },
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_output_size": 32},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "zaya": {"num_experts_per_tok": 1},
    # one of its two kinds of positions is a fixed one
    "esm": {"vocab_size": 101, "pad_token_id": 0, "mask_token_id": 4, "position_embedding_type": "rotary"},
    # the code of its steps rounds the sizes of heads up to 64
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "num_heads": 2},
    "xlm": {"causal": True},
    "xmod": {"default_language": "en_XX"},
    "neomme": {"head_dim": 16},
    "encoder-decoder": {
        "encoder": {"model_type": "bert", **BERT},
        "decoder": {"model_type": "bert", **BERT, "is_decoder": True, "add_cross_attention": True},
    },
    "gemma4_assistant": {"text_config": DRAFTER},
    "bailing_hybrid": LINEAR,
    "kimi_linear": LINEAR,
    "falcon_h1": {"mamba_d_ssm": 64},
    "luke": {"entity_vocab_size": 20},
    "mpnet": {"relative_attention_num_buckets": 32},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "gemma3n_text": {
        "layer_types": HALF,
        "activation_sparsity_pattern": [0.0] * 4,
        "intermediate_size": 48,
        "vocab_size_per_layer_input": 101,
    },
    "gemma4_text": {"layer_types": HALF},
    "gemma4_unified_text": {"layer_types": HALF},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "longcat_flash": {
        "expert_ffn_hidden_size": 24,
        "ffn_hidden_size": 48,
        "zero_expert_num": 1,
        "moe_topk": 2,
    },
    "cohere_compass_text": {
        "layer_types": HALF,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in set(HALF)},
    },
    "roc_bert": {
        "pronunciation_vocab_size": 30,
        "shape_vocab_size": 30,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "reformer": {
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [8, 8],
        "attn_layers": ["local", "lsh"] * 2,
        "lsh_attn_chunk_length": 8,
        "local_attn_chunk_length": 8,
        "attention_head_size": 8,
    },
}


def cases() -> Iterator[str]:
    """Yield the names of all cases: causal:llama, seq2seq:t5, encoder:bert, …"""
    for kind, (_, names) in AS.items():
        yield from (f"{kind}:{name}" for name in names)


def loaded_as(case: str, config: Any = None) -> str:
    """Return why `softprompt.load` would not load this configuration as this case; empty if it would.

    Without a configuration, the default one.
    """
    kind, family = case.split(":")
    requested = auto_class(config or CONFIG_MAPPING[family](), None)
    if requested is AS[kind][0]:
        return ""
    other = next(name for name, (model_class, _) in AS.items() if model_class is requested)
    if family in AS[other][1]:
        return f"loaded as {other}:{family}"
    return f"transformers has no {requested.__name__} for this family"


def build(case: str, seed: int = 0) -> torch.nn.Module:
    """Build the model in float32. Raises what transformers raises if it cannot be built."""
    kind = case.split(":")[0]
    config = config_of(case)
    model_class, _ = AS[kind]
    with torch.device("meta"):
        size = sum(p.numel() for p in model_class.from_config(copy.deepcopy(config)).parameters())
    if size > MOST:
        raise ValueError(f"it has {size:,} parameters: its sizes have other names")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                _enlarge(parameter)
    for each in (model.config, model.config.get_text_config(), getattr(model, "generation_config", None)):
        for name in ("eos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"):
            if getattr(each, name, None) is not None:
                object.__setattr__(each, name, None)  # no token ends the output early
    return model.eval()


@torch.no_grad()
def _enlarge(parameter: torch.Tensor) -> None:
    """Small weights are enlarged: with them a model hardly reads its input, and any check would pass."""
    if not parameter.is_floating_point():
        return
    if parameter.dim() < 2 or parameter.numel() < 4:
        parameter.add_(0.1 * torch.randn_like(parameter))
        return
    spread = parameter.std()
    if spread < 1e-8:
        parameter.add_(0.1 * torch.randn_like(parameter))
    elif spread < 0.1:
        parameter.mul_(0.2 / spread)


def config_of(case: str) -> Any:
    """Return the small configuration."""
    kind, family = case.split(":")
    more = dict(MORE.get(family, {}))
    if kind == "causal" and family in {*auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "bert-generation"}:
        more |= {"is_decoder": True}
    if kind != "causal":
        more.pop("causal", None)
    given = _merged(_small(CONFIG_MAPPING[family]), more)
    if kind == "seq2seq":
        given.setdefault("decoder_start_token_id", 3)  # in no family the padding, which some count otherwise
    return AutoConfig.for_model(family, **given)


def _small(kind: Any) -> dict[str, Any]:
    """Return the arguments that make a configuration of this class small."""
    try:
        default = kind()
    except Exception:  # some are not valid as they are
        default = kind(**MORE.get(kind.model_type, {}))
    known = default.to_dict()
    given: dict[str, Any] = {}
    for name, value in known.items():
        if name in SMALL and value is not None and not isinstance(value, (list, dict, bool)):
            given[name] = SMALL[name]
        elif name in SCALES and value is not None:
            given[name] = SCALES[name]
        elif name in IDS and isinstance(value, (int, list)):
            given[name] = IDS[name]
        elif name.endswith("token_id") and isinstance(value, int) and value >= VOCAB:
            given[name] = VOCAB - 1
    heads, grouped = known.get("num_attention_heads"), known.get("num_key_value_heads")
    if heads is not None and heads == grouped:
        given["num_key_value_heads"] = SMALL["num_attention_heads"]
    for name, sub in (getattr(kind, "sub_configs", None) or {}).items():
        if known.get(name) is not None:
            part = getattr(default, name, None)
            given[name] = _small(type(part) if part is not None else sub)
            given[name].pop("model_type", None)
            if part is not None:
                extra = {**MORE.get(part.model_type, {}), "model_type": part.model_type}
                given[name] = _merged(given[name], extra)
    return given


def _merged(given: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Merge `more` into `given`; `more` wins, and nested dictionaries are merged."""
    parts = {k: _merged(given[k], v) for k, v in more.items() if isinstance(v, dict) and k in given}
    return given | more | parts
