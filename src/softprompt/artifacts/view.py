"""A tuned prompt as a notebook shows it: its scores beside the plain model's, and the curves of its training.

The curves are of the manifest (`training.history`: the dev score and the step's loss at every evaluation) and
of `metrics.jsonl` (the loss of every step), where that file is still beside the artifact and of the same run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SoftPromptError
from ..page import plots
from ..page.blocks import Table
from ..page.notebook import fragment
from ..page.numbers import MISSING, count, several, size, unit
from ..tracking import journal
from .artifact import Artifact
from .manifest import digest_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_NAMES = 8


def text(artifact: Artifact) -> str:
    """Return one line: method, base model, dev scores and folder."""
    scores = artifact.manifest["dev"]["metrics"]
    dev = ", ".join(f"dev {unit(name).label} {unit(name).value(value)}" for name, value in scores.items())
    return f"Tuned({', '.join(filter(None, [_headline(artifact), dev, str(artifact)]))})"


def html(artifact: Artifact) -> str:
    """Return what was trained, and a table of the dev scores beside those of the plain model."""
    manifest = artifact.manifest
    dev, plain = manifest["dev"], manifest.get("plain") or {}
    rows = [[unit(name).label, _cell(dev, name), _cell(plain, name)] for name in dev["metrics"]]
    tables = []
    if rows:
        caption = f"{several(dev.get('n', 0), 'dev row')}, with 95 % intervals"
        tables.append(Table(caption, ["metric", "tuned", "plain model"], rows, (1, 2)))
    return fragment(_headline(artifact), [" · ".join(_facts(artifact))], tables)


def _headline(artifact: Artifact) -> str:
    return f"{artifact.manifest['method']} on {artifact.manifest['base']['name']}"


def _facts(artifact: Artifact) -> list[str]:
    manifest, names = artifact.manifest, artifact.prompts
    training = manifest.get("training") or {}
    facts = []
    if len(names) > 1:
        listed = f": {', '.join(names)}" if len(names) <= FEW_NAMES else ""
        facts.append(f"{count(len(names))} prompts{listed}")
    if manifest.get("trained_parameters") is not None:
        facts.append(f"{count(manifest['trained_parameters'])} trained parameters")
    facts.append(size(artifact.bytes))
    if training.get("best_step") is not None and training.get("steps") is not None:
        facts.append(f"best at step {count(training['best_step'])} of {count(training['steps'])}")
    return [*facts, str(artifact)]


def _cell(scores: Mapping[str, Any], name: str) -> str:
    """Write a metric with its interval."""
    value = (scores.get("metrics") or {}).get(name)
    if value is None:
        return MISSING
    low, high = (scores.get("intervals") or {}).get(name, (None, None))
    return unit(name).value(value) + unit(name).interval(low, high)


def plot_training(artifact: Artifact) -> list[Axes]:
    """Draw the loss of the steps, and below it the dev score with the best step and the plain model.

    Raises SoftPromptError where the artifact holds no training.
    """
    training = artifact.manifest.get("training") or {}
    history = training.get("history") or []
    names = [key for key in (history[0] if history else {}) if key not in ("step", "loss")]
    if not names:
        raise _no_history(artifact)
    u = unit(names[0])
    loss, score = plots.panels(2.2, 2.6, share_x=True)
    steps = _losses(artifact) or [(entry["step"], entry["loss"]) for entry in history]
    loss.plot(*zip(*steps, strict=True), color="C0", lw=1)
    loss.set_ylabel("training loss")
    loss.set_title(_headline(artifact), parse_math=False)
    score.plot(
        [entry["step"] for entry in history],
        [u.scale * entry[u.name] for entry in history],
        color="C1",
        marker="o",
        ms=4,
        label="tuned",
    )
    for entry in history:
        if entry["step"] == training.get("best_step"):
            label = f"best, step {entry['step']}"
            score.plot(entry["step"], u.scale * entry[u.name], "*", color="C1", ms=13, label=label)
    plain = ((artifact.manifest.get("plain") or {}).get("metrics") or {}).get(u.name)
    if plain is not None:
        score.axhline(u.scale * plain, color=plots.GREY, ls="--", label="plain model")
    score.set_ylabel(f"{u.axis}, dev rows")
    score.set_xlabel("step")
    plots.legend(score)
    for axes in (loss, score):
        axes.grid(alpha=0.3)
    return [loss, score]


def _losses(artifact: Artifact) -> list[tuple[int, float]]:
    """Return (step, loss) of every step; empty where the journal is missing, or of another run."""
    lines = journal.read(artifact.path / journal.FILE)
    digests = [line.get("digest") for line in lines if line.get("kind") == "result"]
    if not digests or digests[-1] != digest_of(artifact.manifest):
        return []
    steps = [line for line in lines if line.get("kind") == "step"]
    return [(s["step"], s["loss"]) for s in steps if s.get("loss") is not None and "step" in s]


def _no_history(artifact: Artifact) -> SoftPromptError:
    training = artifact.manifest.get("training") or {}
    why = (
        "it has no training.history: it was composed, imported or converted, or trained by a loop of your own"
    )
    if "history" in training:
        why = "its run ended before the dev rows were scored"
    return SoftPromptError(
        f"{artifact} holds no training to plot",
        why=why,
        fix="plot a prompt that softprompt.tune or `softprompt tune` trained",
    )
