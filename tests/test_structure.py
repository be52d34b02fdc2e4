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
    *("_system", "config", "data", "methods", "model", "lm", "cache", "artifacts", "evaluation", "tracking"),
    *("training", "compare", "distillation", "harness", "recommend", "serve", "cli", "testing", "page"),
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


OLD_IMPORTS = {  # what a user's program says, and the same object at its new place
    "import softprompt.report; x = softprompt.report": ("compare.report", ""),
    "from softprompt import report as x": ("compare.report", ""),
    "import softprompt; softprompt.report; x = softprompt.report": ("compare.report", ""),
    "import softprompt.report.page; x = softprompt.report.page": ("compare.report.page", ""),
    "from softprompt.report import write as x": ("compare.report", "write"),
    "from softprompt.report.sections import document as x": ("compare.report.sections", "document"),
    "from softprompt.findings import examine, Run as x": ("evaluation.diagnostics", "Run"),
    "from softprompt.findings.run import Run as x": ("evaluation.diagnostics", "Run"),
    "from softprompt.choose import rank as x": ("recommend.rank", "rank"),
    "import softprompt.choose.rank; from softprompt.recommend import rank as x": ("recommend.rank", "rank"),
    "import softprompt.choose.rank; from softprompt.choose.rank import Ranked as x": (
        "recommend.rank",
        "Ranked",
    ),
    "from softprompt.interop import peft as x": ("artifacts.interop.peft", ""),
    "import softprompt.interop.peft; x = softprompt.interop.peft": ("artifacts.interop.peft", ""),
    "import softprompt; softprompt.interop; import softprompt.interop.peft as x": (
        "artifacts.interop.peft",
        "",
    ),
}
OLD_NAMES = {
    "Contestant": ("recommend.candidates", "MethodChoice"),
    "CONTESTANTS": ("recommend.candidates", "CANDIDATES"),
    "Said": ("recommend.requirements", "Requirements"),  # codespell:ignore said
    "Pilot": ("recommend.pilot", "Pilot"),
}
CHECK = """
import importlib, sys, warnings
warnings.simplefilter("always")
for program, (home, name) in {cases}.items():
    if {fresh}:  # as in a new process, but libraries stay loaded
        for module in [m for m in sys.modules if m.split(".")[0] == "softprompt"]:
            del sys.modules[module]
        sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "MovedPackages"]
    with warnings.catch_warnings(record=True) as caught:
        scope = {{}}
        exec(program, scope)
    ours = [w for w in caught if w.category is DeprecationWarning and "softprompt" in str(w.message)]
    new = importlib.import_module("softprompt." + home)
    assert scope["x"] is (getattr(new, name) if name else new), program
    assert new.__name__ == new.__spec__.name == "softprompt." + home, program
    assert len(ours) == {count}, (program, [str(w.message) for w in ours])
    assert all(w.filename == "<string>" for w in ours), (program, ours)
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.process
def test_moved_packages_are_the_same_modules_under_their_old_names():
    run(CHECK.format(cases=OLD_IMPORTS, fresh=True, count=1))


@pytest.mark.process
@pytest.mark.parametrize("package", ["choose", "recommend"])
def test_renamed_names_of_the_recommendation_are_the_same_objects(package):
    cases = {f"from softprompt.{package} import {old} as x": new for old, new in OLD_NAMES.items()}
    run(f"import softprompt.{package}\n" + CHECK.format(cases=cases, fresh=False, count=1))


@pytest.mark.process
def test_an_unknown_name_in_a_moved_package_is_still_an_import_error():
    names = ["report.nosuch", "findings.nosuch.deeper", "interop.peft.nosuch", "nosuch", "choose.contestants"]
    run(
        f"""
import importlib, warnings
warnings.simplefilter("ignore")
for name in {names}:
    try:
        importlib.import_module("softprompt." + name)
    except ModuleNotFoundError as error:
        assert "softprompt." in error.name and error.name.split(".")[1] == name.split(".")[0], error.name
    else:
        raise SystemExit(name + " was found")
import softprompt.recommend, softprompt.serve
for module in (softprompt, softprompt.recommend, softprompt.serve):
    assert not hasattr(module, "nosuch") and not hasattr(module, "Scored")
"""
    )


@pytest.mark.process
def test_importing_the_library_or_its_server_loads_no_moved_package():
    loaded = run("import softprompt, softprompt.serve, sys; print(*sys.modules)").split()
    assert not {"torch", "softprompt.recommend", "softprompt.serve.engine", "softprompt.serve.request"} & {
        *loaded
    }


@pytest.mark.process
def test_the_names_that_serve_exports_are_found_at_their_first_use():
    names = "Engine Registry Request Token Finished Sampling Answer Entry Loaded Busy Stopped BrokenPrompt"
    names = [*names.split(), "InvalidRequest", "UnknownPrompt"]
    run(
        f"""
import sys, warnings
warnings.simplefilter("error", DeprecationWarning)
from softprompt.serve import Busy
import softprompt.serve
assert "torch" not in sys.modules
assert sorted(softprompt.serve.__all__) == sorted({names})
warnings.simplefilter("default", DeprecationWarning)  # of libraries
from softprompt.serve import *
assert all(globals()[name].__name__ == name for name in {names})
"""
    )


def test_the_main_contract_has_at_most_twelve_layers():
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (main,) = [contract for contract in contracts if contract["name"] == "layers"]
    assert len(main["layers"]) <= 12
    assert "\n".join(main["layers"]) in (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
