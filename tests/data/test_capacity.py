"""Rows fit into a model as counted by running it, and every fix of an error works when it is followed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tests.conftest import tiny_tokenizer

from softprompt import methods
from softprompt.config.load import recipe_from_dict
from softprompt.data.capacity import Need, Room, TooLong, fix
from softprompt.data.collate import collate
from softprompt.data.encode import Encoder
from softprompt.data.task import Limits, ModelSide
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError
from softprompt.evaluation.evaluator import Evaluator
from softprompt.lm.apply import injection_for
from softprompt.training.losses import token_losses
from softprompt.training.prepare import prepare

CONTEXT = 64
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def recipe(output, *, kind="generation", template=None, data=None, overrides=(), **method):
    method = {"name": "prompt-tuning", "length": 8} | method
    return recipe_from_dict(
        {
            "model": "tiny",
            "data": {"train": "rows", **(data or {})},
            "template": template or {},
            "task": {"kind": kind, "max_new_tokens": 10} if kind == "generation" else {"kind": kind},
            "method": method,
            "train": {"steps": 1, "dtype": "float32"},
            "output": str(output),
        },
        overrides=list(overrides),
        method_option_names=methods.option_names(),
    )


def rows(inputs: int, targets: int, count: int = 3) -> list[dict]:
    """Make rows of one token a character; `targets` are without the space ahead and the end token."""
    return [{"input": "x" * (inputs + i), "target": "y" * (targets + i)} for i in range(count)]


@pytest.fixture(scope="module")
def small(new_lm):
    made = {}

    def get(family: str):
        if family not in made:
            sizes = {"gpt2": {"n_positions": CONTEXT}}.get(family, {"max_position_embeddings": CONTEXT})
            made[family] = new_lm(family, **({} if family == "t5" else sizes))
        return made[family]

    return get


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bart", "t5"])
@pytest.mark.parametrize(
    "method", ["prompt-tuning", "prefix-tuning", "llama-adapter", "residual-prompt-tuning", "none"]
)
def test_what_is_let_through_runs_at_the_very_limit(small, tmp_path, family, method):
    lm = small(family)
    options = {"name": method, "length": 8} if method != "none" else {"name": "none"}
    chosen = recipe(tmp_path, **options)
    if method == "none":
        chosen = chosen.model_copy(update={"method": chosen.method.model_copy(update={"length": None})})
        chosen = recipe_from_dict({**chosen.to_dict(), "method": {"name": "none"}})
    soft = 8 if method in ("prompt-tuning", "residual-prompt-tuning") else 0
    apart = family in ("bart", "t5")
    # T5's positions are relative: it has no limit
    most = 200 if family == "t5" else CONTEXT - soft - (0 if apart else 10)
    given = [{"input": "x" * most, "target": "yyy"}] * 2
    made = prepare(chosen, lm=lm, rows=given, dev_rows=given)
    batch = collate(made.train)
    assert token_losses(lm, made.method, batch).values.isfinite().all()
    injection = injection_for(lm, made.method, batch)
    lm.generate(collate(made.train, targets=False), injection, max_new_tokens=10, do_sample=False)
    if family != "t5":
        with pytest.raises(TooLong) as caught:
            prepare(chosen, lm=lm, rows=[{**given[0], "input": "x" * (most + 1)}], dev_rows=given)
        assert f"{most + 1} of input" in caught.value.what


CASES = {
    "input": (rows(80, 4), {}),
    "input of dev rows only": (rows(5, 4) + rows(120, 4), {}),
    "much to be written": (rows(3, 2), {"overrides": ["task.max_new_tokens=500"]}),
    "much to be written, of rows of unlike lengths": (
        rows(3, 2) + rows(20, 5),
        {"overrides": ["task.max_new_tokens=60"]},
    ),
    "many soft tokens": (rows(3, 2), {"length": 62}),
    "more soft tokens than positions": (rows(3, 2), {"length": 250}),
    "soft tokens of a decoder": (rows(3, 2), {"length": 62, "placement": "decoder"}),
    "in both": (rows(60, 2), {"length": 62, "placement": "both"}),
    "target": (rows(3, 90), {}),
    "target and input": (rows(90, 90), {}),
    "all of them": (rows(90, 90), {"length": 70, "overrides": ["task.max_new_tokens=80"]}),
    "labels": (
        [{"input": "x" * 60, "target": "abcdefghij"}, {"input": "y", "target": "b"}],
        {"kind": "classification"},
    ),
    "chat": (rows(40, 3), {"template": {"chat": True, "system": "be brief, and kind"}}),
    "long system text": (rows(3, 3), {"template": {"chat": True, "system": "s" * 30}, "length": 20}),
}


APART = ("much to be written, of rows of unlike lengths", "soft tokens of a decoder")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", ["llama", "bart"])
def test_every_fix_works_by_itself(small, tmp_path, monkeypatch, family, case):
    given, changes = CASES[case]
    lm = small(family)
    if family == "llama" and changes.get("placement"):
        pytest.skip("a decoder-only model has no decoder apart")
    monkeypatch.setattr(lm.tokenizer, "chat_template", CHAT)
    overrides = list(changes.get("overrides", ()))
    rest = {key: value for key, value in changes.items() if key != "overrides"}
    train, dev = given[:2], given[1:]

    def attempt(more=()):
        return prepare(
            recipe(tmp_path, overrides=[*overrides, *more], **rest), lm=lm, rows=train, dev_rows=dev
        )

    if family == "bart" and case in APART:
        attempt()  # encoder and decoder have their own room
        return
    with pytest.raises(SoftPromptError) as caught:
        attempt()
    assert "too long for the model" in str(caught.value)
    options = [re.findall(r"[\w.]+=\d+", option) for option in caught.value.fix.split(", or ")]
    assert options and all(options), caught.value.fix
    for option in options:
        made = attempt(option)
        evaluator = Evaluator(lm, made.encoder, ("exact_match",) * (made.encoder.kind == "generation"), 10)
        evaluator.run(made.method, made.dev)


def test_encoder_and_decoder_have_their_own_room():
    row = {"input": "x" * 100, "target": "y" * 16}
    apart = Room(128, soft=16, answer_context=128, apart=True, new_tokens=40, length=16)
    encoder = Encoder(
        tiny_tokenizer(), Template(), model=ModelSide(kind="encoder-decoder"), limits=Limits(room=apart)
    )
    assert (len(encoder.encode(row).input_ids), encoder.encode(row).truncated) == (100, 0)
    with pytest.raises(TooLong, match=r"encoder's context is 128 tokens.*113 of input \+ 16 of soft"):
        encoder.encode({**row, "input": "x" * 113})
    with pytest.raises(TooLong, match="decoder's context is 128 tokens, and the row takes 201 of target"):
        encoder.encode({**row, "target": "y" * 200})
    written = Encoder(
        tiny_tokenizer(),
        Template(),
        model=ModelSide(kind="encoder-decoder"),
        limits=Limits(room=replace(apart, new_tokens=500)),
    )
    with pytest.raises(TooLong, match=r"500 to be written \(task.max_new_tokens") as caught:
        written.encode(row)
    assert caught.value.fix == "task.max_new_tokens=128"


def test_the_fix_of_many_rows_is_that_of_the_narrowest():
    room = Room(100, soft=10, new_tokens=20, length=10)
    assert "data.max_input_tokens=30 cuts" in fix([(room, Need(200, 60)), (room, Need(95, 5))])
    assert fix([(room, Need(75, 5))]).split(", or ")[1:] == ["task.max_new_tokens=15", "method.length=5"]
