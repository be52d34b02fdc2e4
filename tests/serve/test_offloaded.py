"""A base whose layers accelerate keeps on disk is evaluated and served as one in memory is."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import softprompt

pytestmark = pytest.mark.whole


def test_scores_texts_and_the_servers_answers(model_folder, publish, engine_on, asked, read, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    plain = softprompt.load(str(model_folder), dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    places = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu")
    places |= {f"model.layers.{i}": "disk" for i in range(model.config.num_hidden_layers)}
    model = accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path / "layers"))
    assert any(parameter.is_meta for parameter in model.parameters())
    offloaded = softprompt.load(model, AutoTokenizer.from_pretrained(model_folder))

    folder = tmp_path / "prompts"
    publish(plain, folder / "prefix", "prefix-tuning", {"length": 4})
    publish(plain, folder / "soft", "prompt-tuning", {"length": 3, "placement": "before"})
    rows = [{"input": f"row {i}", "target": "good"} for i in range(3)]
    answers = []
    for lm in (plain, offloaded):
        parts: list = []
        engine = engine_on(lm, folder=folder)
        for name in ("prefix", "soft"):
            tuned = softprompt.open_prompt(folder / name, lm)
            evaluation = tuned.evaluator().run(tuned.method, tuned.encoder.encode_rows(rows), text_rows=1)
            parts += [[record.nll for record in evaluation.records], evaluation.records[0].prediction]
            tokens, _ = read(engine.submit(asked(name, (5, 6, 7, 8), 5, logprobs=0)))
            parts += [[token.id for token in tokens], [token.logprob for token in tokens]]
        answers.append(parts)
    for a, b in zip(*answers, strict=True):
        assert a == b if not isinstance(a[0], float) else a == pytest.approx(b, abs=1e-5)
