"""Renders the report as Markdown: the same sections and tables, without drawings and rows' texts."""

from __future__ import annotations

from .blocks import Block, Figure, Items, Matrix, Report, Table, Terms, Text


def render(report: Report) -> str:
    """Return the whole report as Markdown."""
    parts = [f"# {_plain(report.title)}", _plain(report.subtitle), f"**{_plain(report.headline)}.**"]
    parts.append(" ".join(_plain(text) for text in report.answer))
    if report.notes:
        parts.append("\n".join(f"- {_plain(note)}" for note in report.notes))
    for section in report.sections:
        parts.append(f"## {_plain(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block) -> str:
    match block:
        case Text():
            return _plain(block.text)
        case Table():
            return f"### {_plain(block.caption)}\n\n{_table(block)}"
        case Figure():
            return f"### {_plain(block.title)}\n\n{_plain(block.caption)}\n\n{_table(block.table)}"
        case Items():
            return "\n".join(_item(i.level, i.title, i.text, i.command) for i in block.items)
        case Terms():
            return "\n".join(
                f"- {_plain(name)}: " + (_code(value) if block.code else _plain(value))
                for name, value in block.terms
            )
        case Matrix():
            failed, different = (
                sum(getattr(row, key) for row in block.rows) for key in ("failed", "different")
            )
            return (
                f"{len(block.rows):,} rows; in {failed:,} {block.hints['failures']}, in {different:,} "
                f"{block.hints['different']}. The page shows them."
            )


def _item(level: str, title: str, text: str, command: str | None) -> str:
    line = f"- **{level}**: {_plain(title)}" + (f" – {_plain(text)}" if text else "")
    lines = "".join(f"\n      {item}" for item in (command or "").splitlines())
    return line + (f"\n{lines}\n" if lines else "")


def _table(table: Table) -> str:
    right = set(table.right)
    rule = ["---:" if i in right else "---" for i in range(len(table.columns))]
    rows = [[_plain(cell) for cell in row] for row in (table.columns, *table.rows)]
    lines = [rows[0], rule, *rows[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _plain(text: str) -> str:
    """Text on one line that Markdown and HTML leave as it is."""
    text = " ".join(text.split())
    for sign in "\\`*_|[]":
        text = text.replace(sign, "\\" + sign)
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{' '.join(text.split())}{fence}"
