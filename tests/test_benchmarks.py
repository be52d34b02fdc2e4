"""The short form of benchmarks.training holds; a wrong result makes it fail, a slow one never."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("peft", reason="the benchmarks run beside PEFT (softprompt[lora])")

from benchmarks.training import MEASURES, flops, growth, line, ours, race, race_peft, rows, theirs, tiny
from benchmarks.training.__main__ import main
from benchmarks.training.options import Options
from benchmarks.training.time_to_accuracy import Kept
from tests.printed import printed
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from softprompt.cache import KeyValues
from softprompt.injection import LayerKV
from softprompt.lm import attention
from softprompt.lm.context import Context
from softprompt.lm.loading import load

pytestmark = pytest.mark.whole

PAGE = (Path(__file__).parents[1] / "docs/performance.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def short() -> tuple[int, list[dict[str, Any]]]:
    code, out = printed(main, "--short", "--json")
    return code, json.loads(out)["lines"]


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> Options:
    folder = tmp_path_factory.mktemp("short")
    return Options(folder).in_short(*tiny.make(folder))


def test_the_short_form_holds(short):
    code, lines = short
    assert [(found["measure"], found["fault"]) for found in lines if found["fault"]] == []
    assert list(dict.fromkeys(found["measure"] for found in lines)) == list(MEASURES)
    assert code == 0


def test_every_measure_has_its_place_in_the_page(short):
    for name in MEASURES:
        assert f"### {name}\n" in PAGE
    goals = {(found["measure"], found["goal"]) for found in short[1] if found["goal"] is not None}
    assert len(goals) == 8  # same-maths has two, many's has its own number of rows


def test_vectors_that_differ_fail(monkeypatch):
    theirs_as_kept = theirs.their_form
    monkeypatch.setattr(theirs, "their_form", lambda side: theirs_as_kept(side) + 0.1)
    for measure in ("same-maths", "prefix"):
        code, out = printed(main, "--short", "--only", measure)
        assert code == 1
        assert "WRONG: training beside PEFT: losses differ by" in out


def test_a_cache_that_is_wrong_fails(monkeypatch):
    assemble = KeyValues.assemble

    def wrong(self: Any, *args: Any) -> Context:
        context = assemble(self, *args)
        layers = tuple(layer and LayerKV(layer.key, 1.5 * layer.value) for layer in context.layers)
        return Context(layers, context.mask)

    monkeypatch.setattr(KeyValues, "assemble", wrong)
    code, out = printed(main, "--short", "--only", "cached-step")
    assert code == 1
    assert "WRONG: cached against recomputed" in out


def test_a_measure_without_a_line_fails(monkeypatch):
    monkeypatch.setitem(MEASURES, "memory", lambda options: iter(()))
    code, out = printed(main, "--short", "--only", "memory")
    assert code == 1
    assert "it gave no result" in out


def test_a_wrong_line_is_a_fault_and_a_slow_one_is_not():
    slow = line.Line("a measure", "a case", 1.0, 2.0, "s", 0.1, goal=2.0)
    assert (slow.met, slow.fault) == (False, "")
    assert replace(slow, at_most=True).met
    assert "not finite" in replace(slow, ours=float("nan")).fault
    assert line.apart([1.0], [1.0], 1e-3, "x") == ""
    assert all(line.apart(*pair, 1e-3, "x") for pair in (([1.0], [1.1]), ([float("nan")], [1.0]), ([], [])))


@pytest.fixture(scope="module")
def peft_side(options) -> Callable[[str], tuple[ours.Ours, theirs.Peft, Any]]:
    def make(method: str):
        made = race.prepared(options, f"{method}/before", 0, "float32")
        side = ours.Ours(made.lm, method, made.train)
        return side, theirs.Peft(options.model, "float32", side), made

    return make


@pytest.mark.parametrize("method", race_peft.STARTS)
def test_peft_is_read_row_by_row(method, peft_side):
    """PEFT's evaluation in groups gives the same labels as for each row alone; no row is padded."""
    _, peft, made = peft_side(method)
    model = peft.model.eval()

    def score(row: Any, label: tuple[int, ...]) -> float:
        ids = torch.tensor([row.input_ids + label])
        with torch.no_grad():
            scores = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].log_softmax(-1)
        return sum(scores[i - len(label) - 1, token].item() for i, token in enumerate(label))

    # of several tokens, and with some that share all but the last
    labels = ((5, 9), (6, 9), (5, 3), (7, 1), (8, 40))
    # their ends alike, all rows would be answered alike
    cut = [row.input_ids[: -1 - i] for i, row in enumerate(made.dev)]
    dev = [replace(row, input_ids=ids, candidates=labels) for row, ids in zip(made.dev, cut, strict=True)]
    naive = [max(labels, key=lambda c, row=row: score(row, c)) for row in dev]
    assert race_peft.predicted(model, dev) == naive
    assert len(set(naive)) > 1  # not one label for all


def test_batches_are_whole_and_of_similar_lengths():
    made = [rows.example(range(1, 2 + i % 7), [3]) for i in range(26)]
    chosen = race_peft.in_like_lengths(made, steps=9, batch=4, seed=1)
    parts = [chosen[i : i + 4] for i in range(0, len(chosen), 4)]
    assert [len(part) for part in parts] == [4] * 9
    spread = [max(map(len, ids)) - min(map(len, ids)) for ids in ([r.input_ids for r in p] for p in parts)]
    assert sum(spread) / len(spread) < 3


def test_inputs_of_a_given_length(options):
    tokenizer = load(options.model, dtype="float32").tokenizer
    made = rows.filled(options.data, "boolq", 5, 48, tokenizer)
    assert [len(row.input_ids) for row in made] == [48] * 5
    assert all(tokenizer.decode(row.input_ids).endswith("\nAnswer:") for row in made)
    assert len({row.input_ids for row in made}) == 5


def test_evaluations_pause_the_clock_of_a_race(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(race.clock, "now", lambda: now[0])
    clock = race.Race(target=0.8, give_up=10.0)
    now[0] = 3.0
    with clock.paused():
        now[0] = 100.0
        clock.note(0.7)
    now[0] = 102.0
    assert (clock.now(), clock.reached, clock.over) == (5.0, None, False)
    with clock.paused():
        now[0] = 200.0
        clock.note(0.9)
    assert (clock.reached, clock.best, clock.over) == (5.0, 0.9, True)


def test_a_race_resumes_after_its_finished_runs(options, tmp_path):
    trial = race.Trial("ours", "x", 0.1, 0, "float32", None, 2.0, 3, 0.5)
    options = replace(options, out=tmp_path)
    assert Kept(options).or_run({"seed": 0}, lambda: trial) == trial
    assert Kept(options).or_run({"seed": 0}, lambda: pytest.fail("run again")) == trial
    other = replace(trial, seed=1)
    assert Kept(options).or_run({"seed": 1}, lambda: other) == other
    assert Kept(replace(options, target=0.5)).or_run({"seed": 0}, lambda: other) == other


def test_options_survive_a_process(options):
    assert Options.of_json(json.loads(json.dumps(options.to_json()))) == options


def test_operations_are_those_of_the_layers(options):
    """Count a plain forward pass without attention's own products."""
    lm = load(options.model, dtype="float32")
    shapes: flops.Shapes = flops.Counter()
    with torch.no_grad(), flops.noting(lm.model, shapes):
        lm.model(input_ids=torch.ones(2, 5, dtype=torch.long))
    linear = [m for m in lm.model.modules() if isinstance(m, torch.nn.Linear)]
    assert flops.operations(shapes) == sum(2 * 10 * m.weight.numel() for m in linear)


def test_attention_is_timed_within_the_step_and_left_as_it_was(options):
    side = growth.side_of(load(options.model, dtype="float32"), 40)
    step, inside, read = growth.timed(side)
    assert 0 < inside < step - read < step
    assert ALL_ATTENTION_FUNCTIONS[attention.SDPA] is attention.attend_sdpa
