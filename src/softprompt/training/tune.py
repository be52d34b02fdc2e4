"""Tune: train what `prepare` made, evaluate it beside the plain model, save it.

Display is the caller's: progress comes out as events, and is told to whoever follows. Nothing here prints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import methods
from .._system.memory import peak_memory
from .._system.notes import note
from .._system.progress import say
from .._system.provenance import provenance
from .._system.run_lock import held
from ..artifacts import artifact as artifacts
from ..artifacts.artifact import Artifact
from ..artifacts.manifest import BASE
from ..build import base_options
from ..cache import InputCache
from ..data.example import Example
from ..data.row_notes import remarks
from ..errors import SoftPromptError
from ..evaluation.evaluator import DevScore, Evaluation, Evaluator, dev_key, evaluator_of
from ..lm import finetune
from ..methods.base import Setting, SoftPrompt
from . import numerics
from .base_notes import base_notes
from .checkpoint import Checkpoints, together
from .decisive import optimization, options
from .learner import Learner
from .loop import Event, Outcome, fit_together, named_parameters
from .output_folder import make_room, of_this_run
from .prepare import Prepared, leading, open_caches, plan_of
from .reporting import few_dev_rows, following_steps
from .sampler import BatchSampler, row_lengths
from .step import StepPart, TrainStep

TEXT_ROWS = 50  # dev rows of a generation task that are answered in text


@dataclass(frozen=True)
class Run:
    """What `tune` gives back."""

    prepared: Prepared
    outcome: Outcome
    artifact: Artifact
    dev: Evaluation  # without records where the run had been finished before
    plain: Evaluation  # the plain model on the same dev rows; of no metric where it was not asked for
    resumed_from: int = 0  # the step that it went on from
    was_finished: bool = False  # before: nothing was trained now, and what it had come to is given back

    @property
    def key(self) -> tuple[float, ...]:
        """How good it is on the dev rows: higher is better."""
        return tuple(self.artifact.manifest["training"]["dev_key"])


@dataclass
class Hooks:
    """How a caller follows a run. Every hook may be left out."""

    on_stage: Callable[[str], None] = lambda text: None
    on_cache: Callable[[int, int], None] = lambda done, total: None
    on_event: Callable[[Event], None] = lambda event: None
    should_stop: Callable[[], bool] = lambda: False
    is_pruned: Callable[[int], bool] = lambda learner: False  # ends one that lies behind the others


class Interrupted(Exception):
    """Training was stopped from outside; its state is saved."""

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(f"stopped at step {step}")
        self.step, self.folder = step, folder


def tune(
    prepared: Prepared,
    *,
    hooks: Hooks | None = None,
    restart: bool = False,
    overwrite: bool = False,
    text_rows: int = TEXT_ROWS,
) -> Run:
    """Train, keep the best on the dev rows, evaluate beside the plain model, save.

    Goes on from the output folder's checkpoint where there is one, and gives back what is there where this
    very run was finished before. Of a generation task's dev rows at
    most `text_rows` are answered in text (all count in perplexity). Raises Interrupted (state saved)
    and SoftPromptError (a loss that is not finite: the last good state is saved first).
    """
    run = tune_many([prepared], hooks=hooks, restart=restart, overwrite=overwrite, text_rows=text_rows)[0]
    if run.outcome.stopped == "nan":
        lr, folder = optimization(prepared.recipe).lr, prepared.recipe.output
        raise SoftPromptError(
            f"the loss was not finite at step {run.outcome.step + 1} (lr={lr:g})",
            why=f"the step before was too long; the best state (step {run.outcome.best_step}) is in {folder}",
            fix=f"train.lr={lr / 3:.1e} --overwrite",
        )
    return run


def tune_many(
    runs: Sequence[Prepared],
    *,
    hooks: Hooks | None = None,
    restart: bool = False,
    overwrite: bool = False,
    text_rows: int = TEXT_ROWS,
    plain: bool = True,
) -> list[Run]:
    """`tune` of several prompts over one base model, side by side (see `training.prepare`).

    Each has its own optimizer, schedule, early end, checkpoint and artifact, and comes out as it would alone.
    Those that were finished before are taken as they are.
    One whose loss is not finite ends by itself (its outcome says "nan"). Without `plain` the plain model is
    not evaluated. Raises Interrupted (all are saved).
    """
    hooks, folders = hooks or Hooks(), [Path(run.recipe.output) for run in runs]
    with held(folders):
        found = [None if overwrite else finished(run) for run in runs]
        for folder, run in zip(folders, found, strict=True):
            if run is None:
                make_room(folder, restart=restart, overwrite=overwrite)
        if missing := [i for i, run in enumerate(found) if run is None]:
            trained = _train(runs, missing, hooks, text_rows, plain)
            found = [trained.get(i, run) for i, run in enumerate(found)]
    return [run for run in found if run is not None]


def _train(
    runs: Sequence[Prepared], missing: Sequence[int], hooks: Hooks, text_rows: int, plain: bool
) -> dict[int, Run]:
    """Train and save those of the runs (by number) that are not finished yet."""
    for text in base_notes(runs[0]):
        note(text)
    started = time.perf_counter()
    said = [remarks(run.encoder, [*run.train, *run.dev]) for run in runs]
    for text in dict.fromkeys(remark.text for found in said for remark in found):
        note(text)
    for rows in sorted({len(run.dev) for run in runs}):
        if few := few_dev_rows(rows):
            say(few)
    _stage(hooks, "plain model on the dev rows" if plain else "the inputs")
    # finished ones too: rows are computed beside the same others as if none was finished
    runs, cache, dev_caches = _open_caches(runs, hooks)
    evaluators = [evaluator_of(run.recipe, run.lm, run.encoder) for run in runs]
    befores = {i: Evaluation({}) for i in missing}
    if plain:  # now and not after training: a base that is trained too is still the plain model
        befores = _plain_evaluations(runs, missing, evaluators, dev_caches, text_rows)
    scorers = [_Scorer(*each) for each in zip(evaluators, runs, dev_caches, strict=True)]
    starts = [_copy(run.method) for run in runs]  # before a checkpoint is read: what `prepare` built
    learners = _learners(runs, missing, scorers, hooks)
    done = max(learner.resumed_from for learner in learners)
    _note_ways(runs, [learners[i] for i in missing])
    for i in missing:
        learners[i].state.other_seconds += (time.perf_counter() - started) / len(missing)
    _stage(hooks, f"training, going on from step {done}" if done else "training")
    steps = TrainStep(runs[0].lm, [StepPart.of(run) for run in runs], cache)
    with following_steps([Path(run.recipe.output).name for run in runs]) as follow:

        def on_event(event: Event) -> None:
            follow(event)
            hooks.on_event(event)

        outcomes = fit_together(
            learners,
            steps.backward,
            groups=steps.groups,
            on_event=on_event,
            should_stop=hooks.should_stop,
            is_pruned=hooks.is_pruned,
            evaluation_seconds=max(before.scoring_seconds for before in befores.values()),
        )
    if any(outcome.stopped == "interrupted" for outcome in outcomes):
        raise Interrupted(max(outcome.step for outcome in outcomes), Path(runs[0].recipe.output))
    _stage(hooks, "evaluating the best on the dev rows")
    trained = {}
    for i in missing:
        started = time.perf_counter()
        run, learner = runs[i], learners[i]
        dev = scorers[i].of_best(learner.state.best, text_rows)
        about = manifest(run, outcomes[i], dev, befores[i], time.perf_counter() - started)
        about["training"]["moved"] = moved(run.method, starts[i])
        about["data"]["remarks"] = [asdict(remark) for remark in said[i]]
        saved = artifacts.save(Path(run.recipe.output), run.method, run.lm, about)
        trained[i] = Run(run, outcomes[i], saved, dev, befores[i], learner.resumed_from)
    return trained


def _learners(
    runs: Sequence[Prepared], missing: Sequence[int], scorers: Sequence[_Scorer], hooks: Hooks
) -> list[Learner]:
    """One a run, where it was stopped; that of a finished one has ended."""
    kept = {
        i: Checkpoints(
            Path(runs[i].recipe.output) / "checkpoint", runs[i].identity(), lambda text: _stage(hooks, text)
        )
        for i in missing
    }
    begun = dict(zip(missing, together(list(kept.values())), strict=True))
    learners = []
    for i, run in enumerate(runs):
        learner = Learner(
            named_parameters(run.lm, run.method),
            row_lengths(run.train, run.recipe.train.batch_tokens),
            scorers[i],
            optimization(run.recipe),
            checkpoints=kept.get(i),
            start=begun.get(i),
        )
        if i not in kept:
            learner.stopped = "finished"
        learners.append(learner)
    return learners


def _note_ways(runs: Sequence[Prepared], learners: Sequence[Learner]) -> None:
    """Keep how the steps to come are computed; say where those before were computed otherwise."""
    now = dict(numerics.way(runs[0].plan.mode, len(runs), runs[0].lm.device))
    for learner in learners:
        state = learner.state
        if not state.step:
            state.ways = []
        if learner.stopped is None and now not in state.ways[-1:]:
            state.ways.append(now)
    for text in dict.fromkeys(numerics.remark(learner.state.ways) for learner in learners):
        if text is not None:
            note(text)


def finished(run: Prepared) -> Run | None:
    """What this very run came to when it was run before; None where it was not finished.

    Its method and base get what was trained. Raises SoftPromptError where the folder holds another's prompt.
    """
    artifact = of_this_run(Path(run.recipe.output), run.identity())
    if artifact is None:
        return None
    artifact.load_state(run.method, run.lm)
    if BASE in artifact.manifest["files"]:
        finetune.load_weights(run.lm, artifact.tensors(BASE))
    said = artifact.manifest["training"]
    outcome = Outcome(
        said["stopped"], said["steps"], said["best_step"], said["seconds"], said.get("history", [])
    )
    dev, plain = (Evaluation.from_json(artifact.manifest[part]) for part in ("dev", "plain"))
    return Run(run, outcome, artifact, dev, plain, was_finished=True)


def _stage(hooks: Hooks, text: str) -> None:
    say(text)
    hooks.on_stage(text)


def moved(method: SoftPrompt, start: Sequence[Tensor]) -> float | None:
    """Distance of the trained parameters from `start`, as a share of its norm; None where there are none."""
    pairs = list(zip(_trained(method), start, strict=True))
    norm = sum(float(began.double().square().sum()) for _, began in pairs)
    if not norm:
        return None
    return (sum(float((now - began).double().square().sum()) for now, began in pairs) / norm) ** 0.5


def _copy(method: SoftPrompt) -> list[Tensor]:
    return [parameter.clone() for parameter in _trained(method)]


def _trained(method: SoftPrompt) -> list[Tensor]:
    return [p.detach() for p in method.parameters() if p.requires_grad]


@dataclass
class _Scorer:
    """Scores a run's dev rows while it trains, and keeps the evaluation of the best state."""

    evaluator: Evaluator
    run: Prepared
    cache: InputCache
    _best: tuple[DevScore, Evaluation] | None = None

    def __call__(self) -> DevScore:
        evaluation = self._evaluated(text_rows=0)
        dev = dev_key(evaluation)
        if self._best is None or dev.key > self._best[0].key:
            self._best = dev, evaluation
        return dev

    def of_best(self, key: tuple[float, ...] | None, text_rows: int) -> Evaluation:
        """That of the method as it is now, the state that scored `key`: made anew only where that shows more.

        A run that was gone on with may have been better before; and texts were not asked for meanwhile.
        """
        is_written = self.run.recipe.task.kind == "generation" and text_rows > 0
        if self._best is not None and self._best[0].key == key and not is_written:
            return self._best[1]
        return self._evaluated(text_rows)

    def _evaluated(self, text_rows: int) -> Evaluation:
        return self.evaluator.run(self.run.method, self.run.dev, cache=self.cache, text_rows=text_rows)


def _plain_evaluations(
    runs: Sequence[Prepared],
    missing: Sequence[int],
    evaluators: Sequence[Evaluator],
    caches: Sequence[InputCache],
    text_rows: int,
) -> dict[int, Evaluation]:
    """The plain model on the dev rows of these runs; those with the same ones share an evaluation."""
    found: dict[tuple[int, tuple[str, ...], int], Evaluation] = {}
    out = {}
    for i in missing:
        run, evaluator, cache = runs[i], evaluators[i], caches[i]
        same = id(run.dev), evaluator.metrics, evaluator.max_new_tokens
        if same not in found:
            plain = methods.build("none", Setting(run.lm, run.prompts))
            found[same] = evaluator.run(plain, run.dev, cache=cache, text_rows=text_rows)
        out[i] = found[same]
    return out


def _open_caches(
    runs: Sequence[Prepared], hooks: Hooks
) -> tuple[list[Prepared], InputCache, list[InputCache]]:
    """One cache of the training inputs of all runs, one after another, and that of each run's dev inputs."""
    # a cache of keys and values serves all whose inputs are constants, one of features all that read the same
    first = leading(runs)
    train = [example for run in runs for example in run.train]
    dev, asked = [example for run in runs for example in run.dev], list(first_asked(runs))
    if len(runs) > 1:
        first = replace(first, plan=plan_of(first.recipe, first.lm, first.method, train, dev, asked))
    lists = [train, *(run.dev for run in runs)]
    (cache, *dev_caches), first = open_caches(
        first,
        lists,
        first=asked,
        needed=[*asked, *dev],
        progress=hooks.on_cache,
        say=lambda text: _stage(hooks, text),
    )
    opened = [_planned(run, first, own) for run, own in zip(runs, dev_caches, strict=True)]
    return [run for run, _ in opened], cache, [own for _, own in opened]


def first_asked(runs: Sequence[Prepared]) -> Iterator[Example]:
    """The training rows that steps will read, in about the order in which they come to them."""
    own = []
    for run in runs:
        how = optimization(run.recipe)
        order = BatchSampler(
            row_lengths(run.train, how.batch_tokens), how.batch_size, how.seed, how.batch_tokens
        )
        rows = [run.train[i] for i in order.asked(how.steps)]
        size = max(1, order.size)
        own.append([rows[start : start + size] for start in range(0, len(rows), size)])
    for batches in zip_longest(*own, fillvalue=()):
        for batch in batches:
            yield from batch


def _planned(run: Prepared, first: Prepared, cache: InputCache) -> tuple[Prepared, InputCache]:
    """A run with the plan that all came to, and what of the cache it may use."""
    if run.plan.mode == "full":  # its keys and values are no constants, whoever else's are
        return run, replace(cache, contexts=None)
    own = {"step_tokens": run.plan.step_tokens, "soft_tokens": run.plan.soft_tokens}
    return replace(run, plan=replace(first.plan, **own)), cache


def manifest(
    prepared: Prepared, outcome: Outcome, dev: Evaluation, plain: Evaluation, seconds: float
) -> dict[str, Any]:
    """What `softprompt.json` says, but for the files' hashes. `seconds` are those of the last evaluation."""
    recipe, lm = prepared.recipe, prepared.lm
    return {
        "method": recipe.method.name,
        "options": options(recipe),
        "prompts": list(prepared.prompts),
        "labels": list(prepared.encoder.labels) if prepared.encoder.labels else None,
        "base": {
            "name": lm.name,
            "mode": recipe.base.mode,
            "options": base_options(recipe),
            "fingerprint": prepared.base,
            "dtype": str(lm.dtype).removeprefix("torch."),
        },
        "recipe": recipe.to_dict(),
        "data": {
            "fingerprint": prepared.data_fingerprint,
            "rows": len(prepared.train),
            "dev_rows": len(prepared.dev),
        },
        "trained_parameters": prepared.trained_parameters,
        "carried": None if prepared.carried is None else asdict(prepared.carried),
        "plan": prepared.plan.mode,
        "training": {
            "stopped": outcome.stopped,
            "steps": outcome.step,
            "best_step": outcome.best_step,
            "seconds": round(outcome.seconds, 1),
            # all parts of a run that was stopped and gone on with, as `seconds` are
            "seconds_with_caches": round(outcome.seconds + outcome.other_seconds + seconds, 1),
            "peak_memory_bytes": peak_memory(),
            "history": outcome.history,
            "dev_key": list(dev_key(dev).key),
        },
        "identity": prepared.identity(),
        "dev": dev.to_json(),
        "plain": plain.to_json(),
        **provenance(),
    }
