"""What is timed, on a clock that the test moves: no real time is measured."""

from __future__ import annotations

import pytest
import torch

from softprompt import methods
from softprompt.compare.measures import latency as timed
from softprompt.compare.measures.latency import serving
from softprompt.errors import SoftPromptError


class Clock:
    """A model's `generate` that takes as long as its rows, new tokens and vectors say."""

    def __init__(self, monkeypatch, lm) -> None:
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(timed.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(type(lm), "generate", self.generate)

    def generate(self, batch, injection, **options):
        vectors = sum(int(part.mask.sum()) for part in injection.fit(batch.size).channels().values())
        tokens = options["max_new_tokens"]
        assert options["min_new_tokens"] == tokens and not options["do_sample"]
        prompts = batch.prompt_ids.tolist()
        # the first round is slow; later ones vary from turn to turn
        turn = sum(call == (batch.size, tokens, vectors, prompts) for call in self.calls)
        self.calls.append((batch.size, tokens, vectors, prompts))
        self.now += (batch.size * tokens + vectors) * (100 if turn == 0 else (1, 2, 4)[turn - 1]) / 1000
        return torch.zeros(batch.size, tokens, dtype=torch.long)


@pytest.fixture
def clock(monkeypatch, llama):
    return Clock(monkeypatch, llama)


def test_medians_and_spreads_beside_the_plain_model(llama, setting, evaluator, rows, clock):
    method = methods.build("prompt-tuning", setting(llama), {"length": 5, "placement": "after"})
    examples = evaluator().encoder.encode_rows(rows)[:3]
    found = serving(llama, method, examples, rows=4, new_tokens=10, repeats=3)
    # one row: 1 token and 5 vectors, at 1, 2 and 4 ms each
    assert vars_of(found.first_token_ms) == pytest.approx((12, 6, 24))
    assert vars_of(found.plain_first_token_ms) == pytest.approx((2, 1, 4))
    # 40 tokens in 60, 120 and 240 ms; without vectors in 40, 80 and 160
    assert vars_of(found.tokens_per_second) == pytest.approx((40 / 0.12, 40 / 0.24, 40 / 0.06))
    assert vars_of(found.plain_tokens_per_second) == pytest.approx((500, 250, 1000))
    assert found.mixed_tokens_per_second == found.tokens_per_second
    assert (found.rows, found.new_tokens) == (4, 10)
    prompts = {tuple(call[3]) for call in clock.calls if call[0] == 4}
    assert prompts == {(0, 0, 0, 0), (0, 1, 0, 1)}


def vars_of(spread) -> tuple[float, float, float]:
    return spread.median, spread.low, spread.high


def test_variants_take_turns(llama, setting, evaluator, rows, clock):
    method = methods.build("prefix-tuning", setting(llama), {"length": 2})
    serving(llama, method, evaluator().encoder.encode_rows(rows), rows=2, new_tokens=3, repeats=2)
    first, *others = (clock.calls[n : n + 5] for n in range(0, len(clock.calls), 5))
    assert others == [first, first]  # one turn to warm up, and two that count


def test_one_prompt_has_no_mixed_batch(llama, setting, evaluator, rows):
    alone = methods.build("prefix-tuning", setting(llama, prompts=("joke",), examples_by_prompt={}))
    found = serving(llama, alone, evaluator().encoder.encode_rows(rows), rows=2, new_tokens=2, repeats=1)
    assert found.mixed_tokens_per_second is None
    assert found.tokens_per_second.median > 0


def test_models_without_tokens_and_no_rows_are_refused(llama, setting, evaluator, rows, encoders):
    method = methods.build("none", setting(llama))
    with pytest.raises(SoftPromptError, match="nothing to serve"):
        serving(llama, method, [])
    with pytest.raises(SoftPromptError, match="writes no tokens"):
        serving(encoders("bert"), method, evaluator().encoder.encode_rows(rows))
