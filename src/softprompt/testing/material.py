"""Tiny random models, rows and freshly built methods for the checks; nothing is downloaded."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import methods
from ..data.collate import Batch, batch_of_ids
from ..errors import unknown
from ..injection import Injection
from ..lm import families
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.causal import CausalLM
from ..lm.features import size
from ..lm.seq2seq import Seq2SeqLM
from ..methods.base import Setting, SoftPrompt

FAMILIES = ("llama", "gpt2", "qwen3")  # grouped heads; absolute positions; heads wider than hidden / heads
PROMPTS = ("joke", "fact")
INPUTS = ([5, 17, 80, 33, 9], [42], [60, 61, 7, 12, 90, 33, 33, 2, 71], [8, 8, 30])
TARGETS = ([11, 12], [90], [4, 70, 70], [19])
NUMBERS = (0, 1, 1, 0)  # the prompts of the rows
ROWS = tuple(tuple(range(start, start + 9)) for start in (3, 20, 41, 66))  # to start vectors from


def tiny_tokenizer() -> Any:
    """Build a tokenizer of 97 tokens: the printable ASCII characters, the line break, and an end token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ"]  # a space and a line break, byte-level style
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<end>"])
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")


@functools.cache
def tiny_lm(family: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Build a random model of the family, the same one at every call. Raises SoftPromptError otherwise.

    Encoders are left out: their rows need positions of answers.
    """
    known = [name for name in families.FAMILIES if name not in families.ENCODERS]
    if family not in known:
        raise unknown("family", family, known)
    kind = Seq2SeqLM if family in families.ENCODER_DECODERS else CausalLM
    return kind(families.tiny(family).to(dtype), tiny_tokenizer(), f"tiny-{family}")


def batch() -> Batch:
    """Return four rows of different lengths under two prompts; one input is a single token."""
    texts = tuple(" ".join(f"w{i}" for i in ids) for ids in INPUTS)
    return replace(batch_of_ids(INPUTS, TARGETS, NUMBERS), texts=texts)


def row_of(batch: Batch, index: int) -> Batch:
    """Return one row as a batch of its own, without the padding that it had."""
    ids = batch.input_ids[index][batch.input_mask[index]].tolist()
    target = batch.target_ids[index][batch.target_mask[index]].tolist()
    single = batch_of_ids([ids], [target], [int(batch.prompt_ids[index])])
    return replace(single, texts=(batch.texts[index],) if batch.texts else ())


def setting(lm: LanguageModel, seed: int = 0, prompts: Sequence[str] = PROMPTS) -> Setting:
    """Return what a builder is given: names of prompts, labels, and rows to start from."""
    return Setting(
        lm,
        tuple(prompts),
        labels=("good", "bad"),
        examples=ROWS,
        examples_by_prompt={index: ROWS[index::2] for index in range(len(prompts))},
        seed=seed,
        feature_size=lambda reads: size(lm, reads),
    )


@dataclass(frozen=True)
class MethodOnModel:
    """A check looks at this: a method with some options on a tiny model."""

    name: str  # in the registry
    options: Mapping[str, Any]
    lm: LanguageModel
    folder: Path  # for files of a check
    batch: Batch = field(default_factory=batch)
    built: SoftPrompt | None = None  # a method that was built already, in place of a new one

    @property
    def where(self) -> str:
        """Return the model and the options, for messages."""
        return ", ".join([self.lm.name, *(f"{key}={value}" for key, value in self.options.items())])

    def build(self, *, seed: int = 0, prompts: Sequence[str] = PROMPTS) -> SoftPrompt:
        """Build the method as a run does, with initial vectors."""
        return methods.build(self.name, setting(self.lm, seed, prompts), self.options)

    @functools.cached_property
    def method(self) -> SoftPrompt:
        """Return the method with random numbers added to each parameter.

        Gates and last layers that start at zero then have an effect.
        """
        return self.built or perturbed(self.build())


@torch.no_grad()
def perturbed(method: SoftPrompt, amount: float = 0.3, seed: int = 0) -> SoftPrompt:
    """Add random numbers to each parameter, in place."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in method.parameters():
        parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return method


def weights_of(lm: LanguageModel) -> str:
    """Hash the base's weights, with what its modules are and whether they train."""
    digest = hashlib.sha256()
    for name, tensor in sorted(lm.model.state_dict(keep_vars=True).items()):
        digest.update(f"{name} {tensor.requires_grad}".encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    digest.update(repr([(name, module.training) for name, module in lm.model.named_modules()]).encode())
    return digest.hexdigest()


def difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, as a share of the largest number of `b` (or of 1, if larger)."""
    if a.shape != b.shape:
        return float("inf")
    if not b.numel():
        return 0.0
    worst = (a - b).abs().max().item() / max(1.0, b.abs().max().item())
    return worst if worst == worst else float("inf")


def rows_with(inputs: list[list[int]], prompts: list[int]) -> Batch:
    """Return a batch of inputs under prompts; each target is one token."""
    return batch_of_ids(inputs, [[11]] * len(inputs), prompts)


@torch.no_grad()
def injection_of(subject: MethodOnModel, method: SoftPrompt | None = None) -> Injection:
    """Return what the method, or another one, injects for the rows of the check."""
    return injection_for(subject.lm, method or subject.method, subject.batch)
