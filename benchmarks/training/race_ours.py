"""softprompt's side of time-to-accuracy trains cached methods with the settings that were fastest."""

from __future__ import annotations

from typing import Any

from softprompt.evaluation.evaluator import evaluator_of
from softprompt.evaluation.records import DevScore
from softprompt.training.caches import first_needed, open_caches
from softprompt.training.decisive import optimization
from softprompt.training.learner import Learner
from softprompt.training.loop import fit_together
from softprompt.training.sampler import row_lengths
from softprompt.training.step import StepPart, TrainStep
from softprompt.training.trained import named_parameters

from .options import Options
from .race import SHOWN, TEXT, Race, Trial, prepared

#: Each overrides its recipe of benchmarks/quality.py. A cache pays if rows are repeated, so few are used.
CONTESTANTS: dict[str, dict[str, dict[str, Any]]] = {
    "prefix-tuning/after": {
        "data": {"limit": 100},
        "template": SHOWN,
        "method": {"init": "text", "text": f"\n{TEXT}", "length": 8},
        "train": {"steps": 40, "batch_size": 8, "lr": 1e-2},
    },
}


def run(options: Options, contestant: str, seed: int, dtype: str) -> Trial:
    """Build the cache and train until the target; both are timed, evaluations are not."""
    ready = prepared(options, contestant, seed, dtype, CONTESTANTS[contestant])
    evaluator = evaluator_of(ready.recipe, ready.lm, ready.encoder)
    settings = optimization(ready.recipe)
    (dev_cache,), ready = open_caches(ready, [ready.dev])  # of evaluations
    race = Race(options.target, options.give_up)
    (cache,), ready = open_caches(ready, [ready.train], first=list(first_needed([ready])))

    def evaluate() -> DevScore:
        with race.paused():
            accuracy = evaluator.run(ready.method, ready.dev, cache=dev_cache).metrics["accuracy"].value
            race.note(accuracy)
        return DevScore((accuracy,), "accuracy", accuracy)

    parameters = named_parameters(ready.lm, ready.method)
    learner = Learner(parameters, row_lengths(ready.train), evaluate, settings)
    steps = TrainStep(ready.lm, [StepPart.of(ready)], cache)
    (outcome,) = fit_together([learner], steps.backward, should_stop=lambda: race.over)
    return Trial(
        "ours", contestant, settings.lr, seed, dtype, race.reached, race.now(), outcome.step, race.best
    )
