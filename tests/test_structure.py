"""The tree is checked: the page about it, names of classes, and what a process loads that only serves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/softprompt"
ROOT_MODULES = {"__init__", "__main__", "api", "tuned", "build", "injection", "errors"}
ROOMS = {
    *("_system", "config", "data", "methods", "model", "lm", "cache", "artifacts", "evaluation", "training"),
    *("compare", "recommend", "serve", "cli"),
}


def test_the_architecture_page_names_every_module():
    """Its tree has a line for each file, under the folder that the file is in."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    lines = page.split("```\nsrc/softprompt/\n")[1].split("\n```")[0].splitlines()
    rooms: list[str] = []
    named = set()
    for line in lines:
        if not line.startswith(" "):
            break
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        rooms = [*rooms[: depth - 1], name]
        named.add("".join(rooms))
    rooms = [name for name in named if name.endswith("/")]
    whole = [room for room in rooms if not any(n != room and n.startswith(room) for n in named)]
    modules = {str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"}
    assert len(modules) > 200 and len(whole) < 15
    assert not [m for m in modules if m not in named and not m.startswith(tuple(whole))]
    assert not [name for name in named if not (PACKAGE / name).exists()]


def test_the_root_holds_its_modules_and_rooms():
    assert {p.stem for p in PACKAGE.glob("*.py")} == ROOT_MODULES
    assert {p.parent.name for p in PACKAGE.glob("*/__init__.py")} == ROOMS


def test_no_class_name_is_used_in_more_than_two_modules():
    homes = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name].add(path.relative_to(PACKAGE))
    assert len(homes) > 300
    assert not {name: places for name, places in homes.items() if len(places) > 2}


@pytest.mark.process
def test_a_process_that_serves_loads_nothing_that_trains():
    code = "import sys, softprompt.serve.registry; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[1] for name in done.stdout.split() if name.startswith("softprompt.")}
    assert "serve" in loaded
    assert not loaded & {"training", "compare", "recommend", "api", "cli"}


@pytest.mark.parametrize("name", ["report", "findings", "choose", "interop"])
def test_the_old_name_of_a_package_works_with_a_warning(name):
    import softprompt

    with pytest.warns(DeprecationWarning, match=f"softprompt.{name} is softprompt"):
        assert getattr(softprompt, name).__name__.startswith("softprompt.")


def test_the_main_contract_has_at_most_twelve_layers():
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (main,) = [contract for contract in contracts if contract["name"] == "layers"]
    assert len(main["layers"]) <= 12
    assert "\n".join(main["layers"]) in (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
