"""The two ends of the ranges in pyproject.toml, for `make test-versions`: what pip is to install at each.

    python tests/versions.py oldest        `name==X` for every direct dependency's `name>=X`
    python tests/versions.py newest        every range unchanged, so that pip takes the newest it allows
    python tests/versions.py show FILE     what is installed here of FILE; fails where that is another

Requirements after `oldest` or `newest` replace those of the same names: `oldest torch==2.13.0`. Only the
standard library is used, since the script is run before anything is installed.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(?P<extras>\[[\w,-]+\])?>=(?P<lowest>[\w.]+)(?P<highest>,<[\w.]+)?(?P<marker>; .+)?"
)


def requirements() -> list[re.Match[str]]:
    """Every direct dependency, those of the extras included; ValueError for one without a lower bound."""
    import tomllib

    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    texts = dict.fromkeys([*project["dependencies"], *(text for extra in extras for text in extra)])
    found = []
    for text in texts:
        if (match := REQUIREMENT.fullmatch(text)) is None:
            raise ValueError(f"pyproject.toml: {text!r} is not of the form name>=lowest[,<highest][; marker]")
        found.append(match)
    lowest: dict[str, str] = {}
    for match in found:
        if lowest.setdefault(match["name"], match["lowest"]) != match["lowest"]:
            raise ValueError(f"pyproject.toml: {match['name']} has two lower bounds")
    return found


def oldest() -> list[str]:
    """Return `name==lowest` for every direct dependency."""
    pins = [f"{m['name']}{m['extras'] or ''}=={m['lowest']}{m['marker'] or ''}" for m in requirements()]
    return list(dict.fromkeys(pins))


def newest() -> list[str]:
    """Return every range unchanged."""
    return [match[0] for match in requirements()]


def name_of(requirement: str) -> str:
    """Return a requirement's package name, as metadata compares it."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def replaced(lines: list[str], others: list[str]) -> list[str]:
    """Put the others in place of the lines of the same packages; ValueError for a package without a line."""
    if missing := {name_of(other) for other in others} - {name_of(line) for line in lines}:
        raise ValueError(f"no dependency of that name: {', '.join(sorted(missing))}")
    names = {name_of(other) for other in others}
    return [line for line in lines if name_of(line) not in names] + others


def release(version: str) -> list[str]:
    """A version without its build tag and closing zeros, so that 4.6 and 4.6.0+cpu are the same."""
    return re.sub(r"(\.0)+$", "", version.split("+")[0]).split(".")


def show(file: str) -> int:
    """Prints what is installed of the packages in the file; 1 if one is not the release that it names."""
    wrong = 0
    print(f"Python {sys.version.split()[0]}")
    for line in Path(file).read_text().splitlines():
        requirement, _, marker = line.partition(";")
        name, wanted = name_of(line), requirement.partition("==")[2].strip()
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            if not marker:
                raise
            print(f"{name} not installed: {marker.strip()}")
            continue
        differs = bool(wanted) and release(installed) != release(wanted)
        wrong += differs
        print(f"{name} {installed}" + (f"   WRONG: {wanted} is wanted" if differs else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1] == "show":
        raise SystemExit(show(sys.argv[2]))
    print("\n".join(replaced({"oldest": oldest, "newest": newest}[sys.argv[1]](), sys.argv[2:])))
