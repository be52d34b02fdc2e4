"""The demo from end to end on a tiny random model: the table is filled, and every candidate answers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import softprompt
from softprompt_demo import corpus, run

pytestmark = pytest.mark.whole

CHAT = "{% for m in messages %}<{{ m['role'][0] }}>{{ m['content'] }}\n{% endfor %}<a>"
ROWS = [
    {"input": f"Say {word}.", "target": f"{prompt} {word}!", "prompt": prompt}
    for word in ("sea", "sun", "elk", "oak")
    for prompt in corpus.PROMPTS
]


@pytest.fixture
def small(monkeypatch, tmp_path, model_folder):
    """The demo with four rows a prompt, two steps a method and the tiny model in SmolLM2's place."""
    lm = softprompt.load(str(model_folder))
    lm.tokenizer.chat_template = CHAT
    lm.spec = replace(lm.spec, context=4096)  # rotary: any length runs
    monkeypatch.setattr("softprompt.lm.loading.load", lambda *a, **k: lm)
    monkeypatch.setattr(run, "demo_rows", lambda: corpus.DemoData(ROWS[4:], ROWS[:4], ROWS[:8]))
    monkeypatch.setattr(run, "NEW_TOKENS", 5)
    monkeypatch.setattr(run, "SHOTS", 1)
    monkeypatch.setattr(run, "STEPS", 2)
    return tmp_path / "demo"


def test_json_holds_every_line(small, capsys):
    assert run.main(as_json=True, folder=small) == 0
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert [line["name"] for line in lines] == ["zero-shot", "1-shot", *run.TUNED]
    for line in lines:
        assert set(line["metrics"]) == {"perplexity", "chrf"} and line["n"] == 8
        low, high = line["intervals"]["perplexity"]
        assert low <= line["metrics"]["perplexity"] <= high
    assert all(line["peak_memory_bytes"] > 1e7 for line in lines)
    assert all(line["trained_parameters"] > 0 and line["artifact_bytes"] > 0 for line in lines[2:])


def test_every_candidate_answers_in_the_printed_page(small, capsys):
    run.main(folder=small)
    page = capsys.readouterr().out
    assert "the input, copied" in page and "generated-prefix" in page and "softprompt generate" in page
    assert page.count("(nothing)") < 3  # a random model may begin with its end token, but not as a rule
