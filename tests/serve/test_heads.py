"""A prompt with a classification head is served from the base that the other prompts share."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json

import httpx2 as httpx
import pytest
import torch
from tests.conftest import tiny_model, tiny_tokenizer
from tests.serve.http.conftest import serving

import softprompt
from softprompt import SoftPromptError
from softprompt.data.collate import batch_of_ids
from softprompt.lm import families
from softprompt.lm.heads import Head
from softprompt.lm.loading import fingerprint, load
from softprompt.lm.shared_head import SharedHeads
from softprompt.model import attach
from softprompt.serve import bases
from softprompt.serve.registry import Registry
from softprompt.serve.request import BrokenPrompt, InvalidRequest

LABELS = {0: "bad", 1: "good", 2: "meh"}
ROWS = [
    {"text": f"a film of {word}", "target": LABELS[i % 3]}
    for i, word in enumerate(["joy", "x", "long, dull scenes", "?"])
]


def attached(base_folder, folder, *, seed, method, outputs=LABELS, **more):
    """An artifact of a model of transformers with a head that is drawn, and the model."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    names = {"num_labels": 1} if outputs == 1 else {"id2label": outputs, "label2id": {}}
    base = AutoModelForSequenceClassification.from_pretrained(base_folder, **names, **more)
    base.config.pad_token_id = 0
    model = attach(base, tiny_tokenizer(), method, template={"input": "{{ text }}"})
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter += 0.3 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_model("llama", eos_token_id=1).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lm(base_folder):
    return load(str(base_folder), dtype="float32")


@pytest.fixture(scope="module")
def prompts(base_folder, lm, publish, tmp_path_factory):
    """Prompts with heads of three and of two labels, one of `tune`, and prompts without one."""
    folder = tmp_path_factory.mktemp("prompts")
    attached(base_folder, folder / "film", seed=1, method=softprompt.PromptTuning(length=3))
    attached(
        base_folder, folder / "ahead", seed=2, method=softprompt.PrefixTuning(length=2, placement="before")
    )
    two = {0: "no", 1: "yes"}
    attached(base_folder, folder / "two", seed=3, method=softprompt.PromptTuning(length=2), outputs=two)
    softprompt.tune(
        str(base_folder),
        "prefix-tuning",
        ROWS * 3,
        output=folder / "tuned",
        options={"length": 2},
        steps=3,
        template={"input": "{{ text }}", "target": "{{ target }}"},
        task={"kind": "classification", "head": True},
    )
    publish(lm, folder / "words", "prompt-tuning", {"length": 3}, seed=5, labels=("q", "bad"))
    publish(lm, folder / "voice", "prefix-tuning", {"length": 3}, seed=6)
    return folder


HEADED = ("film", "ahead", "two", "tuned")


def alone(folder, texts):
    """The labels' probabilities by `Evaluation`, from a base that was loaded with the head."""
    tuned = softprompt.open_prompt(folder)
    records = tuned.evaluate([{"text": text, "target": tuned.encoder.labels[0]} for text in texts]).records
    scores = [torch.tensor(record.scores).exp().tolist() for record in records]
    return [dict(zip(tuned.encoder.labels, row, strict=True)) for row in scores]


def test_a_server_gives_the_probabilities_of_the_head(lm, prompts):
    """Many at once, with prompts of other heads and without a head."""
    texts = [row["text"] for row in ROWS]
    expected = {name: alone(prompts / name, texts) for name in HEADED}
    with serving(lm, prompts) as served:
        post = lambda path, **body: httpx.post(f"{served.url}/v1/{path}", json=body, timeout=60).json()  # noqa: E731
        plain = post("completions", model="voice", prompt="ab", max_tokens=8, temperature=0)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            one = [pool.submit(post, "classify", model=name, input=text) for name in HEADED for text in texts]
            written = [
                pool.submit(post, "completions", model="voice", prompt="ab", max_tokens=8, temperature=0)
                for _ in range(4)
            ]
            words = pool.submit(post, "classify", model="words", input=[{"input": text} for text in texts])
            many = {name: pool.submit(post, "classify", model=name, input=texts) for name in HEADED}
        for name in HEADED:
            answers = [row["probs"] for row in many[name].result()["data"]]
            answers += [future.result()["data"][0]["probs"] for future in one[: len(texts)]]
            one = one[len(texts) :]
            for answer, exact in zip(answers, expected[name] * 2, strict=True):
                assert answer == pytest.approx(exact, abs=1e-5)
        assert {future.result()["choices"][0]["text"] for future in written} == {plain["choices"][0]["text"]}
        assert set(words.result()["data"][0]["probs"]) == {"q", "bad"}
        best = max(expected["film"][0], key=expected["film"][0].get)
        message = [{"role": "user", "content": texts[0]}]
        reply = post("chat/completions", model="film", messages=message)
        assert reply["choices"][0]["message"]["content"] == best and reply["usage"]["completion_tokens"] == 1
        assert best == softprompt.open_prompt(prompts / "film").generate(texts[0])
        echo = post("completions", model="film", prompt="ab", echo=True, logprobs=1, max_tokens=1)
        assert "writes no text" in echo["error"]["message"]
    assert len({json.dumps(expected[name][0]) for name in HEADED}) == len(HEADED)


def test_the_head_is_that_of_the_attached_model(base_folder, tmp_path, engine_on, lm):
    """Against transformers' own forward; strength 0 leaves the vectors out, and the head in."""
    model = attached(base_folder, tmp_path / "out", seed=4, method=softprompt.PromptTuning(length=3))
    ids = tiny_tokenizer()(["ab ba", "a much longer row"])["input_ids"]
    engine = engine_on(lm)
    rows = [{"text": "ab ba"}, {"text": "a much longer row"}]
    for strength in (1.0, 0.0):
        answers = asyncio.run(engine.classifying("out", rows, scale=strength))
        for row, answer in zip(ids, answers, strict=True):
            given = {"input_ids": torch.tensor([row])}
            with torch.no_grad():
                if strength:
                    logits = model(**given).logits
                else:
                    with model.plain():
                        logits = model(**given).logits
            assert list(answer.values()) == pytest.approx(logits[0].softmax(-1).tolist(), abs=1e-5)


def test_a_newer_head_is_served_and_a_broken_one_is_not(base_folder, tmp_path, lm, engine_on):
    method = softprompt.PromptTuning(length=3)
    engine = engine_on(lm)
    attached(base_folder, tmp_path / "out", seed=1, method=method)
    before = engine.registry.get("out").fingerprint
    first = asyncio.run(engine.classifying("out", [{"text": "ab"}]))
    attached(base_folder, tmp_path / "out", seed=2, method=method)
    assert engine.registry.get("out").fingerprint != before
    assert asyncio.run(engine.classifying("out", [{"text": "ab"}])) != first
    weights = engine.registry.get("out").tuned.lm.model
    shared = dict(lm.model.named_parameters())
    assert all(p is shared[name] for name, p in weights.named_parameters() if name != "score.weight")
    with pytest.raises(InvalidRequest, match="writes no text"):
        engine.submit(softprompt.serve.request.Request("out", (5, 6)))


def test_heads_that_no_server_has_are_listed_with_the_reason(base_folder, lm, tmp_path):
    method = softprompt.PromptTuning(length=2)
    attached(base_folder, tmp_path / "number", seed=1, method=method, outputs=1)
    multi = {"problem_type": "multi_label_classification"}
    attached(base_folder, tmp_path / "multi", seed=1, method=method, **multi)
    own = tmp_path.parent / f"{tmp_path.name}-own"
    model = attached(base_folder, tmp_path / "good", seed=1, method=method)
    model.detach().save_pretrained(own)
    tiny_tokenizer().save_pretrained(own)
    attached(own, tmp_path / "own", seed=1, method=method)
    registry = Registry(tmp_path, lm)
    problems = {entry.name: entry.problem for entry in registry.names()}
    assert problems.pop("good") is None
    for name, why in {
        "number": "answers with a number",
        "multi": "several labels a row",
        "own": "base's checkpoint",
    }.items():
        assert why in problems[name]
        with pytest.raises(BrokenPrompt, match=name) as error:
            registry.get(name)
        assert why in error.value.why
    (note, unfit, *_) = bases.survey(tmp_path).notes(lm)
    assert note.startswith("1 prompt in") and unfit.startswith("3 of 4 artifacts cannot be served")


def test_a_head_of_another_base_is_refused(base_folder, lm, tmp_path):
    other = tmp_path / "base"
    tiny_model("llama", seed=7, eos_token_id=1).save_pretrained(other)
    tiny_tokenizer().save_pretrained(other)
    attached(other, tmp_path / "prompts/out", seed=1, method=softprompt.PromptTuning(length=2))
    registry = Registry(tmp_path / "prompts", lm)
    (entry,) = registry.names()
    assert entry.problem == f"it was made for another base, {other}"
    with pytest.raises(BrokenPrompt):
        registry.get("out")


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mistral"])
def test_a_shared_head_is_the_head_of_its_own_model(family, tmp_path, close):
    families.tiny(family, 0).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    own, lm = (
        load(str(tmp_path), dtype="float32", head=Head("sequence", 3)),
        load(str(tmp_path), dtype="float32"),
    )
    shared = SharedHeads(lm).make(3)
    assert shared.head_names == own.head_names and fingerprint(shared) == fingerprint(own)
    batch = batch_of_ids([[5, 6, 7, 8], [9, 10]], [[0], [0]])
    assert shared.logits(batch).isnan().all()  # until its weights are loaded
    parameters = dict(shared.model.named_parameters())
    with torch.no_grad():
        for name, value in own.model.named_parameters():
            if name in own.head_names:
                parameters[name].copy_(value)
        close(shared.logits(batch), own.logits(batch))
    assert own.spec.limits == {
        **lm.spec.limits,
        **{k: v for k, v in own.spec.limits.items() if k == "generate"},
    }


@pytest.mark.parametrize(
    ("family", "why"),
    [("granite", "no classifier for this family"), ("xlm-roberta (decoder)", "reads a column")],
)
def test_a_family_without_such_a_head_is_refused(family, why, tmp_path):
    families.tiny(family, 0).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(SoftPromptError, match="cannot share its backbone") as error:
        SharedHeads(load(str(tmp_path), dtype="float32")).make(3)
    assert why in error.value.why
