"""A report consists of sections of words, tables, figures and commands, however it is rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup


@dataclass(frozen=True)
class Text:
    """A paragraph is `quiet` where it is a remark, such as what was not measured."""

    text: str
    quiet: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """Cells are texts; the first of a row names the row. Columns numbered in `right` are numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()
    closed: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Panel:
    """A panel is one drawing, with a narrow version for a phone where that differs."""

    label: str
    wide: Markup
    narrow: Markup | None = None


@dataclass(frozen=True)
class Figure:
    """A figure has drawings and the table behind them. Several panels are side by side, or one is chosen."""

    id: str
    title: str
    caption: str
    panels: Sequence[Panel]
    table: Table
    choice: str = ""
    kind: str = "figure"


@dataclass(frozen=True)
class Item:
    """An item is a finding or an error."""

    title: str
    text: str = ""
    command: str | None = None
    level: str = "note"


@dataclass(frozen=True)
class Items:
    items: Sequence[Item]
    kind: str = "items"


@dataclass(frozen=True)
class Terms:
    """Names with their values; `code` is "block" for commands, "inline" for hashes and versions."""

    terms: Sequence[tuple[str, str]]
    code: str = ""
    kind: str = "terms"


@dataclass(frozen=True)
class Matrix:
    """The matrix of inputs × methods is for the page alone; `rows` are `sections.rows.MatrixRow`s."""

    columns: Sequence[str]
    rows: Sequence[Any]
    splits: Sequence[str]
    hints: dict[str, str]
    graded: bool
    kind: str = "matrix"


Block = Text | Table | Figure | Items | Terms | Matrix


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """`answer` holds the two sentences, `notes` what limits them."""

    title: str
    subtitle: str
    headline: str
    answer: Sequence[str]
    notes: Sequence[str]
    sections: Sequence[Section]
