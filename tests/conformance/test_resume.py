"""Contract 6: killed at any step, a resumed run ends with the same bytes as one that was not."""

from __future__ import annotations

import pytest
import torch
from tests.fit import fit

from softprompt.errors import SoftPromptError
from softprompt.evaluation.records import DevScore
from softprompt.training.checkpoint import FILE, saved_step
from softprompt.training.learner import Optimization
from softprompt.training.losses import next_token

ROWS, STEPS, EVERY = 7, 8, 3  # 3 batches an epoch, so that a kill falls inside one
INPUTS = [[3 * i + 5, i + 40, 9] + [i] * (i % 3) for i in range(ROWS)]


class Killed(Exception):
    """The process dies: nothing is saved on the way out."""


@pytest.fixture
def start(llama, build, rows_to_batch):
    """`start(case, folder, …)`: a fresh process's view of the run; returns outcome, state, data order."""

    def run(case, folder, *, stop_after=None, kill_after=None, identity="recipe", flat=False, **more):
        method = build(llama, case, perturbed=False)
        order = []

        def loss(rows):
            targets = [[20 + i, 3] for i in rows]
            return next_token(
                llama, method, rows_to_batch([INPUTS[i] for i in rows], targets, [i % 2 for i in rows])
            )

        def loss_of(rows):
            order.append(tuple(rows))
            return loss(rows)

        def dev_score():
            with torch.no_grad():
                value = 0.0 if flat else -loss(range(ROWS)).item()
            return DevScore((value,), "score", value)

        def on_event(event):
            if event.step == kill_after:
                raise Killed

        how = Optimization(STEPS, 1e-2, 3, eval_every=EVERY, weight_decay=0.01, **more)
        outcome = fit(
            llama,
            method,
            loss_of,
            [len(ids) for ids in INPUTS],
            dev_score,
            how,
            folder=folder,
            identity=identity,
            on_event=on_event,
            should_stop=lambda: stop_after is not None and len(order) >= stop_after,
        )
        state = {name: tensor.numpy().tobytes() for name, tensor in method.state_dict().items()}
        return outcome, state, order

    return run


_whole: dict[str, tuple] = {}


@pytest.fixture
def whole(start):
    """`whole(case)`: what the run that nothing interrupts gives; run once a case."""
    return lambda case: _whole.get(case.id) or _whole.setdefault(case.id, start(case, None))


@pytest.mark.parametrize("step", [1, 4, 6])
def test_interrupted_and_resumed(start, whole, case, step, tmp_path):
    reference, bytes_, order = whole(case)
    outcome, _, first = start(case, tmp_path, stop_after=step)
    assert (outcome.stopped, outcome.step) == ("interrupted", step) and saved_step(tmp_path) == step
    resumed, state, second = start(case, tmp_path)
    assert state == bytes_
    assert first + second == order and len(order) == STEPS
    assert (resumed.stopped, resumed.step, resumed.best_step) == ("finished", STEPS, reference.best_step)
    assert resumed.history == reference.history


@pytest.mark.parametrize("step", [2, 5, 7])
def test_killed_and_resumed(start, whole, case, step, tmp_path):
    """Nothing is saved when a process is killed: what counts is the last checkpoint (every evaluation)."""
    reference, bytes_, order = whole(case)
    with pytest.raises(Killed):
        start(case, tmp_path, kill_after=step)
    kept = step // EVERY * EVERY
    assert saved_step(tmp_path) == kept
    resumed, state, second = start(case, tmp_path)
    assert state == bytes_ and second == order[kept:]
    assert resumed.history == reference.history


def test_interrupted_many_times(start, all_cases, tmp_path):
    case = next(c for c in all_cases if c.id == "prefix-tuning-reparameterize-after")
    _, bytes_, order = start(case, None)
    seen = []
    for _ in range(STEPS + 1):
        outcome, state, part = start(case, tmp_path, stop_after=1)
        seen += part
    assert outcome.stopped == "finished" and state == bytes_ and seen == order


def test_a_finished_run_is_not_trained_again(start, all_cases, tmp_path):
    case = next(c for c in all_cases if c.id == "prompt-tuning-after")
    first, state, _ = start(case, tmp_path)
    again, same, order = start(case, tmp_path)
    assert order == [] and same == state and again.best_step == first.best_step


def test_patience_survives_a_kill(start, all_cases, tmp_path):
    """The count of evaluations without a new best continues from its value."""
    case = next(c for c in all_cases if c.id == "prompt-tuning-after")
    reference, bytes_, _ = start(case, None, patience=1, flat=True)
    assert (reference.stopped, reference.step, reference.best_step) == ("early", 2 * EVERY, EVERY)
    with pytest.raises(Killed):
        start(case, tmp_path, patience=1, flat=True, kill_after=2 * EVERY)  # after its checkpoint
    resumed, state, order = start(case, tmp_path, patience=1, flat=True)
    assert (resumed.stopped, resumed.step, state, order) == ("early", 2 * EVERY, bytes_, [])


@pytest.mark.parametrize("step", [2, 5, 7])
def test_an_average_survives_a_kill(start, all_cases, step, tmp_path):
    """An average of the last steps is part of the state: the same bytes, which are not those without it."""
    case = next(c for c in all_cases if c.id == "prefix-tuning-layer_scale-after")
    reference, bytes_, order = start(case, None, average=0.4)
    assert bytes_ != start(case, None)[1]
    with pytest.raises(Killed):
        start(case, tmp_path, kill_after=step, average=0.4)
    resumed, state, second = start(case, tmp_path, average=0.4)
    assert state == bytes_ and second == order[step // EVERY * EVERY :]
    assert resumed.history == reference.history


def test_checkpoint_of_another_recipe_is_refused(start, all_cases, tmp_path):
    case = next(c for c in all_cases if c.id == "prompt-tuning-after")
    start(case, tmp_path / "checkpoint", stop_after=2)
    with pytest.raises(SoftPromptError) as caught:
        start(case, tmp_path / "checkpoint", identity="another recipe")
    assert "was 'recipe', is 'another recipe'" in caught.value.why and "--restart" in caught.value.fix
    assert saved_step(tmp_path / "checkpoint") == 2  # and it is left alone


def test_damaged_checkpoint_is_refused(start, all_cases, tmp_path):
    case = next(c for c in all_cases if c.id == "prompt-tuning-after")
    start(case, tmp_path, stop_after=2)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SoftPromptError, match="damaged"):
        start(case, tmp_path)
