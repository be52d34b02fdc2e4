"""Chooses the settings that each candidate is tried with: the same number of trials for all.

The learning rate is searched first, then the number of vectors, then their initial values, each stage from
the best so far. A candidate that lacks an option gets as many more learning rates around its best instead, so
that no method is searched more closely than another.

The studies are Optuna's (`search.journal`), so that its tools can show them; the results are in the trials'
records. Every call writes the journal anew: a killed one may have left half a line in it, or Optuna's lock,
for which the next would wait.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.sections.compare import CompareConfig
from .candidates import Candidate
from .records.store import Record

Settings = dict[str, Any]
STAGES = ("rate", "length", "init")


def clear(journal: Path) -> None:
    """Remove the journal of an earlier call, and locks that it left. Nobody else may be writing to it."""
    for path in (journal, *journal.parent.glob(f"{journal.name}.lock*")):
        path.unlink(missing_ok=True)


class Search:
    """A search chooses the settings of one candidate, given the records of those that were tried."""

    def __init__(self, contestant: Candidate, config: CompareConfig, journal: Path, maximise: bool) -> None:
        self.contestant, self._config = contestant, config
        self._tried: list[tuple[Settings, Record]] = []
        self._study = _study(journal, contestant.name, maximise)

    def stage(self, name: str) -> list[Settings]:
        """Return the settings of a stage; none if no trial of the stage before ended well."""
        item, config = self.contestant, self._config
        if name == "rate":
            return [{item.rate: rate} for rate in dict.fromkeys(item.rates)]
        values = config.lengths if name == "length" else config.inits
        best = self.best()
        if best is None or not values:
            return []
        if name == "length" and item.length is not None:
            return [{**best, item.length: length} for length in config.lengths]
        if name == "init" and item.has_init:
            return [{**best, **_written(init)} for init in config.inits]
        tried = sorted({settings[item.rate] for settings, _ in self._tried})
        return [{**best, item.rate: rate} for rate in finer(tried, best[item.rate], len(values))]

    def tell(self, settings: Settings, record: Record) -> None:
        """Note the record of settings that were tried."""
        self._tried.append((settings, record))
        _note(self._study, settings, record)

    def best(self) -> Settings | None:
        """Return the settings of the best trial on the dev rows; a pruned one only if no other succeeded."""
        ranked = [
            (record["status"] == "done", tuple(record["dev_key"]), -number)
            for number, (_, record) in enumerate(self._tried)
            if record["status"] != "failed"
        ]
        return None if not ranked else self._tried[-max(ranked)[2]][0]


def trials_of(contestant: Candidate, config: CompareConfig) -> int:
    """Return the number of settings that are tried."""
    return len(dict.fromkeys(contestant.rates)) + len(config.lengths) + len(config.inits)


def finer(tried: Sequence[float], best: float, count: int) -> list[float]:
    """Return more learning rates around the best: between it and its neighbours, or beyond the last one."""
    known, more = sorted(tried), []
    for _ in range(count):
        at = known.index(best)
        step = 10**0.5
        low = known[at - 1] if at else best / step**2
        high = known[at + 1] if at + 1 < len(known) else best * step**2
        # the wider of the two gaps on a logarithmic scale; the upper one if they are equal
        rate = math.sqrt(best * (high if high / best >= 0.99 * best / low else low))
        rate = float(f"{rate:.2g}")
        if rate in known:
            break
        known.append(rate)
        known.sort()
        more.append(rate)
    return more


def _written(value: str | Mapping[str, Any]) -> Settings:
    """Return an init, given by name or with its options, as settings."""
    options = {"init": value} if isinstance(value, str) else dict(value)
    return {f"method.{key}": item for key, item in options.items()}


def _study(journal: Path, name: str, maximise: bool) -> Any:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal.parent.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name=name,
        direction="maximize" if maximise else "minimize",
        load_if_exists=True,
    )


def _note(study: Any, settings: Settings, record: Record) -> None:
    """Add the record to the study's trials, once."""
    from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState, create_trial

    if any(trial.user_attrs.get("id") == record["id"] for trial in study.get_trials(deepcopy=False)):
        return
    status = record["status"]
    state = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(status, TrialState.FAIL)
    value = next(iter(record["dev"].values()), None)
    metric = next(iter(record["dev"]), None)
    curve = {int(e["step"]): e[metric] for e in record["history"] if metric in e}
    numbers: dict[str, BaseDistribution] = {
        key: IntDistribution(1, 10**6) if isinstance(value, int) else FloatDistribution(1e-9, 10, log=True)
        for key, value in settings.items()
        if isinstance(value, (int, float))
    }
    words = {key: value for key, value in settings.items() if key not in numbers}
    study.add_trial(
        create_trial(
            state=state,
            value=value if state is TrialState.COMPLETE else None,
            params={key: settings[key] for key in numbers},
            distributions=numbers,
            intermediate_values=curve,
            user_attrs={"id": record["id"], **words},
        )
    )
