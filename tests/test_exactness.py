"""The cases of docs/exactness.md are run: our side is exact, PEFT's is not, and the page names every one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("peft")

from benchmarks.exactness import CASES, rows
from benchmarks.exactness import __main__ as command

pytestmark = pytest.mark.whole

PAGE = (Path(__file__).parents[1] / "docs/exactness.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def measured():
    return command.run()


def test_our_side_holds_in_every_case(measured):
    assert len(measured) == len(CASES) == len({row.case for row in measured}) > 20
    assert [row for row in measured if not row.holds] == []


def test_the_measures_can_fail(measured):
    """PEFT's side of each case is outside what is allowed, so each measure tells right from wrong."""
    assert [row.case for row in measured if replace(row, ours=row.peft).holds] == []


def test_the_page_has_every_case(measured):
    page = PAGE[PAGE.index(f"| {' | '.join(command.COLUMNS)} |") :].split("\n\n")[0]  # its first table alone
    lines = re.findall(r"^\| (.*) \|$", page, re.M)
    table = [tuple(line.split(" | ")) for line in lines]
    assert table[0] == command.COLUMNS
    printed = [command.cells(row) for row in measured]
    # the case, what is measured and what is allowed; numbers are another machine's
    assert [(c, m, a) for c, m, _, _, a in table[2:]] == [(c, m, a) for c, m, _, _, a in printed]
    for row, (_, _, _, ours, _) in zip(measured, table[2:], strict=True):
        found = ours if isinstance(row.allowed, str) else float(ours)
        assert replace(row, ours=found).holds, row.case
    sections = re.findall(r"^### (.*)\n\n(.)", PAGE, re.M)
    assert [name for name, _ in sections] == [row.case for row in measured]


@pytest.mark.parametrize("ours", [2 * rows.ROUNDING, float("nan"), "refused: no reason"])
def test_the_command_fails_where_our_side_is_wrong(ours, monkeypatch, capsys):
    wrong = rows.Row("a case", "a number", 1.0, ours, rows.ROUNDING)
    monkeypatch.setattr(command, "CASES", (lambda: wrong,))
    monkeypatch.setattr("sys.argv", ["exactness", "--json"])
    assert command.main() == 1
    assert "a case" in capsys.readouterr().err
    monkeypatch.setattr(command, "CASES", (lambda: replace(wrong, ours=0.0),))
    assert command.main() == 0
