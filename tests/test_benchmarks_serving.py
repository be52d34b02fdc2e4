"""The short form of benchmarks.serving holds; a wrong answer makes it fail, a slow one never."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("peft", reason="the benchmarks run beside PEFT (softprompt[lora])")

from benchmarks.serving import MEASURES, bench, load
from benchmarks.serving.__main__ import main
from tests.printed import printed

from softprompt.serve.registry import Registry
from softprompt.serve.request import Token

pytestmark = pytest.mark.whole


def measured(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the command, and return its exit code and lines."""
    code, out = printed(main, "--short", "--json", *arguments)
    return code, json.loads(out)["lines"]


def test_the_short_form_holds():
    code, lines = measured()
    assert [(line["measure"], line["fault"]) for line in lines if line["fault"]] == []
    assert list(dict.fromkeys(line["measure"] for line in lines)) == list(MEASURES)
    assert {line["goal"] for line in lines} == {8.0, None, 0.9, 1.05, 1.0, load.FLAT}
    assert code == 0


@pytest.mark.parametrize("name", ["peft", "mixed"])
def test_answers_that_differ_fail(name, monkeypatch):
    """Change one answer in every second call."""
    given, asked = bench.answers, []

    def sometimes(engine, requests):
        asked.append(len(requests))
        found = given(engine, requests)
        if len(asked) % 2 == 0:
            found[0] = [*found[0][:-1], found[0][-1] + 1]
        return found

    for module in ("switching", "mixed"):
        monkeypatch.setattr(f"benchmarks.serving.{module}.answers", sometimes)
    code, lines = measured("--only", name)
    assert code == 1
    assert any("answers are not" in line["fault"] for line in lines)


def test_a_prompt_that_changes_on_reloading_fails(monkeypatch):
    get, asked = Registry.get, []

    def other(self, name):
        asked.append(name)
        loaded = get(self, name)
        object.__setattr__(loaded, "fingerprint", f"{loaded.fingerprint}{len(asked)}")
        return loaded

    monkeypatch.setattr(Registry, "get", other)
    code, lines = measured("--only", "loading")
    assert code == 1 and all("not the same again" in line["fault"] for line in lines)


def test_a_request_that_is_not_answered_fails(monkeypatch):
    monkeypatch.setattr("benchmarks.serving.first_token.Token", type("Other", (Token,), {}))
    code, lines = measured("--only", "first-token")
    assert code == 1 and all("not answered" in line["fault"] for line in lines)
