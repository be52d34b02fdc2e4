"""The wheel is built with the library and the demo that `softprompt demo` imports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hatch() -> dict:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]


def test_the_wheel_and_an_editable_install_hold_the_library_and_the_demo(hatch):
    packages = hatch["targets"]["wheel"]["packages"]
    assert {Path(path).name for path in packages} == {"softprompt", "softprompt_demo"}
    assert {str(Path(path).parent) for path in packages} == set(hatch["dev-mode-dirs"])
    assert all((ROOT / path / "__init__.py").is_file() for path in packages)
    source = (ROOT / "src/softprompt/cli/demo.py").read_text(encoding="utf-8")
    imported = re.search(r"^    from (softprompt_demo)\.(\w+) import main", source, re.M)
    assert imported and (ROOT / "examples" / imported[1] / f"{imported[2]}.py").is_file()


def test_the_gateway_image_copies_what_the_wheel_is_built_from(hatch):
    recipe = (ROOT / "deploy/docker/gateway.Dockerfile").read_text(encoding="utf-8")
    copied = [source for source, _ in re.findall(r"^COPY (\S+) (/opt/softprompt/\S+)$", recipe, re.M)]
    for path in hatch["targets"]["wheel"]["packages"]:
        assert path in copied or str(Path(path).parent) in copied, path
