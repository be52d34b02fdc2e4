"""The page in a real browser: what it draws, how it is used by keyboard, in the dark, on paper, on a phone.

Needs Chromium (Debian: apt-get install chromium) and the package playwright, which drives it.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.browser import FAINT

from softprompt.compare import report
from softprompt.compare.report import read

#: Texts and shapes of every drawing that is shown, with what leaves its drawing.
DRAWINGS = """() => [...document.querySelectorAll("figure svg")].filter(svg => svg.checkVisibility())
  .map(svg => {
  const frame = svg.getBoundingClientRect();
  const out = element => {
    const box = element.getBoundingClientRect();
    return box.left < frame.left - 2 || box.right > frame.right + 2
      || box.top < frame.top - 2 || box.bottom > frame.bottom + 2;
  };
  const texts = [...svg.querySelectorAll("text")];
  const marks = [...svg.querySelectorAll(".solid, .hollow, .bar, .cell")];
  const overlaps = [];
  texts.forEach((one, i) => texts.slice(i + 1).forEach(other => {
    const a = one.getBoundingClientRect(), b = other.getBoundingClientRect();
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    const smaller = Math.min(a.width * a.height, b.width * b.height);
    if (width > 0 && height > 0 && width * height > 0.3 * smaller)
      overlaps.push(one.textContent + " | " + other.textContent);
  }));
  return {
    label: svg.getAttribute("aria-label"),
    described: svg.querySelector("desc").textContent.length > 20,
    marks: marks.length,
    texts: texts.length,
    outside: [...texts, ...marks, ...svg.querySelectorAll("line, path")].filter(out).map(e => e.outerHTML),
    overlaps,
    numbers: /NaN|Infinity|undefined/.test(svg.outerHTML),
    empty: marks.filter(mark => mark.getBoundingClientRect().width < 0.5).length,
  };
})"""


class Opened:
    """A page with what it asked for and complained of."""

    def __init__(self, browser: Any, folder: Any, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = (folder / "report.html").as_uri()
        self.page.goto(self.url)

    def check(self) -> None:
        """Silence in the console, nothing fetched, no scrolling sideways."""
        assert self.complaints == []
        assert self.requests == [self.url]
        width = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert self.page.evaluate(width)
        assert self.page.evaluate("window.broken === undefined")

    def drawings(self) -> list[dict[str, Any]]:
        found = self.page.evaluate(DRAWINGS)
        for drawing in found:
            assert drawing["marks"] > 0 and drawing["texts"] >= 2 and drawing["described"], drawing
            assert not drawing["outside"] and not drawing["numbers"] and not drawing["empty"], drawing
            assert not drawing["overlaps"], drawing
        return found

    @property
    def focused(self) -> str:
        return self.page.evaluate("document.activeElement.id || document.activeElement.className")

    def tab_to(self, name: str) -> None:
        for _ in range(400):
            if self.focused == name:
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the keyboard does not reach {name}")


@pytest.fixture
def look(chromium):
    opened: list[Opened] = []

    def at(folder: Any, **context: Any) -> Opened:
        opened.append(Opened(chromium, folder, **context))
        return opened[-1]

    yield at
    for one in opened:
        one.context.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"splits": {"test": 60, "unseen": 30, "newcomers": 24}},
        {"task": "generation", "metric": "perplexity", "higher_is_better": False},
        {
            "methods": ["lora"],
            "references": ["zero-shot"],
            "seeds": [0],
            "splits": {"test": 30},
            "extras": False,
        },
        {"methods": ["lora"], "references": [], "unfinished": ["lora"], "extras": False},
    ],
    ids=["everything", "new prompts", "lower is better", "one method", "nothing scored"],
)
def test_every_drawing_has_content_in_its_frame(look, build, changes, width):
    folder = build(**changes)
    report.write(folder)
    opened = look(folder, viewport={"width": width, "height": 900})
    opened.check()
    labels = {drawing["label"] for drawing in opened.drawings()}
    assert ("newcomers" in changes.get("splits", ())) == any("never seen" in label for label in labels)
    figures = opened.page.locator("figure").count()
    assert len(labels) >= figures and (figures >= 8) == (len(changes) in (0, 1, 3))


@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_stay_in_their_frame(look, build, width):
    folder = build()
    file = folder / "results.jsonl"
    text = file.read_text()
    for name in ("lora", "prefix-tuning/after", "prompt-tuning/after"):
        text = text.replace(f'"{name}"', f'"a-method-whose-name-is-rather-long/{name}/length=128"')
    file.write_text(text)
    report.write(folder)
    opened = look(folder, viewport={"width": width, "height": 900})
    opened.check()
    assert opened.drawings()


def test_the_cost_is_chosen_by_keyboard(look, full):
    opened = look(full)
    page = opened.page
    page.locator("#pareto input").first.focus()
    seen = []
    for _ in range(4):
        seen += [d["label"] for d in opened.drawings() if "against" in d["label"]]
        page.keyboard.press("ArrowRight")
    costs = ("training time", "trained parameters", "size of the artifact", "tokens added to each input")
    assert seen == [f"accuracy (%) against {cost}" for cost in costs]


def test_filters_work_by_keyboard(look, full):
    opened = look(full)
    page, found = opened.page, read.comparison(full)
    shown = page.locator("#matrix > tbody > tr:visible")
    assert shown.count() == 180 and page.locator("#shown").inner_text() == "180 of 180 rows"
    opened.tab_to("search")
    page.keyboard.type("FORTUNE 5)")
    wanted = [key for key, row in found.rows.items() if "fortune" in row.input and "5)" in row.input]
    assert shown.count() == len(wanted) > 0
    assert page.locator("#shown").inner_text() == f"{len(wanted)} of 180 rows"
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    opened.tab_to("failures")
    page.keyboard.press("Space")
    failed = {(one.split, one.row) for one in found.examples if one.score < 1}
    assert shown.count() == len(failed) < 180
    page.keyboard.press("Space")
    opened.tab_to("different")
    page.keyboard.press("Space")
    labels: dict[Any, set] = {}
    for one in found.examples:
        labels.setdefault((one.split, one.row), set()).add(one.label)
    assert shown.count() == sum(len(some) > 1 for some in labels.values())
    page.keyboard.press("Space")
    opened.tab_to("of")
    page.keyboard.press("ArrowDown")
    first = {
        (o.split, o.row) for o in found.examples if o.contestant == "prompt-tuning/after" and o.score < 1
    }
    assert shown.count() == len(first)
    opened.tab_to("split")
    page.keyboard.press("ArrowDown")
    assert shown.count() == sum(split == "test" for split, _ in first)
    opened.check()


def test_a_row_opens_by_keyboard_and_shows_texts_as_texts(look, full):
    opened = look(full)
    page = opened.page
    page.locator("#search").fill("window.broken")
    row = page.locator("#matrix > tbody > tr:visible").first
    row.locator("summary").focus()
    page.keyboard.press("Enter")
    text = row.inner_text()
    assert '<script>window.broken = 1</script> & "quotes" | a pipe' in text
    assert "expected" in text and "seeds 0, 1" in text and "% sure" in text
    opened.check()


def test_the_skip_link_comes_first_and_focus_is_seen(look, full):
    opened = look(full)
    page = opened.page
    page.keyboard.press("Tab")
    assert opened.focused == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert opened.focused == "answer"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everything_can_be_read_in_light_and_dark(look, full, scheme, width):
    opened = look(full, color_scheme=scheme, viewport={"width": width, "height": 900})
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach((one, i) => { one.open = i % 7 === 0; })")
    assert page.evaluate(FAINT) == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    opened.check()


def test_the_theme_can_be_chosen(look, full):
    opened = look(full, color_scheme="light")
    page = opened.page
    page.locator("input[name=theme]").first.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert page.evaluate(FAINT) == []


def test_paper(look, full):
    opened = look(full, color_scheme="dark", viewport={"width": 794, "height": 1123})  # A4
    page = opened.page
    page.emulate_media(media="print")
    assert page.evaluate(FAINT) == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible() and not page.locator(".filters").is_visible()
    assert page.locator("#pareto svg:visible").count() == 4
    assert page.locator("#unseen table").is_visible()  # what is folded away on a screen
    assert page.locator("#matrix > tbody > tr:visible").count() == 30
    opened.check()
    assert page.pdf().startswith(b"%PDF")


def test_without_a_script_all_rows_are_there(look, full):
    opened = look(full, java_script_enabled=False)
    page = opened.page
    assert page.locator("#matrix > tbody > tr:visible").count() == 180
    assert not page.locator(".filters").is_visible()
    page.locator("#matrix summary").first.click()
    assert page.locator("#matrix dt").first.is_visible()
    page.locator("#pareto input").nth(1).check()
    assert page.locator("#pareto .panel:visible").count() == 1
    page.locator("input[name=theme][value=dark]").check()
    assert page.locator("#pareto .panel:visible").count() == 1
