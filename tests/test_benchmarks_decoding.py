"""The short form of benchmarks.decoding holds; a wrong result makes it fail, a slow one never."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.decoding import MEASURES
from benchmarks.decoding.__main__ import main
from tests.printed import printed

from softprompt.lm import decoding

pytestmark = pytest.mark.whole
PAGE = (Path(__file__).parents[1] / "docs/performance.md").read_text(encoding="utf-8")


def lines(*arguments):
    code, out = printed(main, "--short", "--json", *arguments)
    return code, json.loads(out)["lines"]


def test_the_short_form_holds():
    code, measured = lines()
    assert [(line["measure"], line["fault"]) for line in measured if line["fault"]] == []
    assert code == 0 and {line["measure"] for line in measured} == set(MEASURES)
    assert all(f"### {name}\n" in PAGE for name in MEASURES)


def test_texts_that_differ_fail(monkeypatch):
    step = decoding.Running.step
    monkeypatch.setattr(decoding, "suits", lambda *_: True)
    monkeypatch.setattr(decoding.Running, "step", lambda self, ids: step(self, ids).roll(1, -1))
    code, measured = lines("--only", "answers", "--precision", "float32")
    assert code == 1 and all("texts differ" in line["fault"] for line in measured)
