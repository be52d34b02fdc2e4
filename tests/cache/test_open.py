"""Runs under every plan: what is kept, shared, batched by tokens or computed twice changes no result."""

from __future__ import annotations

from dataclasses import replace

import pytest

from softprompt.cache import memory_store, open
from softprompt.config.load import recipe_from_dict
from softprompt.evaluation.evaluator import Evaluator
from softprompt.training import caches, prepare
from softprompt.training.tune import Hooks, tune

WORDS = ["sun", "mud in the yard", "cake", "rain", "a song for all of us", "ache", "gift", "loss"] * 2
ROWS = [{"input": f"{word} {i % 5}", "target": ("good", "bad")[i % 2]} for i, word in enumerate(WORDS)]


@pytest.fixture
def prepared(model_folder, tmp_path):
    """`prepared(method, options, task=…, **train)`: a fresh start of a small run."""

    def make(method="prompt-tuning", options=None, *, output="out", task="classification", dev=None, **train):
        recipe = recipe_from_dict(
            {
                "model": str(model_folder),
                "data": {"train": "rows"},
                "task": {"kind": task, **({"max_new_tokens": 3} if task == "generation" else {})},
                "method": {"name": method, "length": 3, **(options or {})},
                "train": {"steps": 7, "batch_size": 4, "eval_every": 3, "dtype": "float32", **train},
                "output": str(tmp_path / output),
            }
        )
        return prepare.prepare(recipe, rows=ROWS[:12], dev_rows=ROWS[12:] if dev is None else dev)

    return make


def history(run) -> list[dict]:
    """Losses and scores, as numbers that may be compared."""
    return [pytest.approx(entry, rel=1e-4) for entry in run.outcome.history]


@pytest.mark.parametrize("source", ["hidden", "encoder"])
@pytest.mark.parametrize("placement", ["before", "after"])
@pytest.mark.parametrize("method", ["generated-prompt", "generated-prefix"])
def test_what_is_read_is_read_once(prepared, encoder_folder, monkeypatch, method, placement, source):
    options = {"placement": placement, "source": source, "bottleneck": 4}
    options |= {"layer": 2} if source == "hidden" else {"encoder": encoder_folder}
    reads: list[int] = []
    original = open.InputFeatures.compute

    def counted(self, examples):
        reads.append(len(examples))
        return original(self, examples)

    monkeypatch.setattr(open.InputFeatures, "compute", counted)
    kept = tune(prepared(method, options))
    inputs = {row["input"] for row in ROWS}
    assert sum(reads) == len(inputs)
    assert kept.prepared.plan.features.where == "ram"
    assert kept.prepared.plan.mode == ("full" if placement == "before" else "cached-ram")
    fresh = tune(prepared(method, options, output="fresh", cache="off"))
    assert fresh.prepared.plan.features.where == "nowhere" and sum(reads) == len(inputs)
    assert history(kept) == fresh.outcome.history
    assert [r.scores for r in kept.dev.records] == [
        pytest.approx(r.scores, abs=1e-3) for r in fresh.dev.records
    ]


def test_lists_share_one_store(prepared, monkeypatch):
    start, rows = prepared(dev=ROWS[:4]), []
    original = open.KeyValues.compute
    monkeypatch.setattr(
        open.KeyValues, "compute", lambda self, e: rows.extend(e) or original(self, e), raising=False
    )
    (train, dev, again), _ = caches.open_caches(start, [start.train, start.dev, start.train[::-1]])
    train.contexts.store.fill()
    assert len(rows) == len({e.input_ids for e in start.train})
    assert train.contexts.store is dev.contexts.store is again.contexts.store
    one, other = train.context([0, 3]), again.context([11, 8])
    assert all(a.key.equal(b.key) for a, b in zip(one.layers, other.layers, strict=True))
    assert start.plan.cache_bytes == train.contexts.bytes


def test_no_memory_for_either_falls_back_and_says_so(prepared, monkeypatch):
    options = {"source": "hidden", "layer": 1, "bottleneck": 4}
    reference = tune(prepared("generated-prompt", options, output="reference"))

    def none(*arguments, **named):
        raise MemoryError

    monkeypatch.setattr(memory_store, "lazily", none)
    message: list[str] = []
    run = tune(prepared("generated-prompt", options), hooks=Hooks(on_stage=message.append))
    for what in ("keys and values", "hidden states after layer 1"):
        assert any("no memory for the cache" in text and what in text for text in message)
    assert run.prepared.plan.mode == "recompute" and run.prepared.plan.features.where == "nowhere"
    assert history(run) == reference.outcome.history


def test_steps_by_tokens(prepared, monkeypatch):
    """Every step within its tokens, and a run that is resumed or repeated makes the same steps."""
    start = prepared(batch_tokens=40)
    run = tune(start)
    assert history(run) == tune(prepared(output="again", batch_tokens=40)).outcome.history
    assert history(run) != tune(prepared(output="rows")).outcome.history
    longest = max(len(e.input_ids) + len(e.target_ids) for e in start.train)
    assert longest <= 40 and start.plan.step_tokens <= 40


@pytest.mark.parametrize("task", ["classification", "generation"])
def test_evaluation_does_not_depend_on_its_batches(prepared, task):
    start = prepared(task=task)
    (cache,), _ = caches.open_caches(start, [start.train])
    evaluator = Evaluator(start.lm, start.encoder, max_new_tokens=3)
    runs = [
        replace(evaluator, batch_tokens=tokens).run(start.method, start.train, cache=kept)
        for tokens in (1, 60, 10**6)
        for kept in (cache, None)
    ]
    for run in runs[1:]:
        for one, other in zip(runs[0].records, run.records, strict=True):
            assert one.nll == pytest.approx(other.nll, abs=1e-4) and one.prediction == other.prediction
            assert one.scores == (other.scores and pytest.approx(other.scores, abs=1e-4))


def test_batches_of_an_evaluation_are_bounded(prepared, monkeypatch):
    start, seen = prepared(task="generation"), []
    evaluator = Evaluator(start.lm, start.encoder, batch_tokens=60)
    original = type(start.lm).logits

    def counted(self, batch, *rest):
        seen.append((batch.size, batch.input_ids.shape[1] + batch.target_ids.shape[1]))
        return original(self, batch, *rest)

    monkeypatch.setattr(type(start.lm), "logits", counted)
    evaluator.run(start.method, start.train, text_rows=0)
    assert any(rows > 1 for rows, _ in seen)
    assert all(rows == 1 or rows * tokens <= 60 for rows, tokens in seen)


@pytest.mark.parametrize("placement", ["before", "after"])
def test_layers_are_computed_twice_where_memory_is_short(prepared, monkeypatch, placement):
    roomy = prepared(options={"placement": placement})
    assert not roomy.plan.checkpointing and roomy.plan.backward_bytes > 0
    reference = tune(roomy)
    needed = roomy.plan.ram_bytes + roomy.plan.backward_bytes
    budget = {"cache_budget_mb": 1}
    monkeypatch.setattr(prepare, "free_memory", lambda device: needed)  # a share of which is too little
    start = prepared(options={"placement": placement}, output="short", **budget)
    assert start.plan.checkpointing and "more than" in start.plan.checkpointing_reason
    assert "gradient checkpointing: on" in str(start.plan)
    assert history(tune(start)) == reference.outcome.history
    asked = prepared(options={"placement": placement}, gradient_checkpointing=False)
    assert not asked.plan.checkpointing and asked.plan.checkpointing_reason == "as asked for"
