"""General text, which `train.keep` mixes into a run, is read from a file or written by the plain model.

The plain model continues the openings below, by sampling with a fixed seed. Its texts are kept as JSON Lines,
which a person can read and change, in the folder of caches: one file for each base model, which all runs
share. They are no text that `evaluation.leakage` measures on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from .._system.files import write_text
from .._system.paths import expanded
from .._system.progress import say, task
from ..cache.folders import CacheFolder, builder
from ..cache.keys import about, key_of
from ..data.collate import batch_of_ids
from ..data.sources import read_rows
from ..data.text_files import check_regular, read_text
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.generation import answering, tokens_of

FILE = "general_text.jsonl"
FIELD = "text"  # of a row that holds a text
AT_ONCE = 16  # texts that are written in one batch; its number is its seed
MOST = 128  # texts
TOKENS = 128  # of a text
LEAST_TOKENS = 32  # of a text, before it may end
OPENINGS = (
    *("The", "In the", "A", "When", "It was", "She", "If you", "To make", "After", "There are", "How to"),
    *("What is", "I", "We", "According to", "For example,", "One of the", "This is", "On Monday"),
    *("Most people", "The first", "My", "Dear", "Question:", "#", "def ", "import ", "1.", "Abstract:"),
    *("Chapter 1", "Once", "Although", "Why", "Let x", "Step 1:", "Here is", "Ingredients:", "He went"),
    *("In 1950", "Water"),
)


def read_texts(file: str) -> list[str]:
    """Read the user's own text: a text file, or rows with the field `text`.

    Raises SoftPromptError where there is none.
    """
    path = Path(expanded(file))
    if path.suffix.lower() in (".txt", ".md") and path.is_file():
        check_regular(path, "text")
        return [read_text(path)]
    rows = read_rows(file)
    for row in rows:
        if not isinstance(row.get(FIELD), str):
            raise SoftPromptError(
                f"{row.where}: no text in the field '{FIELD}'",
                why=f"train.keep_text reads general text from it; the row has: {', '.join(map(str, row))}",
                fix=f"call the field '{FIELD}', or give a text file (.txt)",
            )
    return [row[FIELD] for row in rows]


def written_texts(lm: LanguageModel, count: int, place: CacheFolder) -> list[str]:
    """Return at least `count` texts of the plain model, at most `MOST`; those that are kept are not written
    again.

    They do not depend on `count`: a longer run finds the same ones first.
    """
    batches = -(-min(count, MOST) // AT_ONCE)
    if reason := lm.spec.limits.get("generate"):
        raise SoftPromptError(
            f"'{lm.name}' cannot write the general text of train.keep",
            why=reason,
            fix="train.keep_text=FILE names some of your own; or train.keep=0",
        )
    file = _file(lm, place)
    with builder(file.parent):
        texts = _read(file)
        done = len(texts) // AT_ONCE
        if done < batches:
            say(f"the plain model writes general text for train.keep: {file}")
            with task("general text that the plain model writes", batches * AT_ONCE) as progress:
                for number in range(done, batches):
                    progress.at(number * AT_ONCE)
                    texts[number * AT_ONCE :] = _write(lm, number)
                    rows = (json.dumps({FIELD: text}, ensure_ascii=False) + "\n" for text in texts)
                    write_text(file, "".join(rows))
    return texts[: batches * AT_ONCE]


def left_to_write(lm: LanguageModel, count: int, place: CacheFolder) -> int:
    """Return how many of the texts that `written_texts` returns are not written yet."""
    return max(0, -(-min(count, MOST) // AT_ONCE) * AT_ONCE - len(_read(_file(lm, place))))


def fingerprint(texts: Sequence[str]) -> str:
    """Hash texts in their order (sha256, hex)."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def ids_of(lm: LanguageModel, text: str) -> list[int]:
    """Return the token ids of a text, with the special tokens that the tokenizer puts ahead of it."""
    body = lm.text_ids(text)  # which also checks that the model has embeddings for all of them
    assert lm.tokenizer is not None
    whole: list[int] = lm.tokenizer(text)["input_ids"]  # type: ignore[assignment]
    ahead = next((n for n in range(len(whole)) if whole[n : n + len(body)] == body), 0)
    return [*whole[:ahead], *body]


def _file(lm: LanguageModel, place: CacheFolder) -> Path:
    return place.folder(key_of(about(lm), general_text=[*OPENINGS, TOKENS, LEAST_TOKENS])) / FILE


def _read(file: Path) -> list[str]:
    return [row[FIELD] for row in read_rows(file)] if file.exists() else []


@torch.no_grad()
def _write(lm: LanguageModel, number: int) -> list[str]:
    """Let the plain model write the texts of a batch."""
    openings = [OPENINGS[(number * AT_ONCE + i) % len(OPENINGS)] for i in range(AT_ONCE)]
    inputs = [ids_of(lm, opening) for opening in openings]
    most = min(TOKENS, *(room for room in (lm.spec.context, lm.spec.answer_context) if room)) - 8
    options = {"do_sample": True, "temperature": 1.0, "top_p": 0.95}
    options |= {"min_new_tokens": min(LEAST_TOKENS, most)}
    with torch.random.fork_rng():
        torch.manual_seed(number)
        batch = batch_of_ids(inputs, device=lm.device)
        outputs = tokens_of(lm.generate(batch, None, **answering(lm, most, **options))).tolist()
    texts = []
    for opening, ids in zip(openings, outputs, strict=True):
        end = next((i for i, token in enumerate(ids) if token in lm.ends), len(ids))
        assert lm.tokenizer is not None
        texts.append(opening + lm.tokenizer.decode(ids[:end], skip_special_tokens=True))
    return texts
