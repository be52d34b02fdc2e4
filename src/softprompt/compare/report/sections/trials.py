"""Every trial, and the failed ones with their errors."""

from __future__ import annotations

from ....page.blocks import Block, Item, Items, Section, Table, Text
from ....page.numbers import MISSING, plain, seconds, several, unit
from ..schema import Comparison, Trial


def section(comparison: Comparison) -> Section:
    if not comparison.trials:
        return Section("trials", "Trials", [Text("No trials are listed.", quiet=True)])
    states = {
        state: sum(t.status == state for t in comparison.trials) for state in ("done", "pruned", "failed")
    }
    outcomes = [
        f"{states['done']} ended well",
        f"{states['pruned']} were stopped early since others were ahead",
        f"{states['failed']} failed",
    ]
    blocks: list[Block] = [Text(f"{several(len(comparison.trials), 'trial')}: {', '.join(outcomes)}.")]
    failed = [trial for trial in comparison.trials if trial.status == "failed"]
    if failed:
        blocks.append(Items([_failure(trial) for trial in failed]))
    blocks.append(_table(comparison))
    return Section("trials", "Trials", blocks)


def _failure(trial: Trial) -> Item:
    error = trial.error or {}
    why = f" ({error['why']})" if error.get("why") else ""
    fix = f" To fix it: {error['fix']}." if error.get("fix") else ""
    title = f"{trial.contestant}, {trial.phase} trial {trial.id[:8]}, {_settings(trial)}"
    return Item(title, f"{error.get('what') or 'it failed without a word'}{why}.{fix}", level="failed")


def _settings(trial: Trial) -> str:
    words = [f"{key}={plain(v) if isinstance(v, float) else v}" for key, v in trial.settings.items()]
    if trial.seed is not None:
        words.append(f"seed={trial.seed}")
    return " ".join(words)


def _table(comparison: Comparison) -> Table:
    u = unit(comparison.study.metric)
    order = {item.name: i for i, item in enumerate(comparison.study.contestants)}
    rows = [
        [
            *(t.contestant, t.phase, _settings(t), t.status, MISSING if t.rows is None else f"{t.rows:,}"),
            *(
                u.value(t.dev.get(comparison.study.metric)),
                MISSING if t.best_step is None else str(t.best_step),
            ),
            *(seconds(t.cost.get("train_seconds")), t.id[:8]),
        ]
        for t in sorted(comparison.trials, key=lambda t: (order.get(t.contestant, 99), t.phase, t.status))
    ]
    columns = [
        "method",
        "phase",
        "settings",
        "ended",
        "rows",
        f"{u.label}, dev rows",
        "best step",
        "time",
        "id",
    ]
    return Table("All trials", columns, rows, right=(4, 5, 6, 7), closed=True)
