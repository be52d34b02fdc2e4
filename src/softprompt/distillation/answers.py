"""The teacher answers the requests; the answers are kept in a file that a person can read and change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .._system.notes import note
from .._system.progress import task
from ..config.schema import Recipe
from ..data.targets import TEACHER
from ..data.teacher_texts import teacher_text
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.loading import fingerprint
from ..training.teacher_encoder import TeacherEncoder
from .beginnings import Beginnings
from .kept_rows import KeptRows
from .requests import Request

Answer = dict[str, Any]  # a request with answer, complete, limit (tokens), and a name of the teacher


def answers(
    recipe: Recipe, lm: LanguageModel, teacher: TeacherEncoder, requests: Sequence[Request], file: Path
) -> list[Answer]:
    """Return the teacher's greedy answers, in the order of the requests.

    Those that `file` holds of the same teacher are not computed again. The others are added to it as they are
    written, so that a run that was killed resumes; answers of another teacher are set aside. An answer that
    reached `task.max_new_tokens` is not complete: it is learned up to there, without an end.
    """
    requests = with_chunks(teacher, requests)
    known = known_answers(recipe, lm, teacher, requests, file)
    missing = [row for row in requests if row["request"] not in known]
    kept = KeptRows(file, TEACHER, _identity(recipe, lm))
    kept.settle()
    facts = {"limit": recipe.task.max_new_tokens, TEACHER: kept.value}
    writer = Beginnings(lm)
    with task("the teacher's answers", len(missing)) as progress:
        done = 0
        for group in by_chunk(teacher, missing):
            examples = [teacher.encode(row) for row in group]
            for rows, outputs in writer.texts(examples, recipe.task.max_new_tokens):
                for i, ids in zip(rows, outputs, strict=True):
                    complete = any(token in lm.ends for token in ids)
                    answer = {"answer": teacher.decode(ids), "complete": complete, **facts}
                    known[group[i]["request"]] = {**group[i], **answer}
                kept.write(known.values())
                done += len(rows)
                progress.at(done)
    return [{**known[row["request"]], **row} for row in requests]


def known_answers(
    recipe: Recipe, lm: LanguageModel, teacher: TeacherEncoder, requests: Sequence[Request], file: Path
) -> dict[str, Answer]:
    """Return the answers of the same teacher that the file holds, by request."""
    identity, most = _identity(recipe, lm), recipe.task.max_new_tokens
    chunks = {} if teacher.is_whole else {row["request"]: row.get("chunk") for row in requests}
    return {
        request: row
        for request, row in KeptRows(file, TEACHER, identity).read().items()
        if row.setdefault(TEACHER, identity)
        and isinstance(row.get("answer"), str)
        and (row.setdefault("complete", True) or row.get("limit", 0) >= most)
        and chunks.get(request) in (None, row.get("chunk"))
    }


def with_chunks(teacher: TeacherEncoder, requests: Sequence[Request]) -> list[Request]:
    """Return the requests about a document that does not fit whole with the chunk that each is about."""
    lacking = [row for row in requests if not isinstance(row.get("chunk"), int)]
    if teacher.is_whole or not lacking:
        return list(requests)
    note(
        f"the document does not fit into the context, so it is read in {len(teacher.chunks)} chunks: each "
        "request is answered from the chunk that shares most of its words (TF-IDF)"
    )
    chosen = {row["request"]: i for row, i in zip(lacking, teacher.chunks_like(lacking), strict=True)}
    return [{**row, "chunk": chosen.get(row["request"], row.get("chunk"))} for row in requests]


def by_chunk(teacher: TeacherEncoder, rows: Sequence[Request]) -> Iterator[list[Request]]:
    """Yield the rows that the teacher reads behind the same text."""
    if teacher.is_whole:
        yield list(rows)
        return
    for chunk in range(len(teacher.chunks)):
        if about := [row for row in rows if teacher.chunk_of(row) == chunk]:
            yield about


def usable(written: Sequence[Answer], most: int) -> list[Answer]:
    """Return the answers that are not empty. Raises SoftPromptError where all are.

    Where none of them ends, a note says that no end is learned.
    """
    answered = [row for row in written if str(row["answer"]).strip()]
    if answered and not any(row["complete"] for row in answered):
        note(
            f"none of the teacher's {len(answered)} answers ends within {most} tokens, so the vectors "
            f"learn no end of an answer: task.max_new_tokens={most * 4}, or ask for short answers"
        )
    if answered:
        return answered
    raise SoftPromptError(
        "all of the teacher's answers are empty",
        why="the model ends its answer at once, with the text in front of the request",
        fix="change the text, or ask other requests",
    )


def _identity(recipe: Recipe, lm: LanguageModel) -> str:
    """Name the teacher: its text, the model and its precision, the template, and how a document is shown."""
    parts = [teacher_text(recipe), fingerprint(lm), recipe.template.model_dump(mode="json")]
    if lm.precision != "float32":  # answers in float32 keep the name that they had before
        parts.append(lm.precision)
    if recipe.teacher.role != "system":
        parts += [recipe.teacher.role, recipe.teacher.chunk_tokens]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
