"""`init=matched`: a prefix that is chosen and fitted so that attention gives out what it does over a text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from softprompt import methods
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, LayerKV, Prefix
from softprompt.lm import families
from softprompt.methods.base import PrefixLayers
from softprompt.methods.matched_start import rests
from softprompt.methods.matching import (
    LARGEST_BIAS,
    RIDGE_OF_BIASES,
    RIDGE_OF_DIRECTION,
    Queries,
    attended,
    biases,
    direction,
    match,
    solved,
    weights,
)

N, HEADS, KV, DIM, TOKENS = 40, 4, 2, 6, 12


@pytest.fixture
def case():
    """Queries with a component in common, what they see of their own rows, and a text's keys and values."""
    torch.manual_seed(0)
    query = torch.randn(N, HEADS, DIM) + 1
    text = LayerKV(torch.randn(1, KV, TOKENS, DIM), torch.randn(1, KV, TOKENS, DIM))
    own, mass = torch.randn(N, HEADS, DIM), torch.randn(N, HEADS)
    bare = Queries(query, own, mass, own, DIM**-0.5)
    return Queries(query, own, mass, attended(bare, text), DIM**-0.5), text


def naive(queries: Queries, columns: LayerKV) -> torch.Tensor:
    """Attention, one query at a time; the row's own keys are one column of that mass."""
    out = torch.zeros_like(queries.alone)
    for i in range(N):
        for head in range(HEADS):
            group = head // (HEADS // KV)
            logits = columns.key[0, group] @ queries.query[i, head] * queries.scale
            share = torch.cat([logits, queries.mass[i, head][None]]).softmax(0)
            values = torch.cat([columns.value[0, group], queries.alone[i, head][None]])
            out[i, head] = share @ values
    return out


def test_the_whole_text_gives_its_own_output(case):
    queries, text = case
    columns = match(queries, text, TOKENS)
    assert (naive(queries, columns) - queries.target).abs().max() < 1e-5


def test_values_are_those_of_numpys_least_squares(case):
    queries, text = case
    grouped = queries.by_head(KV)
    keys, values = text.key[0, :, :5], text.value[0, :, :5]
    result = solved(grouped, keys, values, ridge=0.0)
    for head in range(KV):
        share = weights(grouped, keys)[head].double().numpy()
        own = grouped.alone[head].numpy()
        target = grouped.target[head].numpy() - (1 - share.sum(1, keepdims=True)) * own
        expected = np.linalg.lstsq(share, target, rcond=None)[0]
        np.testing.assert_allclose(result[head].numpy(), expected, atol=2e-3)


def test_the_match_is_nearer_than_the_first_columns(case):
    queries, text = case
    first = text.map(lambda t: t[:, :, :5])
    errors = [(naive(queries, c) - queries.target).square().mean() for c in (match(queries, text, 5), first)]
    assert errors[0] < 0.5 * errors[1]


def test_biases_are_scipys_bounded_least_squares(case):
    """In float64, over the queries and not over a factor of their products, by another solver."""
    queries, text = case
    grouped, count, first = queries.by_head(KV), 5, 1
    fewer = text.key[0, :, :count]
    result = biases(grouped, text.key[0], fewer, first).double().numpy()
    for head in range(KV):
        every, few = (
            (grouped.query[head] @ keys[head].T * queries.scale).double().numpy()
            for keys in (text.key[0], fewer)
        )
        total = np.exp(every).sum(1) + np.exp(grouped.mass[head].double().numpy())
        share, wanted = np.exp(few) / total[:, None], np.exp(every).sum(1) / total - np.exp(few[:, 0]) / total
        towards = np.sqrt(RIDGE_OF_BIASES * (share[:, first:] ** 2).sum(0).mean()) * np.eye(count - first)
        rows = np.vstack([share[:, first:], towards])
        solution = lsq_linear(rows, np.concatenate([wanted, towards.sum(1)]), (0, np.inf), tol=1e-14).x
        expected = np.log(np.maximum(solution, np.exp(-LARGEST_BIAS)))
        np.testing.assert_allclose(result[head], [0, *expected], atol=1e-3)


def test_the_direction_is_numpys_least_squares(case):
    grouped = case[0].by_head(KV)
    result = direction(grouped)[:, 0].numpy()
    for head in range(KV):
        q = grouped.query[head].double().numpy() * grouped.scale
        towards = np.sqrt(RIDGE_OF_DIRECTION * (q**2).sum(0).mean()) * np.eye(DIM)
        expected = np.linalg.lstsq(
            np.vstack([q, towards]), np.r_[np.ones(len(q)), np.zeros(DIM)], rcond=None
        )[0]
        np.testing.assert_allclose(result[head], expected, atol=1e-4)


def test_moved_keys_have_the_mass_of_the_text(case):
    queries, text = case
    grouped = queries.by_head(KV)
    fewer = text.key[0, :, :4]
    moved = fewer + biases(grouped, text.key[0], fewer)[..., None] * direction(grouped)
    whole, before, after = (weights(grouped, keys).sum(-1) for keys in (text.key[0], fewer, moved))
    assert (after - whole).square().mean() < 0.5 * (before - whole).square().mean()


def test_the_first_column_can_be_kept(case):
    queries, text = case
    columns = match(queries, text, 3, keep_first=True)
    assert torch.equal(columns.key[:, :, 0], text.key[:, :, 0])
    assert torch.equal(columns.value[:, :, 0], text.value[:, :, 0])


def test_the_first_column_alone_can_be_kept(case):
    """No column is left whose bias or values are to be found."""
    queries, text = case
    columns = match(queries, text, 1, keep_first=True)
    assert torch.equal(columns.key, text.key[:, :, :1]) and torch.equal(columns.value, text.value[:, :, :1])


def test_what_follows_the_text_in_the_teachers_rows():
    """1 2 open a turn of the user, 9 9 are a template's usual system text, 7 is the teacher's text."""
    rows = [(9, 9, 1, 2, 4, 5), (9, 9, 1, 2, 6, 5)]
    assert rests((7, 1, 2), rows) == [(4, 5), (6, 5)]
    assert rests((7,), rows) == [*rows]


ROWS = tuple(
    tuple(torch.randint(3, 90, (9,), generator=torch.Generator().manual_seed(i)).tolist()) for i in range(12)
)
TEXT = tuple(range(5, 45))


def built(lm, setting, init, length=8, **options):
    given = setting(
        lm,
        prompts=("default",),
        examples=(TEXT,),
        examples_by_prompt={0: (TEXT,)},
        replaced={0: TEXT},
        rows_by_prompt={0: ROWS},
    )
    return methods.build(
        "prefix-tuning", given, {"init": init, "length": length, "placement": "before", **options}
    )


def last_states(lm, injection, rows=ROWS) -> torch.Tensor:
    """Log-probabilities after each row, under a prefix."""
    from softprompt.data.collate import batch_of_ids

    batch = batch_of_ids(rows, [(0,)] * len(rows))
    return lm.logits(batch, injection)[:, -1].log_softmax(-1)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_matched_start_is_nearer_to_the_text(lms, setting, family):
    lm = lms(family)
    whole = Injection(kv_before=Prefix(lm.kv_of(TEXT), torch.ones(1, len(TEXT), dtype=torch.bool)))
    with torch.no_grad():
        teacher = last_states(lm, whole)
        divergence = {}
        for init in ("matched", "context"):
            injection = built(lm, setting, init)(torch.tensor([0]))
            student = last_states(lm, injection)
            divergence[init] = (teacher.exp() * (teacher - student)).sum(-1).mean()
        everything = built(lm, setting, "matched", len(TEXT))(torch.tensor([0]))
        assert (last_states(lm, everything) - teacher).abs().max() < 1e-4
    assert divergence["matched"] < divergence["context"]


@pytest.mark.parametrize("family", families.DECODERS)
def test_every_decoder_starts_or_is_refused(lms, setting, family):
    try:
        method = built(lms(family), setting, "matched")
    except SoftPromptError as error:
        assert "prefix" in error.what or "does not know the attention" in error.what
        return
    injection = method(torch.tensor([0]))
    assert injection.kv_before is not None and injection.kv_before.mask.shape == (1, 8)
    assert method.keys.isfinite().all() and method.values.isfinite().all()


def test_it_is_the_same_each_time(llama, setting):
    first, second = (built(llama, setting, "matched", freeze_first=True) for _ in range(2))
    assert torch.equal(first.keys, second.keys) and torch.equal(first.values, second.values)
    text = PrefixLayers.choose(llama.spec, "all", "before").only(llama.kv_of(TEXT))
    assert torch.equal(first.first_keys[0, 0], torch.cat([kv.key[0, :, 0].flatten() for kv in text]))


def test_a_text_of_ones_own_and_no_rows(llama, setting):
    given = setting(llama, prompts=("default",), examples=(), examples_by_prompt={})
    options = {"init": "matched", "length": 4, "placement": "before"}
    method = methods.build("prefix-tuning", given, {**options, "text": "abcdefgh"})
    assert method.keys.shape[1] == 4 and method.keys.isfinite().all()
    with pytest.raises(SoftPromptError, match="needs a text") as caught:
        methods.build("prefix-tuning", given, options)
    assert "method.text" in caught.value.fix


def test_refusals(llama, setting, lms):
    with pytest.raises(SoftPromptError, match="placement=after") as caught:
        built(llama, setting, "matched", placement="after")
    assert "method.placement=before" in caught.value.fix
    with pytest.raises(SoftPromptError, match="cannot make 41 vectors of a text of 40 tokens") as caught:
        built(llama, setting, "matched", 41)
    assert "method.length=40" in caught.value.fix
    with pytest.raises(SoftPromptError, match="init='matched'"):
        methods.build("prompt-tuning", setting(llama), {"init": "matched"})


@pytest.mark.parametrize("family", ["t5"])
def test_other_kinds_of_model_are_refused(lms, setting, family):
    with pytest.raises(SoftPromptError, match="init=matched does not support") as caught:
        built(lms(family), setting, "matched")
    assert "init=context" in caught.value.fix


def test_other_attention_is_refused(lms, setting):
    """gpt_oss has a sink, which is no key: the output is no softmax over keys alone."""
    lm = lms("gpt_oss")
    with torch.no_grad():
        for layer in lm.model.model.layers:
            layer.self_attn.sinks.fill_(3.0)
    with pytest.raises(SoftPromptError, match="does not know the attention") as caught:
        built(lm, setting, "matched")
    assert "init=context" in caught.value.fix
