"""`python -m docsite.check FOLDER` checks a built site: links, anchors, and what a browser loads."""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Elements whose address a browser loads, and the attribute with the address.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
#: A link element of these relations is no file that the page needs.
NOT_LOADED = {"canonical", "prev", "next", "alternate"}


class Page(HTMLParser):
    """A page has anchors, links and addresses that are loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values and values.get("rel") not in NOT_LOADED:
            self.loaded.append(values[LOADED[tag]])


def mistakes(site: Path) -> Iterator[str]:
    """Yield a sentence for each wrong link, missing anchor and address outside the site."""
    pages = {
        file.relative_to(site).as_posix(): Page(file.read_text(encoding="utf-8"))
        for file in sorted(site.rglob("*.html"))
        if "samples" not in file.parts and file.name != "404.html"
    }
    for name, page in pages.items():
        for address in page.loaded:
            if urlsplit(address).scheme not in ("", "data") or address.startswith("//"):
                yield f"{name} loads {address} from elsewhere"
        for address in [*page.links, *page.loaded]:
            yield from _wrong(site, pages, name, address)


def _wrong(site: Path, pages: dict[str, Page], name: str, address: str) -> Iterator[str]:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return
    path = posixpath.normpath(
        posixpath.join(posixpath.dirname(name), unquote(parts.path) or posixpath.basename(name))
    )
    target = site / path
    if target.is_dir():
        path, target = posixpath.normpath(f"{path}/index.html"), target / "index.html"
    if not target.is_file():
        yield f"{name} links to {address}, which does not exist"
    elif parts.fragment and path in pages and unquote(parts.fragment) not in pages[path].anchors:
        yield f"{name} links to {address}, but {path} has no such anchor"


if __name__ == "__main__":
    every = sorted(set(mistakes(Path(sys.argv[1]))))
    print(*every, sep="\n" if every else "", end="\n" if every else "")
    sys.exit(bool(every))
