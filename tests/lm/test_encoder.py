"""Encoders under an injection, against transformers' own models on rows of tokens, and by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from softprompt import methods
from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, SoftTokens
from softprompt.lm.apply import injection_for
from softprompt.lm.injected import Active

FAMILIES = ("bert", "roberta", "distilbert", "modernbert", "albert", "deberta-v2")
PREFIXED = FAMILIES[:-1]
CLS, SEP, MASK = 97, 98, 99
# unlike lengths, the longest beyond modernbert's window; masks, or words that are tagged, at `PLACES`
INPUTS = [
    [CLS, 5, MASK, 80, 33, 9, MASK, SEP],
    [CLS, MASK, 42, MASK, SEP],
    [CLS, 60, 61, 7, 12, MASK, 33, 33, 2, 71, 4, 4, 19, MASK, 50, 51, SEP],
]
PLACES = [[i for i, token in enumerate(row) if token == MASK] for row in INPUTS]
SOFT = [11, 12, 13]


@pytest.fixture
def batch():
    return batch_of_ids(INPUTS, None, [0, 1, 1], places=PLACES)


def own_logits(lm, ids: list[int], places: list[int]) -> torch.Tensor:
    """transformers' own answer to one row of tokens: [T, C]."""
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([ids])).logits
    return logits if lm.head is not None and lm.head.over == "sequence" else logits[0, places]


def soft(lm, ids: list[int]) -> SoftTokens:
    vectors = lm.embed(torch.tensor([ids])).detach()
    return SoftTokens(vectors, torch.ones(1, len(ids), dtype=torch.bool))


@pytest.mark.parametrize("head", [None, "sequence", "tokens"])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_rows_are_those_of_transformers(encoders, close, batch, family, head):
    lm = encoders(family, head)
    logits = lm.logits(batch)
    for i, (ids, places) in enumerate(zip(INPUTS, PLACES, strict=True)):
        close(logits[i], own_logits(lm, ids, places))


@pytest.mark.parametrize("head", [None, "sequence"])
@pytest.mark.parametrize("placement", ["before", "after"])
@pytest.mark.parametrize("family", FAMILIES)
def test_soft_tokens_that_are_embeddings_are_those_tokens(encoders, close, batch, family, placement, head):
    lm = encoders(family, head)
    part = soft(lm, SOFT)
    injection = Injection(before=part) if placement == "before" else Injection(after=part)
    logits = lm.logits(batch, injection)
    for i, (ids, places) in enumerate(zip(INPUTS, PLACES, strict=True)):
        if placement == "before":  # behind [CLS], which stays where heads pool
            row, at = [ids[0], *SOFT, *ids[1:]], [place + len(SOFT) for place in places]
        else:
            row, at = [*ids, *SOFT], places
        close(logits[i], own_logits(lm, row, at))
    assert (logits - lm.logits(batch)).abs().max() > 1e-2


@pytest.mark.parametrize("placement", ["before", "after"])
@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning", "generated-prefix", "llama-adapter"])
@pytest.mark.parametrize("family", FAMILIES)
def test_batch_invariance(encoders, setting, perturb, close, batch, family, method, placement):
    lm = encoders(family)
    if family not in PREFIXED and method != "prompt-tuning":
        with pytest.raises(SoftPromptError, match="attention interface"):
            methods.build(method, setting(lm), {"length": 3})
        return
    options = {"length": 3} | ({} if method == "llama-adapter" else {"placement": placement})
    prompt = perturb(methods.build(method, setting(lm), options))
    together = lm.logits(batch, injection_for(lm, prompt, batch))
    for i in range(batch.size):
        alone = batch_of_ids([INPUTS[i]], None, [int(batch.prompt_ids[i])], places=[PLACES[i]])
        close(together[i], lm.logits(alone, injection_for(lm, prompt, alone))[0])
    assert (together - lm.logits(batch)).abs().amax(2).min() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_prompts(encoders, setting, perturb, close, family):
    """Rows under prompts of every kind, place and length, and a plain one, in one batch."""
    lm = encoders(family, "sequence")
    kinds = ["prompt-tuning", "prefix-tuning"] if family in PREFIXED else ["prompt-tuning"]
    cases = [(kind, place, n) for kind in kinds for place, n in (("before", 2), ("after", 5), ("after", 1))]
    rows = [INPUTS[i % 3] for i in range(len(cases))]
    ids = torch.tensor([1])
    own = []
    for seed, (kind, place, length) in enumerate(cases):
        made = methods.build(kind, setting(lm, seed=seed), {"length": length, "placement": place})
        own.append(perturb(made, seed=seed)(ids))
    logits = lm.logits(batch_of_ids([*rows, INPUTS[0]]), Injection.cat([*own, Injection()]))
    for i, injection in enumerate(own):
        alone = batch_of_ids([rows[i]])
        close(logits[i], lm.logits(alone, injection)[0])
        assert (logits[i] - lm.logits(alone)[0]).abs().max() > 1e-3
    close(logits[-1], own_logits(lm, INPUTS[0], []))


@pytest.mark.parametrize("placement", ["before", "after"])
def test_a_prefix_by_hand(new_encoder, setting, perturb, close, placement):
    """One layer of BERT, its attention over [prefix, row] written out."""
    lm = new_encoder("bert", "tokens", num_hidden_layers=1)
    prompt = perturb(methods.build("prefix-tuning", setting(lm), {"length": 3, "placement": placement}))
    injection = prompt(torch.tensor([0]))
    layer = next(iter(injection.channels().values())).layers[0]
    logits = lm.logits(batch_of_ids([INPUTS[0]], places=[list(range(8))]), injection)[0]
    bert, block = lm.model.bert, lm.model.bert.encoder.layer[0]
    hidden = bert.embeddings(torch.tensor([INPUTS[0]]))

    def heads(projection) -> torch.Tensor:
        return projection(hidden).view(1, 8, 4, 8).transpose(1, 2)

    attention = block.attention.self
    keys = torch.cat([layer.key, heads(attention.key)], dim=2)
    values = torch.cat([layer.value, heads(attention.value)], dim=2)
    weights = (heads(attention.query) @ keys.transpose(2, 3) / 8**0.5).softmax(-1)
    mixed = block.attention.output((weights @ values).transpose(1, 2).reshape(1, 8, 32), hidden)
    out = block.output(block.intermediate(mixed), mixed)
    close(logits, lm.model.classifier(out)[0])


def test_rotary_prefixes_stand_ahead_of_the_row_or_behind_it(encoders, close):
    """kv_of's keys are those of the model with the text at -P … -1; moved, those at any other place."""
    lm = encoders("modernbert")
    assert lm.spec.positions == "rotary"
    text = [5, 6, 7, 8]
    keys = [layer.key for layer in lm.move(lm.kv_of(text), 4 + 9) if layer is not None]  # positions 9 … 12
    active = Active(record={})
    with torch.no_grad(), lm.running(active):
        lm.model.base_model(input_ids=torch.tensor([text]), position_ids=torch.arange(9, 13)[None])
    assert active.record is not None
    for site, key in enumerate(keys):
        close(key, active.record[site].key, 1e-4)


def test_a_prefix_after_differs_from_one_before_by_position_alone(encoders, setting, close, batch):
    made = {}
    for family in ("bert", "modernbert"):
        lm = encoders(family)
        for place in ("before", "after"):
            prompt = methods.build("prefix-tuning", setting(lm), {"length": 3, "placement": place})
            made[family, place] = lm.logits(batch, prompt(batch.prompt_ids))
    close(made["bert", "before"], made["bert", "after"])
    assert (made["modernbert", "before"] - made["modernbert", "after"]).abs().max() > 1e-3


def test_hidden_states_stand_in_the_columns_of_the_batch(encoders, close, batch):
    lm = encoders("roberta")
    states = lm.hidden(batch.input_ids, batch.input_mask, 2)
    for i, ids in enumerate(INPUTS):
        with torch.no_grad():
            own = lm.model.base_model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        close(states[i, -len(ids) :], own.hidden_states[2][0])


def test_what_an_encoder_is(encoders):
    for family in FAMILIES:
        lm = encoders(family)
        assert (
            lm.spec.family == family and lm.answers == "mask" and lm.spec.kind == "encoder" and lm.is_frozen
        )
        assert all(layer.stack == "encoder" for layer in lm.spec.layers)
        assert lm.spec.context == (256 - 101 if family == "roberta" else 256)
        assert "every position sees" in lm.spec.limits["cache"]


def test_refusals(encoders, batch):
    lm = encoders("bert")
    for call, words in (
        (lambda: lm.prefill(batch), "every position sees every other"),
        (lambda: lm.generate(batch), "writes no text"),
        (lambda: lm.logits(replace(batch, places=None)), "where its answers are read"),
        (lambda: encoders("deberta-v2").kv_of([5, 6]), "attention interface"),
    ):
        with pytest.raises(SoftPromptError, match=words) as caught:
            call()
        assert caught.value.fix


def test_gradient_checkpointing_changes_nothing(new_encoder, setting, perturb, close, batch):
    lm = new_encoder("bert")
    prompt = perturb(methods.build("prefix-tuning", setting(lm), {"length": 3}))
    found = []
    for enabled in (False, True):
        lm.set_gradient_checkpointing(enabled)
        prompt.zero_grad()
        lm.logits(batch, prompt(batch.prompt_ids)).square().mean().backward()
        found.append(prompt.values.grad.clone())
    close(found[1], found[0])
    assert found[0].abs().max() > 0


def naive_albert(model, ids, prefix):
    """ALBERT's layer written out, with keys and values [heads, P, d] ahead in every pass: logits [N, V]."""
    albert = model.albert
    hidden = albert.encoder.embedding_hidden_mapping_in(albert.embeddings(torch.tensor([ids]))[0])
    layer = albert.encoder.albert_layer_groups[0].albert_layers[0]
    attention = layer.attention

    def split(flat):
        return flat.unflatten(-1, (attention.num_attention_heads, -1)).transpose(0, 1)

    for _ in range(model.config.num_hidden_layers):
        q, k, v = (split(project(hidden)) for project in (attention.query, attention.key, attention.value))
        k, v = (torch.cat([ahead, own], dim=1) for ahead, own in zip(prefix, (k, v), strict=True))
        seen = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        attended = attention.LayerNorm(hidden + attention.dense(seen.transpose(0, 1).flatten(1)))
        hidden = layer.full_layer_layer_norm(attended + layer.ff_chunk(attended))
    return model.predictions(hidden)


def test_albert_has_one_prefix_that_every_pass_sees(encoders, setting, perturb, close):
    lm = encoders("albert")
    assert len(lm.spec.layers) == 1 < lm.spec.depth
    built = methods.build("prefix-tuning", setting(lm), {"length": 3, "placement": "before"})
    prefix = perturb(built)(torch.tensor([1]))
    (layer,) = prefix.kv_before.layers
    batch = batch_of_ids(INPUTS, None, None, places=PLACES)
    logits = lm.logits(batch, prefix)
    whole = layer.key[0], layer.value[0]
    none = layer.key[0][:, :0], layer.value[0][:, :0]
    for i, (ids, places) in enumerate(zip(INPUTS, PLACES, strict=True)):
        made, reference = logits[i, -len(places) :], naive_albert(lm.model, ids, whole)[places]
        close(made, reference)
        assert (reference - naive_albert(lm.model, ids, none)[places]).abs().max() > 1e-2
