"""A long text is cut into chunks at its own joints, and the chunk that a request is about is looked up.

Joints are empty lines, then lines, then sentences, then words. The chunks joined together are the text. This
file knows texts and a way to count tokens, and no models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

#: Where a text may be cut, from the best place to the worst: a piece ends behind the match.
JOINTS = (r"\n\s*\n", r"\n", r"[.!?]\s+", r"\s+", r"(?s).{1,8}")
TABLE_SHARE = 0.5  # of its lines, from which on a chunk is a table
_TABLE_LINE = re.compile(r"\|.*\||\t.*\t|\S {2,}\S.* {2,}\S")


def chunks(text: str, most: int, count: Callable[[str], int]) -> list[str]:
    """Cut a text into chunks of at most `most` tokens; `count` counts a text's tokens.

    Pieces are packed greedily, so that all chunks but the last are about as long as allowed.
    """
    packed: list[str] = []
    used = 0
    for piece, tokens in _pieces(text, most, count, JOINTS):
        if packed and used + tokens <= most:
            packed[-1] += piece
            used += tokens
        else:
            packed.append(piece)
            used = tokens
    return packed


def nearest(texts: Sequence[str], requests: Sequence[str]) -> list[int]:
    """Return, for each request, the index of the text that shares most of its words.

    Words are weighted by how few of the texts hold them (TF-IDF). A request that shares no word with any text
    gets the first one.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        known = vectorizer.fit_transform(texts)
    except ValueError:  # the texts hold no words
        return [0] * len(requests)
    scores = (vectorizer.transform(requests) @ known.T).toarray()
    return [int(row.argmax()) for row in scores]


def is_table(text: str) -> bool:
    """Return whether most lines of a text are rows of a table: split by bars, tabs or spaces."""
    lines = [line for line in text.splitlines() if line.strip()]
    rows = sum(bool(_TABLE_LINE.search(line)) for line in lines)
    return bool(lines) and rows > TABLE_SHARE * len(lines)


def _pieces(
    text: str, most: int, count: Callable[[str], int], joints: Sequence[str]
) -> list[tuple[str, int]]:
    """Cut a text at the first kind of joint, and pieces that are still too long at the next; with tokens."""
    pieces: list[tuple[str, int]] = []
    start = 0
    ends = [match.end() for match in re.finditer(joints[0], text)]
    for end in [*ends, len(text)]:
        piece, start = text[start:end], end
        if not piece:
            continue
        tokens = count(piece)
        if tokens > most and len(joints) > 1:
            pieces += _pieces(piece, most, count, joints[1:])
        else:
            pieces.append((piece, tokens))
    return pieces
