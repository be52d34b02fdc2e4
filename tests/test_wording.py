"""Docstrings are sentences, and parameters, fields and variables have names that say something.

`python tests/test_wording.py src/softprompt/lm` lists what the rules find under a path. The replaced words
themselves are in `wording.txt`; codespell looks for them (`make lint`).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "softprompt"
ROOMS = [
    *sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"),
    "_system",
    ".",
]
OUTSIDE = ["benchmarks", "connectors/vllm/src", "examples/softprompt_demo"]

#: Names that say nothing of what they hold. `what` is a part of every error's message: what, why and the fix.
EMPTY_NAMES = {"found", "own", "asked", "made", "said", "told", "how", "one", "what"}  # codespell:ignore
SPEAKS_OF_ERRORS = {"errors.py"}

VERBS = (ROOT / "tests" / "verbs.txt").read_text().split()
AUXILIARIES = """
    is are was were be been being has have had do does did can cannot could may might must should will would
    isn't aren't doesn't don't can't won't
""".split()
IRREGULAR = """
    began begun bought bound broken brought built came caught chose chosen come cut dealt done drawn drew
    driven dug fallen fed fell felt forgotten fought found gave given gone got grown held hidden hit hurt
    kept knew known laid lain led left let lost made meant met overridden paid put ran read risen rose
    sat saw seen sent set shown shut slept slid sold sought spent split spoken spun stolen stuck taken
    taught thought thrown took torn understood undone went withdrawn won worn written wrote
""".split()
QUESTIONS = {"what", "who", "whose", "whom", "whether", "how", "why", "which", "when", "where", "of"}


def forms(verb: str) -> set[str]:
    """The regular finite forms and participles of a verb, except its base form, which may be a noun."""
    doubled = verb + verb[-1]
    result = {verb + "s", verb + "es", verb + "ed", doubled + "ed"}
    if verb.endswith("e"):
        result.add(verb + "d")
    if verb.endswith("y"):
        result |= {verb[:-1] + "ies", verb[:-1] + "ied"}
    return result


FINITE = set().union(*map(forms, VERBS), AUXILIARIES, IRREGULAR)


def is_fragment(docstring: str) -> bool:
    """Whether the first sentence has no verb: neither an imperative in front nor a finite form anywhere.

    A subordinate clause alone ("Whether it fits", "What is kept", "Of one row") is a fragment as well.
    """
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.:;!?])\s", re.sub(r"`[^`]*`", "X", paragraph))[0]
    words = [word.lower() for word in re.findall(r"[A-Za-z']+", sentence)]
    if not words or words[0] in QUESTIONS:
        return True
    return words[0] not in VERBS and not FINITE.intersection(words)


def sources(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    """Each module under a path, with its syntax tree."""
    for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]:
        name = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.as_posix()
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def fragments(name: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring is not None and is_fragment(docstring):
                place = f"{name}:{getattr(node, 'lineno', 1)} {getattr(node, 'name', 'the module')}"
                yield f"{place}: {docstring.splitlines()[0]}"


def empty_names(name: str, tree: ast.Module) -> Iterator[str]:
    if name in SPEAKS_OF_ERRORS:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                if argument.arg in EMPTY_NAMES:
                    yield f"{name}:{node.lineno} {node.name}({argument.arg})"
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                target = part.target if isinstance(part, ast.AnnAssign) else None
                if isinstance(target, ast.Name) and target.id in EMPTY_NAMES:
                    yield f"{name}:{part.lineno} {node.name}.{target.id}"
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in EMPTY_NAMES:
            yield f"{name}:{node.lineno} {node.id}"


def room(name: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules of a room, or of a folder outside the package; "." has those beside the rooms."""
    if name in OUTSIDE:
        return sources(ROOT / name)
    return (each for each in sources(PACKAGE / name) if name != "." or "/" not in each[0])


@pytest.mark.parametrize("name", [*ROOMS, *OUTSIDE])
def test_docstrings_are_sentences(name):
    assert [line for module in room(name) for line in fragments(*module)] == []


@pytest.mark.parametrize("name", [*ROOMS, *OUTSIDE])
def test_names_say_something(name):
    assert [line for module in room(name) for line in empty_names(*module)] == []


@pytest.mark.parametrize(
    "docstring",
    [
        "Of doing it.",
        "Who trains.",
        "Of one layer's product, as a model computes it.",
        "Whether it fits.",
        "What came of it, and why.",
        "One row's answer.",
        "For statistics (value, 1).",
        "`softprompt tune`.",
    ],
)
def test_fragments_are_seen(docstring):
    assert is_fragment(docstring)


@pytest.mark.parametrize(
    "docstring",
    [
        "Return the rows of a batch.",
        "Rows are shuffled once an epoch.",
        "The number of rows that a step reads.",
        "`softprompt tune` trains the prompt of a recipe.",
        "A row that could not be read.",
    ],
)
def test_sentences_pass(docstring):
    assert not is_fragment(docstring)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        for module in sources(Path(path).resolve()):
            for line in (*fragments(*module), *empty_names(*module)):
                print(line)
