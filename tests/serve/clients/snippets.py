"""What docs/serving.md shows under "Clients that were tried", to be run as it is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
ADDRESS = "http://127.0.0.1:8000"
PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
SECTION = re.split(r"\n## ", PAGE.split("\n## Clients that were tried\n")[1])[0]


def snippets(heading: str, language: str) -> list[str]:
    """The blocks of one language below a heading."""
    below = re.split(r"\n### ", SECTION.split(f"\n### {heading}\n")[1])[0]
    return re.findall(rf"```{language}\n(.*?)```", below, re.S)


def snippet(heading: str, language: str, url: str, at: int = 0) -> str:
    """One block, with the server's address in place of the documentation's."""
    found = snippets(heading, language)[at]
    assert ADDRESS in found
    return found.replace(ADDRESS, url)
