"""Inputs in use are compared with the form that the model was trained on."""

from __future__ import annotations

import re

from .run import Finding, Run

TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.S)


def template_mismatch(run: Run) -> Finding | None:
    """Report inputs in use that lack the template's text around the field, or have it twice."""
    head, tail = frame(str(run.setting("template", "input", "")))
    if not run.used or not (head or tail):
        return None
    lacking = [text for text in run.used if not (text.startswith(head) and text.endswith(tail))]
    twice = [text for text in run.used if text not in lacking and _twice(text, head, tail)]
    if not lacking and not twice:
        return None
    form = " … ".join(repr(part) for part in (head, tail) if part)
    n = len(run.used)
    summary = "inputs were rendered differently in use and in training"
    if lacking:
        evidence = f"{len(lacking)} of {n} inputs do not have the template's form, {form}"
    else:
        evidence = (
            f"{len(twice)} of {n} inputs have the template's form, {form}, twice: they were rendered already"
        )
    fix = "softprompt generate ARTIFACT INPUT   (it renders a bare input itself; so does Tuned.generate)"
    return Finding("warning", summary, evidence, fix)


def frame(template: str) -> tuple[str, str]:
    """Return the literal text ahead of the template's first field, and after its last."""
    parts = TAG.split(template)
    return (parts[0], parts[-1]) if len(parts) > 1 else ("", "")


def _twice(text: str, head: str, tail: str) -> bool:
    inner = text[len(head) : len(text) - len(tail)]
    return bool(head and inner.startswith(head)) or bool(tail and inner.endswith(tail))
