"""Findings show what the score of a finished run hides, each with its evidence and a command that fixes it.

A finding reads a `Run` (run.py): the artifact's manifest, its rows as encoded, the records of an evaluation,
and what else the caller has. Where a part is missing, the findings that need it are silent.
"""

from __future__ import annotations

from collections.abc import Callable

from .baselines import better_baseline
from .held_out import one_answer, repeated_inputs, unseen_overlap
from .majority import pinned_at_majority
from .overlap import train_test_overlap
from .run import Finding, Run
from .seeds import within_seed_noise
from .shift import dev_test_apart
from .template import template_mismatch
from .training import barely_moved, rate_at_edge, still_falling
from .truncation import targets_truncated

FINDINGS: dict[str, Callable[[Run], Finding | None]] = {
    "pinned at the majority class": pinned_at_majority,
    "barely moved": barely_moved,
    "still falling": still_falling,
    "rate at the edge": rate_at_edge,
    "template mismatch": template_mismatch,
    "baseline better": better_baseline,
    "within seed noise": within_seed_noise,
    "train and test overlap": train_test_overlap,
    "targets truncated": targets_truncated,
    "dev and test apart": dev_test_apart,
    "one answer to all": one_answer,
    "unseen and train overlap": unseen_overlap,
    "the same inputs again": repeated_inputs,
}


def examine(run: Run) -> list[Finding]:
    """Return every finding on the run, warnings first."""
    findings = [finding for check in FINDINGS.values() if (finding := check(run)) is not None]
    return sorted(findings, key=lambda finding: finding.level != "warning")


__all__ = ["FINDINGS", "Finding", "Run", "examine"]
