"""Templates keep literal text, and their errors name the row, the field and the nearest field there is."""

from __future__ import annotations

import pytest

from softprompt.data.sources import Row
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError

ROW = Row({"question": "Why?", "answer": "So.", "style": "old"}, "train.jsonl:12")


def fails(call) -> str:
    with pytest.raises(SoftPromptError) as caught:
        call()
    return str(caught.value)


def test_template_strings_are_literal():
    template = Template(" Q: {{ question }} <&>\n", " {{ answer }}\n", prompt_field="style")
    rendered = template.render(ROW)
    assert (rendered.input, rendered.target) == (" Q: Why? <&>\n", " So.\n")
    assert rendered.prompt == "old" and rendered.references == (" So.\n",)
    assert rendered.choices is None and rendered.row is ROW
    assert template.fields() == ("question", "answer")


def test_template_without_target():
    template = Template("{{ question }}", "{{ answer }}", prompt_field="style")
    rendered = template.render({"question": "Why?"}, with_target=False)
    assert (rendered.target, rendered.references, rendered.prompt) == ("", (), None)


def test_template_bare_text_stands_for_the_only_field():
    assert Template("Q: {{ question }}\nA:").render_input("Why?") == "Q: Why?\nA:"
    assert Template("{{ a }}").render("x", with_target=False).input == "x"
    message = fails(lambda: Template("{{ a }} {{ b }}").render_input("x"))
    assert "one field only" in message and "names 2: a, b" in message
    assert "names 0: none" in fails(lambda: Template("fixed").render_input("x"))


def test_template_missing_field_names_row_and_nearest():
    message = fails(lambda: Template("{{ qestion }}", "{{ answer }}").render(ROW))
    assert (
        "train.jsonl:12: no field 'qestion', which template.input names; did you mean 'question'?" in message
    )
    assert "the row has: question, answer, style" in message
    assert "template.target names" in fails(lambda: Template("{{ question }}", "{{ targt }}").render(ROW))
    assert "data.prompt_field names" in fails(
        lambda: Template("{{ question }}", "{{ answer }}", prompt_field="styl").render(ROW)
    )
    assert "no field 'dict'" in fails(lambda: Template("{{ dict }}").render_input(ROW))  # no Jinja globals
    assert "no attribute 'b'" in fails(lambda: Template("{{ question.b }}").render_input(ROW))


def test_template_optional_field():
    template = Template("{% if context is defined %}{{ context }} {% endif %}{{ question }}")
    assert template.render_input(ROW) == "Why?"
    assert template.render_input({**ROW, "context": "C"}) == "C Why?"


def test_template_null_and_empty_values():
    row = Row({"input": None, "target": " "}, "a.csv:3")
    assert "a.csv:3: field 'input' is null" in fails(lambda: Template().render(row))
    assert Template("{{ input or 'none' }}").render_input(row) == "none"
    assert "a.csv:3: the target is empty" in fails(lambda: Template("x").render(row))
    assert Template().render({"input": "", "target": 0}).target == "0"


def test_template_syntax_and_sandbox():
    message = fails(lambda: Template("a\n{{ b"))
    assert "template.input, line 2" in message
    assert "template.target, line 1: No filter named 'foo'" in fails(lambda: Template(target="{{ a | foo }}"))
    assert "train.jsonl:12: template.input" in fails(
        lambda: Template("{{ question.__class__ }}").render_input(ROW)
    )
    assert "failed" in fails(lambda: Template("{{ question / 2 }}").render_input(ROW))


def test_template_choices():
    template = Template("{{ q }}", "{{ opts[answer] }}", choices_field="opts")
    row = Row({"q": "?", "opts": ["yes", "no"], "answer": 1}, "c.jsonl:2")
    assert template.render(row).target == "no" and template.render(row).choices == ("yes", "no")
    assert template.render({**row, "opts": '["yes", "no"]', "answer": 2}, with_target=False).choices == (
        "yes",
        "no",
    )
    by_number = Template("{{ q }}", "{{ answer }}", choices_field="opts")
    assert "{{ choices[answer] }}" in fails(lambda: by_number.render(row))
    assert "did you mean 'yes'" in fails(lambda: by_number.render({**row, "answer": "yess"}))
    assert "c.jsonl:2: field 'opts' needs" in fails(
        lambda: template.render(Row({**row, "opts": ["a", "a"]}, row.where))
    )
    assert "is not a list of texts" in fails(lambda: template.render({**row, "opts": "yes no"}))
    assert "task.choices names" in fails(lambda: template.render({"q": "?"}))


def test_template_references():
    template = Template("{{ question }}", "{{ answer }}", references_field="refs")
    assert template.render({**ROW, "refs": ["a", "b"]}).references == ("a", "b")
    assert template.render({**ROW, "refs": []}).references == ("So.",)
    assert template.render({**ROW, "refs": None}).references == ("So.",)
    assert "no field 'refs', which task.references names" in fails(lambda: template.render(ROW))
