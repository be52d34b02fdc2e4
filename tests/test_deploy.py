"""Kubernetes accepts the manifests of deploy/, and the code reads the settings in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

kubernetes_validate = pytest.importorskip("kubernetes_validate")

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
VERSIONS = ("1.31", "1.33")


def documents() -> list[tuple[str, dict]]:
    return [
        (f"{file.name}:{found['kind']}/{found['metadata']['name']}", found)
        for file in FILES
        for found in yaml.safe_load_all(file.read_text(encoding="utf-8"))
    ]


FOUND = dict(documents())


def test_the_list_of_manifests():
    kinds = sorted(found["kind"] for found in FOUND.values())
    assert len(FILES) == 3 and len(FOUND) == len(documents()) == 11
    assert kinds.count("Deployment") == 2 and kinds.count("PersistentVolumeClaim") == 2


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FOUND)
def test_the_schema_accepts_it(name, version):
    kubernetes_validate.validate(FOUND[name], version, strict=True)


def test_the_schema_rejects_an_invalid_manifest():
    broken = json.loads(json.dumps(FOUND["vllm.yaml:Deployment/vllm"]))
    broken["spec"]["template"]["spec"]["containers"][0]["portz"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


def test_references_between_manifests_resolve():
    """Volume claims, services and selectors name objects and keys that exist."""
    claims = {found["metadata"]["name"] for found in FOUND.values() if found["kind"].endswith("Claim")}
    services = {found["metadata"]["name"]: found for found in FOUND.values() if found["kind"] == "Service"}
    for found in FOUND.values():
        assert found["metadata"].get("namespace", "softprompt") == "softprompt"
        if found["kind"] != "Deployment":
            continue
        spec, labels = found["spec"], found["spec"]["template"]["metadata"]["labels"]
        pod = spec["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        used = {
            v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v
        }
        assert used <= claims and spec["selector"]["matchLabels"] == labels
        assert services[found["metadata"]["name"]]["spec"]["selector"] == labels
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert all(mount.get("readOnly") for mount in container["volumeMounts"] if mount["name"] in used)


def test_the_connector_is_configured_as_it_reads():
    (container,) = FOUND["vllm.yaml:Deployment/vllm"]["spec"]["template"]["spec"]["containers"]
    configured = json.loads(container["args"][container["args"].index("--kv-transfer-config") + 1])
    source = (ROOT / "connectors/vllm/src/softprompt_vllm/connector.py").read_text(encoding="utf-8")
    assert configured["kv_connector_module_path"] == "softprompt_vllm.connector"
    assert f"class {configured['kv_connector']}(" in source
    read = set(re.findall(r'extra\("(\w+)"', source))
    assert set(configured["kv_connector_extra_config"]) == read
    assert configured["kv_load_failure_policy"] == "fail"


def test_the_container_runs_under_the_allocator_that_it_installs():
    text = (ROOT / "deploy/docker/gateway.Dockerfile").read_text(encoding="utf-8")
    installed, preloaded = text.index("libjemalloc2"), text.index("ENV LD_PRELOAD=libjemalloc.so.2")
    assert installed < preloaded < text.index("ENTRYPOINT")
