"""Each architecture is tested: do all vectors reach the model, and exactly?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import AlbertConfig, AlbertForMaskedLM, RwkvConfig, RwkvForCausalLM

from softprompt.data.collate import batch_of_ids
from softprompt.injection import Injection
from softprompt.lm.base import LanguageModel
from softprompt.lm.causal import CausalLM
from softprompt.lm.encoder import EncoderLM
from softprompt.lm.families import HIDDEN, LAYERS, VOCAB

from .models import LENGTH, LONG, SHORT, here, in_peft, padded, prompt, row
from .rows import REFUSED, ROUNDING, Row, compare, difference

FAMILIES = ("deepseek_v3", "qwen3_next", "jamba", "bamba", "falcon_h1")
HEADS, T5_LAYERS = 4, 2
UNREACHED = "attention layers that the prefix does not reach"


def encoder_decoder_soft_prompt() -> Row:
    """Give T5 vectors for the encoder and for the decoder."""

    def peft() -> float:
        model = in_peft("prompt-tuning", "t5", "SEQ_2_SEQ_LM")
        model(**row(LONG), labels=torch.tensor([SHORT])).loss.backward()
        return _dead(model.prompt_encoder["default"].embedding.weight.grad)

    def ours() -> float:
        lm = here("t5")
        method = prompt(lm, "prompt-tuning", placement="both")
        _backward(lm, method(torch.tensor([0])))
        (table,) = method.parameters()
        assert table.grad is not None
        return _dead(table.grad[0])

    measured = f"vectors without a gradient, of {2 * LENGTH}"
    return compare("encoder-decoder, soft prompt", measured, peft=peft, ours=ours, allowed=0)


def encoder_decoder_prefix() -> Row:
    """T5 attends in its encoder, in its decoder, and from the decoder to the encoder's output."""
    layers = len(here("t5").spec.layers)

    def peft() -> float:
        cache = in_peft("prefix-tuning", "t5", "SEQ_2_SEQ_LM").get_prompt(1)
        stacks = (cache.self_attention_cache, cache.cross_attention_cache)
        return layers - sum(layer.get_seq_length() == LENGTH for stack in stacks for layer in stack.layers)

    def ours() -> float:
        return layers - _reached(here("t5"))

    measured = f"{UNREACHED}, of {layers}"
    return compare("encoder-decoder, prefix", measured, peft=peft, ours=ours, allowed=0)


def encoder_decoder_prefix_in_use() -> Row:
    """A model should read all trained vectors; PEFT's T5 reads every second layer's vectors twice."""

    def peft() -> float:
        model = in_peft("prefix-tuning", "t5", "SEQ_2_SEQ_LM")
        model(**row(LONG), labels=torch.tensor([SHORT])).loss.backward()
        return 1 - _reached_in_peft(model, T5_LAYERS) / T5_LAYERS

    def ours() -> float:
        lm = here("t5")
        return 1 - _reached(lm) / len(lm.spec.layers)

    measured = "share of the prefix's numbers that have no gradient"
    return compare("encoder-decoder, prefix in use", measured, peft=peft, ours=ours, allowed=0)


def _dead(gradient: Tensor) -> float:
    """Count the vectors [P, …] whose gradient is zero."""
    return float((gradient.flatten(1).abs().amax(1) == 0).sum())


def _reached_in_peft(model: Any, depth: int) -> int:
    """Count the layers whose part of the prefix [P, 2 · depth · kv_dim] has a gradient."""
    gradient = model.prompt_encoder["default"].embedding.weight.grad
    return 0 if gradient is None else depth - int(_dead(gradient.unflatten(1, (depth, -1)).transpose(0, 1)))


def _reached(lm: LanguageModel) -> int:
    """Count the attention layers whose part of the prefix has a gradient."""
    prefix = prompt(lm, "prefix-tuning")(torch.tensor([0])).kv_before
    assert prefix is not None
    values = [layer.value for layer in prefix.layers if layer is not None]
    for value in values:
        value.retain_grad()
    _backward(lm, Injection(kv_before=prefix))
    return sum(value.grad is not None and bool(value.grad.abs().max() > 0) for value in values)


def _backward(lm: LanguageModel, injection: Injection) -> None:
    places = [range(len(SHORT))]  # where an encoder answers
    lm.logits(batch_of_ids([LONG], [SHORT], places=places), injection).square().sum().backward()


@torch.no_grad()
def prefix_on(family: str) -> Row:
    """Test a prefix on latent attention, and beside layers without attention."""

    def peft() -> float:
        model = in_peft("prefix-tuning", family)
        alone = model(**row(SHORT)).logits[0, -1]
        plain = model.get_base_model()(**row(SHORT)).logits[0, -1]
        return _effective(model(**padded(left=False)).logits[1, len(SHORT) - 1], alone, plain)

    def ours() -> float:
        lm = here(family)
        injection = prompt(lm, "prefix-tuning")(torch.tensor([0]))
        single = batch_of_ids([SHORT], [[1]])
        together = lm.logits(batch_of_ids([LONG, SHORT], [[1], [1]]), injection)[1]
        return _effective(together, lm.logits(single, injection)[0], lm.logits(single)[0])

    measured = "logits of a padded row against the same row alone"
    return compare(f"prefix on {family}", measured, peft=peft, ours=ours)


def _effective(together: Tensor, alone: Tensor, plain: Tensor) -> float:
    """Return the difference; infinity if the prefix changes nothing, since agreement then proves nothing."""
    return difference(together, alone) if difference(alone, plain) > 100 * ROUNDING else math.inf


def _rwkv() -> RwkvForCausalLM:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": 48}
    return RwkvForCausalLM(RwkvConfig(vocab_size=VOCAB, context_length=64, **shape)).eval()


def prefix_on_rwkv() -> Row:
    """A model without attention has nothing that could see a prefix."""

    def peft() -> float:
        sizes: dict[str, Any] = {"num_layers": LAYERS, "token_dim": HIDDEN, "num_attention_heads": HEADS}
        model = in_peft("prefix-tuning", _rwkv(), **sizes)
        loss = model(**row(LONG)).logits.square().sum()
        if loss.requires_grad:  # not so where the prefix is left out of it
            loss.backward()
        return LAYERS - _reached_in_peft(model, LAYERS)

    def ours() -> float:
        return LAYERS - _reached(CausalLM(_rwkv(), None, "tiny-rwkv"))

    measured = f"layers that the prefix does not reach, of {LAYERS}"
    return compare("prefix on rwkv", measured, peft=peft, ours=ours, allowed=REFUSED)


def _albert() -> AlbertForMaskedLM:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 48,
    }
    config = AlbertConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, embedding_size=16, initializer_range=0.2, **shape
    )
    return AlbertForMaskedLM(config).eval()


def prefix_on_albert() -> Row:
    """Test a prefix on one attention layer that the model runs repeatedly."""

    def peft() -> float:
        model = in_peft("prefix-tuning", _albert(), "FEATURE_EXTRACTION")
        loss = model(**row(LONG)).logits.square().sum()
        if loss.requires_grad:  # not so where the prefix is left out of it
            loss.backward()
        return float(_reached_in_peft(model, LAYERS) == 0)

    def ours() -> float:
        return 1.0 - _reached(EncoderLM(_albert(), None, "tiny-albert"))

    measured = f"{UNREACHED}, of 1 (its layers share it)"
    return compare("prefix on albert", measured, peft=peft, ours=ours, allowed=0)
