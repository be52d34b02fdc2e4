"""The requests of each system prompt: own templates over own subjects, the same number for every prompt."""

from __future__ import annotations

import itertools

GENERAL = (
    "What is {}?",
    "Tell me one fact about {}.",
    "I have a problem with {}. What should I do?",
    "Give me a short list about {}.",
    "Who can tell me more about {}?",
    "Write two sentences about {}.",
    "Is it true that nobody likes {}?",
    "My friend asked me about {}. What should I answer?",
)
SUBJECTS = (
    "the moon",
    "a broken chair",
    "cold soup",
    "my neighbour's dog",
    "an old bicycle",
    "the river in winter",
    "a lost key",
)

#: Subjects that belong to a prompt. Each is asked about in the ways of `GENERAL`.
OWN = {
    "pirate": ("the harbour, a storm, fish soup, a torn sail, gold, a long night watch, the best knot, rum"),
    "json_only": ("gravity, the capital of Peru, boiled eggs, a verb, seven, honey, sleep, glass"),
    "refusal": (
        "opening hours, a library card, a headache, my rent, "
        "a detective novel, homework, the mayor, quiet rooms"
    ),
    "teacher": (
        "rainbows, why cats purr, fractions, magnets, the dark, volcanoes, how bread rises, the tide"
    ),
    "support": (
        "a yellow fern, a late parcel, a broken pot, a gift card, black flies, an angry letter, ivy, postage"
    ),
    "summary": (
        "the meeting on Friday, a joke about ducks, the new printer, "
        "a poem, the bus strike, tea, the roof, moths"
    ),
    "innkeeper": ("breakfast, the bus, a dog, the waterfall, a wet room, supper, boats, another inn"),
    "glossary": (
        "a heavy parcel, the break, a parcel without an address, "
        "the lamp, line 3, loading doors, a red slip, rain"
    ),
    "tools": (
        "order 482913, a new address, a refund, green chairs, "
        "a flickering lamp, a late parcel, stock, goodbye"
    ),
    "island": ("the ferry, Gull Rock, Inver Bay, Keld in January, the cider fair, seals, taxis, the flag"),
}


def requests_for(name: str, short: bool = False) -> list[str]:
    """Return the 120 requests of a prompt: 64 about its subjects, 56 about others; or the first 48."""
    subjects = [*OWN[name].split(", "), *SUBJECTS]
    every = [form.format(subject) for subject, form in itertools.product(subjects, GENERAL)]
    return every[: 48 if short else None]
