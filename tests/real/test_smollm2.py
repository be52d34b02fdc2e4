"""The contracts are checked again on the real SmolLM2-135M, in float32."""

from __future__ import annotations

import pytest
import torch
from tests.fit import fit

import softprompt
from softprompt import methods
from softprompt.evaluation.records import DevScore
from softprompt.injection import Injection, Prefix
from softprompt.lm.apply import injection_for
from softprompt.training.learner import Optimization
from softprompt.training.losses import next_token

pytestmark = pytest.mark.real
LIMIT = 1e-4  # 30 layers of float32 rounding, against logits of some 20


@pytest.fixture(scope="module")
def smollm2():
    return softprompt.load("smollm2", dtype="float32")


@pytest.fixture(scope="module")
def ids(smollm2):
    return smollm2.text_ids


@pytest.fixture(scope="module")
def infix(smollm2, setting):
    """A prefix after the input, moved away from the text that it starts as."""
    rows = (
        tuple(smollm2.text_ids("The film was a delight from its first minute to its last. It was great.")),
    )
    given = setting(smollm2, examples=rows, examples_by_prompt={})
    return methods.build("prefix-tuning", given, {"length": 6, "placement": "after"})


def test_capital_of_france(smollm2, rows_to_batch):
    ids = smollm2.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_dict=False,
    )
    made = smollm2.generate(rows_to_batch([ids]), max_new_tokens=12, do_sample=False)
    assert smollm2.tokenizer.decode(made[0], skip_special_tokens=True) == "The capital of France is Paris."


def test_spec(smollm2):
    spec = smollm2.spec
    assert (spec.hidden_size, len(spec.layers), spec.vocab_size) == (576, 30, 49152)
    assert (spec.layers[7].heads, spec.layers[7].kv_heads, spec.positions) == (9, 3, "rotary")


def test_batch_invariance_and_cached_equals_full(smollm2, infix, ids, rows_to_batch, close):
    inputs = [ids("A long and tedious film about nothing at all, which I left early. It was"), ids("Fun")]
    targets = [ids(" bad and long"), ids(" good")]
    batch = rows_to_batch(inputs, targets, [0, 1])
    injection = injection_for(smollm2, infix, batch)
    with torch.no_grad():
        together = smollm2.logits(batch, injection)
        context = smollm2.prefill(batch, injection)
        close(
            smollm2.logits(batch, injection, context)[batch.target_mask], together[batch.target_mask], LIMIT
        )
        assert (together - smollm2.logits(batch))[batch.target_mask].abs().max() > 0.1
        for i in range(2):
            alone = rows_to_batch([inputs[i]], [targets[i]], [i])
            single = smollm2.logits(alone, injection_for(smollm2, infix, alone))[0]
            close(together[i][batch.target_mask[i]], single, LIMIT)


def test_prefix_of_words_equals_the_words(smollm2, ids, rows_to_batch, close):
    """Keys moved over some twenty positions on the real rotary frequencies."""
    text, question = ids("My name is Ada and I live in Lisbon, where I build clocks."), ids(" Ada lives in")
    prefix = Prefix(smollm2.kv_of(text), torch.ones(1, len(text), dtype=torch.bool))
    batch = rows_to_batch([question, question[1:]], [ids(" Lisbon"), ids(" Lisbon")])
    injection = Injection(kv_before=prefix)
    with torch.no_grad():
        words = smollm2.logits(rows_to_batch([text + question, text + question[1:]], [ids(" Lisbon")] * 2))
        close(smollm2.logits(batch, injection), words, LIMIT)
    made = smollm2.generate(batch, injection, max_new_tokens=3, do_sample=False)
    joined = rows_to_batch([text + question, text + question[1:]])
    assert torch.equal(made, smollm2.generate(joined, max_new_tokens=3, do_sample=False))
    assert "Lisbon" in smollm2.tokenizer.decode(made[0])


def test_mixed_batch_decodes_as_alone(smollm2, infix, ids, rows_to_batch):
    text = ids("The password is swordfish.")
    document = Prefix(smollm2.kv_of(text), torch.ones(1, len(text), dtype=torch.bool))
    inputs = [ids("The password is"), ids("Once upon a time"), ids("What a film! It was")]
    single = infix(torch.tensor([0]))
    injections = [Injection(kv_before=document), Injection(), single]
    mixed = rows_to_batch(inputs)
    made = smollm2.generate(mixed, Injection.cat(injections), max_new_tokens=5, do_sample=False)
    for i, injection in enumerate(injections):
        alone = smollm2.generate(rows_to_batch([inputs[i]]), injection, max_new_tokens=5, do_sample=False)
        assert made[i].tolist() == alone[0].tolist()
    assert "sword" in smollm2.tokenizer.decode(made[0])


def test_eight_rows_are_overfitted(smollm2, setting, ids, rows_to_batch):
    """Labels that make no sense, so that they can only have been learned."""
    words = ["apple", "river", "chair", "cloud", "horse", "paper", "stone", "music"]
    inputs = [ids(f"Word: {word}. Colour:") for word in words]
    targets = [ids((" red", " blue", " green", " black")[i % 4]) for i in range(8)]
    batch = rows_to_batch(inputs, targets)
    given = setting(smollm2, prompts=("default",), examples=tuple(map(tuple, inputs)), examples_by_prompt={})
    method = methods.build("prefix-tuning", given, {"length": 8})
    context = smollm2.prefill(batch)
    losses = []

    def loss_of(rows):
        losses.append(next_token(smollm2, method, batch, context))
        return losses[-1]

    scores = iter(range(100))
    how = Optimization(30, 3e-2, 8, eval_every=30)
    fit(smollm2, method, loss_of, [1] * 8, lambda: DevScore((float(next(scores)),), "s", 0.0), how)
    with torch.no_grad():
        answers = smollm2.logits(batch, injection_for(smollm2, method, batch), context)[:, -1].argmax(-1)
    assert answers.tolist() == batch.target_ids[:, -1].tolist()
    assert losses[-1] < 0.1 * losses[0]
