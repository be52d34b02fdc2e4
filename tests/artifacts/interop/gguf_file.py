"""A tiny transformers model as an F32 GGUF file, written tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import gguf
from torch import Tensor

LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write(model, path: Path) -> Path:
    """A Llama or a Qwen3; a Llama's queries and keys change places, as llama.cpp turns neighbouring pairs."""
    config, family = model.config, model.config.model_type
    writer = gguf.GGUFWriter(path, family)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_file_type(0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    characters = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ", "<end>"]
    spare = [f"<spare{i}>" for i in range(config.vocab_size - len(characters))]
    writer.add_token_list(characters + spare)
    writer.add_token_types([1] * (len(characters) - 1) + [3] + [4] * len(spare))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(characters.index("<end>"))
    for name, tensor in model.state_dict().items():
        writer.add_tensor(*_named(name, tensor, config, turned=family == "llama"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _named(name: str, tensor: Tensor, config, turned: bool):
    tensor = tensor.detach().float()
    if name in TOP:
        return TOP[name], tensor.numpy()
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    if turned and rest in ("self_attn.q_proj.weight", "self_attn.k_proj.weight"):
        halves = tensor.reshape(-1, 2, config.head_dim // 2, config.hidden_size)
        tensor = halves.transpose(1, 2).reshape(-1, config.hidden_size)
    return f"blk.{layer}.{LAYER[rest]}", tensor.contiguous().numpy()
