"""The pages of `docs/` are copied for the site, and reference, methods and sources are generated.

A page is readable on a code host as it is. For the site its relative links to files outside `docs/` lead to
pages that show those files, and a link that has the file name of a page as its text gets the page's title in
the navigation. A line `<!-- site: NAME -->` is replaced by a generated part, and the paragraph after a line
`<!-- not on the site -->` is left out.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tomllib

from . import api, commands, methods, recipe
from .outputs import with_outputs
from .sources import shown

ROOT = Path(__file__).resolve().parents[1]

NAVIGATION = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
#: Files outside `docs/` that are pages of the site.
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
#: Files in whose place another page of the site is shown.
HOMES = {**PAGES, "README.md": "index.md"}
PARTS: dict[str, Callable[[], str]] = {
    "recipe": recipe.keys,
    "commands": commands.contents,
    "api": api.contents,
    "methods": methods.contents,
}
GENERATED: tuple[Callable[[], dict[str, str]], ...] = (commands.pages, api.pages, methods.pages)
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s]+)\)")
LEFT_OUT = re.compile(r"^<!-- not on the site -->\n(?:.+\n)+\n?", re.M)
FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def assemble(target: Path) -> None:
    """Write every page of the site into an empty folder."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target, ignore=shutil.ignore_patterns("*.jsonl", "*.gz", "*.json"))
    wanted: set[str] = set()
    for source in sorted((ROOT / "docs").rglob("*.md")):
        name = source.relative_to(ROOT / "docs").as_posix()
        text = source.read_text(encoding="utf-8")
        if (notebook := source.with_suffix(".ipynb")).exists():
            text, pictures = with_outputs(text, notebook)
            for picture, content in pictures.items():
                (target / name).with_name(picture).write_bytes(content)
        _write(target / name, _page(text, f"docs/{name}", name, wanted))
    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        _write(target / name, _page(text, source, name, wanted))
    for pages in GENERATED:
        for name, text in pages().items():
            _write(target / name, text)
    for path in sorted(wanted):
        _write(target / shown_at(path), shown(ROOT, path))


def shown_at(path: str) -> str:
    """Return the page that shows a file or a folder of the repository."""
    return f"source/{path}.md"


def _page(text: str, source: str, name: str, wanted: set[str]) -> str:
    """Return one page with its parts and links; `wanted` receives the files to be shown for its links."""
    text = LEFT_OUT.sub("", text)
    for part, generate in PARTS.items():
        text = text.replace(f"<!-- site: {part} -->", generate())
    titles = dict(_titles(NAVIGATION))
    fences = [match.span() for match in FENCE.finditer(text)]

    def linked(match: re.Match[str]) -> str:
        if any(start <= match.start() < end for start, end in fences):
            return match[0]
        target = _target(match[2], source, name, wanted)
        called = match[1]
        if re.fullmatch(r"\[[\w-]+\.md\]", called):
            page = posixpath.normpath(posixpath.join(posixpath.dirname(name), target.partition("#")[0]))
            called = f"[{titles.get(page, called[1:-1])}]"
        return f"{called}({target})"

    return LINK.sub(linked, text)


def _titles(nav: Any) -> Iterator[tuple[str, str]]:
    """Yield each page of a navigation and what it is called there."""
    for item in nav:
        if isinstance(item, dict):
            for title, inner in item.items():
                if isinstance(inner, str):
                    yield inner, title
                else:
                    # the first page of a section without a title of its own has the section's
                    yield from ((page, title) for page in inner[:1] if isinstance(page, str))
                    yield from _titles(inner)


def _target(link: str, source: str, name: str, wanted: set[str]) -> str:
    """Return where a link leads on the site: unchanged within `docs/`, else to the page of the file."""
    path, _, anchor = link.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return link
    inside = (ROOT / source).parent.joinpath(path).resolve()
    if not inside.exists():
        return link  # to a generated page, or wrong: the build says so
    place = inside.relative_to(ROOT).as_posix()
    if place in HOMES:
        place = HOMES[place]
    elif place.startswith("docs/") and inside.is_file():
        place = place.removeprefix("docs/")
    else:
        wanted.add(place)
        place = shown_at(place)
    up = "../" * name.count("/")
    return f"{up}{place}" + (f"#{anchor}" if anchor else "")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
