"""Each file writes one section of the report; a section says so where its measures are missing."""

from __future__ import annotations

from ....page.blocks import Report
from ....page.numbers import several
from ..answer import answer
from ..schema import Comparison
from ..summary import notes
from ..verdict import verdict
from . import calibration, control, findings, provenance, quality, resources, rows, scalability, time, trials


def document(comparison: Comparison) -> Report:
    """Return the whole report of a comparison."""
    decided = verdict(comparison)
    headline, sentences = answer(comparison, decided)
    sections = [
        quality.section(comparison, decided),
        time.section(comparison),
        findings.section(comparison),
        scalability.section(comparison),
        resources.section(comparison),
        control.section(comparison),
        calibration.section(comparison),
        rows.section(comparison),
        trials.section(comparison),
        provenance.section(comparison),
        provenance.glossary(comparison),
    ]
    study = comparison.study
    parts = [study.model, study.task, several(len(comparison.methods), "method")]
    parts += [several(len(comparison.references), "reference")] if comparison.references else []
    parts += [study.started or ""]
    return Report(
        title=study.name or comparison.folder.resolve().name,
        subtitle=" · ".join(part for part in parts if part),
        headline=headline,
        answer=sentences,
        notes=notes(comparison, decided),
        sections=sections,
    )
