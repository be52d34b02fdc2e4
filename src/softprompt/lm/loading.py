"""`load` makes a `LanguageModel` of a hub id, a folder, a GGUF file, an alias, or a model in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .._system.gc import rare_collection
from .._system.paths import expanded
from .._system.quiet import quietly
from ..config.identity import CONFIGURATION
from ..data.tokens import vocabulary_fingerprint
from ..errors import SoftPromptError
from . import (
    checkpoint,
    in_memory,
    int8_weights,
    loading_options,
    locate,
    minilm,
    offloaded,
    quantization,
    smollm2,
    text_identity,
)
from .attention_choice import Attention
from .base import LanguageModel
from .heads import Head
from .origin import Origin
from .precision import Precision, Weights, precision, with_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALIASES: dict[str, Callable[[], Path]] = {"smollm2": smollm2.folder, "minilm": minilm.folder}
_OF_LOADING = ("_name_or_path", "dtype", "torch_dtype", "transformers_version", "_attn_implementation")
#: What else decides no number: who saved the model, whether it keeps a cache, and what a head's outputs mean.
_NEUTRAL = ("architectures", "use_cache", "id2label", "label2id", "problem_type")


@rare_collection()
@quietly
def load(
    name: str | Path | PreTrainedModel = "smollm2",
    tokenizer: Any = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    device_map: Any = None,
    dtype: Precision | torch.dtype = "auto",
    weights: Weights = "auto",
    quantization_config: Any = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    device: str | None = None,
    head: Head | None = None,
    attention: Attention = "auto",
    shard: bool = False,
) -> LanguageModel:
    """Load a frozen model with its tokenizer, a BERT-like one with its masked-word head or `head`.

    An encoder of sentence-transformers, such as "minilm", gives vectors of texts, pooled as it says.

    `name` is a hub id, a folder, a GGUF file or an alias; or a transformers model in memory, with its
    `tokenizer`, which `close` gives back as it was. `revision`, `token`, `device_map`, `quantization_config`
    (an object of transformers, or a mapping of its fields) and `trust_remote_code` are those of
    transformers' `from_pretrained`. Code that comes with a checkpoint runs only with `trust_remote_code`.

    `weights` is the form of the frozen weights. "auto": a CPU may read them from a second form that is
    faster, where the answer stays the same (docs/performance.md). "float32" and "bfloat16": plain weights in
    that precision, without a second form. "int8": linear layers in 8 bits, a quarter of float32's memory,
    which moves the logits.

    `dtype="auto"` takes bfloat16 where the GPU or the processor multiplies it in hardware, else float32; the
    model's `why_dtype` says why. `attn_implementation` is "sdpa", torch's fused attention, wherever the
    family has it; "flash" runs its FlashAttention-2 kernels over prefix columns too (for GPUs); "eager" is
    slower, and gives the weights for `output_attentions`. (`attention` is its earlier name.) `shard` splits
    the layers over the processes of the run (docs/many-devices.md). `device` is where the model runs
    (default: the GPU, where there is one). Raises SoftPromptError where the model cannot be found or is
    refused, and for options that have no effect.
    """
    given = {
        "revision": revision,
        "token": token,
        "device_map": device_map,
        "quantization_config": quantization_config,
        "weights": None if weights == "auto" else weights,
        "trust_remote_code": trust_remote_code or None,
        "device": device,
        "shard": shard or None,
    }
    dtype = with_weights(dtype, weights)
    choice = loading_options.attention(attn_implementation, attention)
    if not isinstance(name, str | Path):
        loading_options.check_in_memory({**given, "head": head, "dtype": None if dtype == "auto" else dtype})
        return _in_memory(name, tokenizer, choice)
    name = str(name)
    loading_options.check(name, ALIASES, tokenizer, given)
    target = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen, why = precision(dtype, target)
    path, options = locate.find(name, ALIASES)
    if name not in ALIASES and Path(expanded(name)).exists():
        name = str(Path(expanded(name)).absolute())  # an artifact keeps it, and is used from elsewhere
    options |= {
        key: value for key, value in given.items() if key in ("revision", "token") and value is not None
    }
    options["trust_remote_code"] = trust_remote_code
    quantized = quantization.configuration(quantization_config)
    wanted = checkpoint.Wanted(name, target, chosen, head, choice, quantized, device_map, shard)
    read = checkpoint.read(path, options, wanted)
    lm = read.kind(read.model, read.tokenizer, name, read.head, read.head_names, choice or "auto")
    lm.why_dtype, lm.is_loaded_here, lm.weights = why, True, weights
    if weights == "int8":
        int8_weights.convert(lm.model, name, lm.head_names)
    lm.origin = Origin(
        read.commit or revision,
        quantization.plain(quantized),
        choice,
        trust_remote_code,
        device_map,
        pooling=None if read.head is None else read.head.pooling,
        weights=weights if weights == "int8" else None,
    )
    return lm


def _in_memory(model: Any, tokenizer: Any, attention: str | None) -> LanguageModel:
    in_memory.check(model)
    if tokenizer is None:
        try:
            tokenizer = load_tokenizer(model.name_or_path, getattr(model.config, "_commit_hash", None))
        except SoftPromptError as error:
            raise SoftPromptError(
                f"the {type(model).__name__} in memory has no tokenizer",
                why=f"none was given, and none is at its name_or_path '{model.name_or_path}'",
                fix="lm = softprompt.load(model, tokenizer)",
            ) from error
    return in_memory.wrapped(model, tokenizer, attention=attention, trains_head=True)


def load_saved(base: Mapping[str, Any], model: str | None = None, **options: Any) -> LanguageModel:
    """Load the base that a manifest records, by its revision, quantization and attention; see `load`.

    `model` names another place of the same base. `options` are those of `load`; the word to trust a
    checkpoint's code is never taken from the manifest. Raises SoftPromptError as `load` does.
    """
    if base.get("in_memory") and model is None and not locate.is_place(base["name"], ALIASES):
        raise SoftPromptError(
            f"the base model '{base['name']}' was in memory, and has no place that it can be loaded from",
            why="the prompt was trained on a model that was given to softprompt, not loaded by it",
            fix="give it: softprompt.open_prompt(FOLDER, softprompt.load(model, tokenizer)); or save it and "
            "its tokenizer with save_pretrained(FOLDER), and add --model FOLDER",
        )
    saved: dict[str, Any] = {
        "quantization_config": base.get("quantization"),
        "attn_implementation": base.get("attn_implementation"),
        "revision": base.get("revision") if model is None else None,
        "weights": base.get("weights") or "auto",
    }
    head = options.pop("head", None)
    if base.get("pooling") and (head is None or head.over == "pooling"):
        head = Head("pooling", pooling=base["pooling"])
    saved["head"] = head
    return load(model or base["name"], **{**saved, **{k: v for k, v in options.items() if v is not None}})


def fingerprint(lm: LanguageModel, *, with_head: bool = False) -> dict[str, str]:
    """Return short hashes of all of a base that answers depend on, by their names in messages.

    The configuration, a sample of every weight (of a head's only `with_head`), the vocabulary, how text
    becomes ids, the chat template, and what of the generation config rules answers. Weights are compared in
    bfloat16, so the same checkpoint loaded in another precision is the same base.
    """
    settings = lm.model.config.to_dict()
    # as earlier versions compared it: what only loading or saving sets is in it
    config = {k: v for k, v in sorted(settings.items()) if k not in _OF_LOADING}
    without_pad = ("pad_token_id",) if lm.head is not None and lm.spec.kind == "decoder" else ()
    weights = hashlib.sha256()
    skipped = () if with_head else lm.head_names
    # LoRA wraps a weight under another name; the base is the same
    # of int8 weights: what they were before
    converted = int8_weights.originals(lm.model)
    tensors = ((k, t) for k, t in lm.model.state_dict().items() if "lora_" not in k and k not in skipped)
    named = {_weight_name(k): (k, t) for k, t in tensors if converted.get(k, t) is not None}
    for key, (name, kept) in sorted(named.items()):
        tensor = quantization.dequantized(offloaded.read(lm.model, name, kept))
        sample = converted.get(name)
        sample = int8_weights.sampled(tensor) if sample is None else sample
        weights.update(f"{key}{tuple(tensor.shape)}".encode())
        weights.update(sample.view(torch.int16).numpy().tobytes())
    return {
        "config": _short(repr(config)),
        CONFIGURATION: _short(repr(_decisive(settings, {*_OF_LOADING, *_NEUTRAL, *without_pad}))),
        "weights": weights.hexdigest()[:16],
        "tokenizer": vocabulary_fingerprint(lm.tokenizer),
        **text_identity.fingerprint(lm),
    }


@quietly
def load_tokenizer(name: str, revision: str | None = None, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a model, without the model. Raises SoftPromptError where there is none."""
    from transformers import AutoTokenizer

    path, options = locate.find(name, ALIASES)
    options |= {"trust_remote_code": trust_remote_code} | ({} if revision is None else {"revision": revision})
    try:
        return AutoTokenizer.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise locate.failed(name, error) from error


def _weight_name(name: str) -> str:
    """Return a weight's name before LoRA wrapped it, or it became int8."""
    return name.replace("base_layer.", "").replace(f".{int8_weights.NUMBERS}", ".weight")


def _decisive(value: Any, without: Collection[str]) -> Any:
    """Return a configuration in a fixed order, on every level without the keys that decide no number."""
    if not isinstance(value, Mapping):
        return value
    kept = ((str(key), item) for key, item in value.items() if key not in without)
    return sorted((key, _decisive(item, without)) for key, item in kept)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
