"""The topics that users ask about, and the words that no text of the demo may contain."""

from __future__ import annotations

import re

# How a user may ask. A topic always gets the same wording, whatever the prompt.
_ASK = ("Tell me about {}.", "What do you know about {}?", "Say something about {}.")

# Topics, singular, picked by hand, because the corpora have no tags: first the nouns of the jokes (where a
# joke has several, one that facts and verses have too), then of the quiz questions and verses.
JOKE_TOPICS = """
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
TOPICS = tuple(dict.fromkeys(JOKE_TOPICS + _QUIZ_TOPICS))
_NO_ARTICLE = frozenset(
    """
    food music pants life golf school chocolate coffee love chess war scissors salad currency beer
    juice honey hockey rice vanilla metal candy television sport hope soil rain snow bread wine gold silver
    wisdom water memory heaven light gas
    """.split()
)

# Not for a demo that strangers run.
UNFIT = re.compile(
    r"hitler|suicid|testicl|assassinat|murder|kill|fatal|shot dead|eskimo|slay|slain|smote|smite|slew|"
    r"blood|whor|harlot|womb|breast|naked|dung|piss|destroy|burn|circumcis|conceiv|begat|curse|wrath|"
    r"heathen|servant|slave|\bwife|\bwives|concubine|dead|death|die[sd]?\b|war\b|perish|abomination|"
    r"slaughter|philistine|\bass\b|jews?\b|gentile",
    re.IGNORECASE,
)


def ask(topic: str) -> str:
    """Return what a user says about `topic`: one wording per topic, the same for every prompt."""
    return _ASK[sum(topic.encode()) % len(_ASK)].format(topic if topic in _NO_ARTICLE else f"the {topic}")
