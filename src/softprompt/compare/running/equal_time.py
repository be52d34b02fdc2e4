"""Plans how many steps each method trains, so that all methods train for the same seconds (`compare.budget`).

The seconds of a method are the steps of all trials of its search and of its finals, and the caches that they
read. Dev scores, references and everything on test rows are not counted. A cache in memory counts in every
job that builds it: trials side by side share one, a final has its own. A cache on disk is built once, and its
seconds are divided equally among the methods that read it.

The plan is written to `budget.json` before the first trial. A later call uses the plan that is there: which
steps are taken depends on how fast the machine was when it was made, and never changes afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from ..._system.files import write_text
from ..._system.progress import duration
from ...config.schema import Recipe
from ...errors import SoftPromptError
from ..candidates import Candidate
from ..records.pace import FEWEST, Pace, Share, Stage, Timed
from ..records.store import Folder
from ..search import trials_of
from ..splits import Splits
from ..trials import Trials
from . import worker
from .executors import Executor
from .worker import Timing

FILE = "budget.json"
EVALUATIONS = 10  # of the dev rows while training, so that a tenth of the budget has a score
_SHARES = TypeAdapter(dict[str, Share])  # by `_key`


def plan(
    recipe: Recipe,
    candidates: Sequence[Candidate],
    splits: Splits,
    folder: Folder,
    runner: Executor,
    *,
    search_only: bool = False,
    evaluates: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Timed:
    """Return the plan in the folder, completed by the methods that it lacks, and write it.

    Paces are measured where trials run. Raises SoftPromptError for a budget that is shorter than one step of
    a method.
    """
    budget = recipe.compare.budget
    assert budget is not None
    methods = [item for item in candidates if not item.is_reference]
    _check_steps(recipe, methods)
    seeds = 0 if search_only else recipe.compare.seeds
    trials = Trials(folder, splits)
    keys = {item.name: _key(item, trials, recipe, seeds) for item in methods}
    written = _read(folder)
    known = {name: written[key] for name, key in keys.items() if key in written}
    new = [item for item in methods if item.name not in known]
    measured, failed = dict[str, Pace](), dict[str, str]()
    if new:
        say("timing the steps of each method …")
        timings = [_timing(item, trials, recipe, evaluates) for item in new]
        for number, result in runner.run(worker.run, timings):
            name = new[number].name
            if isinstance(result, Exception):
                failed[name] = str(result).splitlines()[0] if str(result) else type(result).__name__
            else:
                measured[name] = result
    readers = Counter(
        cache.folder for item in methods for cache in _pace(item.name, known, measured).caches if cache.folder
    )
    for item in new:
        if item.name in measured:
            jobs = _jobs(item, recipe) + seeds
            known[item.name] = share_of(item.name, budget, measured[item.name], seeds, jobs, readers)
    if failed and not known:
        name, why = next(iter(failed.items()))
        raise SoftPromptError(
            f"the pace of no method could be measured, so that {duration(budget)} cannot be planned",
            why=f"{name}: {why}",
            fix="correct it, or leave compare.budget out: every method then takes train.steps",
        )
    planned = written | {keys[name]: share for name, share in known.items()}
    if planned != written:
        write_text(folder.path / FILE, json.dumps(_SHARES.dump_python(planned), indent=2) + "\n")
    return Timed(budget, {item.name: known[item.name] for item in methods if item.name in known}, failed)


def share_of(
    name: str,
    budget: float,
    pace: Pace,
    seeds: int,
    jobs: int,
    readers: Mapping[str, int],
) -> Share:
    """Plan the steps of one method: the most that take no longer than the budget.

    `jobs` are those that build a cache in memory, `readers` the methods that read a cache on disk, by its
    folder. Raises SoftPromptError where the budget is shorter than one step.
    """
    step = pace.search + seeds * pace.step
    memory = jobs * sum(cache.row_seconds for cache in pace.caches if cache.folder is None)
    disk = sum(c.row_seconds / max(1, readers[c.folder]) for c in pace.caches if c.folder is not None)
    row = memory + disk

    def cached(steps: int, row: float = row) -> float:
        return row * min(pace.rows, steps * pace.batch)

    # each row is computed before it is first read: until all are cached, a step costs its rows too
    steps = math.floor(max(budget / (step + row * pace.batch), (budget - row * pace.rows) / step) + 1e-9)
    if steps < 1:
        least = 1.25 * FEWEST * step + cached(FEWEST)
        raise SoftPromptError(
            f"compare.budget={duration(budget)} is too short for {name}",
            why=f"one step of its search and finals takes {step:.2g}s on this machine, and its caches "
            f"{cached(1):.2g}s",
            fix=f"compare.budget={math.ceil(least)}s, fewer rates or seeds, or leave {name} out",
        )
    caches = cached(steps)
    return Share(steps, steps * step + caches, caches, cached(steps, disk), pace, name)


def with_steps(candidates: Sequence[Candidate], timed: Timed) -> list[Candidate]:
    """Return the candidates with the planned steps; references as they are.

    A method without a plan takes the fewest steps of the others: its trials will report what is wrong.
    """
    fewest = min((share.steps for share in timed.shares.values()), default=1)  # references need no plan

    def changed(item: Candidate) -> Candidate:
        if item.is_reference:
            return item
        share, train = timed.shares.get(item.name), item.recipe.train
        steps = fewest if share is None else share.steps
        every = train.eval_every or max(1, steps // EVALUATIONS)
        train = train.model_copy(update={"steps": steps, "eval_every": every})
        return replace(item, recipe=item.recipe.model_copy(update={"train": train}))

    return list(map(changed, candidates))


def _pace(name: str, known: Mapping[str, Share], measured: Mapping[str, Pace]) -> Pace:
    if name in known:
        return known[name].pace
    return measured.get(name) or Pace(0.0, 0.0)


def _check_steps(recipe: Recipe, methods: Sequence[Candidate]) -> None:
    """Raise SoftPromptError for a method with steps of its own, which the budget would replace."""
    for item in methods:
        if item.recipe.train.steps != recipe.train.steps:
            raise SoftPromptError(
                f"compare.methods gives {item.name} steps of its own, and compare.budget plans them",
                why="a method cannot have both a number of steps and a time",
                fix=f"remove train.steps from {item.name}, or compare.budget",
            )


def _stages(item: Candidate, trials: Trials, recipe: Recipe) -> tuple[tuple[Stage, ...], int]:
    """Return what is timed, and the number of trials that have the pace of the first stage.

    Learning rates change no pace, and the lowest is the safest to take a step with.
    """
    config, rate = recipe.compare, min(item.rates)
    rates = len(dict.fromkeys(item.rates))

    def plain(settings: Mapping[str, object]) -> dict:
        return trials.training(item, "search", {item.rate: rate, **settings}, recipe.train.seed).recipe

    stages = [Stage((plain({}),), rates)]
    if item.length is not None and config.lengths:
        stages.append(Stage(tuple(plain({item.length: length}) for length in config.lengths)))
    timed = rates + (len(config.lengths) if len(stages) > 1 else 0)
    return tuple(stages), trials_of(item, config) - timed


def _timing(item: Candidate, trials: Trials, recipe: Recipe, evaluates: bool) -> Timing:
    stages, more = _stages(item, trials, recipe)
    return Timing(stages, more, evaluates, recipe.train.threads)


def _jobs(item: Candidate, recipe: Recipe) -> int:
    """Return the number of jobs of its search: trials that train the base share none."""
    config = recipe.compare
    return trials_of(item, config) if item.trains_base else 1 + bool(config.lengths) + bool(config.inits)


def _key(item: Candidate, trials: Trials, recipe: Recipe, seeds: int) -> str:
    """Return a hash of what the plan of a method is for; the steps that the recipe names do not count."""
    train = item.recipe.train.model_copy(update={"steps": 1, "eval_every": None})
    plain = replace(item, recipe=item.recipe.model_copy(update={"train": train}))
    config = recipe.compare
    decides = {
        "budget": config.budget,
        "seeds": seeds,
        "trials": [
            trials.training(plain, "search", {item.rate: rate}, recipe.train.seed).id for rate in item.rates
        ],
        "lengths": config.lengths,
        "inits": len(config.inits),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def _read(folder: Folder) -> dict[str, Share]:
    """Read the plan of an earlier call; a missing or damaged file has none."""
    with contextlib.suppress(OSError, ValidationError):
        return _SHARES.validate_json((folder.path / FILE).read_bytes())
    return {}
