"""Lists the trials of each phase of a comparison. Nothing runs here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..candidates import Candidate
from ..manifest import Study
from ..phases.prompt_counts import sizes, tables
from ..records.types import About
from ..search import Settings, trials_of
from ..trials import Table, Trial, Trials

Counts = dict[tuple[str, str], int]  # by candidate and phase
Best = Mapping[str, Settings]  # the best settings of each candidate that has some
Finals = Mapping[str, list[Trial]]  # the final trials that succeeded, by candidate


class Schedule:
    """Lists the trials of one study. Methods are the candidates that train; references train nothing."""

    def __init__(self, study: Study) -> None:
        self._config, self._splits, self._candidates = study.recipe.compare, study.splits, study.candidates
        self._trials = Trials(study.folder, study.splits)
        self.methods = [candidate for candidate in study.candidates if not candidate.is_reference]
        self._references = [candidate for candidate in study.candidates if candidate.is_reference]
        first = study.recipe.train.seed
        self.seeds = list(range(first, first + self._config.seeds))

    def references(self) -> list[Trial]:
        return [self._trials.reference(candidate, self.seeds[0]) for candidate in self._references]

    def search(self, candidate: Candidate, settings: Settings) -> Trial:
        return self._trials.training(candidate, "search", settings, self.seeds[0])

    def finals(self, best: Best) -> dict[tuple[str, int], Trial]:
        """Return the final trial of each candidate and seed."""
        return {
            (candidate.name, seed): self._trials.training(candidate, "final", best[candidate.name], seed)
            for candidate in self.methods
            for seed in self.seeds
            if candidate.name in best
        }

    def curves(self, best: Best) -> list[list[Trial]]:
        """Return the trials of learning curves: together those that train on as many rows."""
        return [
            [self._trials.training(item, "curve", best[item.name], seed, rows) for seed in self.seeds]
            for item in self.methods
            if item.name in best
            for rows in self._curve_sizes()
        ]

    def scores(self, finals: Finals) -> Iterator[list[Trial]]:
        """Yield the scores of each candidate on all splits that no training saw."""
        for item in self._candidates:
            trained = [None] if item.is_reference else finals[item.name]
            yield [
                self._trials.score(item, split, final, self.seeds[0])
                for final in trained
                for split in self._splits.measured
            ]

    def measures(self, finals: Finals) -> list[Trial]:
        """Return control and serving of each candidate's first final."""
        about = self._measured()
        if not about["control"] and not about["serving"]:
            return []
        return [
            self._trials.measure(trials[0], about) for item in self.methods if (trials := finals[item.name])
        ]

    def _measured(self) -> About:
        from ..phases.measure import CONTROL

        config = self._config
        control: list[str] = list(CONTROL if config.control is True else config.control or ())
        if len(self._splits.prompts) < 2:
            control = [name for name in control if name not in ("swap", "composition")]
        if config.constraint is None:
            control = [name for name in control if name != "adherence"]
        return {
            "control": control,
            "serving": config.serving,
            "rows": config.control_rows,
            "constraint": config.constraint,
        }

    def growth(self, best: Best, finals: Finals) -> list[Trial]:
        """Return the trials with fewer prompts: the watched prompts in tables of every smaller size.

        The final trials have the table of all prompts.
        """
        return [
            self._trials.growth(item, best[item.name], seed, table)
            for item in self.methods
            if finals[item.name]
            for table in self._tables()
            for seed in self.seeds
        ]

    def newcomers(self, best: Best, finals: Finals) -> list[Trial]:
        """Return the prompts that are added beside every final, and once for each reference."""
        if not self._splits.newcomers:
            return []
        return [
            *(
                self._trials.newcomer(item, {}, self.seeds[0], None)
                for item in self._references_with_prompts()
            ),
            *(
                self._trials.newcomer(item, best[item.name], final.seed or 0, final)
                for item in self.methods
                for final in finals[item.name]
            ),
        ]

    def counts(self) -> Counts:
        """Return how many trials each candidate has in each phase, if all succeed."""
        config, splits = self._config, len(self._splits.measured)
        seeds, adds = len(self.seeds), bool(self._splits.newcomers)
        counts: dict[str, dict[str, int]] = {}
        for item in self._references:
            counts[item.name] = {"reference": 1, "score": splits, "newcomer": 0}
        for item in self._references_with_prompts():
            counts[item.name]["newcomer"] = int(adds)
        for item in self.methods:
            counts[item.name] = {
                "search": trials_of(item, config),
                "final": seeds,
                "curve": seeds * len(self._curve_sizes()),
                "score": seeds * splits,
                "measure": int(bool(config.control or config.serving)),
                "growth": seeds * len(self._tables()),
                "newcomer": seeds * adds,
            }
        return {(name, phase): n for name, phases in counts.items() for phase, n in phases.items()}

    def _curve_sizes(self) -> list[int]:
        most = self._splits.counts["train"]
        return list(dict.fromkeys(rows for rows in self._config.curve if rows < most))

    def _tables(self) -> list[Table]:
        prompts = self._splits.prompts
        return [t for size in sizes(self._config.growth, len(prompts)) for t in tables(prompts, size)]

    def _references_with_prompts(self) -> list[Candidate]:
        return [item for item in self._references if item.name != "tf-idf"]  # which knows no prompts
