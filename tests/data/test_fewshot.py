"""Demonstrations are shown ahead of the input, or refused."""

from __future__ import annotations

import pytest

from softprompt.data.capacity import Room
from softprompt.data.encode import Encoder
from softprompt.data.fewshot import few_shot, stop_options
from softprompt.data.task import Limits, Task
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError

ROWS = [{"input": f"row {i}", "target": ("good", "bad")[i >= 6], "style": "ab"[i % 2]} for i in range(8)]
ASKED = {"input": "what now", "target": "good", "style": "a"}
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


def encoder(llama, kind="classification", template=None, prompts=("default",), **limits):
    labels = ["good", "bad"] if kind == "classification" else None
    template = template or Template("Q: {{ input }}")
    return Encoder(llama.tokenizer, template, Task(kind, labels, prompts), limits=Limits(**limits))


def text_of(tool, example) -> str:
    return tool.tokenizer.decode(list(example.input_ids), clean_up_tokenization_spaces=False)


def test_demonstrations_stand_ahead_in_the_same_template(llama):
    tool = encoder(llama)
    (example,) = few_shot(tool, ROWS, [ASKED], 2)
    *shown, asked = text_of(tool, example).split("\n\n")
    assert asked == "Q: what now" and len(shown) == 2
    known = {f"Q: {row['input']} {row['target']}": row["target"] for row in ROWS}
    assert sorted(known[text] for text in shown) == ["bad", "good"]  # labels take turns
    assert example.target_ids == tool.encode(ASKED).target_ids
    assert example.candidates == tool.encode(ASKED).candidates


def test_they_are_the_same_for_every_row_and_seed_decides(llama):
    tool = encoder(llama)
    first, second = few_shot(tool, ROWS, [ASKED, {**ASKED, "input": "other"}], 3)
    assert text_of(tool, first).split("\n\n")[:3] == text_of(tool, second).split("\n\n")[:3]
    assert few_shot(tool, ROWS, [ASKED], 3)[0].input_ids == first.input_ids
    assert any(few_shot(tool, ROWS, [ASKED], 3, seed=s)[0].input_ids != first.input_ids for s in (1, 2, 3))


def test_a_row_is_not_its_own_demonstration(llama):
    tool = encoder(llama)
    for row, example in zip(ROWS, few_shot(tool, ROWS, ROWS, 7), strict=True):
        assert text_of(tool, example).count(f"Q: {row['input']}") == 1


def test_prompts_have_their_own_demonstrations(llama):
    template = Template("Q: {{ input }}", "{{ target }}", prompt_field="style")
    tool = encoder(llama, template=template, prompts=("a", "b"))
    (example,) = few_shot(tool, ROWS, [ASKED], 4)
    assert all(f"row {i}" in text_of(tool, example) for i in (0, 2, 4, 6)) and example.prompt == 0


def test_in_chat_they_are_earlier_turns(llama, monkeypatch):
    monkeypatch.setattr(llama.tokenizer, "chat_template", CHAT)
    tool = encoder(llama, "generation", Template("Q: {{ input }}", chat=True, system="be brief"))
    (example,) = few_shot(tool, ROWS[:1], [ASKED], 1)
    assert text_of(tool, example) == "<system>be brief<user>Q: row 0<assistant>good<user>Q: what now"


def test_each_text_is_shortened_by_itself(llama):
    tool = encoder(llama, max_input_tokens=4)
    (example,) = few_shot(tool, ROWS[:1], [ASKED], 1)
    assert text_of(tool, example) == "ow 0 good\n\n now"


def test_too_long_is_refused_and_never_cut(llama):
    tool = encoder(llama, room=Room(60))
    assert few_shot(tool, ROWS, [ASKED], 2)
    with pytest.raises(SoftPromptError, match="too long for the model") as caught:
        few_shot(tool, ROWS, [ASKED], 5)
    assert "fewer demonstrations than 5" in caught.value.fix


def test_more_than_there_are_is_refused(llama):
    with pytest.raises(SoftPromptError, match="9 demonstrations are requested, but there are 8"):
        few_shot(encoder(llama), ROWS, [ASKED], 9)


def test_free_text_ends_where_the_next_demonstration_would_begin(llama):
    assert stop_options(encoder(llama)) == {}
    assert stop_options(encoder(llama, "generation"))["stop_strings"] == ["\n\n"]
