"""Fields as rows usually name them, and what is said where they do not tell."""

from __future__ import annotations

import pytest

from softprompt.choose.guess import guess
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError

LABELS = ["good", "bad"]


def rows(**fields):
    """Twelve rows; a field is a value, or a function of the row's number."""
    return [{name: made(i) if callable(made) else made for name, made in fields.items()} for i in range(12)]


def text(i):
    return f"words {i}"


def label(i):
    return LABELS[i % 2]


@pytest.mark.parametrize(
    ("made", "asks", "target"),
    [
        (rows(input=text, target=label), "words 0\nLabel:", "good"),
        (rows(text=text, label=lambda i: i % 2, label_text=label, idx=text), "words 0\nLabel:", "good"),
        (rows(sentence=text, label=lambda i: i % 2), "words 0\nLabel:", "0"),
        (rows(article=text, highlights=text, id=text), "words 0\nHighlights:", "words 0"),
        (rows(prompt=text, completion=text), "words 0\nAnswer:", "words 0"),
        (
            rows(premise=text, hypothesis="so", label=label),
            "Premise: words 0\nHypothesis: so\nLabel:",
            "good",
        ),
        (rows(instruction="do", input=text, output="done"), "do\nwords 0\nAnswer:", "done"),
        (
            rows(context="c", question="q", answers=lambda i: ["a", "b"]),
            "Context: c\nQuestion: q\nAnswer:",
            "a",
        ),
        (rows(question="q", options=lambda i: ["x", "y"], answer=1), "q\nAnswer:", "y"),
        # by what stands in them
        (rows(number=lambda i: str(i), said=text, kind=label), "words 0\nKind:", "good"),
        (rows(en=text, de="Wörter"), "words 0\nDe:", "Wörter"),
        ([{"Ticket no": str(i), "Customer message": text(i), "Its category": label(i)} for i in range(12)],
         "words 0\nIts category:", "good"),
        (
            rows(messages=lambda i: [{"content": "hi"}, {"role": "assistant", "content": "yo"}]),
            "hi\n",
            "yo",
        ),
    ],
)  # fmt: skip
def test_what_a_row_asks_and_what_is_answered(made, asks, target):
    found = guess(made)
    done = Template(
        found.input, found.target, choices_field=found.choices, references_field=found.references
    ).render(made[0])
    assert done.input == asks and done.target == target
    if found.references:
        assert done.references == ("a", "b")


def test_what_is_said_stays():
    found = guess(rows(a=text, b=text, c=label, d=label), input="{{ a }}!", target="{{ d }}")
    assert (found.input, found.target) == ("{{ a }}!", "{{ d }}")
    half = guess(rows(a=text, b=text, label=label), input="{{ a }}!")
    assert (half.input, half.target) == ("{{ a }}!", "{{ label }}")


@pytest.mark.parametrize(
    "made",
    [
        rows(a=text, b=text, c=text),
        rows(text=text),
        rows(one=text, two=label, three=label),
        [{"input": "a"}, {"target": "b"}],
    ],
)
def test_fields_that_do_not_tell_are_named(made):
    with pytest.raises(SoftPromptError) as error:
        guess(made, say="--input '{{{{ {0} }}}}' --target '{{{{ {1} }}}}'")
    assert "fields of all rows" in error.value.why and "--input '{{ " in error.value.fix
