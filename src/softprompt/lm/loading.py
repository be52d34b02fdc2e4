"""`load` makes a `LanguageModel` of a hub id, a local folder, a GGUF file, or an alias."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from .._system.gc import rare_collection
from .._system.paths import expanded
from .._system.progress import task
from .._system.quiet import quietly
from ..data.tokens import vocabulary_fingerprint
from ..errors import SoftPromptError
from . import heads, locate, smollm2, text_identity
from .attention_choice import Attention
from .base import LanguageModel
from .causal import CausalLM
from .encoder import EncoderLM
from .heads import Head
from .precision import pick_dtype
from .seq2seq import Seq2SeqLM

ALIASES: dict[str, Callable[[], Path]] = {"smollm2": smollm2.folder}

Precision = Literal["auto", "float32", "bfloat16"]


@rare_collection()
@quietly
def load(
    name: str = "smollm2",
    *,
    dtype: Precision = "auto",
    device: str | None = None,
    head: Head | None = None,
    attention: Attention = "auto",
) -> LanguageModel:
    """Load a frozen model with its tokenizer, a BERT-like one with its masked-word head or `head`.

    `dtype="auto"` takes bfloat16 where the GPU or the processor multiplies it in hardware, else float32; the
    model's `why_dtype` says why. `attention="auto"` is torch's fused one
    (sdpa) wherever the family has it; "eager" is slower, and gives the weights for `output_attentions`.
    Raises SoftPromptError where the model cannot be found or is refused.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoTokenizer

    target = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen, why = pick_dtype(target) if dtype == "auto" else (dtype, "as asked for")
    kind = getattr(torch, chosen)
    path, options = locate.find(name, ALIASES)
    if name not in ALIASES and Path(expanded(name)).exists():
        name = str(Path(expanded(name)).absolute())  # an artifact keeps it, and is used from elsewhere
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        config = AutoConfig.from_pretrained(path, **options)
        wrapper = kind_of_model(config, head, name)
        _check_config(config, name)
        if head is not None:
            # a head of another size in the checkpoint is no mistake: it is left, and drawn anew
            options |= {"num_labels": head.size, "ignore_mismatched_sizes": True}
        with heads.drawn(head), smollm2.counted_tensors(), task(f"loading {name}"):
            both: Any = heads.auto_class(config, head).from_pretrained(
                path, dtype=kind, output_loading_info=True, **options
            )
        model, report = both
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise locate.failed(name, error) from error
    fresh = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    head_names = frozenset() if head is None else heads.parameter_names(model, fresh)
    if missing := sorted(fresh - head_names):
        raise SoftPromptError(
            f"'{name}' lacks {len(missing)} of its weights",
            why=f"'{missing[0]}' is not in its files; transformers would fill it with random numbers",
            fix="download or copy the model again; a classifier, or an encoder without its masked-word head, "
            "is no language model, but takes a head of labels (task.head=true)",
        )
    _check_generation_config(config, getattr(model, "generation_config", None), name)
    lm = wrapper(model.to(target), tokenizer, name, head, head_names, attention)
    lm.why_dtype = why
    return lm


def _check_config(config: Any, name: str) -> None:
    """Check, before weights are read, that ids in the config have an embedding."""
    _check_ids(config, "config.json", config.get_text_config(), ["pad_token_id"], name)
    _check_ids(config, "config.json", config, ["pad_token_id", *_starts(config)[:1]], name)


def _check_generation_config(config: Any, settings: Any, name: str) -> None:
    """Check that ids in the generation settings have an embedding."""
    _check_ids(config, "generation_config.json", settings, _starts(config), name)


def _starts(config: Any) -> list[str]:
    return ["decoder_start_token_id", "forced_bos_token_id"] if config.is_encoder_decoder else []


def _check_ids(config: Any, file: str, source: Any, keys: list[str], name: str) -> None:
    rows = getattr(config.get_text_config(), "vocab_size", None)
    for key in keys:
        value = getattr(source, key, None)
        if isinstance(rows, int) and isinstance(value, int) and value >= rows:
            raise SoftPromptError(
                f"cannot load model '{name}'",
                why=f"its {file} says {key}={value}, but it has {rows} embeddings (0 to {rows - 1})",
                fix=f"set {key} in {file} to a token that it has, or add the embeddings: "
                "model.resize_token_embeddings(len(tokenizer)) before the model is saved",
            )


def kind_of_model(config: Any, head: Head | None, name: str) -> type[CausalLM | EncoderLM | Seq2SeqLM]:
    """Return the class for a checkpoint's kind of model.

    Raises SoftPromptError where it cannot have the head.
    """
    if heads.is_encoder(config):
        return EncoderLM
    if head is not None and (head.over == "tokens" or config.is_encoder_decoder):
        job = "tag words" if head.over == "tokens" else "carry a head"
        raise SoftPromptError(
            f"'{name}' cannot {job}",
            why="an encoder-decoder model answers in text"
            if config.is_encoder_decoder
            else "it is no encoder: a word would be tagged before those that follow it are read",
            fix="use an encoder (BERT and its kin) as model",
        )
    return Seq2SeqLM if config.is_encoder_decoder else CausalLM


def fingerprint(lm: LanguageModel) -> dict[str, str]:
    """Return short hashes of all of a base that answers depend on, by their names in messages.

    The config, a sample of every weight but a head's, the vocabulary, how text becomes ids, the chat
    template, and what of the generation config rules answers. Weights are compared in bfloat16, so the same
    checkpoint loaded in another precision is the same base.
    """
    skipped = ("_name_or_path", "dtype", "torch_dtype", "transformers_version", "_attn_implementation")
    config = {k: v for k, v in sorted(lm.model.config.to_dict().items()) if k not in skipped}
    weights = hashlib.sha256()
    # LoRA wraps a weight under another name; the base is the same
    tensors = (
        (k, t) for k, t in lm.model.state_dict().items() if "lora_" not in k and k not in lm.head_names
    )
    named = {k.replace("base_layer.", ""): t for k, t in tensors}
    for key, tensor in sorted(named.items()):
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 1024)].to(torch.bfloat16).cpu().contiguous()
        weights.update(f"{key}{tuple(tensor.shape)}".encode())
        weights.update(sample.view(torch.int16).numpy().tobytes())
    return {
        "config": _short(repr(config)),
        "weights": weights.hexdigest()[:16],
        "tokenizer": vocabulary_fingerprint(lm.tokenizer),
        **text_identity.fingerprint(lm),
    }


@quietly
def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a model, without the model. Raises SoftPromptError where there is none."""
    from transformers import AutoTokenizer

    path, options = locate.find(name, ALIASES)
    try:
        return AutoTokenizer.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise locate.failed(name, error) from error


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
