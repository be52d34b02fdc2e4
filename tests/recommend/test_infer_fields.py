"""Fields as rows usually name them, and the error where the names do not decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprompt.config.load import recipe_from_dict
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError
from softprompt.recommend import draft
from softprompt.recommend.infer_fields import guess
from softprompt.recommend.requirements import kind_of

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
        # by their values
        (rows(number=lambda i: str(i), spoken=text, kind=label), "words 0\nKind:", "good"),
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
        guess(made, options="--input '{{{{ {0} }}}}' --target '{{{{ {1} }}}}'")
    assert "fields of all rows" in error.value.why and "--input '{{ " in error.value.fix


VOICES = {
    "message": lambda i: f"where is parcel {i}",
    "voice": lambda i: ["calm", "brisk", "merry"][i % 3],
    "reply": lambda i: f"it is with us, number {i}",
}


@pytest.mark.parametrize(
    "order", [("message", "voice", "reply"), ("voice", "reply", "message"), ("reply", "message", "voice")]
)
@pytest.mark.parametrize("given", [None, "voice"])
def test_a_column_of_few_values_beside_free_text_in_and_out_names_the_prompts(order, given):
    found = guess(rows(**{name: VOICES[name] for name in order}), prompt_field=given)
    assert found.prompt_field == "voice"
    template = Template(found.input, found.target, prompt_field=found.prompt_field)
    rendered = template.render(rows(**VOICES)[0])
    assert (rendered.input, rendered.target, rendered.prompt) == (
        "where is parcel 0\nReply:",
        "it is with us, number 0",
        "calm",
    )


@pytest.mark.parametrize("name", ["task", "style", "persona", "customer", "language", "brand"])
def test_prompts_may_be_named_by_any_column(name):
    made = rows(input=VOICES["message"], **{name: VOICES["voice"]}, output=VOICES["reply"], ticket_id=str)
    assert guess(made).prompt_field == name
    assert guess(made, prompt_field="").prompt_field is None


@pytest.mark.parametrize("messages", [5, 8, 20])
@pytest.mark.parametrize("voices", [("pirate", "gym coach", "butler"), ("old sailor", "gym coach")])
def test_each_prompt_may_answer_the_same_inputs(messages, voices):
    made = [
        {"message": f"where is parcel {i}?", "voice": voice, "reply": f"{voice} says: parcel {i} is here"}
        for i in range(messages)
        for voice in voices
    ]
    found = guess(made)
    assert found.prompt_field == "voice"
    assert (found.input, found.target) == ("{{ message }}\nReply:", "{{ reply }}")


@pytest.mark.parametrize(
    ("facts", "written"),
    [({"name": "mug", "size": 3}, "name: mug; size: 3; "), (["mug", "size 3"], "mug, size 3")],
)
def test_an_input_of_facts_is_written_in_words(facts, written):
    made = [{"facts": facts, "listing": f"A mug, number {i}"} for i in range(9)]
    found = guess(made)
    assert Template(found.input, found.target).render(made[0]).input == f"{written}\nListing:"


def test_questions_about_the_same_texts_name_no_prompts():
    texts = [f"the room was clean and the food was cold, visit {i}" for i in range(12)]
    made = [
        {"text": text, "aspect": aspect, "opinion": ["good", "bad"][(i + j) % 2]}
        for i, text in enumerate(texts)
        for j, aspect in enumerate(("room", "food", "staff"))
    ]
    assert guess(made, input="{{ text }} {{ aspect }}", target="{{ opinion }}").prompt_field is None
    with pytest.raises(SoftPromptError):
        guess(made)


def test_a_column_of_few_values_that_is_the_label_names_no_prompts():
    free, other = VOICES["message"], VOICES["reply"]
    for made in (
        rows(title=free, body=other, category=VOICES["voice"]),
        rows(title=free, body=other, kind=VOICES["voice"]),
        rows(ticket_id=lambda i: f"AB-{i}", text=free, label=VOICES["voice"]),
        rows(text=free, label=VOICES["voice"]),
        rows(premise=free, hypothesis=other, label=VOICES["voice"]),
    ):
        found = guess(made)
        assert found.prompt_field is None
        assert Template(found.input, found.target).render(made[0]).target == "calm"
    assert guess(rows(question=free, answer=other, topic=VOICES["voice"])).prompt_field is None


def score(scale, whole=False):
    return lambda i: (i % 5) / 4 * scale if not whole else i % (scale + 1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"query": text, "positive": text}, {}),
        (
            {"Question": text, "Positive": text, "negatives": lambda i: [f"no {i}"]},
            {"negatives": "negatives"},
        ),
        ({"anchor": text, "positive": text, "negative": "not it", "id": str}, {"negatives": "negative"}),
        ({"sentence1": text, "sentence2": text, "score": score(1)}, {"score_range": (0.0, 1.0)}),
        ({"text1": text, "text2": text, "similarity": score(5, True)}, {"score_range": (0.0, 5.0)}),
        ({"sentence1": text, "sentence2": text, "label": score(5)}, {"score_range": (0.0, 5.0)}),
        ({"query": text, "passage": text, "relevance": lambda i: str(i)}, {"score_range": (0.0, 10.0)}),
        ({"query": text, "document": text, "score": lambda i: 300 + i}, {"score_range": (300.0, 307.0)}),
    ],
)
def test_rows_of_an_embedding_task(fields, expected):
    pairs = rows(**fields)[:8]
    found = guess(pairs)
    assert found.kind == "embedding"
    names = list(fields)
    task = {"kind": "embedding", **expected}
    if "score_range" in expected:
        task["score"] = names[2]
        task["score_range"] = list(expected["score_range"])
    recipe = {"model": "minilm", **draft.sections("rows.jsonl", Path("."), found, "embedding")}
    usual = {"negatives": "negatives", "score_range": [0.0, 1.0]}
    assert recipe["task"] == {key: value for key, value in task.items() if usual.get(key) != value}
    assert recipe_from_dict(recipe).task.kind == "embedding"
    rendered = [draft.template_of(found).render(row) for row in pairs]
    assert rendered[1].input == pairs[1][names[0]] and rendered[1].documents[0] == pairs[1][names[1]]
    assert bool(rendered[1].documents[1:]) == ("negatives" in expected) and kind_of(rendered) == "embedding"


@pytest.mark.parametrize(
    "fields",
    [
        {"sentence1": text, "sentence2": text, "label": label},
        {"sentence1": text, "sentence2": text, "label": lambda i: i % 2},
        {"question": text, "answer": text, "score": score(1)},
        {"query": text, "answer": text},
    ],
)
def test_labels_and_answers_are_no_embedding_task(fields):
    assert guess(rows(**fields)).kind is None


@pytest.mark.parametrize("given", [{"kind": "classification"}, {"choices": "options"}])
def test_a_task_that_the_user_names_is_not_inferred_again(given):
    pairs = rows(query=text, positive=text, label=label, options=lambda i: ["good", "bad"])
    assert guess(pairs).kind == "embedding" == guess(pairs, kind="embedding").kind
    named = guess(pairs, **given)
    assert (named.kind, named.target, named.input) == (None, "{{ label }}", "{{ query }}\nLabel:")


@pytest.mark.parametrize(
    ("fields", "inputs", "target"),
    [
        ({"sentence1": text, "sentence2": text, "score": score(5)}, ("sentence1", "sentence2"), "score"),
        ({"sentence1": text, "sentence2": text, "label": score(5)}, ("sentence1", "sentence2"), "label"),
        (
            {"query": text, "document": text, "relevance": lambda i: str(i % 3)},
            ("query", "document"),
            "relevance",
        ),
        ({"id": str, "review": text, "minutes": score(90)}, ("review",), "minutes"),
        ({"code": lambda i: 10**400 + i, "review": text, "minutes": score(90)}, ("review",), "minutes"),
    ],
)
def test_a_regression_predicts_a_number(fields, inputs, target):
    named = guess(rows(**fields), kind="regression")
    assert named.target == f"{{{{ {target} }}}}" and named.kind is None
    assert [name for name in fields if name in named.input] == list(inputs)


def test_rows_that_compare_two_answers_are_preferences():
    pairs = rows(prompt=text, chosen=lambda i: f"{i} indeed", rejected=lambda i: f"no {i}")
    found = guess(pairs)
    assert (found.input, found.target, found.rejected) == ("{{ prompt }}", "{{ chosen }}", "{{ rejected }}")
    rendered = [draft.template_of(found).render(row) for row in pairs]
    assert rendered[2].rejected == "no 2" and kind_of(rendered) == "preference"
    assert (
        draft.sections("rows.jsonl", Path("."), found, "preference")["template"]["rejected"] == found.rejected
    )
