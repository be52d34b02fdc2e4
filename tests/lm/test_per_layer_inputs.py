"""Gemma 3n and Gemma 4 look up a second table by token id: soft tokens get the padding token's entry."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from softprompt.data.collate import batch_of_ids
from softprompt.injection import Injection, SoftTokens
from softprompt.lm import families
from softprompt.lm.causal import CausalLM

INPUTS = [[5, 17, 80, 33, 9, 71, 3], [42], [60, 61, 7, 12]]
TARGETS = [[11, 12], [90], [4, 70, 70]]


@pytest.fixture(scope="module", params=["gemma4_text", "gemma3n_text"])
def pair(request):
    """The plain model, and the wrapped one."""
    model = families.tiny(request.param)
    return copy.deepcopy(model), CausalLM(model, None, request.param)


def second_table(text_model, ids: torch.Tensor) -> torch.Tensor:
    """Its entries [B, N, layers, size] for ids [B, N]. Releases differ in the method that looks them up."""
    return text_model.embed_tokens_per_layer(ids).unflatten(-1, (text_model.config.num_hidden_layers, -1))


def by_hand(plain, soft: torch.Tensor, ids: list[int], targets: list[int]) -> torch.Tensor:
    """Logits [T, V] of [soft | ids | targets], the second table's entries looked up by id."""
    row = torch.tensor([[*ids, *targets[:-1]]])
    vectors = torch.cat([soft, plain.get_input_embeddings()(row)], 1)
    seen = torch.cat([torch.full(soft.shape[:2], plain.config.pad_token_id or 0), row], 1)
    table = second_table(plain.model, seen)
    return plain(inputs_embeds=vectors, per_layer_inputs=table).logits[0, -len(targets) :]


def test_soft_tokens_in_a_batch(pair, close):
    plain, lm = pair
    soft = torch.randn(1, 3, lm.spec.hidden_size)
    injection = Injection(before=SoftTokens(soft, torch.ones(1, 3, dtype=torch.bool)))
    batch = batch_of_ids(INPUTS, TARGETS)
    logits, cached = lm.logits(batch, injection), lm.logits(batch, injection, lm.prefill(batch, injection))
    assert lm.spec.batching == "any"
    for i, (ids, targets) in enumerate(zip(INPUTS, TARGETS, strict=True)):
        expected = by_hand(plain, soft, ids, targets)
        close(logits[i][batch.target_mask[i]], expected)
        close(cached[i][batch.target_mask[i]], expected)


def test_generation(pair):
    plain, lm = pair
    soft = torch.randn(1, 3, lm.spec.hidden_size)
    injection = Injection(before=SoftTokens(soft, torch.ones(1, 3, dtype=torch.bool)))
    made = lm.generate(batch_of_ids(INPUTS), injection, max_new_tokens=5, num_beams=1).tolist()
    for ids, tokens in zip(INPUTS, made, strict=True):
        row: list[int] = []
        for _ in range(5):
            row.append(int(by_hand(plain, soft, ids, [*row, 0])[-1].argmax()))
        assert tokens == row
    beams = lm.generate(batch_of_ids(INPUTS), injection, max_new_tokens=3, num_beams=2)
    assert beams.shape == (3, 3)


def test_the_table_counts(pair):
    """Without it the model answers otherwise: the reference above is not met by chance."""
    plain, lm = pair
    soft, ids = torch.randn(1, 3, lm.spec.hidden_size), INPUTS[0]
    row = torch.tensor([ids])
    vectors = torch.cat([soft, plain.get_input_embeddings()(row)], 1)
    padding = second_table(plain.model, torch.zeros(1, vectors.shape[1], dtype=torch.long))
    other = plain(inputs_embeds=vectors, per_layer_inputs=padding).logits[0, -1]
    right = by_hand(plain, soft, ids, [1])[-1]
    assert (other - right).abs().max() > 1e-2 * right.abs().max()


def test_ids_still_work_and_the_model_can_be_copied(pair, close):
    plain, lm = pair
    ids = torch.tensor([INPUTS[0]])
    for model in (lm.model, copy.deepcopy(lm.model), pickle.loads(pickle.dumps(lm.model))):
        close(model(ids).logits, plain(ids).logits)


@pytest.mark.parametrize("family", ["bamba", "falcon_h1"])
def test_a_method_that_hands_its_arguments_on_is_given_the_name(lms, family):
    """transformers' `generate` takes embeddings of such a family, too: tokens as computed anew."""
    lm = lms(family)
    soft = lm.embed(torch.tensor([[9, 10, 11]])) * 1.5
    injection = Injection(before=SoftTokens(soft, torch.ones(1, 3, dtype=torch.bool)))
    made = lm.generate(batch_of_ids(INPUTS), injection, max_new_tokens=4).tolist()
    for ids, tokens in zip(INPUTS, made, strict=True):
        row: list[int] = []
        for _ in range(4):
            row.append(int(lm.logits(batch_of_ids([ids], [[*row, 0]]), injection)[0, -1].argmax()))
        assert tokens == row


@pytest.mark.parametrize("images", [None, "vision"])
def test_the_whole_model_of_gemma4(close, images):
    """The class that checkpoints of Gemma 4 are loaded as: text in, text out.

    In the larger ones an image's tokens see each other, by a table of the columns of the call.
    """
    own = {"pad_token_id": 0, "use_bidirectional_attention": images}
    text = {**families.DECODERS["gemma4_text"], **own}
    ids = {f"{kind}_token_id": 100 for kind in ("image", "video", "audio")}
    config = AutoConfig.for_model("gemma4", text_config=text, vision_config=None, audio_config=None, **ids)
    model = AutoModelForCausalLM.from_config(config).eval()
    plain = copy.deepcopy(model)
    lm = CausalLM(model, None, "gemma4")
    soft = torch.randn(1, 3, lm.spec.hidden_size)
    injection = Injection(before=SoftTokens(soft, torch.ones(1, 3, dtype=torch.bool)))
    batch = batch_of_ids(INPUTS, TARGETS)
    logits = lm.logits(batch, injection)
    seen = torch.tensor([[0, 0, 0, *INPUTS[0], TARGETS[0][0]]])
    vectors = torch.cat([soft, plain.get_input_embeddings()(seen[:, 3:])], 1)
    table = second_table(plain.model.language_model, seen)
    expected = plain(inputs_embeds=vectors, per_layer_inputs=table).logits[0, -2:]
    close(logits[0][batch.target_mask[0]], expected)
    cached = lm.logits(batch, injection, lm.prefill(batch, injection))
    close(cached[0][batch.target_mask[0]], expected)
    assert lm.generate(batch, injection, max_new_tokens=3).shape == (3, 3)
