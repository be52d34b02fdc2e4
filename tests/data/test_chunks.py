"""A long text in chunks, and the chunk that a request is about."""

from __future__ import annotations

from softprompt.data.chunks import chunks, is_table, nearest

TEXT = "\n\n".join(f"Part {i} is about {word}. " + "It is long. " * 9 for i, word in enumerate("ABCDE"))


def test_chunks_are_the_text_and_short_enough():
    for most in (3, 20, 60, 1000):
        parts = chunks(TEXT, most, lambda text: len(text.split()))
        assert "".join(parts) == TEXT
        assert all(len(part.split()) <= most for part in parts)
    assert chunks(TEXT, 35, lambda text: len(text.split()))[1].startswith("Part 1")  # cut at empty lines
    assert max(map(len, chunks("x" * 50, 10, len))) <= 10  # a word that is too long


def test_the_chunk_with_the_rarest_shared_words_is_nearest():
    texts = ["the cat and the dog sleep", "the price is 84 euros", "the error E4 is shown"]
    assert nearest(texts, ["What is the price?", "what does E4 mean", "a dog"]) == [1, 2, 0]
    assert nearest(texts, ["xyz"]) == [0] and nearest(["!", "?"], ["a"]) == [0]


def test_tables():
    assert is_table("| a | b |\n|---|---|\n| 1 | 2 |") and is_table("a\tb\tc\n1\t2\t3")
    assert not is_table("First, second, third.\nThis is prose.") and not is_table("")
