"""The contracts that apply to encoders, for every method: rows apart, mixed, trained, saved."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tests.fit import fit

from softprompt.artifacts import artifact
from softprompt.data.collate import batch_of_ids
from softprompt.evaluation.records import DevScore
from softprompt.injection import Injection
from softprompt.lm.apply import injection_for
from softprompt.lm.families import ENCODERS
from softprompt.methods.materialised import materialise
from softprompt.training.learner import Optimization
from softprompt.training.losses import next_token

CLS, SEP, MASK = 97, 98, 99
INPUTS = [
    [CLS, 5, MASK, 80, 33, 9, MASK, SEP],
    [CLS, MASK, 42, MASK, SEP],
    [CLS, 60, 61, 7, 12, MASK, 33, 33, 2, 71, 4, 4, 19, MASK, 50, 51, SEP],
]
PLACES = [[i for i, token in enumerate(row) if token == MASK] for row in INPUTS]
WORDS = [[11, 12], [90, 4], [70, 3]]
KV = ("prefix-tuning", "generated-prefix", "llama-adapter")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Method × placement on every encoder; prefixes where its attention takes them."""
    if "encoder" not in metafunc.fixturenames:
        return
    from softprompt.methods import METHODS

    pairs = []
    for family in ENCODERS:
        for name, method in METHODS.items():
            if name == "none" or (family == "deberta-v2" and name in KV):
                continue
            known = method.options()
            places = ("before", "after") if "placement" in known else (None,)
            pairs += [(family, name, place) for place in places]
    metafunc.parametrize(("encoder", "name", "place"), pairs, ids=["-".join(filter(None, p)) for p in pairs])


@pytest.fixture
def lm(encoders, encoder):
    return encoders(encoder)


@pytest.fixture
def options(name, place):
    from softprompt.methods import METHODS

    small = {"length": 3, "hidden": 16, "bottleneck": 8, "rank": 2, "top_layers": 2, "layer": 1}
    chosen = {key: value for key, value in small.items() if key in METHODS[name].options()}
    return chosen | ({"placement": place} if place else {})


@pytest.fixture
def prompt(lm, name, options, setting, perturb):
    from softprompt import methods

    return perturb(methods.build(name, setting(lm), options))


@pytest.fixture
def rows():
    return batch_of_ids(INPUTS, WORDS, [0, 1, 1], places=PLACES)


def single(rows, i):
    return batch_of_ids([INPUTS[i]], [WORDS[i]], [int(rows.prompt_ids[i])], places=[PLACES[i]])


def test_rows_do_not_depend_on_their_neighbours(lm, prompt, rows, close):
    together = lm.logits(rows, injection_for(lm, prompt, rows))
    assert (together - lm.logits(rows)).abs().amax(2).min() > 1e-3
    for i in range(rows.size):
        alone = single(rows, i)
        close(together[i], lm.logits(alone, injection_for(lm, prompt, alone))[0])


def test_rows_of_other_kinds_beside(lm, prompt, rows, setting, perturb, close):
    from softprompt import methods

    other = perturb(methods.build("prompt-tuning", setting(lm), {"length": 6, "placement": "before"}), seed=3)
    ids = torch.tensor([1])
    mixed = Injection.cat([injection_for(lm, prompt, rows), other(ids), Injection()])
    batch = batch_of_ids([*INPUTS, *INPUTS[:2]], [*WORDS, *WORDS[:2]], places=[*PLACES, *PLACES[:2]])
    logits = lm.logits(batch, mixed)
    for i in range(3):
        alone = single(rows, i)
        close(logits[i], lm.logits(alone, injection_for(lm, prompt, alone))[0])
    close(logits[3], lm.logits(single(rows, 0), other(ids))[0])
    close(logits[4], lm.logits(single(rows, 1))[0])


def test_trained_and_nothing_else(lm, prompt, rows):
    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    next_token(lm, prompt, rows).backward()
    sizes = {name: p.grad.abs().max().item() for name, p in prompt.named_parameters() if p.grad is not None}
    assert set(sizes) == {name for name, _ in prompt.named_parameters()}
    assert not [name for name, size in sizes.items() if size <= 1e-6 * max(sizes.values())]
    start = next_token(lm, prompt, rows).item()
    fit(
        lm,
        prompt,
        lambda _: next_token(lm, prompt, rows),
        [1] * 3,
        lambda: DevScore((-next_token(lm, prompt, rows).item(),), "loss", 0.0),
        Optimization(10, 1e-2, 3),
    )
    assert next_token(lm, prompt, rows).item() < start
    assert all(torch.equal(tensor, before[name]) for name, tensor in lm.model.state_dict().items())


def test_saved_and_reloaded(lm, name, options, prompt, rows, close, tmp_path, manifest_for):
    manifest = manifest_for(lm, SimpleNamespace(method=name, options=options))
    with torch.no_grad():
        live = lm.logits(rows, injection_for(lm, prompt, rows))
    artifact.save(tmp_path, prompt, lm, manifest)
    found = artifact.load(tmp_path)
    forms = [found.method(lm), found.method(lm, trainable=True)]
    if (static := materialise(prompt)) is not None:
        forms.append(static)
    for form in forms:
        with torch.no_grad():
            close(lm.logits(rows, injection_for(lm, form, rows)), live, 1e-6)
