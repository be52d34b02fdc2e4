"""Injection against references that share no code with it: real tokens, transformers' own seeded KV
cache, and a Llama written out naively with explicit masks."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import silu
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from softprompt import methods
from softprompt.injection import Injection, LayerKV, Prefix, SoftTokens
from softprompt.lm.families import ENCODER_DECODERS

TEXT, INPUT, TARGET = [9, 3, 60, 77, 12], [5, 17, 80, 33], [11, 12, 50]
P = len(TEXT)


@pytest.fixture
def single(rows_to_batch):
    return rows_to_batch([INPUT], [TARGET])


def mask(length: int) -> torch.Tensor:
    return torch.ones(1, length, dtype=torch.bool)


def kv(layers) -> Prefix:
    return Prefix(tuple(layers), mask(layers[0].key.shape[2]))


# --- real tokens ---


@pytest.mark.parametrize("place", ["before", "after"])
def test_soft_tokens_that_are_words_equal_the_words(lm, family, place, rows_to_batch, close, generates):
    # with what some families look up by a token's id beside its embedding
    tokens = SoftTokens(lm.token_inputs(torch.tensor([TEXT])), mask(P))
    batch = rows_to_batch([INPUT, [8]], [TARGET, [4]])  # beside a shorter row
    joined = [TEXT + INPUT, [*TEXT, 8]] if place == "before" else [INPUT + TEXT, [8, *TEXT]]
    words = lm.logits(rows_to_batch(joined, [TARGET, [4]]))
    soft = lm.logits(batch, Injection(**{place: tokens}))
    close(soft[batch.target_mask], words[batch.target_mask])
    if not generates(Injection(**{place: tokens})):
        return
    made = lm.generate(batch, Injection(**{place: tokens}), max_new_tokens=4, do_sample=False)
    assert torch.equal(made, lm.generate(rows_to_batch(joined), max_new_tokens=4, do_sample=False))


# full attention and rotary positions (or none): elsewhere a prefix is not where a text would be
LIKE_WORDS = (
    *("llama", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "phi3", "gptj", "gpt_neox", "olmo2"),
    *("stablelm", "granite", "smollm3", "glm", "nemotron", "deepseek_v2", "deepseek_v3"),
)


@pytest.mark.parametrize("family", LIKE_WORDS)
def test_prefix_of_words_equals_the_words(lms, family, rows_to_batch, close):
    """On rotary models the keys and values of a text, ahead of the input, are that text."""
    lm = lms(family)
    batch = rows_to_batch([INPUT, [8]], [TARGET, [4]])
    injection = Injection(kv_before=kv(lm.kv_of(TEXT)))
    words = lm.logits(rows_to_batch([TEXT + INPUT, [*TEXT, 8]], [TARGET, [4]]))
    close(lm.logits(batch, injection)[batch.target_mask], words[batch.target_mask])


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_infix_of_words_equals_a_document_seen_late(lms, family, single, close):
    """The infix's keys stand right ahead of the last input token, as if the text had been there alone."""
    lm = lms(family)
    injection = Injection(kv_after=kv(lm.kv_of(TEXT)))
    one = lm.logits(single, injection)
    # with an input of one token the input's other tokens are gone: then infix and prefix are the same
    close(
        lm.logits(_input(single, INPUT[-1:]), injection),
        lm.logits(_input(single, INPUT[-1:]), Injection(kv_before=injection.kv_after)),
    )
    assert (one - lm.logits(single, Injection(kv_before=injection.kv_after))).abs().max() > 1e-3


def _input(batch, ids):
    from dataclasses import replace

    return replace(batch, input_ids=torch.tensor([ids]), input_mask=mask(len(ids)))


# --- transformers' own cache, seeded ---


def random_kv(lm, length: int, seed: int = 0) -> list[LayerKV]:
    """Keys without a position, and values."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size, spec):
        return torch.randn(1, spec.kv_heads, length, size, generator=generator)

    return [LayerKV(draw(s.head_dim, s), draw(s.v_head_dim, s)) for s in lm.spec.layers]


def turned(model, layers, start: int) -> list[LayerKV]:
    """The same with keys at positions start, start + 1, …, by transformers' rotary code (GPT-2 has none)."""
    if not hasattr(model, "model"):
        return list(layers)
    length = layers[0].key.shape[2]
    cos, sin = model.model.rotary_emb(layers[0].key, torch.arange(start, start + length)[None])
    return [LayerKV(apply_rotary_pos_emb(kv.key, kv.key, cos, sin)[0], kv.value) for kv in layers]


def seeded(*parts) -> DynamicCache:
    cache = DynamicCache()
    for part in parts:
        for index, layer in enumerate(part):
            cache.update(layer.key, layer.value, index)
    return cache


def run(model, ids, cache, start: int) -> torch.Tensor:
    """The plain transformers model over a cache, its tokens at positions start, start + 1, …"""
    positions = torch.arange(start, start + len(ids))[None]
    length = cache.get_seq_length() + len(ids)
    with torch.no_grad():
        out = model(
            torch.tensor([ids]),
            past_key_values=cache,
            position_ids=positions,
            attention_mask=torch.ones(1, length, dtype=torch.long),
        )
    return out.logits[:, -len(TARGET) :]


@pytest.fixture
def plain_model(family, request):
    """The same weights in a model of transformers' own, which this library never touched."""
    import copy

    model = copy.deepcopy(request.getfixturevalue("lms")(family).model)
    model.set_attn_implementation("sdpa")
    return model


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("shift", [0, P], ids=["natural positions", "shifted positions"])
def test_prefix_equals_a_seeded_cache(lm, family, shift, plain_model, single, close):
    if family == "gpt2" and shift:
        return  # absolute positions are added to the input: another model of another text
    raw = random_kv(lm, P)
    reference = run(plain_model, INPUT + TARGET[:-1], seeded(turned(plain_model, raw, shift - P)), shift)
    close(lm.logits(single, Injection(kv_before=kv(turned(plain_model, raw, -P)))), reference)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_infix_equals_a_seeded_cache(lm, family, plain_model, single, close):
    """The last input token and the target over [input's cache, prefix right ahead of that token]."""
    raw, last = random_kv(lm, P), len(INPUT) - 1
    cache = DynamicCache()
    run(plain_model, INPUT[:-1], cache, 0)
    for index, layer in enumerate(turned(plain_model, raw, last - P)):
        cache.update(layer.key, layer.value, index)
    reference = run(plain_model, [INPUT[-1], *TARGET[:-1]], cache, last)
    injection = Injection(kv_after=kv(turned(plain_model, raw, -P)))
    close(lm.logits(single, injection), reference)
    close(lm.logits(single, injection, lm.prefill(single, injection)), reference)


# --- a Llama written out ---


def naive_llama(model, ids, *, prefix=(), infix=(), infix_from=0, adapter=None) -> torch.Tensor:
    """Logits [tokens, V]. `prefix` and `infix`: per layer (keys, values) [kv_heads, P, d], keys rotated;
    queries before `infix_from` do not see the infix. `adapter`: {layer: (P [P, H], gate [heads])}."""
    config, n = model.config, len(ids)
    heads, groups, d = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    frequency = 1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(0, d, 2) / d)
    angle = torch.cat([torch.arange(n)[:, None] * frequency] * 2, dim=1)  # [n, d]

    def turn(x):  # [heads, n, d]
        half = torch.cat([-x[..., d // 2 :], x[..., : d // 2]], dim=-1)
        return x * angle.cos() + half * angle.sin()

    def norm(x, module):
        return module.weight * x / (x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()

    def split(x, count):
        return x.reshape(len(x), count, d).transpose(0, 1)  # [count, n, d]

    def spread(x):
        return x.repeat_interleave(heads // groups, dim=0)

    hidden = model.model.embed_tokens.weight[torch.tensor(ids)]
    for i, layer in enumerate(model.model.layers):
        attention, x = layer.self_attn, norm(hidden, layer.input_layernorm)
        q = turn(split(x @ attention.q_proj.weight.T, heads))
        keys = [turn(split(x @ attention.k_proj.weight.T, groups))]
        values = [split(x @ attention.v_proj.weight.T, groups)]
        seen = [torch.ones(n, n).tril().bool()]
        for part, first in ((prefix, 0), (infix, infix_from)):
            if part:
                keys.append(part[i][0])
                values.append(part[i][1])
                seen.append((torch.arange(n) >= first)[:, None].expand(n, part[i][0].shape[1]))
        scores = q @ spread(torch.cat(keys, 1)).transpose(1, 2) / d**0.5
        weights = scores.masked_fill(~torch.cat(seen, 1), -torch.inf).softmax(-1)
        out = weights @ spread(torch.cat(values, 1))
        if adapter and i in adapter:
            vectors, gate = adapter[i]
            k = spread(split(vectors @ attention.k_proj.weight.T, groups))
            v = spread(split(vectors @ attention.v_proj.weight.T, groups))
            out = out + gate.tanh()[:, None, None] * ((q @ k.transpose(1, 2) / d**0.5).softmax(-1) @ v)
        hidden = hidden + out.transpose(0, 1).reshape(n, -1) @ attention.o_proj.weight.T
        x, mlp = norm(hidden, layer.post_attention_layernorm), layer.mlp
        gated = silu(x @ mlp.gate_proj.weight.T) * (x @ mlp.up_proj.weight.T)
        hidden = hidden + gated @ mlp.down_proj.weight.T
    return norm(hidden, model.model.norm) @ model.lm_head.weight.T


def pairs(layers):
    return [(layer.key[0], layer.value[0]) for layer in layers]


def test_naive_llama_is_a_llama(llama, single, close):
    close(naive_llama(llama.model, INPUT + TARGET[:-1])[-len(TARGET) :], llama.logits(single)[0])


def test_prefix_and_infix_equal_explicit_masks(llama, single, close):
    before, after = random_kv(llama, 3, seed=1), random_kv(llama, P, seed=2)
    last = len(INPUT) - 1
    reference = naive_llama(
        llama.model,
        INPUT + TARGET[:-1],
        prefix=pairs(turned(llama.model, before, -3)),
        infix=pairs(turned(llama.model, after, last - P)),
        infix_from=last,
    )
    injection = Injection(
        kv_before=kv(turned(llama.model, before, -3)), kv_after=kv(turned(llama.model, after, -P))
    )
    close(llama.logits(single, injection)[0], reference[-len(TARGET) :])


def test_adapter_equals_its_formula(llama, single, setting, perturb, close):
    method = perturb(methods.build("llama-adapter", setting(llama), {"length": 4, "top_layers": 2}), 0.5)
    adapter = {place: (method.vectors[1, slot], method.gates[1, slot]) for slot, place in enumerate((1, 2))}
    reference = naive_llama(llama.model, INPUT + TARGET[:-1], adapter=adapter)
    close(llama.logits(single, method(torch.tensor([1])))[0], reference[-len(TARGET) :])


def test_fresh_adapter_is_the_plain_model(lm, family, single, setting, close):
    if "prefix" in lm.spec.limits:
        return  # refused: see test_refusals.py
    method = methods.build("llama-adapter", setting(lm), {"length": 4})
    with torch.no_grad():
        fresh, plain = lm.logits(single, method(torch.tensor([0]))), lm.logits(single)
    assert torch.equal(fresh, plain)
    # where gradient is wanted, the same attention is computed as other products (lm/cpu_attention.py)
    close(lm.logits(single, method(torch.tensor([0]))), plain)


# --- encoder-decoder models against transformers' own forward ---


def plain_seq2seq(lm, input_ids, decoder_ids):
    """Logits [T, V] of one row, by a copy that this library never touched."""
    import copy

    model = copy.deepcopy(lm.model)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([input_ids]), decoder_input_ids=torch.tensor([decoder_ids])
        ).logits[0]


@pytest.mark.parametrize("family", list(ENCODER_DECODERS))
def test_encoder_and_decoder_read_what_transformers_gives_them(lms, family, rows_to_batch, close):
    lm = lms(family)
    start = lm.model.config.decoder_start_token_id
    batch = rows_to_batch([INPUT, [8, 9, 10, 11, 12, 13]], [TARGET, [4]])
    tokens = SoftTokens(lm.embed(torch.tensor([TEXT])), mask(P))
    reference = plain_seq2seq(lm, INPUT, [start, *TARGET[:-1]])
    close(lm.logits(batch)[0], reference)
    close(lm.logits(batch)[1, -1:], plain_seq2seq(lm, [8, 9, 10, 11, 12, 13], [start]))
    reference = plain_seq2seq(lm, TEXT + INPUT, [start, *TARGET[:-1]])
    close(lm.logits(batch, Injection(before=tokens))[0], reference)


@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_decoder_soft_tokens_that_are_words_equal_the_words(lms, family, rows_to_batch, close):
    """Relative positions: the words ahead of the start token, in the decoder's own input."""
    lm = lms(family)
    start = lm.model.config.decoder_start_token_id
    batch = rows_to_batch([INPUT, [8, 9, 10, 11, 12, 13]], [TARGET, [4]])
    tokens = SoftTokens(lm.embed(torch.tensor([TEXT])), mask(P))
    made = lm.logits(batch, Injection(decoder=tokens))
    close(made[0], plain_seq2seq(lm, INPUT, [*TEXT, start, *TARGET[:-1]])[-len(TARGET) :])
    close(made[1, -1:], plain_seq2seq(lm, [8, 9, 10, 11, 12, 13], [*TEXT, start])[-1:])


@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_decoder_prefix_equals_a_seeded_cache(lms, family, rows_to_batch, close):
    """Trained keys and values in the decoder's self-attention against a seeded cache."""
    from transformers import EncoderDecoderCache

    lm = lms(family)
    start = lm.model.config.decoder_start_token_id
    own = [i for i, spec in enumerate(lm.spec.layers) if spec.stack == "decoder"]
    layers = [None] * len(lm.spec.layers)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for number, site in enumerate(own):
        key, value = (torch.randn(1, 4, P, 8, generator=torch.Generator().manual_seed(s)) for s in (site, 99))
        layers[site] = LayerKV(key, value)
        cache.self_attention_cache.update(key, value, number)
    prefix = Prefix(tuple(layers), mask(P))
    import copy

    model = copy.deepcopy(lm.model)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        reference = model(
            input_ids=torch.tensor([INPUT]),
            decoder_input_ids=torch.tensor([[start, *TARGET[:-1]]]),
            past_key_values=cache,
            use_cache=True,
        ).logits[0]
    made = lm.logits(rows_to_batch([INPUT], [TARGET]), Injection(kv_before=prefix))[0]
    close(made, reference)
