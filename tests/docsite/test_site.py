"""The documentation site is built as `make docs` builds it, and looked at in a browser."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib
from docsite.assemble import assemble
from filelock import FileLock

import softprompt
from docsite import api, check, commands, methods

ROOT = Path(__file__).parents[2]
CONFIG = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run what the Makefile runs, in another folder."""
    shutil.copy(ROOT / "zensical.toml", folder)
    (folder / "src").symlink_to(ROOT / "src")
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, once for all processes of a test run."""
    pytest.importorskip("zensical")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "docsite"
    with FileLock(f"{folder}.lock"):
        if not (folder / "built").exists():
            shutil.rmtree(folder, ignore_errors=True)
            assemble(folder / "build/docs")
            done = build(folder)
            assert done.returncode == 0 and "No issues found" in done.stderr, done.stdout + done.stderr
            (folder / "built").touch()
    return folder / "build/site"


@pytest.mark.slow
def test_the_site_is_built_and_its_links_lead_somewhere(site):
    assert list(check.mistakes(site)) == []
    assert (site / "search.json").stat().st_size > 100_000
    page = (site / "api/functions.html").read_text(encoding="utf-8")
    assert 'id="softprompt.tune"' in page and "Tune a prompt or prefix on rows" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "text, reasons",
    [
        ("[x](nowhere.md) [x](index.md#nowhere)", ["page does not exist", "anchor does not exist"]),
        ("::: softprompt.nowhere", ["softprompt.nowhere"]),
    ],
)
def test_a_wrong_link_or_name_ends_the_build(text, reasons, tmp_path):
    pytest.importorskip("zensical")
    page = tmp_path / "build/docs/index.md"
    page.parent.mkdir(parents=True)
    page.write_text(f"# One page\n\n{text}\n", encoding="utf-8")
    done = build(tmp_path)
    assert done.returncode != 0
    assert all(reason in done.stdout + done.stderr for reason in reasons)


def test_the_check_of_a_built_site_finds_what_is_wrong(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top"><a href="a/b.html#here">b</a><a href="a/b.html#gone">b</a><a href="c.html">c</a>'
        '<a href="https://example.org">out</a><script src="https://example.org/x.js"></script>'
    )
    (tmp_path / "a/b.html").write_text(
        '<p id="here"><a href="../index.html#top">up</a><a href="#here">here</a>'
    )
    assert list(check.mistakes(tmp_path)) == [
        "index.html loads https://example.org/x.js from elsewhere",
        "index.html links to a/b.html#gone, but a/b.html has no such anchor",
        "index.html links to c.html, which does not exist",
    ]


def test_a_page_of_the_site_is_called_as_in_the_navigation():
    from docsite.assemble import _page

    text = "See [serving.md](../serving.md#names), [methods.md](../methods.md), [it](../faq.md).\n\n"
    text += "<!-- not on the site -->\nOn the site a table\nfollows here.\n\nThe end.\n"
    page = _page(text, "docs/tutorials/first.md", "tutorials/first.md", set())
    assert page == (
        "See [Serve](../serving.md#names), [Methods](../methods.md), [it](../faq.md).\n\nThe end.\n"
    )


def pages_of(nav: Any) -> Iterator[str]:
    """Yield every page of a navigation."""
    for item in nav if isinstance(nav, list) else [nav]:
        if isinstance(item, str):
            yield item
        else:
            for inner in item.values():
                yield from pages_of(inner)


def test_every_page_is_in_the_navigation():
    named = list(pages_of(CONFIG["nav"]))
    written = [p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")]
    generated = [*api.pages(), *commands.pages(), *methods.pages(), "changelog.md", "contributing.md"]
    assert sorted(named) == sorted({*written, *generated})


def test_every_public_name_is_in_the_reference():
    listed = {name.removeprefix("softprompt.") for page in api.PAGES.values() for name in page.names}
    missing = set(softprompt.__all__) - {"__version__"} - listed
    assert not missing, f"name them in docsite/api.py: {missing}"
    for page in api.PAGES.values():
        for name in page.names:
            assert api.resolved(name) is not None


def test_every_key_of_a_recipe_is_on_its_page():
    from docsite.recipe import keys

    from softprompt.config.schema import Recipe

    page = keys()
    for section, field in Recipe.model_fields.items():
        assert f"## {section}\n" in page
        inner = getattr(field.annotation, "model_fields", {})
        for key in inner:
            assert f"| `{key}` |" in page.split(f"## {section}\n")[1].split("\n## ")[0], (section, key)
    assert "| `steps` | `integer ≥ 0` | `200` |" in page


def test_the_citation_has_the_version_and_the_licence():
    import yaml

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    page = (ROOT / "docs/cite.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["license"] == project["license"]
    assert all(f"{{{text}}}" in page for text in (cited["title"], cited["version"], cited["license"]))


LOOKED_AT = ["index", "recipe", "api/functions", "nine-comparisons"]
LOOKED_AT += [f"tutorials/{path.stem}" for path in sorted((ROOT / "docs/tutorials").glob("*.md"))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_in_a_browser(site, chromium, width, scheme):
    """No console message, nothing fetched from elsewhere, no scrolling sideways; the search answers."""
    handler = functools.partial(Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(address) else complaints.append(r.url))
        for name in LOOKED_AT:
            page.goto(f"{address}{name}.html")
            root = "document.documentElement"
            assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"), name
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(255, 255, 255)") == (scheme == "light"), background
        context.close()
        server.shutdown()
    assert complaints == []


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass
