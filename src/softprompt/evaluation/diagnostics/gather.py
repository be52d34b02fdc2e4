"""A `Run` out of an artifact: its manifest, and its rows where they are still what they were."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import pairwise

from ...artifacts.artifact import Artifact
from ...build import encoder_of, read_split, template_of
from ...config.load import recipe_from_dict
from ...data.sources import fingerprint
from ...errors import SoftPromptError
from ...lm.base import LanguageModel
from .baselines import tfidf_baseline
from .run import Run


def run_of(artifact: Artifact, lm: LanguageModel) -> Run:
    """What the folder says, and its training and dev rows as encoded, if they are there and unchanged."""
    recipe_file, given = _said(artifact.manifest.get("command", ""))
    run = Run(artifact.manifest, recipe=recipe_file, given=given)
    if "recipe" not in artifact.manifest or "sources" in artifact.manifest:
        return run
    recipe = recipe_from_dict(artifact.manifest["recipe"])
    try:
        train, held = read_split(recipe)
        if fingerprint([*train, *held]) != artifact.manifest["data"]["fingerprint"]:
            return run
        encoder = encoder_of(
            recipe, lm, template_of(recipe, lm), artifact.prompts, artifact.manifest["labels"]
        )
        return replace(run, train=encoder.encode_rows(train), dev=encoder.encode_rows(held))
    except SoftPromptError:
        return run  # rows that moved are no finding; inspection says so


def with_tfidf(run: Run) -> Run:
    """The run beside TF-IDF on its dev rows, where it is a classification with accuracy in its manifest.

    Per-row scores are not in a manifest, so that its accuracy stands for all rows alike.
    """
    accuracy = run.manifest.get("dev", {}).get("metrics", {}).get("accuracy")
    if run.setting("task", "kind") != "classification" or accuracy is None or not run.train or not run.dev:
        return run
    baseline = tfidf_baseline(run.train, run.dev)
    return replace(
        run,
        scores=[accuracy] * len(run.dev),
        baselines={**run.baselines, "TF-IDF with logistic regression": baseline.scores},
    )


def _said(command: str) -> tuple[str, list[str]]:
    """What `softprompt tune` or `search` was given: the recipe's file, and KEY=VALUE beside it.

    The file is "RECIPE" where it was trained otherwise.
    """
    words = shlex.split(command)
    if not {"tune", "search"} & set(words):
        return "RECIPE", []
    named = [word for word in words if word.endswith((".yaml", ".yml")) and "=" not in word]
    given = [
        word
        for before, word in pairwise(words)
        if "=" in word and not word.startswith("-") and before != "--over"
    ]
    return (shlex.quote(named[0]), given) if named else ("RECIPE", [])
