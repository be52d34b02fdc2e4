"""What a report says, section by section; a section says so where its measures are missing."""

from __future__ import annotations

from ..blocks import Report
from ..numbers import several
from ..schema import Comparison
from ..summary import answer, notes
from ..verdict import verdict
from . import calibration, control, findings, provenance, quality, resources, rows, scalability, trials


def document(found: Comparison) -> Report:
    """The whole report of a comparison."""
    decided = verdict(found)
    headline, sentences = answer(found, decided)
    sections = [
        quality.section(found, decided),
        findings.section(found),
        scalability.section(found),
        resources.section(found),
        control.section(found),
        calibration.section(found),
        rows.section(found),
        trials.section(found),
        provenance.section(found),
        provenance.glossary(found),
    ]
    study = found.study
    parts = [study.model, study.task, several(len(found.methods), "method")]
    parts += [several(len(found.references), "reference")] if found.references else []
    parts += [study.started or ""]
    return Report(
        title=study.name or found.folder.resolve().name,
        subtitle=" · ".join(part for part in parts if part),
        headline=headline,
        answer=sentences,
        notes=notes(found, decided),
        sections=sections,
    )
