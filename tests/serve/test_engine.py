"""Requests of all kinds in one running batch, each answered as if it were alone."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from dataclasses import replace
from itertools import product

import pytest
import torch

from softprompt import methods
from softprompt.data.collate import batch_of_ids
from softprompt.lm.apply import injection_for
from softprompt.serve.request import (
    BrokenPrompt,
    Busy,
    InvalidRequest,
    NotScored,
    Request,
    Sampling,
    Stopped,
    UnknownPrompt,
)

pytestmark = pytest.mark.whole

SMALL = {"length": 4, "hidden": 16, "bottleneck": 8, "middle": 16, "top_layers": 2, "layer": 1, "rank": 2}
FAMILIES = ("llama", "gpt2", "qwen3", "mistral", "gemma3_text")  # the last two with windows of 4 tokens


def every_prompt(encoder_folder):
    """Method × placement, and for prompts that read the input each thing that they may read."""
    for name, method in methods.METHODS.items():
        known = method.options()
        small = {key: value for key, value in SMALL.items() if key in known}
        places = ("before", "after") if "placement" in known else (None,)
        sources = ("embeddings", "hidden", "encoder") if "source" in known else (None,)
        for place, source in product(places, sources):
            chosen = {"placement": place, "source": source}
            if source == "encoder":
                chosen["encoder"] = encoder_folder
            options = small | {key: value for key, value in chosen.items() if value}
            yield "/".join(filter(None, (name, place, source))), name, options


@pytest.fixture(scope="session")
def zoo(publish, lms, encoder_folder, tmp_path_factory):
    """`zoo(family)`: a folder with a prompt of every kind, each of a length of its own, and their names."""
    made = {}

    def get(family):
        if family not in made:
            folder, names = tmp_path_factory.mktemp(family), []
            for i, (name, method, options) in enumerate(every_prompt(encoder_folder)):
                lengths = {"length": 2 + i % 5} if "length" in options else {}
                publish(lms(family), folder / name, method, options | lengths, seed=i)
                names.append(name)
            made[family] = folder, names
        return made[family]

    return get


def alone(lm, loaded, request, tokens):
    """Log-probabilities [T, V] of a row that is computed alone, in full and at once."""
    batch = batch_of_ids([request.input_ids], [tokens], [loaded.index] if loaded else None)
    with torch.no_grad():
        method = loaded.tuned.method if loaded else None
        batch = replace(batch, texts=(request.text or "",))
        return lm.logits(batch, injection_for(lm, method, batch) if method else None)[0].log_softmax(-1)


def check(engine, request, tokens):
    """Greedy tokens and log-probabilities are those of the row alone."""
    loaded = engine.registry.get(request.prompt) if request.prompt else None
    expected = alone(engine.model, loaded, request, [t.id for t in tokens])
    for token, sequence in zip(tokens, expected, strict=True):
        assert token.id == int(sequence.argmax()), request.prompt
        assert abs(token.logprob - sequence[token.id].item()) < 1e-4, request.prompt
        assert [i for i, *_ in token.top] == sequence.topk(len(token.top)).indices.tolist()
        assert all(abs(p - sequence[i].item()) < 1e-4 for i, _, p in token.top)


def turns(engine, count=1):
    """So many turns of an engine that was not started."""
    with torch.no_grad():
        for _ in range(count):
            engine.turn()


@pytest.mark.parametrize(("family", "most"), [*product(FAMILIES, (512,)), ("llama", 6), ("gpt2", 6)])
def test_rows_of_every_kind_join_and_leave_at_random(
    family, most, lms, zoo, engine_on, asked, read, monkeypatch
):
    """`most`: positions that are read in one turn; longer inputs come in parts."""
    monkeypatch.setattr("softprompt.serve.scheduler.PREFILL", most)
    folder, names = zoo(family)
    engine = engine_on(lms(family), folder=folder, started=False, max_rows=7, max_tokens=2048)
    draw = random.Random(most)
    shared = [[draw.randrange(96) for _ in range(n)] for n in (1, 2, 9, 14)]
    waiting = []
    for name in [*names, None] * 2:
        ids = draw.choice([*shared, [draw.randrange(96) for _ in range(draw.randrange(1, 14))]])
        text = " ".join(f"w{i}" for i in ids)
        options = {"logprobs": draw.randrange(4), "ignore_eos": True, "text": text}
        waiting.append(asked(name, ids, draw.randrange(1, 9), **options))
    draw.shuffle(waiting)
    expected, answers, together = len(waiting), [], 0
    while waiting or engine.numbers()["requests_running"] + engine.numbers()["requests_waiting"]:
        for _ in range(draw.randrange(4)):
            if waiting:
                answers.append(engine.submit(waiting.pop()))
        if draw.random() < 0.1 and answers:
            draw.choice(answers).cancel()
        turns(engine)
        together = max(together, engine.numbers()["requests_running"])
    whole = 0
    for answer in answers:
        tokens, end = read(answer)
        check(engine, answer.request, tokens)
        if end.reason == "length":
            whole += 1
            assert end.output_tokens == len(tokens) == answer.request.sampling.max_tokens
        else:
            assert end.reason == "cancelled" and answer.cancelled
    assert len(answers) == expected and whole > expected / 2
    assert together > 4  # they did share steps


def test_a_running_engine_is_asked_from_many_threads(llama, zoo, engine_on, asked, read):
    import concurrent.futures as futures

    folder, names = zoo("llama")
    engine = engine_on(llama, folder=folder, max_rows=8)
    requests = [asked(name, [7, i, 30 + i], 5, logprobs=1, ignore_eos=True) for i, name in enumerate(names)]
    plain = [r for r in requests if "encoder" not in r.prompt]
    with futures.ThreadPoolExecutor(8) as pool:
        for request, (tokens, end) in zip(
            plain, pool.map(lambda r: read(engine.submit(r)), plain), strict=True
        ):
            assert end.reason == "length"
            check(engine, request, tokens)


def test_an_event_loop_reads_an_answer(llama, engine_on, asked, read):
    import asyncio

    engine = engine_on(llama)
    request = asked(None, [5, 6, 7], 4, ignore_eos=True)
    expected, _ = read(engine.submit(request))

    async def main():
        async def one():
            return [item async for item in engine.submit(request)]

        return await asyncio.gather(*(one() for _ in range(5)))

    for *tokens, end in asyncio.run(main()):
        assert tokens == expected and end.reason == "length"


def test_an_input_under_prompts_that_follow_it_is_computed_once(
    llama, publish, engine_on, asked, read, tmp_path
):
    for i in range(3):
        publish(llama, tmp_path / f"task{i}", "prefix-tuning", {"length": 3, "placement": "after"}, seed=i)
    publish(llama, tmp_path / "soft", "prompt-tuning", {"length": 3, "placement": "after"})
    engine = engine_on(llama, started=False)
    document = [int(i) for i in torch.arange(40) * 7 % 96]
    read_positions = []
    before = engine.model.run

    def noting(vectors, mask, *rest):
        read_positions.append(int(mask.sum()))
        return before(vectors, mask, *rest)

    names = ["task0", "task1", "task2", "soft", None]
    answers = [engine.submit(asked(name, document, 2, logprobs=1, ignore_eos=True)) for name in names]
    engine.model.run = noting
    try:
        turns(engine, 4)
    finally:
        del engine.model.run
    assert read_positions[0] == 40  # the first one reads it
    assert max(read_positions[1:]) <= 1 + 1 + 1 + 4 + 1  # of the others, the last token and soft tokens run
    for answer in answers:
        check(engine, answer.request, read(answer)[0])


def test_a_prompt_ahead_of_the_input_is_computed_once(llama, publish, engine_on, asked, read, tmp_path):
    publish(llama, tmp_path / "long", "prompt-tuning", {"length": 20, "placement": "before"})
    engine = engine_on(llama, started=False)
    ran, answers = [], []
    before = engine.model.run
    engine.model.run = lambda vectors, *rest: ran.append(vectors.shape[1]) or before(vectors, *rest)
    try:
        for ids in ([4, 5, 6], [9, 8], [4, 5, 6]):
            answers.append(engine.submit(asked("long", ids, 1, logprobs=1, ignore_eos=True)))
            turns(engine)
    finally:
        del engine.model.run
    assert ran == [20 + 3, 2, 1]
    for answer in answers:
        check(engine, answer.request, read(answer)[0])


def test_those_who_run_do_not_wait_for_a_long_input(llama, engine_on, asked, read, monkeypatch):
    monkeypatch.setattr("softprompt.serve.scheduler.PREFILL", 10)
    engine = engine_on(llama, started=False)
    running = engine.submit(asked(None, [4, 5], 30, logprobs=0, ignore_eos=True))
    turns(engine, 2)
    long = engine.submit(asked(None, [i % 96 for i in range(95)], 2, logprobs=0, ignore_eos=True))
    short = engine.submit(asked(None, [7, 8], 3, logprobs=0, ignore_eos=True))
    gone = engine.submit(asked(None, [i % 90 for i in range(95)], 2))
    steps, ran = engine.numbers()["steps_total"], []
    before = engine.model.run
    engine.model.run = lambda vectors, *rest: ran.append(vectors.shape[1]) or before(vectors, *rest)
    try:
        turns(engine, 11)
        gone.cancel()
        turns(engine, 20)
    finally:
        del engine.model.run
    assert max(ran) <= 10
    assert engine.numbers()["steps_total"] >= steps + 25
    for answer in (running, long, short):
        tokens, end = read(answer)
        assert end.reason == "length"
        check(engine, answer.request, tokens)
    assert read(gone)[1].reason == "cancelled"


def test_what_is_kept_for_others_stays_within_its_bytes(llama, engine_on, asked):
    size = llama.spec.kv_numbers_per_token * 4
    engine = engine_on(llama, started=False, cache_bytes=30 * size)
    for i in range(20):
        engine.submit(asked(None, [i, *range(10)], 1))
        turns(engine)
        assert engine.numbers()["reuse_bytes"] <= 30 * size
    assert len(engine.prefix_cache) == 3


@pytest.mark.parametrize(("length", "most"), [(1, 128), (5, 128), (12, 128), (12, 3), (7, 1)])
def test_echo_gives_the_inputs_own_log_probabilities(
    length, most, llama, zoo, engine_on, asked, read, monkeypatch
):
    monkeypatch.setattr("softprompt.serve.scheduler.ECHO", most)
    folder, names = zoo("llama")
    engine = engine_on(llama, folder=folder)
    ids = [int(i) for i in torch.arange(length) * 13 % 96]
    scored = [None, *(n for n in names if "after" not in n and "generated" not in n)]
    assert {n.split("/")[0] for n in scored if n} >= {"prompt-tuning", "prefix-tuning", "llama-adapter"}
    for name in scored:
        request = asked(name, ids, 2, echo=True, logprobs=2, ignore_eos=True)
        answer = engine.submit(request)
        tokens, _ = read(answer)
        check(engine, request, tokens)
        assert [t.id for t in answer.echoed] == ids
        assert answer.echoed[0].logprob is None
        loaded = engine.registry.get(name) if name else None
        # all of the input but its first token as the target
        batch = batch_of_ids([ids], None, [loaded.index] if loaded else None)
        with torch.no_grad():
            injection = injection_for(llama, loaded.tuned.method, batch) if loaded else None
            if length > 1:
                target = batch_of_ids([ids[:1]], [ids[1:]])
                expected = llama.logits(target, injection)[0].log_softmax(-1)
                for token, sequence in zip(answer.echoed[1:], expected, strict=True):
                    assert abs(token.logprob - sequence[token.id].item()) < 1e-4
                    assert [i for i, *_ in token.top] == sequence.topk(2).indices.tolist()


def test_an_input_has_no_log_probabilities_under_vectors_that_it_does_not_see(llama, zoo, engine_on, asked):
    """Their scores would be the plain model's. A generated prompt has seen the tokens that it would score."""
    folder, names = zoo("llama")
    engine = engine_on(llama, folder=folder)
    for name in names:
        answer = asked(name, [4, 5, 6], 1)
        request = replace(answer, echo=True)
        if "after" in name or "generated" in name:
            with pytest.raises(NotScored) as caught:
                engine.submit(request)
            assert ("behind the input" if "after" in name else "whole input") in caught.value.why
            assert "placement=before" in caught.value.fix and "/v1/classify" not in caught.value.fix
            engine.submit(replace(request, scale=0.0))  # the plain model
        engine.submit(answer)


@pytest.mark.parametrize("kind", ["prompt-tuning", "prefix-tuning"])
def test_a_mix_with_vectors_behind_the_input_is_not_scored_with_half_of_them(
    kind, llama, publish, engine_on, asked, read, tmp_path
):
    from softprompt.artifacts.compose import CONCATENATE, compose, open_source

    for i, placement in enumerate(("before", "after")):
        publish(llama, tmp_path / placement, kind, {"length": 3, "placement": placement}, seed=i)
    parts = [open_source(tmp_path / "before"), open_source(tmp_path / "after")]
    compose(CONCATENATE, parts, tmp_path / "mix", llama)
    publish(llama, tmp_path / "mood", kind, {"length": 3, "placement": "after"}, labels=("good", "bad"))
    engine = engine_on(llama)
    with pytest.raises(NotScored, match="3 of its 6 vectors"):
        engine.submit(asked("mix", [4, 5, 6], 1, echo=True))
    with pytest.raises(NotScored, match="/v1/classify"):
        engine.submit(asked("mood", [4, 5, 6], 1, echo=True))
    assert read(engine.submit(asked("mix", [4, 5, 6], 1)))[1].prompt_vectors == 6


def test_an_input_alone_is_echoed_without_an_answer(llama, engine_on, asked, read):
    answer = engine_on(llama).submit(asked(None, [4, 5, 6], 0, echo=True))
    tokens, end = read(answer)
    assert tokens == [] and end.reason == "length" and end.output_tokens == 0
    assert len(answer.echoed) == 3


def test_strength(llama, publish, engine_on, asked, read, tmp_path):
    from softprompt.artifacts.arithmetic import scale

    publish(llama, tmp_path / "p", "prefix-tuning", {"length": 4, "placement": "before"})
    engine = engine_on(llama)

    def answer(**options):
        return read(engine.submit(asked("p", [4, 5, 6], 3, logprobs=1, ignore_eos=True, **options)))[0]

    plain = read(engine.submit(asked(None, [4, 5, 6], 3, logprobs=1, ignore_eos=True)))[0]
    none, whole, more = answer(scale=0.0), answer(), answer(scale=1.7)
    assert [t.id for t in none] == [t.id for t in plain]
    assert [t.logprob for t in none] == pytest.approx([t.logprob for t in plain], abs=1e-4)
    assert abs(whole[0].logprob - more[0].logprob) > 1e-2 < abs(plain[0].logprob - more[0].logprob)
    prefix = engine.registry.get("p").tuned.method.prompts[0]
    batch = batch_of_ids([[4, 5, 6]], [[t.id for t in more]])
    expected = llama.logits(batch, scale(prefix, 1.7, llama))[0].log_softmax(-1)
    for token, sequence in zip(more, expected, strict=True):
        assert abs(token.logprob - sequence[token.id].item()) < 1e-4


def test_a_row_that_is_not_finite_ends_and_the_others_go_on(llama, zoo, engine_on, asked, read):
    folder, _ = zoo("llama")
    engine = engine_on(llama, folder=folder, started=False)
    names = ("prompt-tuning/before", "prefix-tuning/after", "llama-adapter")
    good = [engine.submit(asked(n, [4, 5, i], 9, logprobs=0, ignore_eos=True)) for i, n in enumerate(names)]
    bad = engine.submit(asked(None, [9, 9, 9], 9, ignore_eos=True))
    turns(engine, 3)
    line = next(i for i, sequence in enumerate(engine._scheduler.rows) if sequence.answer is bad)
    engine._scheduler.running._values[1][line, :, 0] = float("nan")
    turns(engine)
    assert engine.numbers()["requests_running"] == 3
    late = engine.submit(asked(None, [9, 9, 9], 9, logprobs=0, ignore_eos=True))  # where the bad one was
    turns(engine, 12)
    tokens, end = read(bad, error=True)
    assert end.reason == "error" and "not finite" in str(end.error) and 0 < len(tokens) < 9
    for answer in (*good, late):
        tokens, end = read(answer)
        assert len(tokens) == 9 and end.reason == "length"
        check(engine, answer.request, tokens)


def test_a_prompt_that_is_not_finite_spoils_nothing(llama, publish, engine_on, asked, read, tmp_path):
    publish(llama, tmp_path / "bad", "prompt-tuning", {"length": 2}, size=float("nan"))
    publish(llama, tmp_path / "good", "prompt-tuning", {"length": 2})
    engine = engine_on(llama)
    with pytest.raises(BrokenPrompt, match="not finite"):
        engine.submit(asked("bad", [4, 5]))
    tokens, _ = read(engine.submit(asked("good", [4, 5], logprobs=0, ignore_eos=True)))
    check(engine, Request("good", (4, 5)), tokens)


def test_a_step_that_fails_ends_its_rows_and_the_engine_lives(llama, engine_on, asked, read, monkeypatch):
    engine = engine_on(llama, started=False)
    first = engine.submit(asked(None, [4, 5, 6], 5, ignore_eos=True))
    turns(engine, 2)
    with monkeypatch.context() as patched:
        patched.setattr(engine._scheduler.running, "step", lambda ids: 1 / 0)
        turns(engine)
    _, end = read(first, error=True)
    assert end.reason == "error" and "ZeroDivisionError" in str(end.error)
    second = engine.submit(asked(None, [4, 5, 6], 5, logprobs=0, ignore_eos=True))
    turns(engine, 6)
    check(engine, second.request, read(second)[0])


def test_what_is_being_read_is_finished_before_the_end(llama, engine_on, asked, read, monkeypatch):
    """A request that waits no more and runs not yet is in hand all the same."""
    from softprompt.serve import scheduler

    reading, plain = threading.Event(), scheduler.Joined.run

    def slowly(*given):
        reading.set()
        time.sleep(0.3)
        return plain(*given)

    monkeypatch.setattr(scheduler.Joined, "run", slowly)
    engine = engine_on(llama)
    answer = engine.submit(asked(None, [4, 5, 6], 5, ignore_eos=True))
    assert reading.wait(10)
    engine.stop(drain=30)
    tokens, end = read(answer)
    assert end.reason == "length" and len(tokens) == 5


def test_a_request_that_fails_as_it_joins_fails_alone(llama, engine_on, asked, read, monkeypatch):
    from softprompt.serve import sequence

    engine = engine_on(llama, started=False)
    begin = sequence.RunningSequence.begin

    def failing(self, reuse):
        if self.request.input_ids[0] == 9:
            raise RuntimeError("no memory")
        return begin(self, reuse)

    monkeypatch.setattr(sequence.RunningSequence, "begin", failing)
    answers = [engine.submit(asked(None, [i, 5], 3, logprobs=0, ignore_eos=True)) for i in (8, 9, 10)]
    turns(engine, 5)
    for answer, reason in zip(answers, ("length", "error", "length"), strict=True):
        tokens, end = read(answer, error=True)
        assert end.reason == reason
        check(engine, answer.request, tokens)


def test_a_running_request_keeps_the_version_it_began_with(llama, publish, engine_on, asked, read, tmp_path):
    options = {"length": 4, "placement": "before"}
    publish(llama, tmp_path / "p", "prompt-tuning", options, seed=1)
    engine = engine_on(llama, started=False)
    answers, versions = [], []
    for seed in (2, 3, 4):
        versions.append(engine.registry.get("p"))
        answers.append(engine.submit(asked("p", [4, 5, 6], 8, logprobs=0, ignore_eos=True)))
        turns(engine, 2)
        publish(llama, tmp_path / "p", "prompt-tuning", options, seed=seed)
    turns(engine, 10)
    for answer, version in zip(answers, versions, strict=True):
        tokens, _ = read(answer)
        expected = alone(llama, version, answer.request, [t.id for t in tokens])
        assert len(tokens) == 8
        for token, sequence in zip(tokens, expected, strict=True):
            assert abs(token.logprob - sequence[token.id].item()) < 1e-4
    assert len({version.fingerprint for version in versions}) == 3


def test_one_of_several_prompts_of_an_artifact(llama, publish, engine_on, asked, read, tmp_path):
    publish(llama, tmp_path / "both", "prefix-tuning", {"length": 3}, prompts=("joke", "fact"))
    engine = engine_on(llama)
    for name in ("both:joke", "both:fact"):
        request = asked(name, [4, 5, 6], 3, logprobs=1, ignore_eos=True)
        check(engine, request, read(engine.submit(request))[0])


def test_the_same_seed_gives_the_same_answer_whatever_stands_beside_it(llama, zoo, engine_on, asked, read):
    folder, names = zoo("llama")
    engine = engine_on(llama, folder=folder, started=False)
    options = {"temperature": 1.3, "top_p": 0.95, "top_k": 50, "ignore_eos": True}
    request = asked(names[0], [4, 5, 6], 12, seed=3, **options)
    first = engine.submit(request)
    turns(engine, 15)
    beside = [engine.submit(asked(n, [9, 3], 9, **options)) for n in names[:8] if "encoder" not in n]
    turns(engine, 3)
    second = engine.submit(request)
    other = engine.submit(replace(request, sampling=replace(request.sampling, seed=4)))
    turns(engine, 20)
    tokens = [t.id for t in read(first)[0]]
    assert tokens == [t.id for t in read(second)[0]] != [t.id for t in read(other)[0]]
    assert all(read(answer)[1].reason == "length" for answer in beside)


def test_a_stop_string_ends_an_answer_across_tokens(llama, engine_on, read):
    engine = engine_on(llama)
    word = [llama.tokenizer.convert_tokens_to_ids(c) for c in "ab"]
    both = {"logit_bias": dict.fromkeys(word, 200.0), "temperature": 1.0, "ignore_eos": True}

    def text(seed, **options):
        sampling = Sampling(24, seed=seed, **both, **options)
        tokens, end = read(engine.submit(Request(None, (4, 5), sampling)))
        return "".join(t.text for t in tokens), end.reason

    stopped = 0
    for seed in range(6):
        whole, _ = text(seed)
        assert set(whole) <= set("ab") and len(whole) == 24
        at = whole.find("abb")
        shown, reason = text(seed, stop=("abb", "never"))
        assert (shown, reason) == (whole[:at], "stop") if at >= 0 else (whole, "length")
        stopped += at > 0
    assert stopped


def test_what_cannot_be_answered_is_refused_at_once(llama, publish, engine_on, asked, tmp_path):
    publish(llama, tmp_path / "p", "prompt-tuning", {"length": 2})
    engine = engine_on(llama, started=False, max_rows=1, queue=1, max_tokens=64)
    for request, error in (
        (asked("nobody", [4]), UnknownPrompt),
        (asked(None, []), InvalidRequest),
        (asked(None, [4, 101]), InvalidRequest),
        (asked(None, [4], logit_bias={-1: 1.0}), InvalidRequest),
        (asked("p", [4] * 60, 200), InvalidRequest),
        (asked(None, [4] * 60, 60), InvalidRequest),
    ):
        with pytest.raises(error):
            engine.submit(request)
    engine.submit(asked(None, [4]))
    engine.submit(asked(None, [4]))
    with pytest.raises(Busy) as caught:
        engine.submit(asked(None, [4]))
    assert caught.value.retry_after > 0


def test_rows_and_columns_stay_within_their_bounds(llama, engine_on, asked, read):
    engine = engine_on(llama, started=False, max_rows=5, max_tokens=256)
    draw = random.Random(0)
    answers = [
        engine.submit(asked(None, [draw.randrange(96)] * draw.randrange(1, 60), draw.randrange(1, 60)))
        for _ in range(30)
    ]
    most = 0
    while engine.numbers()["requests_waiting"]:
        turns(engine)
        assert engine.numbers()["requests_running"] <= 5
        assert engine.numbers()["kv_bytes"] <= 256 * llama.spec.kv_numbers_per_token * 4
        most = max(most, engine.numbers()["requests_running"])
    turns(engine, 60)
    assert all(read(answer)[1].reason in ("length", "stop") for answer in answers)
    assert most > 2 and engine.numbers()["kv_bytes"] == 0


def test_nothing_is_left_of_thousands_of_requests(llama, zoo, engine_on, asked):
    import gc

    folder, names = zoo("llama")
    engine = engine_on(llama, folder=folder, started=False, cache_bytes=10**5, max_rows=32)
    names = [n for n in names if "encoder" not in n]

    def some(count):
        for i in range(count):
            engine.submit(asked(names[i % len(names)], [i % 96, i // 96, 3], 2))
            if i % 25 == 24:
                turns(engine, 4)
        turns(engine, 4)
        gc.collect()
        return sum(isinstance(o, torch.Tensor) for o in gc.get_objects())

    some(200)
    first = some(200)
    assert some(2000) <= first + 20
    assert engine.numbers()["requests_running"] == engine.numbers()["requests_waiting"] == 0


def test_stopping_finishes_or_refuses(llama, engine_on, asked, read):
    engine = engine_on(llama)
    answer = engine.submit(asked(None, [4, 5], 20, ignore_eos=True))
    engine.stop(drain=30)
    assert read(answer)[1].reason == "length"
    with pytest.raises(Stopped, match="stopping"):
        engine.submit(asked(None, [4, 5]))
    engine.start()
    long = [engine.submit(asked(None, [4, 5], 250, ignore_eos=True)) for _ in range(3)]
    engine.stop()
    for answer in long:
        end = read(answer, error=True)[1]
        assert end.reason == "error" and "stopped" in str(end.error)


def test_label_probabilities(llama, publish, engine_on, tmp_path):
    options = {"length": 3, "placement": "after"}
    publish(llama, tmp_path / "mood", "prefix-tuning", options, labels=("good", "very bad"))
    publish(llama, tmp_path / "free", "prefix-tuning", options)
    engine = engine_on(llama)
    found = asyncio.run(engine.classifying("mood", ["What a film!", {"input": "Dull."}]))
    tuned = engine.registry.get("mood").tuned
    for sequence, text in zip(found, ("What a film!", "Dull."), strict=True):
        assert list(sequence) == ["good", "very bad"] and abs(sum(sequence.values()) - 1) < 1e-9
        scores = []
        for label in sequence:  # each label as a target of its own
            example = tuned.encoder.encode({"input": text, "target": label})
            batch = batch_of_ids([example.input_ids], [example.target_ids])
            logits = llama.logits(batch, tuned.method.prompts[0])[0].log_softmax(-1)
            scores.append(sum(logits[i, t].item() for i, t in enumerate(example.target_ids)))
        expected = torch.tensor(scores).softmax(0).tolist()
        assert sequence["good"] == pytest.approx(expected[0], abs=1e-5)
    with pytest.raises(InvalidRequest, match="classify"):
        asyncio.run(engine.classifying("free", ["x"]))


def test_the_end_token_ends_an_answer(llama, engine_on, read):
    engine = engine_on(llama)
    end_id = llama.tokenizer.eos_token_id
    biased = {"logit_bias": {end_id: 100.0}}
    tokens, end = read(engine.submit(Request(None, (4, 5), Sampling(9, **biased))))
    assert ([t.id for t in tokens], [t.text for t in tokens], end.reason) == ([end_id], [""], "stop")
    tokens, end = read(engine.submit(Request(None, (4, 5), Sampling(9, min_tokens=3, **biased))))
    assert [t.id == end_id for t in tokens] == [False] * 3 + [True] and end.reason == "stop"
    tokens, end = read(engine.submit(Request(None, (4, 5), Sampling(3, ignore_eos=True, **biased))))
    assert [t.id for t in tokens] == [end_id] * 3 and end.reason == "length"
