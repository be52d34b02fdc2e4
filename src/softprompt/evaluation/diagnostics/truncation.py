"""Targets that are not learned, or cannot be said, to their end."""

from __future__ import annotations

from .run import Finding, Run

SHARE = 0.02  # of the rows: fewer are a note


def targets_truncated(run: Run) -> Finding | None:
    """Generation targets cut by data.max_target_tokens, or longer than task.max_new_tokens allows."""
    if run.setting("task", "kind", "generation") != "generation":
        return None
    rows = [*run.train, *run.dev, *run.test]
    if not rows:
        return None
    most, said = run.setting("data", "max_target_tokens"), run.setting("task", "max_new_tokens")
    cut = [e for e in rows if most is not None and e.truncated and len(e.target_ids) >= most]
    if most is not None and cut:
        what = "targets were cut, so it did not learn how answers end"
        evidence = f"{len(cut)} of {len(rows)} targets are longer than data.max_target_tokens={most}"
        return _finding(run, what, evidence, len(cut) / len(rows), f"data.max_target_tokens={2 * most}")
    # the end token is a target too, and need not be generated
    long = [e for e in rows if said is not None and len(e.target_ids) - 1 > said]
    if not long:
        return None
    longest = max(len(e.target_ids) for e in long)
    what = "answers are stopped before they can be as long as the targets"
    evidence = (
        f"{len(long)} of {len(rows)} targets are longer than "
        f"task.max_new_tokens={said}; the longest: {longest}"
    )
    return _finding(run, what, evidence, len(long) / len(rows), f"task.max_new_tokens={longest}")


def _finding(run: Run, what: str, evidence: str, share: float, override: str) -> Finding:
    return Finding("warning" if share > SHARE else "note", what, evidence, run.tune(override))
