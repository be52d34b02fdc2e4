"""Renders a comparison's report as one HTML file."""

from __future__ import annotations

from ...page import html
from ...page.blocks import Report

SOURCE = (
    "the files of the comparison alone. The same numbers: report.md; all that was measured: results.jsonl"
)


def render(report: Report) -> str:
    """Return the page as text."""
    return html.render(report, source=SOURCE)
