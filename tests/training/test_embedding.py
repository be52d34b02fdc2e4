"""Embedding tasks: vectors, the ranking loss and metrics against naive references, and whole runs."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoModel

import softprompt
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import collate
from softprompt.errors import SoftPromptError
from softprompt.evaluation.evaluator import evaluator_of
from softprompt.lm import pooling
from softprompt.lm.apply import injection_for
from softprompt.lm.heads import Head
from softprompt.training.losses import objective_of
from softprompt.training.prepare import prepare
from softprompt.training.tune import Hooks, Interrupted

pytestmark = pytest.mark.whole

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss", "tea", "ink"]
ROWS = [{"query": f"what of {w}", "positive": f"{w} is it"} for w in WORDS]
SMALL = {"steps": 4, "batch_size": 4, "eval_every": 2, "dtype": "float32"}


@pytest.fixture(scope="module")
def bert(bert_folder):
    return softprompt.load(bert_folder, head=Head("pooling"), dtype="float32")


def recipe_of(folder, output, method="prompt-tuning", task=None, data=None, **train):
    options = {"name": method, **({} if method == "none" else {"length": 2})}
    return recipe_from_dict(
        {
            "model": str(folder),
            "data": {"train": "rows", **(data or {})},
            "task": {"kind": "embedding", **(task or {})},
            "method": options,
            "train": {**SMALL, **train},
            "output": str(output),
        }
    )


def alone(folder, ids: list[list[int]], pool: str = "mean") -> torch.Tensor:
    """Vectors of rows of ids by the model of transformers alone, one row at a time."""
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = [model(input_ids=torch.tensor([row])).last_hidden_state[0] for row in ids]
    return torch.stack([s.mean(0) if pool == "mean" else s[0] for s in states])


def cosine(a, b) -> float:
    return float((a @ b / (a.norm() * b.norm())).detach())


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_vector_is_that_of_the_model_alone(bert_folder, tmp_path, pool):
    run = prepare(recipe_of(bert_folder, tmp_path, "none", {"pooling": pool}), rows=ROWS)
    examples = [*run.train, *run.dev]
    batch = collate(examples, targets=False)
    vectors = run.lm.logits(batch, injection_for(run.lm, run.method, batch))[:, 0]
    assert len({len(e.input_ids) for e in examples}) > 1
    expected = alone(bert_folder, [list(e.input_ids) for e in examples], pool)
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("placement", ["before", "after"])
def test_soft_tokens_are_read_but_not_pooled(bert_folder, tmp_path, placement):
    recipe = recipe_of(bert_folder, tmp_path).with_settings({"method.placement": placement})
    run = prepare(recipe, rows=ROWS)
    batch = collate(run.train[:3], targets=False)
    injection = injection_for(run.lm, run.method, batch)
    vectors = run.lm.logits(batch, injection)[:, 0]
    model = AutoModel.from_pretrained(bert_folder).eval()
    soft = (injection.before or injection.after).vectors[0]
    for vector, example in zip(vectors, run.train, strict=False):
        embedded = model.get_input_embeddings()(torch.tensor(example.input_ids))
        at = 1 if placement == "before" else len(embedded)
        whole = torch.cat([embedded[:at], soft, embedded[at:]])[None]
        states = model(inputs_embeds=whole).last_hidden_state[0]
        naive = torch.cat([states[:at], states[at + len(soft) :]]).mean(0)
        torch.testing.assert_close(vector, naive, atol=1e-5, rtol=1e-5)


def test_the_ranking_loss_is_its_formula_without_false_negatives(bert_folder, tmp_path):
    rows = [
        {"query": "a b", "positive": "one", "negatives": ["three", "two"]},
        {"query": "c d", "positive": "one"},  # the same positive as the first row
        {"query": "e f", "positive": "four"},
        {"query": "a b", "positive": "five"},  # another positive of the first row's query
        {"query": "g", "positive": "e f"},  # the text of another query
    ]
    run = prepare(recipe_of(bert_folder, tmp_path, task={"scale": 7}), rows=rows, dev_rows=ROWS[:2])
    sides = [side for example in run.train for side in example.sides()]
    losses = objective_of(run.recipe.task)(run.lm, run.method, collate(sides), None)
    texts = ["a b", "c d", "e f", "g", "one", "two", "three", "four", "five"]
    known = {side.rendered.input: side for side in sides}
    batch = collate([known[text] for text in texts])
    by_text = dict(
        zip(texts, run.lm.logits(batch, injection_for(run.lm, run.method, batch))[:, 0], strict=True)
    )
    compared = [  # by hand: the row's positive, then what it is compared with
        ("a b", ["one", "three", "two", "four", "e f"]),
        ("c d", ["one", "three", "two", "four", "five", "e f"]),
        ("e f", ["four", "one", "three", "two", "five"]),
        ("a b", ["five", "three", "two", "four", "e f"]),
        ("g", ["e f", "one", "three", "two", "four", "five"]),
    ]
    names = [(e.rendered.input, e.rendered.target) for e in run.train]
    by_row = dict(zip(names, losses.values.tolist(), strict=True))
    for query, documents in compared:
        loss = by_row[query, documents[0]]
        scores = [7 * cosine(by_text[query], by_text[text]) for text in documents]
        naive = math.log(sum(math.exp(s) for s in scores)) - scores[0]
        assert loss == pytest.approx(naive, abs=1e-4)


def test_dev_metrics_are_those_of_a_naive_ranking(bert_folder, tmp_path):
    # a query with two documents, and one that is in two rows
    rows = [*ROWS, {"query": ROWS[0]["query"], "positive": "sun too"}, ROWS[1]]
    run = prepare(recipe_of(bert_folder, tmp_path), rows=ROWS, dev_rows=rows)
    result = evaluator_of(run.recipe, run.lm, run.encoder).run(run.method, run.dev)
    sides = {s.rendered.input: s for e in run.dev for s in e.sides()}
    batch = collate(list(sides.values()))
    vectors = dict(
        zip(sides, run.lm.logits(batch, injection_for(run.lm, run.method, batch))[:, 0], strict=True)
    )
    corpus = list(dict.fromkeys(row["positive"] for row in rows))
    values = {"mrr": [], "ndcg_at_10": [], "recall_at_1": []}
    for query in dict.fromkeys(row["query"] for row in rows):
        right = {row["positive"] for row in rows if row["query"] == query}
        order = sorted(corpus, key=lambda text: -cosine(vectors[query], vectors[text]))
        ranks = [i for i, text in enumerate(order, 1) if text in right]
        values["mrr"].append(1 / ranks[0])
        gain = sum(1 / math.log2(1 + r) for r in ranks if r <= 10)
        values["ndcg_at_10"].append(gain / sum(1 / math.log2(2 + i) for i in range(len(right))))
        values["recall_at_1"].append(sum(r == 1 for r in ranks) / len(right))
    for name, expected in values.items():
        score = result.metrics[name]
        assert score.value == pytest.approx(np.mean(expected), abs=1e-6)
        assert score.low <= score.value <= score.high


def test_vectors_that_are_not_finite_rank_last_and_are_not_given(bert_folder, tmp_path):
    tuned = softprompt.tune(
        str(bert_folder), "prompt-tuning", ROWS, dev=ROWS, task="embedding", output=tmp_path, length=2,
        **SMALL,
    )  # fmt: skip
    with torch.no_grad():
        tuned.method.table.fill_(math.nan)
    assert tuned.evaluate(ROWS).metrics["mrr"].value == pytest.approx(1 / len(ROWS))
    with pytest.raises(SoftPromptError, match="not finite"):
        tuned.encode("what of tea")


def test_scored_pairs_learn_cosines_and_are_measured_by_spearman(bert_folder, tmp_path):
    rows = [{"query": f"{a} here", "positive": b, "score": i % 6} for i, (a, b) in enumerate(pairwise(WORDS))]
    task = {"score": "score", "score_range": [0, 5]}
    run = prepare(recipe_of(bert_folder, tmp_path, task=task), rows=rows, dev_rows=rows)
    sides = [side for example in run.train for side in example.sides()]
    losses = objective_of(run.recipe.task)(run.lm, run.method, collate(sides), None).values
    result = evaluator_of(run.recipe, run.lm, run.encoder).run(run.method, run.dev)
    cosines = [float(record.prediction) for record in result.records]
    expected = stats.spearmanr(cosines, [e.rendered.row["score"] for e in run.dev]).statistic
    assert result.metrics["spearman"].value == pytest.approx(expected, abs=1e-6)
    for loss, example in zip(losses.tolist(), run.train, strict=True):
        at = [e.rendered.input for e in run.dev].index(example.rendered.input)
        score = example.rendered.row["score"] / 5
        assert loss == pytest.approx((cosines[at] - score) ** 2, abs=1e-5)


def test_a_run_learns_saves_and_encodes(bert_folder, tmp_path):
    output = tmp_path / "out"
    tuned = softprompt.tune(
        str(bert_folder), "prefix-tuning", ROWS, dev=ROWS, task="embedding", output=output, length=4,
        **{**SMALL, "steps": 30, "eval_every": 10, "lr": 0.03},
    )  # fmt: skip
    plain = tuned.artifact.manifest["plain"]["metrics"]
    assert tuned.metrics["mrr"] > plain["mrr"]
    again = softprompt.open_prompt(output)
    texts = ["what of tea", "sun is it and more"]
    vectors = again.encode(texts)
    assert vectors.shape == (2, 32) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors, tuned.encode(texts), atol=1e-5)
    np.testing.assert_allclose(again.encode(texts[0]), vectors[0], atol=1e-5)
    raw = again.encode(texts, normalize=False, convert_to_tensor=True, document=True)
    np.testing.assert_allclose(torch.nn.functional.normalize(raw).numpy(), vectors, atol=1e-5)
    assert again.encode([]).shape == (0, 32)
    with pytest.raises(SoftPromptError, match="text 1"):
        again.encode(["a", " "])
    with pytest.raises(SoftPromptError, match="writes no answers"):
        again.generate("a")


def test_several_prompts_are_compared_with_their_own_documents_alone(bert_folder, tmp_path):
    rows = [{**row, "domain": "ab"[i % 2]} for i, row in enumerate(ROWS)]
    data = {"prompt_field": "domain"}
    run = prepare(recipe_of(bert_folder, tmp_path, data=data), rows=rows, dev_rows=rows)
    objective = objective_of(run.recipe.task)

    def losses(examples):
        batch = collate([side for example in examples for side in example.sides()])
        return objective(run.lm, run.method, batch, None).values

    together = losses(run.train)
    for prompt in (0, 1):
        mine = [i for i, example in enumerate(run.train) if example.prompt == prompt]
        torch.testing.assert_close(together[mine], losses([run.train[i] for i in mine]), atol=1e-5, rtol=1e-5)
    result = evaluator_of(run.recipe, run.lm, run.encoder).run(run.method, run.dev)
    assert max(rank for record in result.records for rank in record.ranks) <= len(ROWS) // 2


def test_a_resumed_run_is_the_same_run(bert_folder, tmp_path):
    def tune(output, **more):
        return softprompt.tune(
            str(bert_folder), "prompt-tuning", ROWS, dev=ROWS[:4], task="embedding", output=output,
            length=2, **SMALL, **more,
        )  # fmt: skip

    whole = tune(tmp_path / "whole")
    events = []
    hooks = Hooks(on_event=events.append, should_stop=lambda: len(events) >= 3)
    with pytest.raises(Interrupted):
        tune(tmp_path / "parts", hooks=hooks)
    parts = tune(tmp_path / "parts")
    files = [(tuned.artifact.path / "prompt.safetensors").read_bytes() for tuned in (whole, parts)]
    assert files[0] == files[1]


@pytest.mark.parametrize("base", ["lora", "full"])
def test_the_base_is_trained_too(bert_folder, tmp_path, base):
    tuned = softprompt.tune(
        str(bert_folder), "none", ROWS, dev=ROWS, task="embedding", output=tmp_path, base=base,
        **{**SMALL, "steps": 8},
    )  # fmt: skip
    again = softprompt.open_prompt(tmp_path)
    np.testing.assert_allclose(again.encode("what of tea"), tuned.encode("what of tea"), atol=1e-5)
    plain = softprompt.open_prompt(tmp_path, plain=True)
    assert np.abs(plain.encode("what of tea") - tuned.encode("what of tea")).max() > 1e-5


@pytest.mark.parametrize(
    "rows, task, train, message",
    [
        ([{"query": "a"}] * 2, {}, {}, "positive"),
        ([{"query": " ", "positive": "b"}] * 2, {}, {}, "the query is empty"),
        (
            [{"query": "a", "positive": "b", "negatives": ["c", "b"]}] * 2,
            {},
            {},
            "a negative is the positive",
        ),
        ([{"query": "a", "positive": "b", "negatives": [" "]}] * 2, {}, {}, "a negative is empty"),
        (ROWS, {}, {"batch_size": 1}, "no negatives"),
        ([{"query": w, "positive": "one"} for w in WORDS], {}, {}, "one document alone"),
        (
            [{"query": "a", "positive": "b", "score": 7}] * 2,
            {"score": "score"},
            {},
            r"outside task.score_range",
        ),
        ([{"query": "a", "positive": "b", "score": "x"}] * 2, {"score": "score"}, {}, "not a number"),
        ([{"query": "a", "positive": "b"}] * 2, {"score": "score"}, {}, "score"),
        (ROWS, {"metrics": ["accuracy"]}, {}, "cannot score"),
        (ROWS, {"metrics": ["spearman"]}, {}, "cannot score"),
        (ROWS, {"pooling": "last"}, {}, "does not fit"),
    ],
)
def test_bad_input_is_refused(bert_folder, tmp_path, rows, task, train, message):
    with pytest.raises(SoftPromptError, match=message) as caught:
        prepare(recipe_of(bert_folder, tmp_path, task=task, **train), rows=rows, dev_rows=ROWS[:2])
    assert caught.value.fix


def test_a_decoder_needs_a_pooling_and_gives_its_last_state(model_folder, tmp_path):
    with pytest.raises(SoftPromptError, match="no pooling") as caught:
        prepare(recipe_of(model_folder, tmp_path), rows=ROWS)
    assert "task.pooling=last" in caught.value.fix
    run = prepare(recipe_of(model_folder, tmp_path, "none", {"pooling": "last"}), rows=ROWS)
    batch = collate(run.train, targets=False)
    vectors = run.lm.logits(batch, injection_for(run.lm, run.method, batch))[:, 0]
    model = AutoModel.from_pretrained(model_folder).eval()
    for vector, example in zip(vectors, run.train, strict=True):
        with torch.no_grad():
            state = model(input_ids=torch.tensor([example.input_ids])).last_hidden_state[0, -1]
        torch.testing.assert_close(vector, state, atol=1e-4, rtol=1e-4)
    tuned = softprompt.tune(
        str(model_folder), "prompt-tuning", ROWS, dev=ROWS, output=tmp_path / "out", length=2,
        task={"kind": "embedding", "pooling": "last"}, **SMALL,
    )  # fmt: skip
    assert tuned.encode(["a", "b c"]).shape == (2, 32)


def test_what_a_decoder_learns_behind_a_text_is_in_its_vector(model_folder, tmp_path, perturb):
    """Without targets, as a text is encoded, against a step's rows, and the plain model."""
    task = {"pooling": "last"}
    run = prepare(recipe_of(model_folder, tmp_path, "prefix-tuning", task), rows=ROWS, dev_rows=ROWS[:2])
    perturb(run.method)
    batches = [collate(run.train, targets=targets) for targets in (True, False)]
    learned, encoded = (run.lm.logits(b, injection_for(run.lm, run.method, b))[:, 0] for b in batches)
    torch.testing.assert_close(learned, encoded, atol=1e-5, rtol=1e-5)
    assert (encoded - run.lm.logits(batches[1])[:, 0]).abs().amax(1).min() > 0.01


def test_a_decoder_is_loaded_without_a_look_for_its_pooling(model_folder, monkeypatch):
    monkeypatch.setattr(pooling, "_json", lambda *_: pytest.fail("a request to the hub for every decoder"))
    assert softprompt.load(model_folder).head is None


def test_a_checkpoint_of_sentence_transformers_says_its_pooling(bert_folder, tmp_path):
    import shutil

    shutil.copytree(bert_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "1_Pooling").mkdir()
    modules = [{"type": "models.Transformer", "path": ""}, {"type": "models.Pooling", "path": "1_Pooling"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    settings = tmp_path / "1_Pooling" / "config.json"
    settings.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    assert softprompt.load(tmp_path).head.pooling == "cls"
    settings.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(SoftPromptError, match=r"pooling of .* is not supported: max"):
        softprompt.load(tmp_path)
    (tmp_path / "modules.json").write_text(
        json.dumps([*modules, {"type": "models.Dense", "path": "2_Dense"}])
    )
    with pytest.raises(SoftPromptError, match="Dense"):
        softprompt.load(tmp_path)
