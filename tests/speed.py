"""Which tests `make test-fast` leaves out: it runs `pytest -m "not slow"`, and a rule says what is slow.

A test is slow if one of these holds:

- it is marked `real` (runs the real SmolLM2), `process` (starts another process), `whole` (its file runs
  tuning, comparisons, the demo, a benchmark or a server from end to end, many times) or `slow`;
- it uses a browser (the fixture `chromium`);
- it is run on a family of models other than `FAMILIES`, which has one family of each kind;
- its function has run with another set of parameters already.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

#: A decoder-only family, an encoder-decoder, an encoder.
FAMILIES = ("llama", "t5", "bert")
MARKERS = {
    "real": "runs the real SmolLM2 (a second or more each)",
    "process": "starts another process",
    "whole": "runs a tuning, a comparison, the demo, a benchmark or a server from end to end",
    "slow": "is left out by `make test-fast`; tests/speed.py has the rule",
}


def is_slow(item: pytest.Item) -> bool:
    """Whether the rule above leaves the test out."""
    if any(item.get_closest_marker(name) for name in MARKERS):
        return True
    if "chromium" in getattr(item, "fixturenames", ()):
        return True
    params = getattr(getattr(item, "callspec", None), "params", {})
    families = [params[name] for name in ("family", "encoder") if isinstance(params.get(name), str)]
    return any(family not in FAMILIES for family in families)


def mark_slow(items: Iterable[pytest.Item]) -> None:
    """Add the marker `slow` to every test that the rule leaves out."""
    functions: set[str] = set()
    for item in items:
        function = item.nodeid.partition("[")[0]
        if is_slow(item) or function in functions:
            item.add_marker(pytest.mark.slow)
        else:
            functions.add(function)
