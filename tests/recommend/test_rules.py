"""Every rule fires on a case made for it, not on its opposite, and says where it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from softprompt.recommend import CANDIDATES, RULES, Needs, Requirements, rank
from softprompt.recommend.rules.registry import COST, QUALITY, as_markdown

DOCS = Path(__file__).parents[2] / "docs"
LABELS = {"kind": "classification", "labels": ("a", "b"), "majority": 0.5}
TEXT = {"kind": "generation", "labels": (), "majority": None}


def needs(**changes: Any) -> Needs:
    """500 rows of two labels, short inputs, one prompt, SmolLM2, no requirements."""
    required = Requirements(**changes.pop("required", {}))
    facts: dict[str, Any] = {
        "rows": 500,
        "prompts": 1,
        **LABELS,
        "input_tokens": 20,
        "longest": 60,
        "target_tokens": 1,
    }
    return Needs(required, **(facts | changes))


#: Rule: (a contestant that it is about, where it fires, where it does not).
CASES: dict[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "no prefix on this model": ("prefix-tuning/after", {"limits": {"prefix": "no gradient"}}, {}),
    "the base may not change": ("lora", {"required": {"frozen": True}}, {}),
    "prompts share a batch": ("lora", {"required": {"one_batch": True}}, {}),
    "demonstrations cannot be shown": ("few-shot", {"model_kind": "encoder"}, {"model_kind": "decoder"}),
    "too few rows": ("prompt-tuning/after", {"rows": 7}, {"rows": 8}),
    "nothing to share": ("multitask-prompt-tuning/after", {}, {"prompts": 2}),
    "does not fit the context": ("few-shot", {"longest": 500}, {"longest": 300}),
    "does not fit the memory": (
        "prefix-tuning/after",
        {"required": {"memory": 300_000_000, "tasks": 200}},
        {"required": {"memory": 300_000_000, "tasks": 2}},
    ),
    "too slow to the first token": (
        "few-shot",
        {"required": {"latency": 0.05}, "input_seconds": 0.03},
        {"required": {"latency": 0.05}, "input_seconds": 0.003},
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
    "unseen inputs, writing": (
        "lora",
        {**TEXT, "required": {"unseen": True}},
        {"required": {"unseen": True}},
    ),
    "unseen inputs, labels": (
        "prompt-tuning/before",
        {"required": {"unseen": True}},
        {**TEXT, "required": {"unseen": True}},
    ),
    "many prompts to keep, small": (
        "prompt-tuning/after",
        {"required": {"tasks": 50}},
        {"required": {"tasks": 49}},
    ),
    "many prompts to keep, large": ("lora", {"required": {"tasks": 50}}, {"required": {"tasks": 49}}),
    "many prompts share": (
        "multitask-prompt-tuning/after",
        {"required": {"tasks": 50}, "prompts": 2},
        {"required": {"tasks": 50}, "prompts": 1},
    ),
    "prompts with few rows of their own share": (
        "multitask-prompt-tuning/after",
        {"prompts": 10},
        {"prompts": 2},
    ),
    "a prefix adds no positions": ("prefix-tuning/after", {"required": {"latency": 1.0}}, {}),
    "the plain model is too slow": (
        "zero-shot",
        {"required": {"latency": 0.05}, "input_seconds": 0.06},
        {"required": {"latency": 0.05}, "input_seconds": 0.04},
    ),
    "shown rows are read every time": ("few-shot", {"required": {"latency": 1.0}}, {}),
    "LoRA writes best": ("lora", TEXT, LABELS),
    "LoRA on labels": ("lora", LABELS, TEXT),
    "words counted may do": ("prompt-tuning/after", LABELS, TEXT),
    "many labels, many candidates": (
        "prompt-tuning/after",
        {"labels": tuple("abcdefghijklmnopqrst")},
        {"labels": ("a", "b")},
    ),
    "a prompt leaks less": ("prompt-tuning/after", {"required": {"tasks": 2}}, {}),
}
ALWAYS = {"much to train for as much": "p-tuning/after"}


def test_every_rule_has_a_case():
    assert set(CASES) | set(ALWAYS) == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_fires_on_its_case_and_not_on_the_opposite(name):
    contestant, case, opposite = CASES[name]
    assert RULES[name].holds(contestant, needs(**case))
    assert not RULES[name].holds(contestant, needs(**opposite))
    others = set(CANDIDATES) - set(RULES[name].about)
    assert not any(RULES[name].holds(other, needs(**case)) for other in others)


@pytest.mark.parametrize("name", ALWAYS)
def test_a_rule_that_always_holds_is_about_its_own_alone(name):
    assert RULES[name].holds(ALWAYS[name], needs()) and not RULES[name].holds("lora", needs())


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_a_rule_has_evidence(rule):
    proof = rule.evidence
    assert proof.source and proof.figures and rule.says and rule.condition
    assert set(rule.about) <= set(CANDIDATES) and rule.about
    assert [rule.excludes, bool(rule.over), bool(rule.under)].count(True) <= 1
    assert not set(rule.about) & {*rule.over, *rule.under} and {*rule.over, *rule.under} <= set(CANDIDATES)
    if rule in QUALITY and rule.preferences and proof.source != "by construction":
        assert proof.sets > 0
    measured = proof.source != "by construction" and (rule.preferences or "docs/" in proof.source)
    assert proof.limits or not measured  # what others or we measured never shows everything
    if "docs/" in proof.source:  # our own: the page is there, and the command measures it again
        page = DOCS / proof.source.split("docs/")[1].split(",")[0].split(";")[0]
        assert page.exists() and proof.command


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES.values() if rule.evidence.command], ids=lambda r: r.name
)
def test_the_command_of_our_own_evidence_is_in_the_page(rule):
    assert rule.evidence.command.split(" --")[0] in page_of(rule)


def page_of(rule) -> str:
    """The first page of ours that its evidence names; what `make demo` shows is in results.md."""
    name = rule.evidence.source.split("docs/")[1].split(",")[0].split(";")[0]
    return (DOCS / name).read_text(encoding="utf-8")


OTHERS = ("E2E", "GSM8K", "IDP", "WebNLG: BLEU")  # whose figures come after ours, under their name


def test_our_own_figures_are_in_the_page():
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
    ranking = rank(needs(limits={"prefix": "its attention has no hook"}, required={"frozen": True}))
    out = {item.candidate.name: item.reason for item in ranking.excluded}
    assert "its attention has no hook" in out["prefix-tuning/after"] and "weights" in out["lora"]
    ranked = {item.candidate.name for item in ranking.ranked}
    assert ranked | set(out) == set(CANDIDATES) and not ranked & set(out)


@pytest.mark.parametrize(
    "case",
    [{}, TEXT, {"rows": 24}, {**TEXT, "rows": 24}, {"prompts": 3}, {**TEXT, "required": {"unseen": True}}],
)
def test_the_order_keeps_every_preference_on_quality(case):
    """These needs make no two of the rules contradict each other, so that none may be dropped."""
    ranking = rank(needs(**case))
    order = [item.candidate.name for item in ranking.ranked]
    pairs = [pair for rule in QUALITY if rule in ranking.rules for pair in rule.preferences]
    kept = [(better, worse) for better, worse in pairs if better in order and worse in order]
    assert kept and all(order.index(better) < order.index(worse) for better, worse in kept)


def test_what_was_measured_on_answers_says_nothing_about_embeddings():
    """No figure of labels or of texts that are written separates methods for vectors of texts."""
    for rows in (24, 150, 500):
        ranking = rank(needs(kind="embedding", labels=(), majority=None, rows=rows))
        quality = [rule for rule in ranking.rules if rule in QUALITY and rule.preferences]
        about = {name for rule in quality for name in rule.about if rule.evidence.source != "by construction"}
        assert about <= {"p-tuning/after"}
        assert "few-shot" in {item.candidate.name for item in ranking.excluded}


def test_cost_decides_only_where_quality_does_not():
    """With 200 prompts LoRA is the dearest to keep, and still the first of the writers."""
    ranking = rank(needs(**TEXT, required={"tasks": 200}))
    assert ranking.ranked[0].candidate.name == "lora" and ranking.ranked[0].place == 1
    assert "many prompts to keep, large" in {rule.name for rule in ranking.ranked[0].reasons_against}
    labels = [item.candidate.name for item in rank(needs(required={"tasks": 200})).ranked]
    assert labels.index("prompt-tuning/before") < labels.index("lora")


def test_a_preference_that_contradicts_better_evidence_is_dropped():
    """The prompts are preferred for their size, and so not the prefixes for their positions."""
    both = {"tasks": 50, "latency": 1.0}
    assert {"many prompts to keep, small", "a prefix adds no positions"} <= {
        rule.name for rule in rank(needs(required=both)).rules
    }
    order = [item.candidate.name for item in rank(needs(required=both)).ranked]
    assert order.index("prompt-tuning/after") < order.index("prefix-tuning/after")
    order = [item.candidate.name for item in rank(needs(required={"latency": 1.0})).ranked]
    assert order.index("prefix-tuning/after") < order.index("generated-prompt/after")


def test_methods_that_nothing_separates_share_a_place():
    places = {item.candidate.name: item.place for item in rank(needs()).ranked}
    assert places["generated-prefix/after"] == places["generated-prompt/after"]
    assert places["prompt-tuning/after"] == 1 < places["prefix-tuning/after"]
    assert sorted(places.values()) == list(places.values())


def test_rules_are_taken_by_the_number_of_data_sets():
    sets = [rule.evidence.sets for rule in QUALITY]
    assert sets == sorted(sets, reverse=True) and len(set(sets)) > 3 and not set(QUALITY) & set(COST)


def test_answers_that_the_evidence_asks_for():
    """Labels: something trained that keeps its inputs. Writing: a prefix or LoRA, before any prompt."""
    first = rank(needs()).ranked[0].candidate
    assert first.is_trained and first.placement == "after"
    order = [item.candidate.name for item in rank(needs(**TEXT)).ranked]
    assert order.index("lora") < order.index("prompt-tuning/after")
    assert order.index("prefix-tuning/after") < order.index("prompt-tuning/after")
    assert not any(item.candidate.is_trained for item in rank(needs(rows=4)).ranked)
