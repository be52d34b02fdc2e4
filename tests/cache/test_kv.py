"""What a cache gives back is what the plain model computes, in memory and on disk; int8 is near it."""

from __future__ import annotations

import pytest
import torch

from softprompt.cache import Cache, KeyValues, common_beginning, disk_store, memory_store
from softprompt.data.collate import batch_of_ids, collate
from softprompt.injection import LayerKV
from softprompt.lm.context import Context

from .conftest import LENGTHS


@pytest.fixture(params=["ram", "disk"])
def built(request, place, monkeypatch):
    """`built(lm, examples, …)`: either cache of the examples, the one on disk in several files."""
    monkeypatch.setattr(disk_store, "SHARD_BYTES", 3000)
    monkeypatch.setattr(disk_store, "BATCH_TOKENS", 12)

    def make(lm, examples, form="auto", ahead=(), **how):
        kept = KeyValues(lm, form, ahead)
        if request.param == "ram":
            return Cache(kept, memory_store.build(kept, examples, **how), examples)
        return Cache(kept, disk_store.open_or_build(place, kept, examples, **how), examples)

    return make


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_holds_what_prefill_computes(lms, family, built, examples, close):
    lm, done = lms(family), []
    cache = built(lm, examples, progress=lambda n, of: done.append((n, of)))
    assert len(cache) == 6 and done[-1] == (6, 6)
    for rows in ([0, 1, 2, 3, 4, 5], [4, 1], [1], [2, 2]):
        context = cache.batch(rows)
        fresh = lm.prefill(collate([examples[i] for i in rows], targets=False))
        assert torch.equal(context.mask, fresh.mask)
        for kept, layer in zip(context.layers, fresh.layers, strict=True):
            seen = context.mask[:, None, :, None]
            close(kept.key * seen, layer.key * seen)
            close(kept.value * seen, layer.value * seen)


@pytest.mark.parametrize("batch_tokens", [1, 12, 10**6])
def test_memory_held_and_chunks(llama, examples, batch_tokens, close):
    kept = KeyValues(llama)
    cache = Cache(kept, memory_store.build(kept, examples, batch_tokens=batch_tokens), examples)
    assert cache.bytes == (sum(LENGTHS) - len(LENGTHS)) * llama.spec.kv_numbers_per_token * 4
    context, fresh = cache.batch(range(6)), llama.prefill(collate(examples, targets=False))
    for kept, layer in zip(context.layers, fresh.layers, strict=True):
        close(kept.key * fresh.mask[:, None, :, None], layer.key * fresh.mask[:, None, :, None])


def test_layers_of_unlike_sizes(new_lm, built, examples, monkeypatch):
    """Layers that cannot be stacked into one tensor are kept one by one."""
    lm = new_lm("llama")
    original = lm.prefill

    def wider(batch, injection=None, ahead=None):
        context = original(batch, injection, ahead)
        last = context.layers[-1]
        twice = LayerKV(torch.cat([last.key] * 2, dim=1), torch.cat([last.value] * 2, dim=1))
        return Context((*context.layers[:-1], twice), context.mask)

    monkeypatch.setattr(lm, "prefill", wider)
    context = built(lm, examples).batch([2, 0])
    assert [layer.key.shape[1] for layer in context.layers] == [2, 2, 4]
    assert torch.equal(context.layers[2].key[:, :2], context.layers[2].key[:, 2:])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_kept_in_the_models_own_precision(new_lm, built, examples, kind):
    lm = new_lm("llama")
    lm.model.to(kind)
    assert all(layer.key.dtype == kind for layer in built(lm, examples).batch([0, 2]).layers)


def begun(encoded, lengths=(6, 1, 9, 3)):
    """Rows that all begin with the same 20 tokens; the shortest has one more."""
    rows = encoded(lengths)
    for row in rows:
        row.input_ids = (*range(70, 90), *row.input_ids)
    return rows


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "mistral", "gemma3_text"])
@pytest.mark.parametrize("form", ["auto", "int8"])
def test_what_all_inputs_begin_with_is_computed_and_kept_once(lms, family, built, encoded, form, close):
    lm, rows = lms(family), begun(encoded)
    ahead = common_beginning(lm, rows)
    assert ahead == tuple(range(70, 86))  # whole sixteens
    apart, whole = built(lm, rows, form, ahead), built(lm, rows, form)
    assert apart.bytes < whole.bytes / 2
    for chosen in ([0, 1, 2, 3], [2, 0, 0, 1]):
        part = batch_of_ids([rows[i].input_ids for i in chosen], [[1, 2], [3], [4, 5, 6], [7]])
        found, plain = (lm.logits(part, None, c)[part.target_mask] for c in (apart.batch(chosen), None))
        if form == "auto":
            close(found, plain)
        else:
            assert (found - plain).abs().mean() < 0.1 * plain.std()


def test_a_beginning_is_what_no_input_goes_without(llama, lms, encoded):
    rows = begun(encoded)
    assert common_beginning(llama, rows[:1]) == ()  # a single input would be all beginning
    rows[0].input_ids = rows[0].input_ids[:16]
    assert common_beginning(llama, rows) == ()  # its last token belongs to the tail
    rows[0].input_ids = (*range(70, 88), 3)
    assert common_beginning(llama, rows) == tuple(range(70, 86))
    rows[1].input_ids = (1, *rows[1].input_ids)
    assert common_beginning(llama, rows) == ()
    assert common_beginning(lms("bloom"), begun(encoded)) == ()  # cannot see another's columns
    kept = {KeyValues(llama, ahead=ahead).key for ahead in ((), (1, 2), (1, 3))}
    assert len(kept) == 3


def naive_int8(row: torch.Tensor) -> torch.Tensor:
    """[2L, heads, n, d], channel by channel."""
    out = torch.zeros_like(row)
    for index in torch.cartesian_prod(*(torch.arange(row.shape[k]) for k in (0, 1, 3))).tolist():
        part, head, channel = index
        numbers = row[part, head, :, channel]
        step = float(numbers.abs().max()) / 127
        out[part, head, :, channel] = torch.tensor([round(float(x) / step) * step for x in numbers])
    return out


def test_int8_is_rounding_by_channel(llama, built, examples, close):
    (row,) = KeyValues(llama).compute(examples[2:3])[0]
    layers = built(llama, examples, form="int8").batch([2]).layers
    kept = torch.stack([t[0] for layer in layers for t in (layer.key, layer.value)])
    wanted = naive_int8(row)
    step = row.abs().amax(-2, keepdim=True) / 127
    # a row computed beside others differs by 1e-6, which may round a number halfway the other way
    assert ((kept - wanted).abs() > 1e-4 * step).float().mean() < 1e-2
    assert ((kept - row).abs() <= 0.51 * step).all()


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_int8_hardly_moves_logits(lms, family, built, encoded):
    """Bound: eight times what bfloat16 makes of the same context, on average over the logits.

    bfloat16 keeps 8 bits of every number, int8 7 bits of its channel's largest: a bit less for the
    largest, and one more with every halving. Most numbers of a channel are more than a quarter of the
    largest, so three bits are allowed. Logits change in proportion, as changes are small. A context of
    signs alone must break the bound, or logits hardly read it.
    """
    lm, rows = lms(family), encoded((30, 12, 25, 7))
    batch = collate(rows)
    fresh = lm.prefill(batch)

    def moved(context) -> float:
        return (lm.logits(batch, None, context) - lm.logits(batch, None, fresh)).abs().mean().item()

    def changed(how) -> Context:
        return Context(tuple(layer.map(how) for layer in fresh.layers), fresh.mask)

    int8 = moved(built(lm, rows, form="int8").batch(range(4)))
    bound = 8 * moved(changed(lambda t: t.bfloat16().float()))
    assert 0 < int8 <= bound < moved(changed(lambda t: t.sign() * t.abs().amax(2, keepdim=True))) / 8


def test_int8_in_bfloat16_and_with_rows_of_nothing(new_lm, built, encoded):
    lm = new_lm("llama")
    lm.model.to(torch.bfloat16)
    rows = encoded((1, 6))
    context = built(lm, rows, form="int8").batch([0, 1])
    fresh = lm.prefill(collate(rows, targets=False))
    assert torch.equal(context.mask, fresh.mask)
    for kept, layer in zip(context.layers, fresh.layers, strict=True):
        assert kept.key.dtype == torch.bfloat16
        # half a step, a quarter for the scale's own 8 bits, and the rounding of what comes back
        step = layer.key[1].abs().amax(-2, keepdim=True).float() / 127
        assert ((kept.key[1] - layer.key[1]).float().abs() <= 1.3 * step).all()
    nothing = built(lm, rows[:1], form="int8").batch([0])
    assert nothing.layers[0].key.shape[2] == 0 and nothing.mask.shape == (1, 0)


def test_rows_are_computed_when_they_are_asked_for_and_always_with_the_same_others(llama, encoded):
    """A resumed run reads the very numbers that it read before, whatever was requested first."""
    rows = encoded((5, 3, 9, 4, 6, 8))
    kept, computed = KeyValues(llama), []
    compute = kept.compute
    kept.compute = lambda examples: computed.append(len(examples)) or compute(examples)
    first = [rows[2], rows[0], rows[2], rows[1]]
    one, other = (memory_store.lazily(kept, rows, first, batch_tokens=8) for _ in range(2))
    assert not computed and one.bytes == 0
    Cache(kept, one, rows).batch([0])
    assert computed == [2]  # with a row of like length that is asked for soon
    names = [kept.name(row) for row in rows]
    forward = {name: one.row(name) for name in names}
    backward = {name: other.row(name) for name in reversed(names)}
    assert all(torch.equal(a, b) for n in names for a, b in zip(forward[n], backward[n], strict=True))
    assert one.bytes == other.bytes == sum(t.numel() * t.element_size() for r in forward.values() for t in r)
    messages = []
    memory_store.lazily(kept, rows, batch_tokens=18).fill(lambda *done: messages.append(done))
    assert messages[-1] == (6, 6)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: 5 bytes")])
def test_where_memory_runs_out_what_is_held_is_let_go(llama, encoded, error):
    rows = encoded((5, 3, 9))
    kept = KeyValues(llama)
    compute, short = kept.compute, iter([False, True, False, False])

    def computed(examples):
        if next(short):
            raise error
        return compute(examples)

    kept.compute = computed
    store = memory_store.lazily(kept, rows, rows, batch_tokens=1)  # one row at a time
    names = [kept.name(row) for row in rows]
    first = store.row(names[0])
    held = store.bytes
    second = store.row(names[1])
    assert store.bytes == sum(t.numel() * t.element_size() for t in second) != held
    assert all(torch.equal(a, b) for a, b in zip(first, store.row(names[0]), strict=True))  # computed again
