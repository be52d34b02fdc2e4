"""Our side of time-to-accuracy: a cached method with the settings of benchmarks/quality.py."""

from __future__ import annotations

from softprompt.cache import ram
from softprompt.steps import step_loss
from softprompt.train import DevScore, fit
from softprompt.tuning import evaluator_of, optimization

from .options import Options
from .race import Race, Trial, prepared


def run(options: Options, contestant: str, seed: int, dtype: str) -> Trial:
    """Build the cache and train until the target; both are counted, evaluations are not."""
    made = prepared(options, contestant, seed, dtype)
    evaluator = evaluator_of(made.recipe, made.lm, made.encoder)
    how = optimization(made.recipe)
    dev_cache = ram.build(made.lm, made.dev)  # of evaluations
    race = Race(options.target, options.give_up)
    cache = ram.build(made.lm, made.train)

    def look() -> DevScore:
        with race.held():
            found = evaluator.run(made.method, made.dev, cache=dev_cache).metrics["accuracy"].value
            race.note(found)
        return DevScore((found,), "accuracy", found)

    outcome = fit(
        made.lm,
        made.method,
        step_loss(made, cache),
        [len(e.input_ids) for e in made.train],
        look,
        how,
        should_stop=lambda: race.over,
    )
    return Trial("ours", contestant, how.lr, seed, dtype, race.reached, race.now(), outcome.step, race.best)
