"""Our side of time-to-accuracy: cached methods, with the settings that were found to come there soonest."""

from __future__ import annotations

from typing import Any

from softprompt.evaluation.evaluator import DevScore, evaluator_of
from softprompt.training.caches import first_needed, open_caches
from softprompt.training.decisive import optimization
from softprompt.training.learner import Learner
from softprompt.training.loop import fit_together
from softprompt.training.sampler import row_lengths
from softprompt.training.step import StepPart, TrainStep
from softprompt.training.trained import named_parameters

from .options import Options
from .race import SHOWN, TEXT, Race, Trial, prepared

#: What each lays over its recipe of benchmarks/quality.py. A cache pays where rows come again: few are taken.
CONTESTANTS: dict[str, dict[str, dict[str, Any]]] = {
    "prefix-tuning/after": {
        "data": {"limit": 100},
        "template": SHOWN,
        "method": {"init": "text", "text": f"\n{TEXT}", "length": 8},
        "train": {"steps": 40, "batch_size": 8, "lr": 1e-2},
    },
}


def run(options: Options, contestant: str, seed: int, dtype: str) -> Trial:
    """Build the cache and train until the target; both are counted, evaluations are not."""
    made = prepared(options, contestant, seed, dtype, CONTESTANTS[contestant])
    evaluator = evaluator_of(made.recipe, made.lm, made.encoder)
    how = optimization(made.recipe)
    (dev_cache,), made = open_caches(made, [made.dev])  # of evaluations
    race = Race(options.target, options.give_up)
    (cache,), made = open_caches(made, [made.train], first=list(first_needed([made])))

    def look() -> DevScore:
        with race.held():
            found = evaluator.run(made.method, made.dev, cache=dev_cache).metrics["accuracy"].value
            race.note(found)
        return DevScore((found,), "accuracy", found)

    parameters = named_parameters(made.lm, made.method)
    learner = Learner(parameters, row_lengths(made.train), look, how)
    steps = TrainStep(made.lm, [StepPart.of(made)], cache)
    (outcome,) = fit_together([learner], steps.backward, should_stop=lambda: race.over)
    return Trial("ours", contestant, how.lr, seed, dtype, race.reached, race.now(), outcome.step, race.best)
