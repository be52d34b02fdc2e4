"""What is measured on rows and models."""

from __future__ import annotations

import pytest

from softprompt.data.sources import read_rows
from softprompt.data.template import Template
from softprompt.methods import build
from softprompt.methods.materialised import materialise
from softprompt.recommend import CANDIDATES, Requirements, estimates, measure, rank
from softprompt.recommend.requirements import kind_of

PLAIN = Template("{{ input }}", "{{ target }}")


def test_labels_answers_and_choices_are_told_apart(rows_file):
    for name, kind, template in (
        ("labels", "classification", PLAIN),
        ("answers", "generation", PLAIN),
        ("choices", "choice", Template("{{ input }}", "{{ target }}", choices_field="options")),
    ):
        rendered = [template.render(row) for row in read_rows(rows_file(name))]
        assert kind_of(rendered) == kind


def test_what_is_measured(rows_file, llama):
    rows = read_rows(rows_file("labels"))
    needs = measure(rows, PLAIN, llama, Requirements(latency=1.0))
    assert (needs.rows, needs.prompts, needs.kind, set(needs.labels)) == (
        24,
        1,
        "classification",
        {"good", "bad"},
    )
    assert (
        needs.majority == 0.5 and needs.input_tokens == 6 and needs.target_tokens == 3.5
    )  # a token a letter
    assert needs.longest == 6 + 4 and needs.context == llama.spec.context
    assert needs.weight_bytes == 4 * needs.weights == sum(p.numel() * 4 for p in llama.model.parameters())
    assert needs.input_seconds is not None and needs.input_seconds > 0
    assert measure(rows, PLAIN, llama, Requirements()).input_seconds is None  # nobody asked


def test_prompts_are_counted(rows_file, llama):
    template = Template("{{ input }}", "{{ target }}", prompt_field="style")
    needs = measure(read_rows(rows_file("answers")), template, llama, Requirements(tasks=5))
    assert needs.prompts == 2 and needs.tasks == 5 and needs.rows_a_prompt == 12


@pytest.mark.parametrize("name", [n for n, c in CANDIDATES.items() if c.placement])
def test_bytes_of_a_prompt_are_those_of_its_tensors(name, rows_file, llama, setting):
    """One more prompt in a table costs what `artifact_bytes` says (of a network, materialised)."""
    needs = measure(read_rows(rows_file("labels")), PLAIN, llama, Requirements())
    contestant = CANDIDATES[name]

    def numbers(*prompts: str) -> int:
        fresh = setting(llama, prompts=prompts, examples_by_prompt={})
        method = build(contestant.method, fresh, contestant.options)
        if contestant.method == "p-tuning":
            return sum(
                getattr(injection, channel).vectors.numel()
                for injection in materialise(method).prompts
                for channel in injection.channels()
            )
        return sum(p.numel() for p in method.parameters())

    assert estimates.artifact_bytes(contestant, needs) == 4 * (numbers("a", "b") - numbers("a"))


def test_a_model_without_prefixes_is_given_none(rows_file, llama):
    from dataclasses import replace

    needs = replace(
        measure(read_rows(rows_file("labels")), PLAIN, llama, Requirements()), limits={"prefix": "none"}
    )
    assert not any(item.candidate.depth == "kv" for item in rank(needs).ranked)
