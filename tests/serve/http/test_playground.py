"""/play in a real browser: type, run, compare, export, by keyboard alone, in a narrow window, in the dark."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2 as httpx
import pytest
from tests.browser import FAINT
from tinyhtml5.parser import HTMLParser

from softprompt.data.sources import read_rows
from softprompt.serve.http.keys import Keys, new_key

NASTY = '<img src=x onerror="window.broken=1"> & "quotes"'


class Playing:
    """The page, with what it asked for and complained of."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.url = url
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add("/".join(request.url.split("/")[:3])))
        self.page.goto(url + "/play")

    def column(self, name: str) -> Any:
        return self.page.get_by_label(name, exact=True).and_(self.page.locator(".column"))

    def answer(self, name: str) -> str:
        return self.column(name).locator(".answer").inner_text()

    def run(self, text: str) -> None:
        self.page.fill("#input", text)
        self.page.keyboard.press("Control+Enter")
        self.done()

    def done(self) -> None:
        self.page.locator("#status", has_text=re.compile("answers in")).wait_for()

    def tab_to(self, name: str) -> None:
        for _ in range(100):
            if self.focused == name:
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the keyboard does not reach {name}, only {self.focused}")

    @property
    def focused(self) -> str:
        return self.page.evaluate(
            "[...[document.activeElement]].map(e => e.id || e.ariaLabel || e.className || e.tagName)[0]"
        )

    def check(self) -> None:
        """Silence in the console, nothing asked of another server, no scrolling sideways, nothing run."""
        assert self.complaints == []
        assert self.hosts == {self.url}
        wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert self.page.evaluate(wide)
        assert self.page.evaluate("window.broken === undefined")


@pytest.fixture
def play(chromium, serve):
    opened: list[Playing] = []

    def at(served: Any = None, columns: int = 4, **context: Any) -> Playing:
        served = served or serve()
        opened.append(Playing(chromium, served.url, **context))
        if columns:
            opened[-1].page.locator(".column").nth(columns - 1).wait_for()
        return opened[-1]

    yield at
    for one in opened:
        one.context.close()


def test_the_page_is_valid_and_asks_nothing_of_elsewhere(serve):
    reply = httpx.get(serve().url + "/play")
    parser = HTMLParser()
    parser.parse(reply.text)
    assert parser.errors == []
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
    assert not re.search(r"https?://|@import|url\(", reply.text)
    assert httpx.get(serve().url + "/", follow_redirects=True).text == reply.text


def test_an_input_is_answered_side_by_side(play):
    playing = play()
    names = playing.page.locator(".column h3").all_inner_texts()
    assert names == ["Plain model", "Hard prompt", "team-a/reviews", "team-a/voices:joke"]
    playing.column("Plain model").locator("select").select_option("team-a/voices:joke")
    playing.column("Hard prompt").locator("textarea").fill("Be brief.")
    playing.column("Hard prompt").locator("select").select_option("")
    playing.run("a fun film")
    assert playing.answer("Plain model") == "team-a/voices:joke[0]:a fun film"  # its template, no vectors
    assert playing.answer("Hard prompt") == "plain[1]:<user>Be brief.\n\na fun film\n<assistant>"
    assert playing.answer("team-a/voices:joke") == "team-a/voices:joke[1]:a fun film"
    cost = playing.column("team-a/voices:joke").locator(".cost").inner_text()
    cost = cost.replace("\u00a0", " ")
    assert re.fullmatch(
        r"32 tokens · \d+\.\d\d s · first after \d+\.\d\d s · 10 tokens read · 5 vectors", cost
    )
    assert playing.page.locator("#status").inner_text().startswith("4 answers in ")
    playing.check()


SEA = 'Speak as a </textarea> sailor.\n"Aye" & <b>ahoy</b>.\n'
DISTILLED = {"task": {"objective": "distil"}, "template": {"input": "{{ request }}", "chat": True}}


def test_a_distilled_prompt_is_beside_its_text_and_beside_neither(play, serve):
    recipe = {**DISTILLED, "teacher": {"context": SEA}}
    playing = play(serve(recipes={"sea": recipe}, play_text=SEA), columns=3)
    names = ["With the text", "With the vectors: sea", "With neither: plain model"]
    assert playing.page.locator(".column h3").all_inner_texts() == names
    text = playing.column("With the text")
    text.get_by_text("The full text that the vectors learned from").wait_for()
    playing.page.fill("#longest", "150")
    playing.run("hello")
    assert playing.answer("With the text") == f"sea[0]:<system>{SEA}\n<user>hello\n<assistant>"
    assert playing.answer("With the vectors: sea") == "sea[1]:<user>hello\n<assistant>"
    assert playing.answer("With neither: plain model") == "sea[0]:<user>hello\n<assistant>"
    text.locator("textarea").fill("Be brief.")
    text.get_by_text("Another text than the vectors learned from").wait_for()
    assert not playing.page.locator("#given-text").is_visible()
    text.locator("textarea").fill("Be brief. " * 10)
    playing.page.fill("#longest", "64")
    playing.run("hello")
    about = playing.page.locator("#runs dt").first.inner_text()
    assert "…" in about and len(about) < 110  # the history holds the beginning of a long text
    playing.check()


def test_a_text_without_a_chat_comes_ahead_of_the_input(play, serve):
    plain = {**DISTILLED, "template": {"input": "{{ request }}"}, "teacher": {"context": SEA}}
    playing = play(serve(recipes={"sea": plain}), columns=3)
    playing.run("hello")
    assert "Paste the text above" in playing.answer("With the text")
    playing.column("With the text").locator("textarea").fill("Be brief.\n")
    playing.run("hello")
    assert playing.answer("With the text") == "sea[0]:Be brief.\n\nhello"
    playing.check()


def test_labels_are_bars_and_the_plain_model_reads_the_same_template(play):
    playing = play()
    playing.run("a fun film")
    assert playing.answer("team-a/reviews").split("\n") == ["good", "70.0 %", "bad", "30.0 %"]
    assert playing.answer("Plain model").split("\n") == ["good", "50.0 %", "bad", "50.0 %"]
    shares = playing.column("team-a/reviews").locator(".share")
    widths = [shares.nth(i).bounding_box()["width"] for i in range(2)]
    assert widths[0] / widths[1] == pytest.approx(7 / 3, rel=0.02)
    playing.check()


def test_the_strength_is_a_slider_from_0_to_2(play, serve):
    served = serve()
    playing = play(served)
    slider = playing.column("team-a/voices:joke").locator("input[type=range]")
    slider.focus()
    for key, shown in (("End", "2.0"), ("Home", "0.0"), ("ArrowRight", "0.1")):
        playing.page.keyboard.press(key)
        assert playing.column("team-a/voices:joke").locator("output").inner_text() == shown
    playing.run("x")
    assert playing.answer("team-a/voices:joke") == "team-a/voices:joke[0.1]:x"
    playing.check()


def test_answers_stream_and_can_be_stopped(play, serve):
    served = serve(delay=0.1)
    playing = play(served)
    playing.page.fill("#input", "x" * 60)
    playing.page.keyboard.press("Control+Enter")
    voice = playing.column("team-a/voices:joke").locator(".answer")
    voice.get_by_text("team").wait_for()
    assert voice.get_attribute("aria-busy") == "true" and "x" * 60 not in voice.inner_text()
    playing.page.keyboard.press("Escape")
    playing.done()
    assert (
        voice.get_attribute("aria-busy") == "false"
        and "stopped" in playing.column("team-a/voices:joke").inner_text()
    )
    status = playing.page.locator("#status").inner_text()
    assert re.fullmatch(r"\d answers in [\d.]+ s, [123] stopped", status)
    assert playing.page.locator(".failed").count() == 0
    assert served.engine.running == 0 or served.engine.left > 0
    playing.run("fun")  # and the page continues
    playing.check()


def test_prompts_are_found_added_and_removed(play):
    playing = play()
    page = playing.page
    page.fill("#prompt", "CHAT")
    page.locator("#prompts option[value='team-a/pairs']").wait_for(state="detached")
    assert page.locator("#prompts option").count() == 1
    page.fill("#prompt", "team-b/chat")
    page.keyboard.press("Enter")
    playing.column("team-b/chat").wait_for()
    page.fill("#prompt", "team-a/voices:fact")
    page.keyboard.press("Enter")
    playing.column("team-a/voices:fact").wait_for()
    for name in ("Plain model", "Hard prompt", "team-a/reviews", "team-a/voices:joke"):
        page.get_by_label(f"Remove {name}", exact=True).click()
    assert page.locator(".column").count() == 2
    playing.run("x")
    assert playing.answer("team-b/chat").startswith("team-b/chat[1]:<system>Be kind.")
    assert playing.answer("team-a/voices:fact") == "team-a/voices:fact[1]:x"
    page.fill("#prompt", "no/such")
    page.keyboard.press("Enter")
    page.locator("#add-status", has_text="does not exist").wait_for()
    page.fill("#prompt", "team-b/broken")
    page.keyboard.press("Enter")
    page.locator("#add-status", has_text="damaged").wait_for()
    playing.complaints = [text for text in playing.complaints if "Failed to load resource" not in text]
    playing.check()


def test_a_prompt_of_several_is_chosen(play):
    playing = play()
    playing.column("team-a/voices:joke").locator("select").select_option("fact")
    playing.run("x")
    assert playing.answer("team-a/voices:fact") == "team-a/voices:fact[1]:x"


def test_a_template_of_several_fields_takes_json(play):
    playing = play()
    page = playing.page
    page.fill("#prompt", "team-a/pairs")
    page.keyboard.press("Enter")
    playing.column("team-a/pairs").wait_for()
    playing.run("not JSON")
    assert 'Write the input as JSON: {"first": "…", "second": "…"}' in playing.answer("team-a/pairs")
    playing.run('{"first": "a", "second": "b"}')
    assert playing.answer("team-a/pairs") == "team-a/pairs[1]:a / b"
    playing.check()


def exported(page, button: str, folder) -> dict[str, list[dict[str, Any]]]:
    """Rows by file, of what a click saves."""
    downloads: list[Any] = []
    take = lambda download: downloads.append(download)  # noqa: E731
    page.on("download", take)
    with page.expect_download():
        page.click(button)
    page.wait_for_timeout(200)
    page.remove_listener("download", take)
    found = {}
    for one in downloads:
        one.save_as(folder / one.suggested_filename)
        rows = read_rows(str(folder / one.suggested_filename), split="test")
        found[one.suggested_filename] = [dict(row) for row in rows]
    return found


def test_the_history_becomes_rows_for_evaluation(play, tmp_path):
    playing = play()
    page = playing.page
    playing.run("a fun film")
    playing.run("a dull\nfilm")
    assert page.locator("#export-rows").is_disabled()
    runs = page.locator("#runs > li")
    assert runs.count() == 2 and "dull" in runs.first.inner_text()  # the latest first
    runs.nth(1).get_by_label("team-a/reviews is right").click()
    assert page.locator("#export-status").inner_text() == "1 of 2 inputs have a right answer"
    assert exported(page, "#export-rows", tmp_path) == {
        "rows.jsonl": [{"text": "a fun film", "label": "good"}]
    }
    runs.first.get_by_label("Right answer of team-a/reviews", exact=True).fill("bad")
    with page.expect_download() as download:
        page.click("#export-all")
    file = tmp_path / "answers.jsonl"
    download.value.save_as(file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    named = [{one["name"]: one for one in line["answers"]} for line in lines]
    assert [line["input"] for line in lines] == ["a fun film", "a dull\nfilm"]
    assert [answers["team-a/reviews"]["right"] for answers in named] == ["good", "bad"]
    assert named[0]["team-a/voices:joke"]["right"] is None
    assert named[0]["team-a/reviews"]["probs"] == pytest.approx({"good": 0.7, "bad": 0.3})
    assert named[0]["team-a/voices:joke"]["tokens"] == 32
    assert named[0]["team-a/voices:joke"]["strength"] == 1
    runs.first.get_by_text("Ask again").click()
    assert page.locator("#input").input_value() == "a dull\nfilm"
    runs.first.get_by_text("Remove").click()
    assert runs.count() == 1
    page.click("#clear")
    assert not page.locator("#history").is_visible()
    page.reload()
    page.locator(".column").nth(3).wait_for()
    assert not page.locator("#history").is_visible()
    playing.check()


def test_each_voice_has_its_own_right_answer(play, tmp_path):
    playing = play()
    page = playing.page
    page.fill("#prompt", "team-a/voices:fact")
    page.keyboard.press("Enter")
    playing.column("team-a/voices:fact").wait_for()
    playing.column("Plain model").locator("select").select_option("team-a/voices:fact")
    playing.run("fun")
    page.get_by_label("Right answer of team-a/voices:joke", exact=True).fill("ha")
    page.get_by_label("Right answer of team-a/voices:fact", exact=True).fill("so it is")
    page.get_by_label("Right answer of Plain model", exact=True).fill("so it is")  # reads that template
    page.get_by_label("Right answer of team-a/reviews", exact=True).fill("good")
    assert exported(page, "#export-rows", tmp_path) == {
        "rows-team-a-voices.jsonl": [
            {"input": "fun", "voice": "fact", "target": "so it is"},
            {"input": "fun", "voice": "joke", "target": "ha"},
        ],
        "rows-team-a-reviews.jsonl": [{"text": "fun", "label": "good"}],
    }
    playing.check()


def test_a_reload_loses_nothing(play, serve):
    served = serve()
    playing = play(served)
    page = playing.page
    page.fill("#prompt", "team-b/chat")
    page.keyboard.press("Enter")
    playing.column("team-b/chat").wait_for()
    playing.column("team-a/voices:joke").locator("select").select_option("fact")
    playing.column("team-a/voices:fact").locator("input[type=range]").focus()
    page.keyboard.press("Home")
    playing.column("Hard prompt").locator("textarea").fill("Be brief.")
    playing.column("Plain model").locator("select").select_option("team-a/voices:fact")
    page.get_by_label("Remove team-a/reviews", exact=True).click()
    page.fill("#longest", "7")
    playing.run("x")
    page.get_by_label("Right answer of team-b/chat", exact=True).fill("yes")
    before = page.locator("#runs").inner_text()
    page.reload()
    playing.column("team-b/chat").wait_for()
    page.locator("#kept", has_text="Kept in this browser").wait_for()
    names = page.locator(".column h3").all_inner_texts()
    assert names == ["Plain model", "Hard prompt", "team-a/voices:fact", "team-b/chat"]
    assert page.locator("#runs").inner_text() == before and page.locator("#runs > li").count() == 1
    assert page.get_by_label("Right answer of team-b/chat", exact=True).input_value() == "yes"
    assert page.locator("#input").input_value() == "x" and page.locator("#longest").input_value() == "7"
    assert playing.column("team-a/voices:fact").locator("output").inner_text() == "0.0"
    assert playing.column("Hard prompt").locator("textarea").input_value() == "Be brief."
    assert playing.column("Plain model").locator("select").input_value() == "team-a/voices:fact"
    playing.run("y")
    assert page.locator("#runs > li").count() == 2
    del served.app.state.service.registry.recipes["team-b/chat"]  # a prompt that is gone is left away
    page.reload()
    page.locator("#runs > li").nth(1).wait_for()
    page.locator(".column").nth(2).wait_for()
    page.locator("#kept", has_text="Kept in this browser").wait_for()
    assert page.locator(".column h3").all_inner_texts() == names[:3]


def test_all_of_it_by_keyboard(play):
    playing = play()
    page, keyboard = playing.page, playing.page.keyboard
    assert playing.focused == "input"  # where a person begins
    keyboard.type("a fun film")
    playing.tab_to("run")
    keyboard.press("Enter")
    playing.done()
    playing.tab_to("add-hard")
    keyboard.press("Enter")
    keyboard.type("In one word:")
    keyboard.press("Control+Enter")
    page.locator("#status", has_text="4 answers in").wait_for()
    playing.tab_to("team-a/reviews is right")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    keyboard.press("Enter")
    right = page.locator("#runs > li").first.get_by_label("Right answer of team-a/reviews", exact=True)
    assert right.input_value() == "good"
    page.reload()
    page.locator(".column").nth(3).wait_for()
    assert playing.focused == "input"
    for _ in range(3):  # past the colours and the tabs
        keyboard.press("Shift+Tab")
    assert playing.focused == "skip" and page.locator(".skip").bounding_box()["x"] >= 0
    keyboard.press("Enter")
    assert playing.focused == "input"
    playing.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_everything_can_be_read(play, serve, width, scheme):
    served = serve()
    playing = play(served, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = playing.page
    page.fill("#prompt", "team-a/pairs")
    page.keyboard.press("Enter")
    playing.column("team-a/pairs").wait_for()
    playing.run("a-very-long-word-without-a-space-" * 4)
    assert playing.column("team-a/pairs").locator(".failed").is_visible()
    page.locator("#runs button[aria-label$='is right']").first.click()
    assert page.evaluate(FAINT) == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    playing.check()


def test_texts_are_shown_and_not_run(play, serve, talker):
    named = {
        "template": {"input": "{{ text }}"},
        "task": {"kind": "classification", "labels": ["<b>good</b>", "bad"]},
    }
    served = serve(recipes={NASTY.replace("/", ""): {}, "labels": named})
    playing = play(served, columns=3)
    playing.run(NASTY)
    assert NASTY in playing.page.locator("#runs").inner_text()
    assert playing.page.locator("img, .column b, #runs b").count() == 0
    playing.check()


def test_a_key_is_asked_for(play, serve, tmp_path):
    secret, entry = new_key("team-b")
    (tmp_path / "keys.yaml").write_text(entry)
    playing = play(serve(keys=Keys(tmp_path / "keys.yaml")), columns=0)
    page = playing.page
    page.locator("#key").wait_for()
    assert playing.focused == "key"
    page.keyboard.type("sp-wrong")
    page.keyboard.press("Enter")
    page.locator("#status", has_text="unknown").wait_for()
    page.fill("#key", secret)
    page.locator("#key").press("Enter")
    playing.column("team-b/chat").wait_for()
    assert not page.locator("#key").is_visible()
    playing.run("x")
    assert playing.answer("team-b/chat").startswith("team-b/chat[1]:")
    assert secret not in page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    )


def test_nothing_tuned_yet(play, serve):
    playing = play(serve(recipes={}), columns=2)
    playing.run("hello")
    assert playing.answer("Plain model") == "plain[1]:<user>hello\n<assistant>"
    assert "softprompt tune" in playing.page.locator("#add-status").inner_text()
    playing.check()
