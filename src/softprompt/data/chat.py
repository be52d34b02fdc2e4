"""A conversation is written by the model's own chat template.

Templates differ in what they read. Some want a message's text in content parts (vision-language models), some
write today's date, some open a block of thoughts ahead of the answer. The result must hold the text of every
turn, and it must be the same on every day: lost text is an error, and the date comes from the recipe. This
file knows a tokenizer (any of `transformers`), and no rows or tasks.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from softprompt.errors import SoftPromptError, unknown

Turns = Sequence[tuple[str, str]]  # (role, text)
DATE = "2024-07-26"  # the date that a template writes where the recipe names none
READS_DATE = "strftime_now"
DATES = "softprompt_dates"  # the template's variable in place of a clock: texts by format
THOUGHTS = re.compile(r"[<\[](/?)\|?(?:seed:)?(?:think|thinking|thought|thoughts|reasoning)\|?[>\]]", re.I)
TRIED = (("enable_thinking", False), ("thinking", False))  # options by which templates leave thoughts out


@dataclass(frozen=True)
class Chat:
    """A tokenizer's chat template, used with these options and this date (YYYY-MM-DD)."""

    tokenizer: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    date: str | None = None

    def ids(self, turns: Turns) -> tuple[int, ...]:
        """Return the token ids of a conversation that ends where the model is to answer.

        Raises SoftPromptError where the template refuses the turns, or leaves out the text of one.
        """
        written = self._rendered(turns, self._parts)
        if lost := next((turn for turn in turns if not _holds(written, *turn)), None):
            role, text = lost
            raise SoftPromptError(
                f"the model's chat template leaves out the {role}'s text",
                why=f"{text!r:.60} is not in the conversation that it writes",
                fix="put the system text into template.input" if role == "system" else "template.chat=false",
            )
        return tuple(self._apply(turns, self._parts, tokenize=True))

    def text(self, turns: Turns) -> str:
        """Return the conversation as text. Raises SoftPromptError where the template refuses the turns."""
        return self._rendered(turns, self._parts)

    @property
    def writes_date(self) -> bool:
        """Return whether the template reads today's date."""
        return READS_DATE in self._source

    def open_thought(self) -> str:
        """Return the mark of a block of thoughts that is open where the model is to answer; empty without
        one.
        """
        turns = (("user", "a"),)
        whole = self._rendered(turns, self._parts)
        turns_alone = self._apply(turns, self._parts, tokenize=False, add_generation_prompt=False)
        marks = list(THOUGHTS.finditer(whole.removeprefix(turns_alone)))
        return marks[-1].group() if marks and not marks[-1].group(1) else ""

    def note(self) -> str:
        """Return a note about an open block of thoughts, with what closes it; empty where none is open."""
        mark = self.open_thought()
        if not mark:
            return ""
        for name, value in TRIED:
            closed = Chat(self.tokenizer, {**self.options, name: value}, self.date)
            if name in self._source and not closed.open_thought():
                fix = f"template.chat_options={{{name}: false}} closes it"
                break
        else:
            fix = f"to answer behind it, let targets begin with its end ({mark[0]}/{mark[1:]})"
        return f"the chat template ends inside {mark}, so targets are trained as thoughts; {fix}"

    def check(self) -> None:
        """Raise SoftPromptError for an option that the template does not read, and for an invalid date."""
        ours = {*inspect.signature(self.tokenizer.apply_chat_template).parameters} - {"tools", "documents"}
        ours |= {
            "messages",
            "raise_exception",
            READS_DATE,
            *getattr(self.tokenizer, "special_tokens_map", ()),
        }
        for name in self.options:
            if name in ours or not re.search(rf"\b{re.escape(name)}\b", self._source):
                known = sorted(_variables(self._source) - ours)
                error = unknown("chat option", name, known, fix="template.chat_options names what it reads")
                raise SoftPromptError(
                    error.what, f"the model's chat template does not read it; {error.why}", error.fix
                )
        self._day()

    # --- rendering ---

    @cached_property
    def _source(self) -> str:
        try:
            return str(self.tokenizer.get_chat_template())
        except (
            AttributeError,
            ValueError,
        ):  # no template, or one that is not needed
            return str(getattr(self.tokenizer, "chat_template", None) or "")

    @cached_property
    def _parts(self) -> bool:
        """Try with a word whether the template reads a message's text in content parts."""
        word = "Kugelschreiber"
        try:
            if word in self._rendered((("user", word),), False):
                return False
        except SoftPromptError:
            pass  # it may take parts alone
        try:
            written = self._rendered((("user", word),), True)
        except SoftPromptError:
            return False
        return word in written and not re.search(
            r"['\"]text['\"]\s*:", written
        )  # the parts as Python shows them

    def _rendered(self, turns: Turns, parts: bool) -> str:
        return self._apply(turns, parts, tokenize=False)

    def _apply(self, turns: Turns, parts: bool, *, tokenize: bool, add_generation_prompt: bool = True) -> Any:
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if parts else text}
            for role, text in turns
        ]
        try:
            return self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=add_generation_prompt,
                tokenize=tokenize,
                return_dict=False,
                **self.options,
                **self._clock,
            )
        except Exception as error:  # chat templates raise any exception, as for an unknown role
            system = any(role == "system" for role, _ in turns)
            raise SoftPromptError(
                f"the model's chat template failed: {error}",
                why="some models take no system turn" if system else "",
                fix="put the system text into template.input" if system else "template.chat=false",
            ) from None

    @cached_property
    def _clock(self) -> dict[str, Any]:
        """Return the template with a macro in place of its clock, and the dates that it writes."""
        if not self.writes_date:
            return {}
        macro = f"{{% macro {READS_DATE}(form) %}}{{{{ {DATES}[form] }}}}{{% endmacro +%}}"
        begun = re.sub(r"^[ \t]+(?=\{%)", "", self._source)  # as transformers strips it where a line begins
        forms = {form for pair in re.findall(r"'([^']*)'|\"([^\"]*)\"", self._source) for form in pair}
        dates = {form: self._day().strftime(form) for form in forms if "%" in form}
        return {"chat_template": macro + begun, DATES: dates}

    def _day(self) -> date:
        try:
            return date.fromisoformat(self.date or DATE)
        except ValueError:
            raise SoftPromptError(
                f"template.chat_date={self.date!r} is not a date", fix=f"write it as in {DATE}"
            ) from None


def _holds(written: str, role: str, text: str) -> bool:
    """Return whether a conversation holds a text, as it is or escaped for JSON, whatever its white space.

    Templates leave the thoughts of an assistant's earlier turn out, as they should.
    """
    if role == "assistant":
        text = text[max((mark.end() for mark in THOUGHTS.finditer(text)), default=0) :]
    bare = _bare(written)
    forms = (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    return any(_bare(form) in bare for form in forms)


def _bare(text: str) -> str:
    return "".join(text.split())


def _variables(source: str) -> set[str]:
    """Return the names that a template reads and does not set."""
    import jinja2
    from jinja2 import meta

    try:
        extensions = ["jinja2.ext.loopcontrols", "jinja2.ext.do"]
        return meta.find_undeclared_variables(jinja2.Environment(extensions=extensions).parse(source))
    except jinja2.TemplateError:  # transformers' own extensions
        return set()
