"""A headline and tables as a piece of HTML, as a notebook shows the value of a cell."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from .blocks import Table

RIGHT = Markup(' style="text-align: right"')


def fragment(headline: str, lines: Sequence[str], tables: Sequence[Table]) -> str:
    """Return the HTML of a headline, lines of text and tables. All of their texts are escaped."""
    parts = [Markup("<p><strong>{}</strong></p>").format(headline)]
    parts += [Markup("<p>{}</p>").format(line) for line in lines]
    return str(Markup("\n").join([*parts, *(_table(table) for table in tables)]))


def _table(table: Table) -> Markup:
    rows = Markup("").join(_row("td", row, table.right) for row in table.rows)
    caption = Markup("<caption>{}</caption>").format(table.caption) if table.caption else Markup()
    head = _row("th", table.columns, table.right)
    return Markup("<table>{}<thead>{}</thead><tbody>{}</tbody></table>").format(caption, head, rows)


def _row(tag: str, cells: Sequence[object], right: Sequence[int]) -> Markup:
    written = [
        Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), RIGHT if i in right else Markup(), cell)
        for i, cell in enumerate(cells)
    ]
    return Markup("<tr>{}</tr>").format(Markup("").join(written))
