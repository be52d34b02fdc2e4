"""Each set has a template, a task, and rows for training, selection and measurement.

All but the long sets have the same small sizes: a trial should take one core about a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softprompt.compare.candidates import DEFAULT

from . import rows
from .rows import Parts

#: Four learning rates for each, about where so few steps were best in first trials on the dev rows of sst2.
RATES: dict[str, dict[str, Any]] = {
    "generated-prefix/after": {"rates": [3e-4, 1e-3, 3e-3, 1e-2]},
    "p-tuning/after": {"rates": [1e-3, 3e-3, 1e-2, 3e-2]},
}
BUDGET: dict[str, Any] = {
    "train": {"steps": 60, "batch_size": 8, "eval_every": 30},
    "compare": {
        "methods": {name: RATES.get(name, {}) for name in DEFAULT},
        "rates": [3e-3, 1e-2, 3e-2, 1e-1],
        "base_rates": [3e-4, 1e-3, 3e-3, 1e-2],
        "seeds": 3,
    },
}
#: Long inputs, or long answers: fewer rows a step, fewer measured on, and inputs kept from trial to trial.
LONG: dict[str, Any] = {"train": {"batch_size": 4, "cache": "disk"}, "compare": {"test_limit": 150}}
#: The first set that was run, before the machine's time was shared out.
LARGE: dict[str, Any] = {"train": {"steps": 100, "batch_size": 16, "eval_every": 25}}
TEXT: dict[str, Any] = {"compare": {"text_rows": 24, "control_rows": 12}}


@dataclass(frozen=True)
class Set:
    """A comparison has rows, a recipe, and a licence under which its rows may be shown."""

    parts: Callable[[Path], Parts]  # from the folder of all data
    recipe: dict[str, Any]
    more: list[dict[str, Any]] = field(default_factory=list)  # overrides of the budget
    shown: str | None = None  # why its examples may be shown; None: they may not


def _classification(
    template: str, labels: list[str] | None, goal: float, unseen: str | None = None
) -> dict[str, Any]:
    """Return a recipe in which accuracy decides; a linear model of words is among the references."""
    return {
        "template": {"input": template},
        "task": {"kind": "classification", "labels": labels, "metrics": ["accuracy", "macro_f1"]},
        "compare": {
            "goal": goal,
            "constraint": {"labels": True},
            "methods": {name: RATES.get(name, {}) for name in (*DEFAULT, "tf-idf")},
            "unseen": unseen,
        },
    }


def _generation(template: str, metrics: list[str], words: int) -> dict[str, Any]:
    """Return a recipe in which the first reference's perplexity decides; some rows' texts are scored."""
    return {
        "template": {"input": template},
        "task": {
            "kind": "generation",
            "references": "references",
            "max_new_tokens": 64,
            "metrics": ["perplexity", *metrics],
        },
        "compare": {"constraint": {"max_words": words}},
    }


SETS: dict[str, Set] = {
    "sst2": Set(
        rows.sentiment,
        _classification("Review: {{ input }}\nSentiment:", ["negative", "positive"], 0.8),
        [LARGE],
    ),
    "bible_style": Set(
        rows.bible,
        _generation("Old: {{ input }}\nModern:", ["chrf", "bleu"], 80),
        [TEXT, LONG],
        shown="both texts are in the public domain",
    ),
    "clinc150": Set(
        rows.intents,
        _classification("Query: {{ input }}\nIntent:", None, 0.7),
        shown="CC BY 3.0, Larson et al. 2019",
    ),
    "mrpc": Set(
        lambda data: rows.paraphrase(data, "mrpc", "qqp"),
        _classification("{{ input }}\nDo they mean the same?", ["no", "yes"], 0.7),
        [LONG],
    ),
    "webnlg": Set(
        rows.triples,
        _generation("Facts: {{ input }}\nText:", ["chrf", "bleu"], 60),
        [TEXT, LONG],
    ),
    "rte": Set(
        rows.entailment,
        _classification("{{ input }}\nIs that true?", ["no", "yes"], 0.6, unseen="auto"),
        [LONG],
    ),
    "ag_news": Set(
        rows.news,
        _classification("News: {{ input }}\nTopic:", None, 0.8, unseen="auto"),
        [LONG],
    ),
    "qqp": Set(
        lambda data: rows.paraphrase(data, "qqp", "mrpc"),
        _classification("{{ input }}\nDo they mean the same?", ["no", "yes"], 0.7),
        [LONG],
    ),
    "natural_instructions": Set(
        rows.instructions,
        _generation("{{ instruction }}\n\nInput: {{ input }}\nOutput:", ["rouge_l", "exact_match"], 40),
        [TEXT, LONG],
    ),
}


def recipe(name: str, files: dict[str, Path], output: Path) -> dict[str, Any]:
    """Return the recipe of one comparison, as a user would write it."""
    chosen = SETS[name]
    plain = _over({"data": {}, "compare": {}, "output": str(output)}, BUDGET)
    for more in (*chosen.more, chosen.recipe):
        plain = _over(plain, more)
    plain["data"] |= {split: str(files[split].resolve()) for split in ("train", "dev", "test")}
    if "unseen" in files:
        plain["compare"]["unseen"] = {"file": str(files["unseen"].resolve())}
    return plain


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge two recipes by section; `above` wins."""
    merged = dict(below)
    for key, value in above.items():
        merged[key] = {**below[key], **value} if isinstance(below.get(key), dict) else value
    return merged
