"""Constraints and pairs of prompts, on prompts that force their answers and on answers written by hand."""

from __future__ import annotations

import pytest

from softprompt import methods
from softprompt.artifacts import arithmetic
from softprompt.compare.measures.adherence import adherence, composition
from softprompt.compare.measures.constraints import Constraint
from softprompt.compare.measures.outputs import closeness
from softprompt.data.collate import collate
from softprompt.errors import SoftPromptError
from softprompt.methods.materialised import materialise


@pytest.mark.slow
def test_adherence_is_the_share_of_answers_that_satisfy(forcing, evaluator, rows):
    judge = evaluator()
    examples = judge.encoder.encode_rows(rows)  # half of them are answered "yes", half "no"
    rule = Constraint.parse({"labels": ["yes"], "max_tokens": 2, "regex": "^[a-z]+$"})
    found = adherence(judge, forcing, examples, rule)
    assert found.satisfied.value == 0 and found.satisfied.n == 8
    assert {name: part.value for name, part in found.parts.items()} == {
        "labels": 0.5,
        "max_tokens": 0.5,  # "no" has two, "yes" three
        "regex": 1,
    }


def test_labels_are_written_not_chosen_in_a_classification(forcing, evaluator, rows):
    judge = evaluator("classification", ["no", "yes"])
    plain = methods.build("none", _setting(judge.lm))
    rule = Constraint.parse({"labels": True}, judge.encoder.labels)
    examples = judge.encoder.encode_rows(rows)
    assert adherence(judge, forcing, examples, rule).satisfied.value == 1
    assert adherence(judge, plain, examples, rule).satisfied.value < 1


def test_a_label_counts_whatever_would_follow_it(forcing, evaluator, rows):
    """No label is trained to end: text after it is no part of the answer."""
    judge = evaluator("classification", ["n", "ye"])  # each begins what the prompts force
    rule = Constraint.parse({"labels": True}, judge.encoder.labels)
    output = [{**row, "target": row["target"][:-1]} for row in rows]
    examples = judge.encoder.encode_rows(output)
    found = adherence(judge, forcing, examples, rule).satisfied
    assert found.value == 1 and found.n == 8


def _setting(lm):
    from softprompt.methods.base import Setting

    return Setting(lm, ("joke", "fact"))


def answers(judge, injection, examples) -> list[str]:
    batch = collate(examples, targets=False)
    out = judge.lm.generate(batch, injection, max_new_tokens=8, do_sample=False)
    return [judge.encoder.decode(row) for row in out.tolist()]


def test_composition_counts_answers_of_both_prompts_together(forcing, evaluator, rows):
    judge = evaluator()
    examples = judge.encoder.encode_rows(rows)[::2]
    said_yes, short = Constraint.parse({"regex": "yes"}), Constraint.parse({"max_words": 1})
    found = composition(judge, forcing, (0, 1), examples, (said_yes, short))
    first, second = materialise(forcing).prompts
    together = answers(judge, arithmetic.concatenate([first, second], judge.lm), examples)
    yes = ["yes" in text for text in together]
    one = [len(text.split()) <= 1 for text in together]
    assert found.each[0].value == sum(yes) / 4 and found.each[1].value == sum(one) / 4
    assert found.both.value == sum(a and b for a, b in zip(yes, one, strict=True)) / 4
    assert (found.alone[0].value, found.alone[1].value) == (1, 1)


def test_a_prompt_with_references_is_obeyed_where_they_come_nearer(forcing, evaluator, rows):
    judge = evaluator()
    examples = judge.encoder.encode_rows(rows)[::2]
    references = ([["yes"]] * 4, [["no"]] * 4)
    found = composition(judge, forcing, (0, 1), examples, references)
    first, second = materialise(forcing).prompts
    plain = answers(judge, None, examples)
    together = answers(judge, arithmetic.concatenate([first, second], judge.lm), examples)
    for each, (text,) in zip(found.each, (["yes"], ["no"]), strict=True):
        nearer = [closeness(a, [text]) > closeness(b, [text]) for a, b in zip(together, plain, strict=True)]
        assert each.value == sum(nearer) / 4
    assert found.alone[0].value == 1 and found.alone[1].value == 1


def test_generated_prompts_are_refused(llama, setting, evaluator, rows):
    judge = evaluator()
    method = methods.build("generated-prefix", setting(llama))
    rule = Constraint.parse({"max_words": 1})
    with pytest.raises(SoftPromptError, match="cannot be concatenated"):
        composition(judge, method, (0, 1), judge.encoder.encode_rows(rows), (rule, rule))
