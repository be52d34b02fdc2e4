"""Requests about a document are separated by what their answers are made of, and scored apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..data.chunks import is_table
from ..training.teacher_encoder import TeacherEncoder

PROSE, NUMBERS = "prose", "tables and numbers"
_ITEM = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)  # the number of an item of a list says nothing
_DIGIT = re.compile(r"\d")


def part_of(teacher: TeacherEncoder, row: Mapping[str, Any]) -> str | None:
    """Return the part that a row belongs to: its own, else by its answer and chunk; None without a document.

    The answer is the right one where the row has one (`reference`), else the teacher's.
    """
    if row.get("part"):
        return str(row["part"])
    if not teacher.is_document:
        return None
    answer = row.get("reference") or row["answer"]
    text = " ".join(answer) if isinstance(answer, list) else str(answer)
    chunk = row.get("chunk")
    if _DIGIT.search(_ITEM.sub("", text)):
        return NUMBERS
    about_table = isinstance(chunk, int) and chunk < len(teacher.chunks) and is_table(teacher.chunks[chunk])
    return NUMBERS if about_table else PROSE
