"""How many answers the engine takes, what it says where it is full, and that what waits holds no thread."""

from __future__ import annotations

import asyncio
import time

import anyio.to_thread
import httpx2
import pytest
import torch

from softprompt.data.collate import batch_of_ids
from softprompt.serve import classify
from softprompt.serve.http import create_app
from softprompt.serve.http.limits import Limits
from softprompt.serve.load import Pace
from softprompt.serve.request import Busy

LABELS = tuple(f"{a}{b}" for a in "abcdef" for b in "uvwxyz")


def test_room_is_counted_by_answers_in_hand(llama, engine_on, asked):
    """Rows and queue together, whether or not the engine has taken them yet; a cancelled one takes none."""
    engine = engine_on(llama, started=False, max_rows=2, queue=2)
    answers = [engine.submit(asked(None, [4])) for _ in range(4)]
    with pytest.raises(Busy, match="4 answers"):
        engine.submit(asked(None, [4]))
    answers[1].cancel()
    engine.submit(asked(None, [4]))
    with pytest.raises(Busy):
        engine.submit(asked(None, [4]))
    for _ in range(8):
        engine.turn()
    engine.submit(asked(None, [4]))


def test_a_request_that_just_fits_always_fits_where_nothing_runs(llama, engine_on, asked, read):
    engine = engine_on(llama, max_rows=2, queue=2)
    for _ in range(20):
        for answer in [engine.submit(asked(None, [4], 2)) for _ in range(engine.capacity)]:
            read(answer)


def test_when_to_come_back_is_estimated(llama, engine_on, asked):
    pace = Pace()
    assert pace.wait(100, 10) == 1 and pace.wait(100, 10, so_far=0.25) == 3  # 100 / 10 × 0.25, rounded up
    for seconds in (4.0, 4.0):
        pace.ended(seconds)
    assert pace.wait(6, 2, so_far=8.0) == 24
    assert pace.wait(6, 2) == 12 and pace.wait(0, 2) == 1 and pace.wait(10**6, 1) == 60
    pace.ended(14.0)
    assert pace.mean == pytest.approx(4.0 + 0.1 * 10)
    engine = engine_on(llama, started=False, max_rows=2, queue=4)
    engine._scheduler.pace.mean = 5.0
    for _ in range(6):
        engine.submit(asked(None, [4]))
    with pytest.raises(Busy) as caught:
        engine.submit(asked(None, [4]))
    assert caught.value.retry_after == 15  # six, two at once, of five seconds


def test_the_time_that_answers_take_is_measured_from_when_they_begin(llama, engine_on, asked):
    engine = engine_on(llama, started=False, max_rows=1)
    for _ in range(2):
        engine.submit(asked(None, [4], 2, ignore_eos=True))
    time.sleep(0.2)
    engine.turn()
    engine.turn()
    first = engine._scheduler.pace.mean
    assert first is not None and 0 < first < 0.2


@pytest.fixture
def app(llama, publish, engine_on, tmp_path):
    """`app(…)`: the API over an engine that was not started; and the engine."""
    publish(llama, tmp_path / "mood", "prefix-tuning", {"length": 2}, labels=LABELS)
    engine = engine_on(llama, started=False)

    def make(**limits):
        return create_app(
            engine, engine.registry, model_name="tiny", tokenizer=llama.tokenizer, context=256,
            limits=Limits(**limits),
        ), engine  # fmt: skip

    return make


def test_what_waits_holds_no_thread(app):
    """With one thread in the pool, lists and health are answered while label scores and answers wait."""
    app, engine = app()

    async def run():
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x", timeout=60) as client:
            bodies = [("classify", {"input": ["one", "two"]})] * 4
            bodies += [("completions", {"prompt": ["x"] * 4, "n": 2, "max_tokens": 2})] * 4
            waiting = [
                asyncio.create_task(client.post(f"/v1/{path}", json={"model": "mood", **body}))
                for path, body in bodies
            ]
            for _ in range(3):
                await asyncio.sleep(0.1)
                for path in ("/health", "/v1/models", "/v1/models/mood"):
                    assert (await client.get(path)).status_code == 200
            assert not any(task.done() for task in waiting)
            engine.start()
            assert {(await task).status_code for task in waiting} == {200}

    asyncio.run(run())


def test_label_scores_are_not_waited_for_without_end(app):
    app, engine = app(seconds=0.2)

    async def run():
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x", timeout=60) as client:
            body = {"model": "mood", "input": "one"}
            reply = await client.post("/v1/classify", json=body)
            assert reply.status_code == 504 and reply.json()["error"]["code"] == "timeout"
            engine.start()  # what was given up is not computed any more
            app.state.service.limits = Limits()
            assert (await client.post("/v1/classify", json=body)).status_code == 200

    asyncio.run(run())
    assert engine.numbers()["requests_waiting"] == 0


def test_many_labels_are_many_jobs_of_one_pass(llama, app, monkeypatch):
    """No job runs more than about one pass; together they give what each label alone gives."""
    _, engine = app()
    monkeypatch.setattr(classify, "BATCH_TOKENS", 64)
    loaded = engine.registry.get("mood")
    rows = ["What a film!", "Dull."]
    jobs, together = classify.classified(loaded, rows)
    assert len(jobs) > 8
    found = together([scores for job in jobs for scores in job()])
    tuned = loaded.tuned
    for row, text in zip(found, rows, strict=True):
        assert tuple(row) == LABELS
        scores = []
        for label in LABELS:
            example = tuned.encoder.encode({"input": text, "target": label})
            batch = batch_of_ids([example.input_ids], [example.target_ids])
            with torch.no_grad():
                logits = llama.logits(batch, tuned.method.prompts[0])[0].log_softmax(-1)
            scores.append(sum(logits[i, t].item() for i, t in enumerate(example.target_ids)))
        assert list(row.values()) == pytest.approx(torch.tensor(scores).softmax(0).tolist(), abs=1e-5)
