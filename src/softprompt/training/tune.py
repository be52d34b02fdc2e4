"""Train the method that `prepare` built, evaluate it beside the plain model, save it.

Display is the caller's: progress is sent as events to its hooks. Nothing here prints.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._system.notes import note
from .._system.progress import say
from .._system.world import ALONE
from ..artifacts import artifact as artifacts
from ..artifacts.manifest import BASE
from ..data.row_notes import remarks
from ..errors import SoftPromptError
from ..evaluation.evaluator import evaluator_of
from ..evaluation.records import Evaluation
from ..lm import finetune
from . import leakage, numerics
from .base_notes import base_notes
from .caches import open_shared_caches
from .checkpoint import Checkpoints, together
from .data_parallel import check_same, held_by_first
from .decisive import optimization
from .dev_scores import DevScorer, plain_evaluations
from .learner import Learner, Outcome
from .loop import Event, fit_together
from .manifest import manifest, moved, trained_copy
from .on_policy import check_writes, with_answers
from .output_folder import make_room, of_this_run, starts_anew
from .prepare import Prepared
from .references import with_references
from .reporting import few_dev_rows, following_steps
from .run import Hooks, Interrupted, Run
from .sampler import row_lengths
from .step import StepPart, TrainStep, held_for
from .together import expanded
from .tracked import Tracking, tracked
from .trained import check_trains, named_parameters

__all__ = ["TEXT_ROWS", "Hooks", "Interrupted", "Run", "optimization", "tune", "tune_many"]

TEXT_ROWS = 50  # dev rows of a generation task that are answered in text


def tune(
    prepared: Prepared,
    *,
    hooks: Hooks | None = None,
    restart: bool = False,
    overwrite: bool = False,
    text_rows: int = TEXT_ROWS,
    trackers: Sequence[Any] = (),
) -> Run:
    """Train, keep the best on the dev rows, evaluate beside the plain model, save.

    A run resumes from the checkpoint in its output folder; one that was finished before is returned as it
    is. At most `text_rows` dev rows of a generation task are answered in text (all count in perplexity).
    The recipe's `track` names trackers; `trackers` are objects beside them (`tracking.accelerate`).
    Raises Interrupted (state saved) and SoftPromptError (a loss that is not finite: the best state is saved
    first).
    """
    run = tune_many(
        [prepared],
        hooks=hooks,
        restart=restart,
        overwrite=overwrite,
        text_rows=text_rows,
        trackers=trackers,
    )[0]
    if run.outcome.stopped == "nan":
        raise not_finite(run)
    return run


def not_finite(run: Run) -> SoftPromptError:
    """Make the error for a run that ended because its loss was not finite."""
    lr, folder = optimization(run.prepared.recipe).lr, run.prepared.recipe.output
    return SoftPromptError(
        f"the loss was not finite at step {run.outcome.step + 1} (lr={lr:g})",
        why=f"the step before was too long; the best state (step {run.outcome.best_step}) is in {folder}",
        fix=f"train.lr={lr / 3:.1e} --overwrite",
    )


def tune_many(
    runs: Sequence[Prepared],
    *,
    hooks: Hooks | None = None,
    restart: bool = False,
    overwrite: bool = False,
    text_rows: int = TEXT_ROWS,
    plain: bool = True,
    trackers: Sequence[Any] = (),
) -> list[Run]:
    """Tune several prompts over one base model, side by side (see `training.sweep`).

    Each has its own optimizer, schedule, early stop, checkpoint and artifact, and the same result as it would
    have alone. Runs that were finished before are returned as they are. A run whose loss is not finite ends
    alone (its outcome is "nan"). Without `plain` the plain model is not evaluated. Raises Interrupted (all
    are saved).
    """
    hooks, folders, world = hooks or Hooks(), [Path(run.recipe.output) for run in runs], runs[0].world
    with held_by_first(world, folders):
        for run in runs:
            check_trains(run)
            check_writes(run)
            check_same(world, run.identity())
        results = {i: run for i, p in enumerate(runs) if not overwrite and (run := restore_finished(p))}
        missing = [i for i in range(len(runs)) if i not in results]
        anew = {i: starts_anew(folders[i], restart=restart, overwrite=overwrite) for i in missing}
        with tracked(runs, anew, trackers) as tracking:
            for i in missing:
                world.first(lambda i=i: make_room(folders[i], restart=restart, overwrite=overwrite))
            if missing:
                with held_for(runs) as held:
                    results |= _train(runs, missing, hooks, text_rows, plain, tracking, held)
    return [results[i] for i in range(len(runs))]


def _train(
    runs: Sequence[Prepared],
    missing: Sequence[int],
    hooks: Hooks,
    text_rows: int,
    plain: bool,
    tracking: Tracking,
    held: bool,
) -> dict[int, Run]:
    """Train and save those of the runs (by number) that are not finished yet; `held`: see `numerics.way`."""
    for text in base_notes(runs[0]):
        note(text)
    started = time.perf_counter()
    remarks_by_run = [remarks(run.encoder, [*run.train, *run.dev]) for run in runs]
    for text in dict.fromkeys(remark.text for noticed in remarks_by_run for remark in noticed):
        note(text)
    if few := few_dev_rows(min(len(run.dev) for run in runs)):  # once, however many runs there are
        say(few)
    hooks.stage("plain model on the dev rows" if plain else "the inputs")
    # finished ones too: rows are computed beside the same others as if none was finished
    read, cache, dev_caches = open_shared_caches(
        [expanded(run) for run in runs], progress=hooks.on_cache, say=hooks.stage
    )
    runs = [replace(run, plan=as_read.plan) for run, as_read in zip(runs, read, strict=True)]
    world = runs[0].world
    # a base that is split runs the same rows in all processes
    scored_by = ALONE if runs[0].lm.is_sharded else world
    evaluators = [replace(evaluator_of(run.recipe, run.lm, run.encoder), world=scored_by) for run in runs]
    runs = with_references(runs, evaluators, cache, dev_caches)
    read = [part if part.combinations else run for part, run in zip(read, runs, strict=True)]
    scorers = [DevScorer(*each) for each in zip(evaluators, runs, dev_caches, strict=True)]
    plain_results = [Evaluation({}) for _ in missing]
    if plain:  # now and not after training: a base that is trained too is still the plain model
        plain_results = plain_evaluations([scorers[i] for i in missing], text_rows)
    untouched = [leakage.start(run) if i in missing else (None, None) for i, run in enumerate(runs)]
    starts = [trained_copy(run.method) for run in runs]  # before a checkpoint is read: what `prepare` built
    learners = _learners(runs, missing, read, scorers, hooks)
    done = max(learner.resumed_from for learner in learners)
    tracking.begin({i: learners[i].resumed_from for i in missing})
    _note_ways(runs, [learners[i] for i in missing], held)
    for i in missing:
        learners[i].state.other_seconds += (time.perf_counter() - started) / len(missing)
    hooks.stage(f"training, resuming from step {done}" if done else "training")
    parts = [StepPart.of(run) for run in read]

    def step_of(index: int) -> int:
        return learners[index].state.step

    steps = TrainStep(runs[0].lm, parts, cache, world, step_of)
    with following_steps([Path(run.recipe.output).name for run in runs]) as follow:

        def on_event(event: Event) -> None:
            follow(event)
            tracking.step(event)
            hooks.on_event(event)

        outcomes = fit_together(
            learners,
            with_answers(steps.backward, runs, read, parts, step_of),
            groups=steps.groups,
            on_event=on_event,
            should_stop=lambda: any(world.any_of([hooks.should_stop()])),
            is_pruned=lambda i: any(world.any_of([hooks.is_pruned(i)])),
            evaluation_seconds=max(result.scoring_seconds for result in plain_results),
        )
    if any(outcome.stopped == "interrupted" for outcome in outcomes):
        raise Interrupted(max(outcome.step for outcome in outcomes), Path(runs[0].recipe.output))
    hooks.stage("evaluating the best on the dev rows")
    trained = {}
    for i, plain_result in zip(missing, plain_results, strict=True):
        started = time.perf_counter()
        run, learner = runs[i], learners[i]
        dev = scorers[i].of_best(learner.state.best, text_rows)
        content = manifest(
            run,
            outcomes[i],
            dev,
            plain_result,
            moved=moved(run.method, starts[i]),
            remarks=remarks_by_run[i],
            seconds=time.perf_counter() - started,
            leakage=leakage.change(run, *untouched[i]),
        )
        saved = world.first(
            lambda run=run, content=content: artifacts.save(
                Path(run.recipe.output), run.method, run.lm, content
            )
        )
        trained[i] = Run(run, outcomes[i], saved, dev, plain_result, learner.resumed_from)
        tracking.end(i, trained[i])
    return trained


def _learners(
    runs: Sequence[Prepared],
    missing: Sequence[int],
    read: Sequence[Prepared],
    scorers: Sequence[DevScorer],
    hooks: Hooks,
) -> list[Learner]:
    """Make one learner a run, resumed where it was stopped; that of a finished run has ended.

    `read` are the runs with the rows that their steps read.
    """
    checkpoints = {
        i: Checkpoints(Path(runs[i].recipe.output) / "checkpoint", runs[i].identity(), hooks.stage)
        for i in missing
    }
    world = runs[0].world
    chosen = world.first(lambda: together(list(checkpoints.values())))
    starts = dict(zip(missing, chosen, strict=True))
    learners = []
    for i, run in enumerate(runs):
        learner = Learner(
            named_parameters(run.lm, run.method),
            row_lengths(read[i].train, run.recipe.train.batch_tokens),
            scorers[i],
            optimization(run.recipe),
            checkpoints=checkpoints.get(i) if world.rank == 0 else None,
            start=starts.get(i),
            step_rows=read[i].step_rows,
        )
        world.copy_first(list(learner.parameters.values()))
        if i not in checkpoints:
            learner.stopped = "finished"
        learners.append(learner)
    return learners


def _note_ways(runs: Sequence[Prepared], learners: Sequence[Learner], held: bool) -> None:
    """Record how the next steps are computed; note where earlier steps were computed in another way."""
    first = runs[0]
    now = dict(numerics.way(first.plan.mode, len(runs), first.lm.device, first.world.size, held=held))
    for learner in learners:
        state = learner.state
        if not state.step:
            state.ways = []
        if learner.stopped is None and now not in state.ways[-1:]:
            state.ways.append(now)
    for text in dict.fromkeys(numerics.remark(learner.state.ways) for learner in learners):
        if text is not None:
            note(text)


def restore_finished(run: Prepared) -> Run | None:
    """Load the result of this very run into its method and base; None where the run was not finished.

    Raises SoftPromptError where the folder holds the prompt of another run.
    """
    artifact = run.world.first(lambda: of_this_run(Path(run.recipe.output), run.identity()))
    if artifact is None:
        return None

    def load() -> None:
        artifact.load_state(run.method, run.lm)
        if BASE in artifact.manifest["files"]:
            finetune.load_weights(run.lm, artifact.tensors(BASE))

    run.world.first(load)
    run.world.copy_first([*run.method.state_dict().values(), *finetune.trained_weights(run.lm).values()])
    training = artifact.manifest["training"]
    outcome = Outcome(
        training["stopped"],
        training["steps"],
        training["best_step"],
        training["seconds"],
        training.get("history", []),
    )
    dev, plain = (Evaluation.from_json(artifact.manifest[part]) for part in ("dev", "plain"))
    return Run(run, outcome, artifact, dev, plain, was_finished=True)
