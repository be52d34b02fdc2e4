"""What `make dist`, `make licenses` and `make audit` rest on."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

import softprompt

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    written = re.search(r'^version = "(.+)"$', text, re.M)[1]
    chart = (ROOT / "deploy/helm/softprompt/Chart.yaml").read_text(encoding="utf-8")
    assert written == softprompt.__version__ and f'appVersion: "{written}"' in chart
    assert f"version: {written}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8").replace('"', "")


@pytest.mark.parametrize("target", ["dist", "licenses", "audit"])
def test_the_targets_exist(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and ".venv-release" in done.stdout


@pytest.fixture(scope="module")
def verdict():
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci/audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.verdict


def package(name, *vulnerabilities, **more):
    found = [{"id": id, "fix_versions": versions} for id, versions in vulnerabilities]
    return {"name": name, "version": "1", "vulns": found} | more


def test_an_audit_that_audited_nothing_is_not_a_clean_one(verdict):
    code, lines = verdict("", "usage\nConnectionError: no route")
    assert code == 0 and lines == [
        "NO AUDIT: pip-audit could not reach its source: ConnectionError: no route"
    ]
    skipped = {
        "dependencies": [{"name": "a", "skip_reason": "not found"}, {"name": "b", "skip_reason": "no"}]
    }
    code, lines = verdict(json.dumps(skipped), "")
    assert code == 0 and lines[0].startswith("NO AUDIT") and "2 packages" in lines[0]


def test_vulnerabilities_fail(verdict):
    good, bad = package("good"), package("bad", ("CVE-1", ["2", "3"]), ("CVE-2", []))
    assert verdict(json.dumps({"dependencies": [good]}), "") == (
        0,
        ["1 of 1 packages audited, 0 vulnerabilities"],
    )
    code, lines = verdict(json.dumps({"dependencies": [good, bad]}), "")
    assert code == 1 and lines == [
        "bad 1: CVE-1, fixed in 2, 3",
        "bad 1: CVE-2, fixed in none",
        "2 of 2 packages audited, 2 vulnerabilities",
    ]


def test_every_moved_package_is_on_the_page_of_deprecations():
    from softprompt import _MOVED

    page = (ROOT / "docs/releases.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `softprompt\.(\w+)` \| `softprompt\.([\w.]+)` \|", page, re.M))
    assert rows == _MOVED
