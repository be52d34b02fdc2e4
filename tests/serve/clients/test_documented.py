"""The documentation names the versions that these tests have, and shows no snippet that they do not run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.serve.clients.snippets import ROOT, SECTION, snippets

HERE = ROOT / "tests/serve/clients"
#: By heading and language, how many snippets the tests of this folder run.
RUN = {
    "openai-python and openai-node": {"python": 1, "js": 1},
    "AI SDK": {"js": 1},
    "litellm": {"python": 1},
    "LangChain": {"python": 1},
    "llm": {"yaml": 1, "bash": 1},
    "instructor": {"python": 1},
    "lm_eval": {"bash": 3},
    "guidellm": {"bash": 1},
}
BY_HAND = {"LlamaIndex": {"python": 1}, "Open WebUI": {"bash": 1}}  # of these the page says so
ROWS = {
    cells[1].strip(): cells[2].strip()
    for cells in (row.split("|") for row in SECTION.splitlines())
    if cells[1:]
}


def test_every_snippet_is_run_or_said_not_to_be():
    expected = RUN | BY_HAND
    assert set(re.findall(r"\n### (.*)", SECTION)) == set(expected)
    found = {name: {one: len(snippets(name, one)) for one in expected[name]} for name in expected}
    assert found == expected
    assert SECTION.count("```") == 2 * sum(sum(counts.values()) for counts in found.values())


def pinned(file: Path, package: str) -> str:
    (version,) = re.findall(rf"^{package}==(\S+)$", file.read_text(), re.M)
    return version


@pytest.mark.parametrize(
    ("client", "package"),
    [
        ("litellm", "litellm"),
        ("LangChain, `langchain-openai`", "langchain-openai"),
        ("`llm`", "llm"),
        ("instructor", "instructor"),
        ("lm_eval", "lm_eval"),
        ("guidellm", "guidellm"),
    ],
)
def test_python_clients_have_the_pinned_versions(client, package):
    assert ROWS[client] == pinned(HERE / "requirements.txt", package)


def test_openai_and_node_clients_have_the_pinned_versions():
    both = (pinned(file, "openai") for file in (ROOT / "constraints.txt", HERE / "requirements.txt"))
    assert ROWS["openai-python"] == ", ".join(both)
    node = json.loads((HERE / "package.json").read_text())["dependencies"]
    assert ROWS["openai-node"] == node["openai"]
    second = "@ai-sdk/openai-compatible"
    assert ROWS[f"AI SDK, `{second}`"] == f"{node['ai']}, {node[second]}"
