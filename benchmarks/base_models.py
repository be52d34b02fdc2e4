"""The base models that are measured: by name or folder, or random ones of a known shape, made in memory.

A random model takes as long for a token as the one whose shape it has, whatever it answers. Its tokenizer
has a token for each of its ids, and splits texts into characters.
"""

from __future__ import annotations

import copy
import gc
from typing import Any

import torch

import softprompt
from softprompt.lm import smollm2
from softprompt.lm.base import LanguageModel

CONTEXT = 16_384
#: Settings of Llama's configuration: those of SmolLM2-135M, Llama 3.2 1B and Llama 3.1 8B, and tiny ones.
SHAPES: dict[str, dict[str, Any]] = {
    "random-tiny": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 101,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
    },
    "random-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
    },
    "random-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    "random-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": False,
    },
}
_latest: dict[tuple[str, str, str | None], LanguageModel] = {}


def load(name: str, dtype: str, attention: str | None = None) -> LanguageModel:
    """Load a model by name or folder; of the random ones, the latest is kept for the next call."""
    if name not in SHAPES:
        return softprompt.load(name, dtype=dtype, attn_implementation=attention)  # type: ignore[arg-type]
    key = (name, dtype, attention)
    if key not in _latest:
        forget()
        model = random_model(SHAPES[name], dtype)
        _latest[key] = softprompt.load(
            model, tokenizer(model.config.vocab_size), attn_implementation=attention
        )
    return _latest[key]


def forget() -> None:
    """Free the memory of the random model that is kept."""
    _latest.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def random_model(shape: dict[str, Any], dtype: str) -> Any:
    """Build a Llama with random weights on the GPU, or on the processor where there is none."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**{"max_position_embeddings": CONTEXT, "rope_theta": 500_000.0, **shape})
    config.bos_token_id = config.eos_token_id = None
    torch.manual_seed(0)
    with torch.device(device()):
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()


def plain(lm: LanguageModel) -> Any:
    """Return the model with transformers' own attention; it shares its weights in memory."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(lm.model.config)
    with torch.device(lm.device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=lm.dtype)
    model.load_state_dict(lm.model.state_dict(), assign=True)
    model.tie_weights()  # assigned, a table of tokens and a head are two parameters
    model.generation_config = lm.model.generation_config
    return model.eval()


def beside(lm: LanguageModel, name: str, dtype: str) -> Any:
    """Return transformers' own model, for another library: loaded again, or a random one's weights."""
    if name in SHAPES:
        return plain(lm)
    from transformers import AutoModelForCausalLM

    folder = str(smollm2.folder()) if name == "smollm2" else name
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    return model.to(lm.device)


def tokenizer(size: int) -> Any:
    """Build a tokenizer of `size` ids: of printable characters, and of names that no text has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ"]  # a space and a line break, byte-level style
    texts = characters[: size - 1] + [f"Ġ{i}" for i in range(size - 1 - len(characters))]
    raw = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<end>"])
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")


def device() -> str:
    """Name the device on which models are measured."""
    return "cuda" if torch.cuda.is_available() else "cpu"
