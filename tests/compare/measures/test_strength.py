"""The curve of strength and effect against prompts scaled by hand, and the plain model at strength 0."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from softprompt import methods
from softprompt.compare.measures.strength import STRENGTHS, at_strength, dose
from softprompt.data.collate import collate
from softprompt.errors import SoftPromptError
from softprompt.evaluation.likelihood import target_nll
from softprompt.lm.apply import injection_for
from softprompt.methods.materialised import Materialised, materialise


def made(llama, setting, perturb, name, size=0.3):
    return perturb(methods.build(name, setting(llama)), size)


@torch.no_grad()
def log_probability(lm, examples, injection=None) -> float:
    """Of all targets, one row at a time."""
    batches = [collate([e]) for e in examples]
    return -sum(target_nll(lm.logits(batch, injection), batch).item() for batch in batches)


def test_a_gated_adapter_at_strength_0_is_the_plain_model(llama, setting, perturb, evaluator, rows):
    judge = evaluator()
    method = made(llama, setting, perturb, "llama-adapter")
    found = dose(judge, method, judge.encoder.encode_rows(rows), (0.0, 0.5, 1.0))
    assert found.effect[0] == 0
    assert abs(found.effect[2]) > 1e-3


def test_effects_are_those_of_values_multiplied_by_hand(forcing, evaluator, llama, rows):
    judge = evaluator()
    examples = [e for e in judge.encoder.encode_rows(rows) if e.prompt == 0]
    found = dose(judge, forcing, examples)
    prefix = materialise(forcing).prompts[0].kv_after
    tokens = sum(len(e.target_ids) for e in examples)
    plain = log_probability(llama, examples)
    for strength, effect in zip(STRENGTHS, found.effect, strict=True):
        layers = tuple(replace(layer, value=strength * layer.value) for layer in prefix.layers)
        injection = replace(materialise(forcing).prompts[0], kv_after=replace(prefix, layers=layers))
        assert effect == pytest.approx(
            (log_probability(llama, examples, injection) - plain) / tokens, abs=1e-5
        )
    assert found.strengths == STRENGTHS and found.refused == ()


def test_spearman_and_monotony_are_of_the_strengths_from_0_to_1(forcing, evaluator, rows):
    judge = evaluator()
    found = dose(judge, forcing, judge.encoder.encode_rows(rows), (2.0, 0.0, 0.25, 0.5, 0.75, 1.0))
    assert found.strengths == (0.0, 0.25, 0.5, 0.75, 1.0, 2.0)
    curve = list(found.effect[:5])
    squares = sum((rank - sorted(curve).index(value)) ** 2 for rank, value in enumerate(curve))
    assert found.spearman == pytest.approx(1 - 6 * squares / (5 * 24))
    assert found.graded == (curve == sorted(curve))
    assert found.graded_rows.n == len(rows)


def test_no_prompt_has_no_effect_and_is_not_graded(llama, setting, evaluator, rows):
    judge = evaluator()
    found = dose(judge, methods.build("none", setting(llama)), judge.encoder.encode_rows(rows))
    assert set(found.effect) == {0} and found.spearman == 0
    assert not found.graded and found.graded_rows.value == 0


def test_a_gate_that_cannot_open_wider_is_reported(llama, setting, perturb, evaluator, rows):
    judge = evaluator()
    method = made(llama, setting, perturb, "llama-adapter")
    with torch.no_grad():
        method.gates.fill_(1.0)  # tanh 0.76: twice as much is beyond what tanh gives
    found = dose(judge, method, judge.encoder.encode_rows(rows))
    assert found.effect[-1] is None and found.effect[2] is not None
    assert "2" in found.refused[-1] and "limit" in found.refused[-1]


def test_a_generated_prompt_is_scaled_row_by_row(llama, setting, perturb, evaluator, rows, close):
    judge = evaluator()
    method = made(llama, setting, perturb, "generated-prefix")
    batch = collate(judge.encoder.encode_rows(rows))
    with torch.no_grad():
        same = llama.logits(batch, injection_for(llama, at_strength(method, 1.0, llama), batch))
        close(same, llama.logits(batch, injection_for(llama, method, batch)))
        half = injection_for(llama, at_strength(method, 0.5, llama), batch)
        whole = injection_for(llama, method, batch)
    ((name, part),) = half.channels().items()
    for scaled, layer in zip(part.layers, whole.channels()[name].layers, strict=True):
        close(scaled.value, 0.5 * layer.value)
        close(scaled.key, layer.key)


def test_a_base_that_was_trained_too_is_held_against_the_base_as_it_was(
    llama, new_lm, setting, evaluator, rows
):
    trained, judge = new_lm("llama", seed=1), evaluator()
    examples = judge.encoder.encode_rows(rows)
    found = dose(replace(judge, lm=trained), methods.build("none", setting(llama)), examples, plain=llama)
    tokens = sum(len(e.target_ids) for e in examples)
    gain = (log_probability(trained, examples) - log_probability(llama, examples)) / tokens
    assert found.effect == pytest.approx((gain,) * 5, abs=1e-5)


def test_strengths_must_hold_two_from_0_to_1(llama, evaluator, rows, forcing):
    judge = evaluator()
    with pytest.raises(SoftPromptError, match="too few"):
        dose(judge, Materialised(materialise(forcing).prompts), judge.encoder.encode_rows(rows), (1.0, 2.0))
