"""The section that says how the comparison was run, so that it can be run again, and what the words mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....page.blocks import Block, Section, Table, Terms, Text
from ....page.numbers import seconds, size
from ..schema import Comparison

GLOSSARY = [
    (
        "95 % interval",
        "The range (low … high) that plausibly holds the true value, given how few rows were looked at. "
        "If the comparison were repeated with fresh rows many times, about 95 of 100 such ranges would "
        "hold the true value. More rows make it narrower.",
    ),
    (
        "Better",
        "A method is called better only where a test found the difference larger than chance explains. A "
        "higher number alone is not enough.",
    ),
    (
        "No difference was shown",
        "The test cannot tell the two apart with this many rows and seeds. They may still differ; the "
        "number of rows that could show it is an estimate.",
    ),
    (
        "Equal",
        "Two methods are called equal only where the whole interval of their difference is within the margin "
        "(compare.margin, 2 points by default). Then the cheaper one is named.",
    ),
    (
        "Likeliest best, expected loss",
        "Test rows and effects of seeds are drawn again many times. The likeliest best is the method that is "
        "best in most draws; the expected loss of a method is its mean distance to the best of each draw.",
    ),
    (
        "p, corrected",
        "How often chance alone would give a difference at least this large if there were none, raised "
        "because several pairs were tested at once. Below 0.05 counts as shown.",
    ),
    (
        "Points",
        "Differences of percentages: from 80 % to 82 % is 2 points.",
    ),
    (
        "Seed",
        "A run's random choices: start, order of rows. Several seeds show how much luck is in a score.",
    ),
    (
        "Dev, test and unseen rows",
        "Dev rows chose settings; test rows were looked at once, at the end; unseen rows are of a kind "
        "that training did not have.",
    ),
    (
        "Reference",
        "Something that needs no tuning, such as the plain model (zero-shot), the plain model with "
        "examples (few-shot) or a word-counting classifier (tf-idf). A method worth having beats these.",
    ),
    (
        "Prompt, prefix",
        "Learned vectors given to a frozen model: a prompt is put among the input's tokens, a prefix goes "
        "to every layer. /before and /after say on which side of the input.",
    ),
    (
        "Added tokens",
        "Places that the learned vectors take in each input; they cost time and memory in use.",
    ),
    (
        "Confidence, calibration",
        "The share of its belief that a model puts on its answer. Calibrated: right 80 of 100 times where "
        "it is 80 % sure.",
    ),
    (
        "Nats a token",
        "A unit of surprise at text; 0.01 is little, 0.7 is twice as surprised at each token.",
    ),
]


def section(comparison: Comparison) -> Section:
    study = comparison.study
    commands = [("compare", study.command)] if study.command else []
    commands.append(("this page", f"softprompt report {comparison.folder.resolve().name}"))
    blocks: list[Block] = [Terms(commands, code="block")]
    facts = [
        ("model", study.model),
        ("precision", f"{study.dtype} with int8 weights" if study.weights == "int8" else study.dtype),
        ("task", study.task),
        ("metric", study.metric),
    ]
    facts += [("seeds", ", ".join(map(str, study.seeds))), *_flat("budget", study.budget)]
    facts += [*_flat("rows", study.rows), *_flat("unseen", study.unseen or {})]
    facts += [("labels", ", ".join(map(str, study.labels or [])))]
    facts += [("prompts", ", ".join(map(str, study.prompts or [])))]
    facts += [*_flat("machine", study.machine), ("started", study.started or "")]
    facts += [("took", "" if study.seconds is None else seconds(study.seconds))]
    blocks.append(Terms([(name, value) for name, value in facts if value]))
    blocks.append(Terms([*_flat("version", study.versions), *_flat("hash", study.hashes)], code="inline"))
    contestants = [
        [
            item.name,
            item.method,
            _options(item.options),
            item.base,
            "reference" if item.is_reference else "method",
        ]
        for item in study.contestants
    ]
    blocks.append(Table("Contestants", ["name", "method", "options", "base", "kind"], contestants))
    return Section("provenance", "How it was run", blocks)


def glossary(comparison: Comparison) -> Section:
    words = [Text("What the words on this page mean.")]
    return Section("glossary", "Glossary", [*words, Terms(GLOSSARY)])


def _flat(prefix: str, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    result = []
    for key, value in facts.items():
        name = f"{prefix}: {key}".removeprefix(": ").replace("_", " ")
        if isinstance(value, Mapping):
            result += _flat(name, value)
        elif value is not None:
            result.append((name, size(value) if key.endswith("bytes") else _said(value)))
    return result


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _options(options: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in options.items()) or "–"
