"""A conversation holds the text of every turn, and is the same on every day; options reach the template."""

from __future__ import annotations

import datetime

import pytest
from tests.conftest import tiny_tokenizer

from softprompt.data.chat import Chat
from softprompt.data.encode import Encoder
from softprompt.data.task import ChatSettings, Limits
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError

TURN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] + '\\n' }}{% endfor %}"
ASKS = "{% if add_generation_prompt %}<assistant>{% endif %}"
PARTS = (
    "{% for m in messages %}<{{ m['role'] }}>{% for part in m['content'] %}{{ part['text'] }}{% endfor %}"
    "{{ '\\n' }}{% endfor %}" + ASKS
)
EITHER = (
    "{% for m in messages %}<{{ m['role'] }}>{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}[{{ p['text'] }}]{% endfor %}{% endif %}{{ '\\n' }}{% endfor %}" + ASKS
)
ONLY_PARTS = (
    "{% for m in messages %}{% if m['content'] is string %}{{ raise_exception('parts, please') }}{% endif %}"
    "{{ m['content'][0]['text'] }}{% endfor %}" + ASKS
)
DATED = "  {% set form = '%d %b' %}\nToday: {{ strftime_now(form) + strftime_now(' %Y') }}\n" + TURN + ASKS
THINKS = TURN + (
    "{% if add_generation_prompt %}<assistant>"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n{% else %}<think>\n"
    "{% endif %}{% endif %}"
)
R1 = TURN + "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"


def chat(template, **options):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return Chat(tokenizer, options)


def written(conversation, *turns):
    return conversation.tokenizer.decode(conversation.ids(turns))


@pytest.mark.parametrize("template", [TURN + ASKS, PARTS, EITHER])
def test_the_text_is_in_the_conversation_whatever_form_it_is_read_in(template):
    turns = ("system", "Be brief."), ("user", "Hello  there"), ("assistant", "Hi"), ("user", 'a "b"\n{c}')
    expected = "".join(f"<{role}>{text}\n" for role, text in turns) + "<assistant>"
    assert written(chat(template), *turns) == expected


def test_a_template_that_takes_parts_alone():
    assert written(chat(ONLY_PARTS), ("user", "Hello")) == "Hello<assistant>"


@pytest.mark.parametrize(
    ("template", "turns", "who"),
    [
        ("<user>" + ASKS, [("user", "Hello")], "user"),
        ("{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}",
         [("system", "Be brief."), ("user", "Hello")], "system"),
        ("{{ messages[-1]['content'] }}", [("user", "one"), ("assistant", "x"), ("user", "two")], "user"),
    ],
)  # fmt: skip
def test_text_that_a_template_leaves_out_is_refused(template, turns, who):
    with pytest.raises(SoftPromptError, match=f"leaves out the {who}'s text"):
        chat(template).ids(turns)


def test_what_a_template_does_to_a_text_is_no_loss():
    escaped = "{% for m in messages %}{{ m['content'] | tojson }}{% endfor %}"
    assert chat(escaped).ids([("user", 'say "ü"\n')])
    trimmed = "{% for m in messages %}{{ m['content'] | trim }}{% endfor %}"
    assert chat(trimmed).ids([("user", "  two  words \n")])
    unthought = "{% for m in messages %}{{ m['content'].split('</think>')[-1] }}{% endfor %}"
    assert chat(unthought).ids([("user", "a"), ("assistant", "<think>hm</think>b"), ("user", "c")])


def test_the_date_is_the_same_on_every_day(monkeypatch):
    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, 6)

    conversation = chat(DATED)
    today = conversation.ids([("user", "a")])
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Later, raising=True)
    assert chat(DATED).ids([("user", "a")]) == today and "26 Jul 2024" in conversation.tokenizer.decode(today)
    theirs = conversation.tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}], add_generation_prompt=True, return_dict=False
    )
    assert Chat(conversation.tokenizer, date="2031-05-06").ids([("user", "a")]) == tuple(theirs)
    other = Chat(conversation.tokenizer, date="2031-01-02")
    assert written(other, ("user", "a")).startswith("Today: 02 Jan 2031\n")
    assert conversation.writes_date and not chat(TURN).writes_date
    with pytest.raises(SoftPromptError, match="is not a date"):
        Chat(conversation.tokenizer, date="tomorrow").check()


def test_options_reach_the_template_and_unknown_ones_are_refused():
    assert written(chat(THINKS, enable_thinking=False), ("user", "a")).endswith("<think>\n\n</think>\n")
    chat(THINKS, enable_thinking=False).check()
    with pytest.raises(SoftPromptError, match="did you mean 'enable_thinking'"):
        chat(THINKS, enable_thinkin=False).check()
    for name in ("tokenize", "add_generation_prompt", "messages", "strftime_now"):
        with pytest.raises(SoftPromptError, match=f"unknown chat option '{name}'"):
            chat(DATED, **{name: False}).check()


def test_a_prompt_that_ends_inside_thoughts_is_said_with_what_closes_it():
    assert chat(THINKS).open_thought() == chat(R1).open_thought() == "<think>"
    assert "template.chat_options={enable_thinking: false}" in chat(THINKS).note()
    assert "begin with its end (</think>)" in chat(R1).note()
    assert not chat(THINKS, enable_thinking=False).note() and not chat("<think>" + TURN + ASKS).note()


def test_an_encoder_gives_options_and_date_to_its_template():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = DATED + THINKS
    template, settings = Template(chat=True), ChatSettings({"enable_thinking": False}, "2030-03-04")
    encoder = Encoder(tokenizer, template, chat=settings)
    text = tokenizer.decode(encoder.encode({"input": "hello"}, with_target=False).input_ids)
    assert text.startswith("Today: 04 Mar 2030\n") and text.endswith("</think>\n")
    cut = Encoder(tokenizer, template, limits=Limits(len(text) - 3), chat=settings)
    assert "<user>lo\n" in tokenizer.decode(cut.encode({"input": "hello"}, with_target=False).input_ids)


def test_parts_that_a_template_shows_as_python_does_are_none_of_its_own():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'][:3] }}{% endfor %}<a>"
    encoder = Encoder(tokenizer, Template(chat=True))
    assert encoder.encode({"input": "abc", "target": "y"}).input_ids
    with pytest.raises(SoftPromptError, match="leaves out the user's text"):
        encoder.encode({"input": "a longer question", "target": "y"})
