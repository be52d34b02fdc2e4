"""Every rule fires on a case made for it, not on its opposite, and says where it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from softprompt.recommend import CONTESTANTS, RULES, Needs, Said, rank
from softprompt.recommend.rules.registry import as_markdown

DOCS = Path(__file__).parents[2] / "docs"
LABELS = {"kind": "classification", "labels": ("a", "b"), "majority": 0.5}
TEXT = {"kind": "generation", "labels": (), "majority": None}


def needs(**changes: Any) -> Needs:
    """500 rows of two labels, short inputs, one prompt, SmolLM2; nothing said."""
    said = Said(**changes.pop("said", {}))
    facts: dict[str, Any] = {
        "rows": 500,
        "prompts": 1,
        **LABELS,
        "input_tokens": 20,
        "longest": 60,
        "target_tokens": 1,
    }
    return Needs(said, **(facts | changes))


#: Rule: (a contestant that it is about, where it fires, where it does not).
CASES: dict[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "no prefix on this model": ("prefix-tuning/after", {"limits": {"prefix": "no gradient"}}, {}),
    "the base may not change": ("lora", {"said": {"frozen": True}}, {}),
    "prompts share a batch": ("lora", {"said": {"one_batch": True}}, {}),
    "demonstrations cannot be shown": ("few-shot", {"model_kind": "encoder"}, {"model_kind": "decoder"}),
    "too few rows": ("prompt-tuning/after", {"rows": 7}, {"rows": 8}),
    "nothing to share": ("multitask-prompt-tuning/after", {}, {"prompts": 2}),
    "does not fit the context": ("few-shot", {"longest": 500}, {"longest": 300}),
    "does not fit the memory": (
        "prefix-tuning/after",
        {"said": {"memory": 300_000_000, "tasks": 200}},
        {"said": {"memory": 300_000_000, "tasks": 2}},
    ),
    "too slow to the first token": (
        "few-shot",
        {"said": {"latency": 0.05}, "input_seconds": 0.03},
        {"said": {"latency": 0.05}, "input_seconds": 0.003},
    ),
    "training beats telling": ("zero-shot", {"rows": 200}, {"rows": 199}),
    "few rows, shown instead": ("few-shot", {"rows": 63}, {"rows": 64}),
    "few rows, started from them": ("prefix-tuning/after", {"rows": 63}, {"rows": 64}),
    "shown rows help or hurt a small classifier": ("few-shot", LABELS, TEXT),
    "shown rows help a writer": ("few-shot", TEXT, LABELS),
    "no prompt beats a prefix on labels": ("prompt-tuning/after", LABELS, TEXT),
    "a prefix writes better": ("prefix-tuning/after", TEXT, LABELS),
    "ahead of the input writes a little better": ("prefix-tuning/before", TEXT, LABELS),
    "made from the input, for writing": ("generated-prefix/after", TEXT, {**TEXT, "rows": 100}),
    "a generator wants rows and steps": ("generated-prompt/after", {"rows": 100}, {"rows": 200}),
    "behind the input trains faster": ("prompt-tuning/after", {}, {"limits": {"cache": "recurrent"}}),
    "long inputs are computed once": ("prefix-tuning/after", {"input_tokens": 200}, {"input_tokens": 20}),
    "everything runs in every step": ("lora", {"input_tokens": 200}, {"input_tokens": 20}),
    "unseen inputs, writing": ("lora", {**TEXT, "said": {"unseen": True}}, {"said": {"unseen": True}}),
    "unseen inputs, labels": (
        "prompt-tuning/before",
        {"said": {"unseen": True}},
        {**TEXT, "said": {"unseen": True}},
    ),
    "many prompts to keep, small": ("prompt-tuning/after", {"said": {"tasks": 50}}, {"said": {"tasks": 49}}),
    "many prompts to keep, large": ("lora", {"said": {"tasks": 50}}, {"said": {"tasks": 49}}),
    "many prompts share": (
        "multitask-prompt-tuning/after",
        {"said": {"tasks": 50}, "prompts": 2},
        {"said": {"tasks": 50}, "prompts": 1},
    ),
    "prompts with few rows of their own share": (
        "multitask-prompt-tuning/after",
        {"prompts": 10},
        {"prompts": 2},
    ),
    "a prefix adds no positions": ("prefix-tuning/after", {"said": {"latency": 1.0}}, {}),
    "the plain model is too slow": (
        "zero-shot",
        {"said": {"latency": 0.05}, "input_seconds": 0.06},
        {"said": {"latency": 0.05}, "input_seconds": 0.04},
    ),
    "shown rows are read every time": ("few-shot", {"said": {"latency": 1.0}}, {}),
    "LoRA writes best": ("lora", TEXT, LABELS),
    "LoRA on labels": ("lora", LABELS, TEXT),
    "words counted may do": ("prompt-tuning/after", LABELS, TEXT),
    "many labels, many candidates": (
        "prompt-tuning/after",
        {"labels": tuple("abcdefghijklmnopqrst")},
        {"labels": ("a", "b")},
    ),
    "a prompt leaks less": ("prompt-tuning/after", {"said": {"tasks": 2}}, {}),
}
ALWAYS = {"much to train for as much": "p-tuning/after"}


def test_every_rule_has_a_case():
    assert set(CASES) | set(ALWAYS) == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_fires_on_its_case_and_not_on_the_opposite(name):
    contestant, case, opposite = CASES[name]
    assert RULES[name].holds(contestant, needs(**case))
    assert not RULES[name].holds(contestant, needs(**opposite))
    others = set(CONTESTANTS) - set(RULES[name].about)
    assert not any(RULES[name].holds(other, needs(**case)) for other in others)


@pytest.mark.parametrize("name", ALWAYS)
def test_a_rule_that_always_holds_is_about_its_own_alone(name):
    assert RULES[name].holds(ALWAYS[name], needs()) and not RULES[name].holds("lora", needs())


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_a_rule_has_evidence(rule):
    proof = rule.evidence
    assert proof.source and proof.figures and rule.says and rule.condition
    assert set(rule.about) <= set(CONTESTANTS) and rule.about
    assert not (rule.excludes and rule.points)
    measured = proof.source != "by construction" and (rule.points or "docs/" in proof.source)
    assert proof.limits or not measured  # what others or we measured never shows everything
    if "docs/" in proof.source:  # our own: the page is there, and the command measures it again
        page = DOCS / proof.source.split("docs/")[1].split(",")[0].split(";")[0]
        assert page.exists() and proof.command


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES.values() if rule.evidence.command], ids=lambda r: r.name
)
def test_the_command_of_our_own_evidence_stands_in_the_page(rule):
    assert rule.evidence.command.split(" --")[0] in page_of(rule)


def page_of(rule) -> str:
    """The first page of ours that its evidence names; what `make demo` shows stands in results.md."""
    name = rule.evidence.source.split("docs/")[1].split(",")[0].split(";")[0]
    return (DOCS / name).read_text(encoding="utf-8")


OTHERS = ("E2E", "GSM8K", "IDP", "WebNLG: BLEU")  # whose figures are told after ours, under their name


def test_our_own_figures_stand_in_the_page():
    """Scores and bytes that rules quote of our own measurements are those of the pages that they name."""
    checked = 0
    for rule in (rule for rule in RULES.values() if "docs/" in rule.evidence.source):
        names = [name.split(",")[0].split(";")[0] for name in rule.evidence.source.split("docs/")[1:]]
        text = "\n".join((DOCS / name).read_text(encoding="utf-8") for name in names)
        own = [part for part in rule.evidence.figures.split("; ") if not part.startswith(OTHERS)]
        for figure in re.findall(r"\d+\.\d+(?: ± \d+\.\d+)?|[\d,]+ kB", "; ".join(own)):
            whole = rf"(?<![\d.,]){re.escape(figure)}(?!\d)"  # no part of a longer number
            assert re.search(whole, text), f"{rule.name}: {figure} is not in {names}"
            checked += 1
    assert checked > 50


def test_the_page_holds_the_table():
    page = (DOCS / "choose.md").read_text(encoding="utf-8")
    assert as_markdown() in page, (
        "docs/choose.md: put the table of softprompt.recommend.rules.registry.as_markdown() there"
    )


def test_what_is_out_says_why_and_is_not_ranked():
    ranking = rank(needs(limits={"prefix": "its attention has no hook"}, said={"frozen": True}))
    out = {item.contestant.name: item.reason for item in ranking.excluded}
    assert "its attention has no hook" in out["prefix-tuning/after"] and "weights" in out["lora"]
    ranked = {item.contestant.name for item in ranking.ranked}
    assert ranked | set(out) == set(CONTESTANTS) and not ranked & set(out)


def test_scores_add_up_and_order_holds():
    ranking = rank(needs(said={"unseen": True, "tasks": 200}))
    scores = [item.score for item in ranking.ranked]
    assert scores == sorted(scores, reverse=True)
    for item in ranking.ranked:
        assert item.score == sum(rule.points for rule in item.reasons_for + item.reasons_against)


def test_answers_that_the_evidence_asks_for():
    """Labels: something trained that keeps its inputs. Writing: a prefix or LoRA, before any prompt."""
    first = rank(needs()).ranked[0].contestant
    assert first.is_trained and first.placement == "after"
    order = [item.contestant.name for item in rank(needs(**TEXT)).ranked]
    assert order.index("lora") < order.index("prompt-tuning/after")
    assert order.index("prefix-tuning/after") < order.index("prompt-tuning/after")
    assert not any(item.contestant.is_trained for item in rank(needs(rows=4)).ranked)
