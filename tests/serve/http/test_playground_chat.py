"""The second tab of /play: turns, another voice, branches, code and rows, by keyboard and on a phone."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from tests.browser import FAINT
from tests.serve.http.test_playground import NASTY, Playing, play  # noqa: F401

from softprompt.data.sources import read_rows

BASE = {"template": {"input": "{{ input }}", "chat": True}}
VOICES = {
    "kind": BASE | {"template": BASE["template"] | {"system": "Be kind."}},
    "many": BASE | {"prompts": ("joke", "fact"), "data": {"train": "rows.jsonl", "prompt_field": "voice"}},
    "plain": {"template": {"input": "Q: {{ input }}"}},
}


class Chatting(Playing):
    """The page on its second tab."""

    def __init__(self, browser, url, **context):
        super().__init__(browser, url, **context)
        self.page.locator("#base", has_text="tiny").wait_for()
        self.page.click("#tab-chat")
        self.page.evaluate("document.getElementById('chat-longest').value = 400")

    def voice(self, name, place="voice"):
        self.page.fill(f"#{place}", name)
        self.page.press(f"#{place}", "Tab")
        self.page.locator(f"#{place}[data-state=known]").wait_for()

    def send(self, text):
        self.page.fill("#say", text)
        self.page.press("#say", "Enter")
        self.answered()

    def answered(self):
        self.page.locator("#chat-status", has_text=re.compile("answered in")).wait_for()
        self.page.locator("#send:not([disabled])").wait_for()

    def texts(self):
        return self.page.locator("#turns .message .text").all_inner_texts()

    def act(self, name, number=0):
        self.page.locator("#turns").get_by_role("button", name=name).nth(number).click()


@pytest.fixture
def chat(chromium, serve):
    opened = []

    def at(served=None, **context):
        opened.append(Chatting(chromium, (served or serve(recipes=VOICES, context=4000)).url, **context))
        return opened[-1]

    yield at
    for one in opened:
        one.context.close()


def written(voice, *turns, system="Be kind."):
    """What the engine that repeats its input answers to these turns."""
    text = f"<system>{system}\n" if system else ""
    for number, turn in enumerate(turns):
        text += f"<{('user', 'assistant')[number % 2]}>{turn}\n"
    return f"{voice}[1]:{text}<assistant>"


def test_a_conversation_of_several_turns_and_another_voice(chat):
    chatting = chat()
    chatting.voice("kind")
    chatting.send("one")
    first = written("kind", "one")
    assert chatting.texts() == ["one", first]
    chatting.voice("many")  # the first prompt of several
    assert chatting.page.locator("#voice").input_value() == "many:joke"
    chatting.send("two")
    second = written("many:joke", "one", first, "two", system="")
    assert chatting.texts() == ["one", first, "two", second]
    chatting.voice("many:fact")
    chatting.act("Answer again, with the voice that is chosen now", 1)
    chatting.answered()
    third = written("many:fact", "one", first, "two", system="")
    assert chatting.texts() == ["one", first, "two", third]
    assert chatting.page.locator("#turns .who").all_inner_texts() == ["You", "kind", "You", "many:fact"]
    chatting.act("Branch before")
    assert chatting.texts()[-1] == second
    chatting.check()


def test_two_voices_side_by_side_and_which_one_continues(chat):
    chatting = chat()
    chatting.voice("many:joke")
    chatting.voice("many:fact", "beside")
    chatting.send("hi")
    joke, fact = (written(f"many:{name}", "hi", system="") for name in ("joke", "fact"))
    assert chatting.texts() == ["hi", joke, fact]
    boxes = [chatting.page.locator(".message.assistant").nth(i).bounding_box() for i in range(2)]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    chatting.act("Continue from the answer of many:fact")
    chatting.voice("", "beside")
    chatting.send("more")
    assert chatting.texts()[-1] == written("many:joke", "hi", fact, "more", system="")
    chatting.check()


def test_an_edit_is_a_branch(chat):
    chatting = chat()
    chatting.voice("many:joke")
    chatting.send("one")
    chatting.send("two")
    before = chatting.texts()
    chatting.act("Edit this message as a branch")
    chatting.page.get_by_label("Edit the message").fill("uno")
    chatting.page.keyboard.press("Enter")
    chatting.answered()
    assert chatting.texts() == ["uno", written("many:joke", "uno", system="")]
    assert "2 of 2" in chatting.page.locator("#turns").inner_text()
    chatting.act("Branch before")
    assert chatting.texts() == before
    chatting.act("Edit this message as a branch", 1)
    chatting.page.keyboard.press("Escape")
    assert chatting.texts() == before and chatting.focused == "say"
    chatting.page.reload()  # and nothing is lost
    chatting.page.locator("#turns li").nth(3).wait_for()
    assert chatting.texts() == before and chatting.page.locator("#voice").input_value() == "many:joke"
    chatting.page.click("#new-chat")
    assert chatting.texts() == []
    chatting.check()


def test_the_system_text_where_the_template_has_one(chat):
    chatting = chat()
    page = chatting.page
    page.locator("details.more summary").click()
    chatting.voice("kind")
    assert page.locator("#system").get_attribute("placeholder") == "Be kind."
    page.fill("#system", "Be brief.")
    chatting.send("hi")
    assert chatting.texts()[-1] == written("kind", "hi", system="Be brief.")
    chatting.voice("plain")
    page.locator("#system").wait_for(state="hidden")
    chatting.send("again")
    assert chatting.texts()[-1] == "plain[1]:Q: again"
    assert "2 earlier messages were not read" in page.locator("#turns").inner_text()
    chatting.voice("none/such")
    page.locator("#chat-status", has_text="does not exist").wait_for()
    chatting.complaints = [text for text in chatting.complaints if "Failed to load resource" not in text]
    chatting.check()


def test_streams_can_be_stopped_and_a_failure_is_shown(chat, serve):
    served = serve(delay=0.1, recipes=VOICES, context=4000)
    chatting = chat(served)
    chatting.voice("many:joke")
    chatting.page.fill("#say", "x" * 50)
    chatting.page.press("#say", "Enter")
    chatting.page.locator(".message.assistant .text", has_text="many").wait_for()
    chatting.page.keyboard.press("Escape")
    chatting.page.locator("#turns .cost", has_text="stopped").wait_for()
    assert "x" * 50 not in chatting.texts()[-1]
    served.engine.room = 0
    chatting.page.fill("#say", "y")
    chatting.page.press("#say", "Enter")
    chatting.page.locator("#turns .failed").wait_for()
    assert chatting.page.locator("#chat-status.failed").count() == 1
    assert "Failed to load resource" in chatting.complaints.pop()
    chatting.check()


@pytest.mark.parametrize("kind", ["openai", "python", "curl"])
def test_the_copied_code_gives_the_answer(chat, serve, kind):
    served = serve(recipes=VOICES, context=4000)
    chatting = chat(served)
    chatting.voice("many:joke")
    chatting.page.evaluate("document.getElementById('chat-strength').value = 0.5")
    chatting.send('it\'s "ü" \\ $HOME `ls` 🦊')
    chatting.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chatting.page.select_option("#code-kind", kind)
    chatting.page.click("#copy-code")
    chatting.page.locator("#chat-status", has_text="copied").wait_for()
    code = chatting.page.evaluate("navigator.clipboard.readText()")
    assert code == chatting.page.locator("#code").text_content()
    command = ["bash", "-c", code] if kind == "curl" else [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    shown = (
        json.loads(result.stdout)["choices"][0]["message"]["content"]
        if kind == "curl"
        else result.stdout[:-1]
    )
    first, second = served.engine.requests
    assert shown == chatting.texts()[-1] and first.input_ids == second.input_ids
    assert first.scale == second.scale == 0.5 and first.sampling == second.sampling
    chatting.check()


def test_rows_in_the_shape_that_tune_reads(chat, tmp_path):
    chatting = chat()
    chatting.voice("many:joke")
    chatting.send("one")
    chatting.voice("many:fact")
    chatting.send("two")
    with chatting.page.expect_download() as download:
        chatting.page.click("#export-chat")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    _, first, _, second = chatting.texts()
    assert [dict(row) for row in read_rows(str(file), split="test")] == [
        {"input": "one", "voice": "joke", "target": first, "history": ""},
        {"input": "two", "voice": "fact", "target": second, "history": f"user: one\nassistant: {first}"},
    ]
    chatting.check()


def test_all_of_it_by_keyboard(chromium, serve):
    playing = Playing(chromium, serve(recipes=VOICES).url)
    page, keyboard = playing.page, playing.page.keyboard
    page.locator("#base", has_text="tiny").wait_for()
    page.locator(".column").first.wait_for()
    page.locator("#tab-compare").focus()
    keyboard.press("ArrowRight")
    assert playing.focused == "tab-chat" and page.locator("#chat").is_visible()
    assert not page.locator("#compare").is_visible() and page.url.endswith("#chat")
    playing.tab_to("say")
    keyboard.type("one")
    keyboard.press("Shift+Enter")
    keyboard.type("two")
    keyboard.press("Enter")
    page.locator("#chat-status", has_text="answered in").wait_for()
    assert page.locator("#turns .text").first.inner_text() == "one\ntwo" and playing.focused == "say"
    keyboard.press("Shift+Tab")
    assert playing.focused == "Answer again, with the voice that is chosen now"
    keyboard.press("Enter")
    page.locator("#turns", has_text="2 of 2").wait_for()
    page.locator("#send:not([disabled])").wait_for()
    playing.tab_to("say")
    page.reload()  # the address remembers the tab
    page.locator("#turns li").nth(1).wait_for()
    assert playing.focused == "say"
    playing.check()
    playing.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_everything_can_be_read(chat, width, scheme, tmp_path):
    chatting = chat(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = chatting.page
    chatting.voice("many:joke")
    chatting.voice("kind", "beside")
    chatting.send("a-very-long-word-without-a-space-" * 4)
    chatting.send(NASTY)
    assert page.locator("#turns img").count() == 0 and NASTY in chatting.texts()
    page.click("#copy-code")
    page.locator("details.more summary").click()
    assert page.evaluate(FAINT) == []
    page.locator("#say").focus()
    box = page.locator("#say").bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= 844  # one types beside the answers
    chatting.check()


def test_on_a_phone_columns_are_swiped_and_the_answer_is_in_sight(play, serve):  # noqa: F811
    playing = play(serve(), viewport={"width": 390, "height": 844})
    page = playing.page
    playing.run("a fun film")
    boxes = [page.locator(".column").nth(i).bounding_box() for i in range(4)]
    assert len({box["y"] for box in boxes}) == 1 and all(box["width"] >= 300 for box in boxes)
    answer = page.locator(".column .answer").first.bounding_box()
    field = page.locator("#input").bounding_box()
    assert field["y"] >= 0 and answer["y"] > field["y"] and answer["y"] + 60 < 844
    page.locator("#columns").evaluate("element => element.scrollTo(1e4, 0)")
    page.wait_for_function("document.getElementById('columns').scrollLeft > 600")
    playing.check()
