"""A `Run` is read from an artifact: its manifest, and its rows where they have not changed."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import pairwise

from ...artifacts.artifact import Artifact
from ...build import encoder_of, template_of
from ...config.load import recipe_from_dict
from ...data.recipe_rows import read_split
from ...data.sources import fingerprint
from ...errors import SoftPromptError
from ...lm.base import LanguageModel
from .baselines import tfidf_baseline
from .run import Run


def run_of(artifact: Artifact, lm: LanguageModel) -> Run:
    """Return the artifact's run, with its training and dev rows as encoded where they exist and are
    unchanged.
    """
    recipe_file, given = _arguments(artifact.manifest.get("command", ""))
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
        return run  # missing rows are no finding; the inspection reports them


def with_tfidf(run: Run) -> Run:
    """Return the run with the TF-IDF baseline on its dev rows, if it is a classification with an accuracy.

    A manifest has no scores of single rows, so its accuracy is used for all rows alike.
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


def _arguments(command: str) -> tuple[str, list[str]]:
    """Return the recipe's file and the KEY=VALUE arguments of a `softprompt tune` or `search` command.

    The file is "RECIPE" where the artifact was made in another way.
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
