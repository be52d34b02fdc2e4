"""The plug-in's numbers are those of the harness's `hf` model, of `softprompt eval`, and of rows alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file
from tests.conftest import tiny_model, tiny_tokenizer
from tests.harness.conftest import LABELS, ROWS, tuned_on

import softprompt
from softprompt.errors import SoftPromptError
from softprompt.harness import model as model_module
from softprompt.harness.model import SoftPromptLM
from softprompt.lm.causal import CausalLM

PAIRS = [
    ("The sea is", " blue"),
    ("The sea is", " a dog"),
    ("The sea is", "e"),
    ("", " start"),
    ("x" * 300, " y"),  # longer than the model's 256 positions
    ("trailing ", "word"),
    ("a", "b"),
    ("", ""),
]
TEXTS = [("The sea is blue",), ("x y z " * 100,), ("",), ("q" * 256,), ("q" * 257,)]
GREEDY = {"until": ["z"], "max_gen_toks": 12}
CONTEXTS = [
    ("The sea is", GREEDY),
    ("abc def ghi", {"until": ["\n", "Q"], "max_gen_toks": 12, "temperature": 0.0}),
    ("x" * 300, {"until": [], "max_gen_toks": 20}),
    ("short", {"until": [], "max_gen_toks": 12, "repetition_penalty": 1.3}),
    ("one more", GREEDY),
]


def requests(kind: str, args: list[Any]) -> list[Instance]:
    return [Instance(kind, {}, copy.deepcopy(arg), 0) for arg in args]


def answers(model: Any, kind: str, args: list[Any]) -> list[Any]:
    return getattr(model, kind)(requests(kind, args), disable_tqdm=True)


def close(found: list[Any], wanted: list[Any], tolerance: float) -> bool:
    """Whether log-likelihoods are equal to a tolerance, and the flags of the likeliest tokens the same."""
    values = [
        pytest.approx(value, abs=tolerance) == other
        for (value, _), (other, _) in zip(found, wanted, strict=True)
    ]
    return all(values) and [flag for _, flag in found] == [flag for _, flag in wanted]


@pytest.fixture(scope="module")
def base(model_folder) -> CausalLM:
    return softprompt.load(str(model_folder), dtype="float32")  # type: ignore[return-value]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def both(request):
    """The harness's own model, and ours, on the same weights."""
    # without an end token in its configuration, `hf` writes on after the end while a neighbour does
    model, tokenizer = tiny_model(request.param, eos_token_id=96), tiny_tokenizer()
    hf = HFLM(pretrained=copy.deepcopy(model), tokenizer=tokenizer, batch_size=2, device="cpu")
    return hf, SoftPromptLM(lm=CausalLM(model, tokenizer, request.param))


class TestAPlainModelEqualsTheHarnessOwn:
    def test_log_likelihoods(self, both):
        hf, ours = both
        # continuations that the model would write itself, beside those that it would not
        likely = [
            (text, answers(hf, "generate_until", [(text, {"max_gen_toks": 3})])[0]) for text in ("The", "q")
        ]
        wanted = answers(hf, "loglikelihood", [*PAIRS[:-1], *likely])  # it has no answer to an empty text
        found = answers(ours, "loglikelihood", [*PAIRS[:-1], *likely])
        assert close(found, wanted, 1e-4)
        assert {flag for _, flag in found} == {True, False}
        assert answers(ours, "loglikelihood", PAIRS[-1:]) == [(0.0, True)]

    def test_log_likelihoods_of_whole_texts(self, both):
        wanted, found = (answers(model, "loglikelihood_rolling", TEXTS) for model in both)
        assert found == pytest.approx(wanted, rel=1e-6)

    def test_texts(self, both):
        wanted, found = (answers(model, "generate_until", CONTEXTS) for model in both)
        assert found == wanted and any(len(text) == 12 for text in found)

    def test_the_length_and_the_first_token(self, both):
        hf, ours = both
        assert (ours.max_length, ours.prefix_token_id) == (hf.max_length, hf.prefix_token_id)


def test_an_encoder_decoder_equals_the_harness_own(new_lm):
    lm = new_lm("t5")
    hf = HFLM(pretrained=copy.deepcopy(lm.model), tokenizer=lm.tokenizer, backend="seq2seq", device="cpu")
    ours = SoftPromptLM(lm=lm, batch_size=2)
    pairs = [pair for pair in PAIRS if all(pair) and len(pair[0]) < 200]
    assert close(answers(ours, "loglikelihood", pairs), answers(hf, "loglikelihood", pairs), 1e-4)


def naive(base: CausalLM, before: str, vectors: torch.Tensor, after: str) -> tuple[float, bool]:
    """The likelihood of the text `after`, with vectors [P, H] between the two, by transformers' forward."""
    first, last = (base.tokenizer(text)["input_ids"] for text in (before, after))
    table = base.model.get_input_embeddings()
    parts = [table(torch.tensor(first, dtype=torch.long)), vectors, table(torch.tensor(last))]
    with torch.no_grad():
        logits = base.model(inputs_embeds=torch.cat(parts)[None]).logits[0, -len(last) - 1 : -1].float()
    right = torch.tensor(last)
    value = logits.log_softmax(-1).gather(1, right[:, None]).sum().item()
    return value, bool((logits.argmax(-1) == right).all())


def vectors_of(folder, place: str) -> torch.Tensor:
    return load_file(folder / "prompt.safetensors")[f"default/{place}/vectors"]


class TestVectors:
    def test_after_a_context_are_between_it_and_its_continuation(self, classifier, base):
        found = answers(SoftPromptLM(str(classifier), lm=base), "loglikelihood", PAIRS[:3])
        vectors = vectors_of(classifier, "after")
        assert close(found, [naive(base, *pair[:1], vectors, pair[1]) for pair in PAIRS[:3]], 1e-4)

    def test_before_a_context_are_ahead_of_it(self, writer, base):
        found = answers(SoftPromptLM(str(writer), lm=base), "loglikelihood", PAIRS[:3])
        vectors = vectors_of(writer, "before")
        whole = [
            naive(base, "", vectors, context + more)[0] - naive(base, "", vectors, context)[0]
            for context, more in PAIRS[:3]
        ]
        assert [value for value, _ in found] == pytest.approx(whole, abs=1e-3)

    def test_after_the_input_follow_the_first_token_of_a_whole_text(self, classifier, base):
        (found,) = answers(
            SoftPromptLM(str(classifier), lm=base), "loglikelihood_rolling", [("The sea is blue",)]
        )
        wanted, _ = naive(base, "<end>", vectors_of(classifier, "after"), "The sea is blue")
        assert found == pytest.approx(wanted, abs=1e-4)

    def test_are_read_by_what_is_generated(self, classifier, base):
        (found,) = answers(
            SoftPromptLM(str(classifier), lm=base),
            "generate_until",
            [("The", {"until": [], "max_gen_toks": 4})],
        )
        text = ""
        for _ in range(4):  # each character is the likeliest one after those before it
            text += next(
                c
                for c in map(chr, range(32, 127))
                if naive(base, "The", vectors_of(classifier, "after"), text + c)[1]
            )
        assert found == text

    def test_take_positions_from_the_text(self, classifier, base):
        assert SoftPromptLM(str(classifier), lm=base).max_length == 256 - 3
        assert SoftPromptLM(str(classifier), lm=base, plain=True).max_length == 256

    def test_are_left_out_of_the_plain_model(self, classifier, base):
        alone = answers(SoftPromptLM(lm=base), "loglikelihood", PAIRS[:3])
        assert (
            answers(SoftPromptLM(str(classifier), lm=base, plain=True), "loglikelihood", PAIRS[:3]) == alone
        )
        assert answers(SoftPromptLM(str(classifier), lm=base), "loglikelihood", PAIRS[:3]) != alone


@pytest.fixture(scope="module")
def prefixed(model_folder, tmp_path_factory):
    """A prefix after the input: its keys are moved to each row's own position."""
    method = softprompt.PrefixTuning(length=4, placement="after")
    return tuned_on(model_folder, tmp_path_factory.mktemp("prefixed") / "run", method)


def test_a_batch_equals_its_rows(prefixed, base):
    together, alone = (SoftPromptLM(str(prefixed), lm=base, batch_size=size) for size in ("auto", 1))
    found, wanted = (answers(model, "loglikelihood", PAIRS) for model in (together, alone))
    assert close(found, wanted, 1e-5 * max(1, *(abs(value) / 8 for value, _ in wanted)))
    found, wanted = (answers(model, "loglikelihood_rolling", TEXTS) for model in (together, alone))
    assert found == pytest.approx(wanted, rel=1e-6)
    assert answers(together, "generate_until", CONTEXTS) == answers(alone, "generate_until", CONTEXTS)


@pytest.mark.parametrize("template", [False, True])
def test_scores_are_those_of_softprompt_eval(prefixed, base, template):
    records = softprompt.open_prompt(prefixed, base).evaluate(ROWS).records
    # with the template, the space is the artifact's own, whatever the task writes
    pairs = [(row["text"], label if template else f" {label}") for row in ROWS for label in LABELS]
    found = answers(SoftPromptLM(str(prefixed), lm=base, template=template), "loglikelihood", pairs)
    assert [value for value, _ in found] == pytest.approx(
        [s for r in records for s in r.scores or ()], abs=1e-4
    )


def test_the_template_renders_contexts(model_folder, base, tmp_path):
    rows = [{"text": row["text"], "label": row["label"]} for row in ROWS]
    shape = {"input": "Film: {{ text }}\nMood:", "target": "{{ label }}"}
    folder = tmp_path / "run"
    method = softprompt.PromptTuning(length=2)
    task = {"kind": "generation", "max_new_tokens": 8}
    softprompt.tune(str(model_folder), method, rows, output=folder, template=shape, task=task, steps=1)
    rendered, raw = SoftPromptLM(str(folder), lm=base, template=True), SoftPromptLM(str(folder), lm=base)
    written = [("Film: a film\nMood:", GREEDY)]
    assert answers(rendered, "generate_until", [("a film", GREEDY)]) == answers(
        raw, "generate_until", written
    )
    with pytest.raises(SoftPromptError, match="these texts have none"):
        answers(rendered, "loglikelihood_rolling", TEXTS[:1])
    with pytest.raises(SoftPromptError, match="two templates"):
        rendered.apply_chat_template([{"role": "user", "content": "x"}])


def test_the_harness_keeps_answers(classifier, base, tmp_path, monkeypatch):
    kept = CachingLM(SoftPromptLM(str(classifier), lm=base), str(tmp_path / "kept.db"))
    first = [
        kept.loglikelihood(requests("loglikelihood", PAIRS)),
        kept.generate_until(requests("generate_until", CONTEXTS)),
    ]
    monkeypatch.setattr(model_module, "likelihoods", None)
    monkeypatch.setattr(model_module, "continuations", None)
    again = [
        kept.loglikelihood(requests("loglikelihood", PAIRS)),
        kept.generate_until(requests("generate_until", CONTEXTS)),
    ]
    assert again == first


def test_chats_go_through_the_tokenizer(base, monkeypatch):
    monkeypatch.setattr(
        base.tokenizer, "chat_template", "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    )
    model = SoftPromptLM(lm=base)
    assert model.apply_chat_template([{"role": "user", "content": "Hi"}]) == "<user>Hi"
    assert model.chat_template(True) == base.tokenizer.chat_template and model.tokenizer_name


class TestRefusals:
    """Each error names the value, and its fix works."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "neither an artifact nor a model"),
            ({"artefact": "x"}, "did you mean 'artifact'"),
            ({"model": "x", "prompt": "joke"}, "names a prompt of no artifact"),
            ({"model": "x", "batch_size": "many"}, "batch_size=many"),
            ({"model": "x", "dtype": "float23"}, "did you mean 'float32'"),
            ({"lm": ..., "max_length": 300}, "max_length=256"),
            ({"lm": ..., "template": True}, "a plain base model has no template"),
        ],
    )
    def test_arguments(self, arguments, message, base):
        if arguments.get("model") == "x" and "batch_size" in arguments:
            arguments = {"lm": ..., "batch_size": "many"}
        given = {name: base if value is ... else value for name, value in arguments.items()}
        with pytest.raises(SoftPromptError) as error:
            SoftPromptLM(**given)
        assert message in str(error.value)

    def test_a_model_that_answers_at_masks(self, bert_folder):
        with pytest.raises(SoftPromptError, match="cannot evaluate"):
            SoftPromptLM(model=str(bert_folder))

    def test_requests_that_do_not_fit(self, base):
        model = SoftPromptLM(lm=base)
        with pytest.raises(SoftPromptError, match="has 300 tokens"):
            answers(model, "loglikelihood", [("a", "x" * 300)])
        with pytest.raises(SoftPromptError, match="max_gen_toks=128"):
            answers(model, "generate_until", [("a", {"max_gen_toks": 256})])
        with pytest.raises(SoftPromptError, match="temperature"):
            answers(model, "generate_until", [("a", {"max_gen_toks": 2, "temprature": 1})])

    def test_whole_texts_under_a_generated_prompt(self, model_folder, base, tmp_path):
        folder = tuned_on(model_folder, tmp_path / "run", softprompt.GeneratedPrompt(length=2))
        with pytest.raises(SoftPromptError, match="no input to generate the prompt from"):
            answers(SoftPromptLM(str(folder), lm=base), "loglikelihood_rolling", TEXTS[:1])

    def test_an_unknown_prompt(self, classifier, base):
        with pytest.raises(SoftPromptError, match="joke"):
            SoftPromptLM(str(classifier), prompt="joke", lm=base)
