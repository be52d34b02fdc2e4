"""The model writes requests itself, where the user gives none: self-study (Cartridges,
Eyuboglu et al. 2025).

It reads the text, or one chunk of a document after the other, and is asked for a message that somebody might
send, in five kinds with several wordings each. Varied wordings give varied requests; those of one wording
about one chunk are kept together when rows are split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import torch

from .._system.files import write_text
from .._system.notes import note
from .._system.progress import task
from ..config.schema import Recipe
from ..config.sections.task import text_hash
from ..data.example import Example
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..training.teacher_encoder import TeacherEncoder
from . import wordings
from .beginnings import Beginnings
from .kept_rows import KeptRows
from .requests import LEAST, Request, distinct

TEXT = "text"  # the field that holds the hash of the text that a request is about
MOST_TOKENS = 48  # of a request
AT_ONCE = 16  # requests
ROUNDS = 4  # times as many attempts as requests are wanted
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": 0.95}


def self_study(
    recipe: Recipe, lm: LanguageModel, teacher: TeacherEncoder, count: int, file: Path
) -> list[Request]:
    """Return up to `count` requests that the model writes behind the text, with their kind and wording.

    Requests that a person has added to the file are used beside them.
    `file` keeps them as JSON Lines, which a person can read and change; a later call of the same text takes
    them as they are, and writes more only where more are asked for or the file is not finished. Rows of
    another text are not used. Raises SoftPromptError where the model writes too few that differ.
    """
    kept = KeptRows(file, TEXT, text_hash(teacher.text))
    kept.settle()
    written = kept.read()
    if _state(kept)["finished"] < count:
        _write(recipe, lm, teacher, count, kept, written)
    rows = distinct(_first(written, count))
    kinds = len({row.get("wording", row["request"]) for row in rows})
    if len(rows) < LEAST or kinds < 3:
        raise SoftPromptError(
            f"the model wrote only {len(rows)} requests that differ, to {kinds} wordings",
            why="a small model may not be able to imagine who writes to it",
            fix="give requests of your own: --requests FILE",
        )
    return rows


def left_to_write(teacher: TeacherEncoder, count: int, file: Path) -> int:
    """Return how many of `count` requests about the text are not in the file yet."""
    kept = KeptRows(file, TEXT, text_hash(teacher.text))
    return 0 if _state(kept)["finished"] >= count else max(0, count - len(kept.read()))


def prompts(teacher: TeacherEncoder, count: int, attempt: int) -> tuple[int, list[tuple[str, str]]]:
    """Return the chunk that an attempt is about, and its (kind, wording) pairs.

    Each chunk is asked in turn. When its turn comes again, the wordings continue where they ended.
    """
    kinds = wordings.DOCUMENT if teacher.is_document else wordings.SYSTEM
    in_turn = zip_longest(*([(kind, text) for text in texts] for kind, texts in kinds.items()))
    pairs = [pair for each in in_turn for pair in each if pair is not None]
    number = at_once(teacher, count)
    turn, chunk = divmod(attempt, len(teacher.chunks))
    return chunk, [pairs[(turn * number + chunk + i) % len(pairs)] for i in range(number)]


def at_once(teacher: TeacherEncoder, count: int) -> int:
    """Return the number of requests that one attempt asks for."""
    return max(1, min(AT_ONCE, -(-count // len(teacher.chunks))))


def encoded(teacher: TeacherEncoder, chunk: int, texts: Sequence[str]) -> list[Example]:
    """Encode what the model is asked, behind the chunk that it is asked about."""
    return [teacher.encode_about(chunk, {"request": text}) for text in texts]


def _write(
    recipe: Recipe,
    lm: LanguageModel,
    teacher: TeacherEncoder,
    count: int,
    kept: KeptRows,
    written: dict[str, Request],
) -> None:
    """Let the model write until there are `count` requests, or all attempts are made."""
    if count < len(teacher.chunks):
        note(f"{count} requests ask about {count} of the document's {len(teacher.chunks)} chunks; --count")
    attempts = -(-ROUNDS * count // at_once(teacher, count))
    writer, state = Beginnings(lm), _state(kept)
    with task("requests that the model writes", count) as progress, torch.random.fork_rng():
        for attempt in range(state["attempts"], attempts):
            if len(written) >= count:
                break
            torch.manual_seed(recipe.train.seed * 10**6 + attempt)
            chunk, chosen = prompts(teacher, count, attempt)
            about = {"chunk": chunk} if teacher.is_document else {}
            examples = encoded(teacher, chunk, [wording for _, wording in chosen])
            for rows, outputs in writer.texts(examples, MOST_TOKENS, **SAMPLING):
                for i, ids in zip(rows, outputs, strict=True):
                    text = _cleaned(teacher.decode(ids))
                    if any(token in lm.ends for token in ids) and text:
                        kind, wording = chosen[i]
                        facts = {"kind": kind, "wording": wording, **about, TEXT: kept.value}
                        written.setdefault(text, {"request": text, **facts})
            kept.write(_first(written, count))
            _keep(kept, state | {"attempts": attempt + 1})
            progress.at(min(count, len(written)))
    _keep(kept, state | {"finished": count, "attempts": attempts})


def _first(written: Mapping[str, Request], count: int) -> list[Request]:
    """Return the first `count` requests that the model wrote, and all that a person added."""
    ours = [request for request, row in written.items() if "kind" in row]  # a person may name a wording
    left_out = set(ours[count:])
    return [row for request, row in written.items() if request not in left_out]


def _cleaned(text: str) -> str:
    """Return the first line that says something, without quotes around it."""
    lines = [line.strip().strip('"“”').strip() for line in text.splitlines()]
    return next((line for line in lines if len(line.split()) > 2 and not line.endswith(":")), "")


def _state(kept: KeptRows) -> dict[str, int]:
    """Read how far the requests about a text are: attempts, and the count that was finished."""
    return _states(kept.file).get(kept.value, {"attempts": 0, "finished": 0})


def _keep(kept: KeptRows, state: dict[str, int]) -> None:
    states = _states(kept.file) | {kept.value: state}
    write_text(_beside(kept.file), json.dumps(states) + "\n")


def _states(file: Path) -> dict[str, dict[str, int]]:
    """Read the states of all texts, by the text's hash."""
    beside = _beside(file)
    states = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
    return {states.pop(TEXT): states} if TEXT in states else states  # an earlier version kept one


def _beside(file: Path) -> Path:
    return file.with_suffix(".state.json")
