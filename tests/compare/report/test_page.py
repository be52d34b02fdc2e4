"""The page and the Markdown file as texts: valid, escaped, offline, the same numbers in both."""

from __future__ import annotations

import itertools
import json
import re
from importlib import resources

import pytest
from tinyhtml5.parser import HTMLParser

from softprompt.compare import report
from softprompt.compare.report import page, read
from softprompt.compare.report.sections import document
from softprompt.page import blocks, markdown

pytestmark = pytest.mark.whole

CHANGES = {
    "full": {},
    "generation": {"task": "generation"},
    "perplexity": {"task": "generation", "metric": "perplexity", "higher_is_better": False},
    "one method, one seed": {
        "methods": ["lora"],
        "references": [],
        "seeds": [0],
        "splits": {"test": 30},
        "extras": False,
    },
    "no tests": {"tests": False, "references": []},
    "no extras": {"extras": False},
    "unseen only": {"splits": {"unseen": 30}},
    "a method that never ended": {"unfinished": ["lora", "p-tuning/before"]},
    "nobody ended": {"methods": ["lora"], "references": [], "unfinished": ["lora"], "extras": False},
}
XHTML = "{http://www.w3.org/1999/xhtml}"


def parsed(text: str):
    """The page as a tree; no error of syntax, which the parser would fix in silence."""
    parser = HTMLParser()
    tree = parser.parse(text)
    assert parser.errors == []
    return tree


def test_the_parser_sees_errors():
    parser = HTMLParser()
    parser.parse("<!DOCTYPE html><title>x</title><table><p>no</table></b>")
    assert parser.errors


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_every_kind_of_comparison_gives_a_valid_page(build, changes):
    folder = build(**changes)
    text = report.write(folder).read_text(encoding="utf-8")
    tree = parsed(text)
    assert not re.search(r"\b(nan|NaN|None|undefined|inf)\b", text)
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    links = [element.get("href") for element in tree.iter(f"{XHTML}a")]
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)
    for table in tree.iter(f"{XHTML}table"):
        assert table.find(f"{XHTML}caption") is not None
        assert all(head.get("scope") in ("col", "row") for head in table.iter(f"{XHTML}th"))
        widths = {len(list(row)) for row in table.iter(f"{XHTML}tr")}
        assert len(widths) == 1
    for figure in tree.iter(f"{XHTML}figure"):
        assert len(list(figure.iter(f"{XHTML}table"))) == 1  # the numbers behind it
    drawings = list(tree.iter("{http://www.w3.org/2000/svg}svg"))
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in drawings)
    levels = [int(e.tag[-1]) for e in tree.iter() if re.fullmatch(rf"{re.escape(XHTML)}h\d", str(e.tag))]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_nothing_is_fetched(full):
    text = (full / "report.html").read_text()
    assert "default-src 'none'" in text
    tree = parsed(text)
    for element in tree.iter():
        assert str(element.tag) not in (f"{XHTML}img", f"{XHTML}iframe", f"{XHTML}object")
        for name in ("src", "href", "action", "data"):
            assert (element.get(name) or "#").startswith(("#", "data:,"))
    assert not re.search(r"url\(|@import|https?://", text)


def test_texts_are_shown_and_not_run(build):
    name = '<img src=x onerror="window.broken=1">'
    folder = build(title="<b>bold</b>")
    for file in ("results.jsonl", "examples.jsonl"):
        text = (folder / file).read_text()
        (folder / file).write_text(text.replace('"lora"', json.dumps(name)))
    text = report.write(folder).read_text()
    tree = parsed(text)
    assert len(list(tree.iter(f"{XHTML}script"))) == 1 and not list(tree.iter(f"{XHTML}img"))
    assert "&lt;script&gt;window.broken = 1&lt;/script&gt;" in text
    assert tree.find(f".//{XHTML}h1").text == "<b>bold</b>" and name in "".join(tree.itertext())
    lines = (folder / "report.md").read_text().splitlines()
    assert not any("<img" in line for line in lines)


def test_markdown_holds_the_numbers_of_the_page(full):
    """Every table of the page, cell by cell, and the answer."""
    tree = parsed((full / "report.html").read_text())
    text = (full / "report.md").read_text()
    rows = {line for line in text.splitlines() if line.startswith("| ")}
    compared = 0
    for table in tree.iter(f"{XHTML}table"):
        if table.get("id") == "matrix":
            continue
        for row in table.iter(f"{XHTML}tr"):
            cells = [" ".join("".join(cell.itertext()).split()) for cell in row]
            assert f"| {' | '.join(markdown._plain(cell) for cell in cells)} |" in rows
            compared += 1
    assert compared > 150
    lead = "".join(tree.find(f".//{XHTML}p[@class='lead']").itertext())
    assert " ".join(lead.split()) in text


def test_markdown_escapes():
    table = blocks.Table("a *b*", ["x", "y"], [["1|2\n3", "<b>"]])
    shown = markdown.render(blocks.Report("t", "", "h", [], [], [blocks.Section("s", "S", [table])]))
    assert "### a \\*b\\*" in shown and "| 1\\|2 3 | &lt;b> |" in shown


@pytest.mark.parametrize(("weights", "text"), [("auto", "float32"), ("int8", "float32 with int8 weights")])
def test_the_precision_names_int8_weights(build, weights, text):
    folder = build(weights=weights, extras=False)
    report.write(folder)
    (line,) = [line for line in (folder / "report.md").read_text().splitlines() if "precision" in line]
    assert line.endswith(text)


def test_the_matrix_holds_every_row_and_its_marks(full):
    found = read.comparison(full)
    matrix = next(b for s in document(found).sections for b in s.blocks if isinstance(b, blocks.Matrix))
    assert len(matrix.rows) == 180
    for line in matrix.rows:
        ones = [one for one in found.examples if (one.split, one.row) == (line.split, line.number)]
        assert line.failed == any(one.score < 1 for one in ones)
        for cell in line.cells:
            right = [one.score for one in ones if one.contestant == cell.name]
            expected = {0: "✗", len(right): "✓"}.get(sum(right), f"{sum(right):.0f}/{len(right)}")
            assert cell.mark == expected
        agree = len({one.label for one in ones}) == 1
        assert line.different == (not agree)


def test_missing_texts_are_reported(build):
    folder = build()
    (folder / "examples.jsonl").unlink()
    text = report.write(folder).read_text()
    assert "texts of the rows were not kept" in text and "window.broken" not in text


def test_findings_and_failures_are_shown_with_what_fixes_them(full):
    text = (full / "report.html").read_text()
    assert "softprompt compare reviews.yaml train.steps=400" in text
    assert "the loss is not a number (at step 31). To fix it: a smaller lr than 0.03." in text


def test_the_same_folder_gives_the_same_page(full):
    rendered = page.render(document(read.comparison(full)))
    assert rendered == (full / "report.html").read_text()


def test_templates_are_in_the_package():
    folder = resources.files("softprompt.page") / "templates"
    assert {file.name for file in folder.iterdir()} >= {"page.html.j2", "page.css", "page.js"}
