"""What `make dist`, `make licenses` and `make audit` rest on."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest
from packaging.version import Version

import softprompt
from softprompt._system.version import FALLBACK

ROOT = Path(__file__).parents[1]


#: Files that name a release, and how. A release changes them before its tag (docs/releases.md).
NAMED = {
    "pyproject.toml": 'fallback-version = "{}.dev0"',
    "src/softprompt/_system/version.py": 'FALLBACK = "{}.dev0"',
    "CITATION.cff": "version: {}",
    "docs/cite.md": "version = {{{}}}",
    "docs/deploy.md": "-t softprompt-gateway:{0} --build-arg VERSION={0} .",
    "deploy/helm/softprompt/Chart.yaml": 'version: {0}\nappVersion: "{0}"',
    "deploy/helm/softprompt/values.yaml": 'tag: "{}"',
    "deploy/kubernetes/gateway.yaml": "image: softprompt-gateway:{}",
}


def test_every_file_names_the_same_release():
    release = FALLBACK.removesuffix(".dev0")
    assert re.fullmatch(r"\d+\.\d+\.\d+", release)
    page = (ROOT / "docs/releases.md").read_text(encoding="utf-8")
    for name, form in NAMED.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert text.count(form.format(release)) == 1 and f"`{name}`" in page, name


def test_the_version_is_one_of_pep_440():
    assert str(Version(softprompt.__version__)) == softprompt.__version__


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
