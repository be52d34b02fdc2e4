"""Prompt or prefix? The same contest on eight sets of data; `docs/findings.md` reads what it leaves."""
