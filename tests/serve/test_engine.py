"""Requests of all kinds in one running batch, each answered as if it were alone."""

from __future__ import annotations

import torch

from softprompt.data.collate import batch_of_ids
from softprompt.objectives import injection_for


def reference(lm, loaded, ids, tokens):
    """Log-probabilities [T, V] of a row computed by itself and in full."""
    batch = batch_of_ids([ids], [tokens], [loaded.index] if loaded else None)
    with torch.no_grad():
        injection = injection_for(lm, loaded.tuned.method, batch) if loaded else None
        return lm.logits(batch, injection)[0].log_softmax(-1)


def test_a_static_prompt_and_the_plain_model(llama, publish, engine_on, asked, read, tmp_path):
    publish(llama, tmp_path / "team/joke", "prompt-tuning", {"length": 4, "placement": "before"})
    publish(llama, tmp_path / "prefix", "prefix-tuning", {"length": 5, "placement": "after"})
    engine = engine_on(llama)
    ids = [5, 17, 80, 33]
    answers = {
        name: engine.submit(asked(name, ids, logprobs=2, ignore_eos=True))
        for name in (None, "team/joke", "prefix")
    }
    texts = set()
    for name, answer in answers.items():
        tokens, end = read(answer)
        loaded = name and engine.registry.get(name)
        expected = reference(llama, loaded, ids, [t.id for t in tokens])
        for token, row in zip(tokens, expected, strict=True):
            assert token.id == int(row.argmax())
            assert abs(token.logprob - row[token.id].item()) < 1e-4
            assert [i for i, *_ in token.top] == row.topk(2).indices.tolist()
        assert (end.reason, end.input_tokens, end.output_tokens) == ("length", 4, 6)
        assert end.prompt_vectors == {None: 0, "team/joke": 4, "prefix": 5}[name]
        texts.add(tuple(t.id for t in tokens))
    assert len(texts) == 3
