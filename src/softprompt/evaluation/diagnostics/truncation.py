"""Targets that are not learned, or cannot be generated, to their end are reported."""

from __future__ import annotations

from .run import Finding, Run

SHARE = 0.02  # of the rows: fewer are a note


def targets_truncated(run: Run) -> Finding | None:
    """Report generation targets that data.max_target_tokens cuts, or longer than task.max_new_tokens."""
    if run.setting("task", "kind", "generation") != "generation":
        return None
    rows = [*run.train, *run.dev, *run.test]
    if not rows:
        return None
    most, new = run.setting("data", "max_target_tokens"), run.setting("task", "max_new_tokens")
    cut = [e for e in rows if most is not None and e.truncated and len(e.target_ids) >= most]
    if most is not None and cut:
        summary = "targets were cut, so it did not learn how answers end"
        evidence = f"{len(cut)} of {len(rows)} targets are longer than data.max_target_tokens={most}"
        return _finding(run, summary, evidence, len(cut) / len(rows), f"data.max_target_tokens={2 * most}")
    # the end token is a target too, and need not be generated
    long = [e for e in rows if new is not None and len(e.target_ids) - 1 > new]
    if not long:
        return None
    longest = max(len(e.target_ids) for e in long)
    summary = "answers are stopped before they can be as long as the targets"
    evidence = (
        f"{len(long)} of {len(rows)} targets are longer than "
        f"task.max_new_tokens={new}; the longest: {longest}"
    )
    return _finding(run, summary, evidence, len(long) / len(rows), f"task.max_new_tokens={longest}")


def _finding(run: Run, summary: str, evidence: str, share: float, override: str) -> Finding:
    return Finding("warning" if share > SHARE else "note", summary, evidence, run.tune(override))
