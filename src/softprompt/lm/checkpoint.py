"""Reads a checkpoint: its tokenizer, and its model with every weight, on the device that it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer

from .._system.progress import task
from ..errors import SoftPromptError
from . import heads, locate, pooling, sharded, smollm2
from .causal import CausalLM
from .encoder import EncoderLM
from .heads import Head
from .seq2seq import Seq2SeqLM


@dataclass(frozen=True)
class Wanted:
    """Holds what is to be made of a checkpoint. `name` is what messages call it."""

    name: str
    device: str
    dtype: str
    head: Head | None = None
    attention: str | None = None
    quantization: Any = None  # a configuration of transformers
    device_map: Any = None
    shard: bool = False  # over the processes of this run


@dataclass(frozen=True)
class Checkpoint:
    """Holds a model that was read, and the class of ours for it. `commit` is known for hub ids."""

    model: Any
    tokenizer: Any
    kind: type[CausalLM | EncoderLM | Seq2SeqLM]
    head: Head | None
    head_names: frozenset[str]
    commit: str | None


def read(path: str, options: Mapping[str, Any], wanted: Wanted) -> Checkpoint:
    """Read the model and the tokenizer at a path or hub id, with `options` of every `from_pretrained`.

    Raises SoftPromptError where transformers cannot, and where weights are missing.
    """
    name = wanted.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        config = AutoConfig.from_pretrained(path, **options)
        head = pooling.completed(wanted.head, path, config, options, name)
        wanted = replace(wanted, head=head)
        kind = kind_of_model(config, head, name)
        _check_config(config, name)
        given = {**options, **_model_options(config, wanted, is_dequantized="gguf_file" in options)}
        with heads.drawn(head), smollm2.counted_tensors(), task(f"loading {name}"):
            both: Any = heads.auto_class(config, head).from_pretrained(
                path, output_loading_info=True, **given
            )
        model, report = both
        if wanted.shard:
            model = sharded.shard(model, wanted.device, name)
        elif "device_map" not in given:
            model = model.to(wanted.device)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise locate.failed(name, error, options.get("revision")) from error
    fresh = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if head is not None and head.over == "pooling":
        pooling.without_pooler(model)
        fresh = {key for key in fresh if not key.startswith("pooler.")}
    head_names = frozenset() if head is None else heads.parameter_names(model, fresh)
    if missing := sorted(fresh - head_names):
        raise SoftPromptError(
            f"'{name}' lacks {len(missing)} of its weights",
            why=f"'{missing[0]}' is not in its files; transformers would fill it with random numbers",
            fix="download or copy the model again; a classifier, or an encoder without its masked-word head, "
            "is no language model, but takes a head of labels (task.head=true)",
        )
    _check_generation_config(config, getattr(model, "generation_config", None), name)
    return Checkpoint(model, tokenizer, kind, head, head_names, getattr(config, "_commit_hash", None))


def _model_options(config: Any, wanted: Wanted, *, is_dequantized: bool) -> dict[str, Any]:
    """Return the options of the model's own `from_pretrained`."""
    given: dict[str, Any] = {"dtype": getattr(torch, wanted.dtype)}
    if wanted.head is not None and wanted.head.over != "pooling":
        # a head of another size in the checkpoint is no mistake: it is left, and drawn anew
        given |= {"num_labels": wanted.head.size, "ignore_mismatched_sizes": True}
    if wanted.attention is not None:
        # transformers knows no "flash"; which layers can run it is checked once there are weights
        given["attn_implementation"] = "sdpa" if wanted.attention == "flash" else wanted.attention
    if wanted.quantization is not None:
        given["quantization_config"] = wanted.quantization
    in_files = not is_dequantized and getattr(config, "quantization_config", None) is not None
    is_quantized = wanted.quantization is not None or in_files
    if wanted.device_map is not None:
        given["device_map"] = wanted.device_map
    elif is_quantized and wanted.device != "cpu":
        given["device_map"] = {"": wanted.device}  # some quantized weights cannot be moved afterwards
    return given


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
