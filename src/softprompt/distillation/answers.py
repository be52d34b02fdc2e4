"""The teacher answers the requests; the answers are kept in a file that a person can read and change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .._system.progress import task
from ..build import teacher_text
from ..config.schema import Recipe
from ..data.batching import by_tokens
from ..data.collate import collate
from ..data.encode import Encoder
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.generation import answering, tokens_of
from ..lm.loading import fingerprint
from . import kept_rows

BATCH_TOKENS = 4096  # of inputs and answers, padding included
Answer = dict[str, Any]  # request, answer, complete, limit (tokens), and a name of the teacher


def answers(
    recipe: Recipe, lm: LanguageModel, encoder: Encoder, requests: Sequence[str], file: Path
) -> list[Answer]:
    """Return the teacher's greedy answers, in the order of the requests.

    Those that `file` holds of the same teacher are not computed again. The others are added to it as they are
    written, so that a run that was killed resumes. An answer that reached `task.max_new_tokens` is not
    complete.
    """
    of_text, most = _identity(recipe, lm), recipe.task.max_new_tokens
    known = {
        request: row
        for request, row in kept_rows.read(file).items()
        if row.get("teacher") == of_text and (row["complete"] or row.get("limit", 0) >= most)
    }
    missing = [text for text in requests if text not in known]
    options = answering(lm, recipe.task.max_new_tokens)
    examples = [encoder.encode({"request": text}, with_target=False) for text in missing]
    lengths = [len(e.input_ids) + recipe.task.max_new_tokens for e in examples]
    order = sorted(range(len(examples)), key=lengths.__getitem__)
    with task("the teacher's answers", len(missing)) as progress:
        done = 0
        for rows in by_tokens(order, lengths, BATCH_TOKENS):
            batch = collate([examples[i] for i in rows], lm.device, targets=False)
            with torch.no_grad():
                outputs = tokens_of(lm.generate(batch, None, **options)).tolist()
            for i, ids in zip(rows, outputs, strict=True):
                complete = any(token in lm.ends for token in ids)
                text = encoder.decode(ids)
                facts = {"complete": complete, "limit": most, "teacher": of_text}
                known[missing[i]] = {"request": missing[i], "answer": text, **facts}
            kept_rows.write(file, known.values())
            done += len(rows)
            progress.at(done)
    return [known[text] for text in requests]


def usable(written: Sequence[Answer], most: int) -> list[Answer]:
    """Return the complete answers. Raises SoftPromptError where none is, or all are empty."""
    complete = [row for row in written if row["complete"] and str(row["answer"]).strip()]
    if complete:
        return complete
    if any(str(row["answer"]).strip() for row in written):
        raise SoftPromptError(
            f"none of the teacher's {len(written)} answers ends within {most} tokens",
            why="an answer that is cut teaches no end",
            fix=f"task.max_new_tokens={most * 4}, or a text that asks for short answers",
        )
    raise SoftPromptError(
        "all of the teacher's answers are empty",
        why="the model ends its answer at once, with the text in front of the request",
        fix="change the text, or ask other requests",
    )


def _identity(recipe: Recipe, lm: LanguageModel) -> str:
    """Name the teacher: its text, the model and the template."""
    parts = [teacher_text(recipe), fingerprint(lm), recipe.template.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
