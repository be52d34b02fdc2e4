"""What is odd about rows that can be used all the same: counted, with the first of them named.

`check` shows the remarks, and `tune` says them before it trains. This file knows encoded rows, and nothing
of models or of how remarks are shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from softprompt.data.answers import lost_characters
from softprompt.data.encode import Encoder, Example
from softprompt.data.tokens import unknown_to_model

SHOWN = 3  # rows named in a remark


@dataclass(frozen=True, slots=True)
class Remark:
    """One oddity: `kind` for programs, the number of rows (or labels) that have it, and a sentence."""

    kind: str
    count: int
    text: str


def remarks(encoder: Encoder, examples: Sequence[Example]) -> list[Remark]:
    """All that is to be said about rows that were encoded with their targets."""
    found: list[Remark] = []
    for look in _LOOKS:
        found += look(encoder, examples)
    return found


def _respelled(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    pairs: dict[tuple[str, str], list[str]] = {}
    for example in examples:
        prompt, known = example.rendered.prompt, encoder.prompts[example.prompt]
        other = () if prompt is None or prompt == known else ((prompt, known),)
        for written, name in (*example.rendered.respelled, *other):
            pairs.setdefault((written, name), []).append(example.rendered.row.where)
    if pairs:
        where = dict.fromkeys(place for places in pairs.values() for place in places)
        shown = ", ".join(f"{written!a} as {name!a}" for written, name in list(pairs)[:SHOWN])
        yield Remark(
            "respelled",
            len(where),
            f"{_rows(where)} a name in another spelling, read as the same: {shown} ({_first(where)})",
        )


def _case_twins(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    for what, names in (("labels", encoder.labels or ()), ("prompts", encoder.prompts)):
        alike: dict[str, list[str]] = {}
        for name in names:
            alike.setdefault(name.casefold(), []).append(name)
        twins = [group for group in alike.values() if len(group) > 1]
        if twins:
            shown = "; ".join(" and ".join(map(repr, group)) for group in twins[:SHOWN])
            yield Remark(
                "case", len(twins), f"{what} that differ by case alone are {what} of their own: {shown}"
            )


def _ends(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    where = [e.rendered.row.where for e in examples if e.rendered.end_taken_off]
    if where:
        text = f"{_rows(where)} an end token at the end of the target, which is taken off ({_first(where)})"
        yield Remark("end", len(where), f"{text}: one is added to every target")


def _not_back(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    """Targets that a model cannot write as they are: no sequence of tokens stands for their text."""
    if encoder.answers == "head" or encoder.kind in ("regression", "token-classification"):
        return
    lost: dict[str, tuple[str, str]] = {}
    outer: list[str] = []
    for example in examples if encoder.kind == "generation" else ():
        target, where = example.rendered.target, example.rendered.row.where
        if example.target_ids and example.target_ids[-1] in encoder.ends:  # else it was cut
            read = encoder.decode(example.target_ids)
            if read.strip() != target.strip():
                lost[where] = target, read
            elif read != target:
                outer.append(where)
        for text in example.rendered.references:
            if text != target and (read := encoder.round_trip(text)).strip() != text.strip():
                lost.setdefault(f"{where} (a reference)", (text, read))
    if lost:
        target, read = next(iter(lost.values()))
        characters = dict.fromkeys(c for pair in lost.values() for c in lost_characters(*pair))
        missing = f"; lost characters: {''.join(list(characters)[:20])!a}" if characters else ""
        yield Remark(
            "not back",
            len(lost),
            f"{_rows(lost)} a target that the tokenizer does not give back, so that no answer can equal it: "
            f"{target[:60]!a} comes back as {read[:60]!a} ({_first(lost)}){missing}",
        )
    if outer:
        text = f"{_rows(outer)} a target with white space at its ends, which answers are given without"
        yield Remark("outer space", len(outer), f"{text} ({_first(outer)})")
    yield from _unknown(encoder, examples)


def _unknown(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    """Labels and choices of which a part is unknown to the model: they are scored without it."""
    unknown = encoder.tokenizer.unk_token_id
    ids = {}
    if encoder.kind == "classification":
        ids = dict(zip(encoder.labels or (), encoder.label_ids or (), strict=True))
    for example in examples if encoder.kind == "choice" else ():
        ids |= dict(zip(example.rendered.choices or (), example.candidates or (), strict=True))
    names = [name for name, tokens in ids.items() if unknown is not None and unknown in tokens]
    if names:
        what = "labels" if encoder.kind == "classification" else "choices"
        shown = ", ".join(map(ascii, names[:SHOWN])) + (", …" if len(names) > SHOWN else "")
        text = f"{len(names)} {what} hold characters that the tokenizer does not know"
        yield Remark("unknown", len(names), f"{text}, and are scored without them: {shown}")


def _numbers(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    """Numbers that a head cannot learn as they are: it starts near 0 and moves by small steps."""
    values = [example.value for example in examples if example.value is not None]
    if not values:
        return
    largest, spread = max(map(abs, values)), max(values) - min(values)
    if spread == 0:
        yield Remark("constant", len(values), f"all targets are the same number, {values[0]:g}")
    elif largest > 100 or spread < 0.01:
        scale = 10 ** round(math.log10(largest if largest > 100 else spread))
        yield Remark(
            "scale",
            len(values),
            f"targets lie between {min(values):g} and {max(values):g}, far from a head's start: "
            f"bring them near 0 to 1, as with template.target={{{{ your_field | float / {scale:g} }}}}",
        )


def _vocabulary(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    tokens = unknown_to_model(encoder.tokenizer, encoder.vocabulary)
    if tokens:
        shown = ", ".join(map(repr, tokens[:SHOWN])) + (", …" if len(tokens) > SHOWN else "")
        text = f"the tokenizer has {len(tokens)} tokens that the model has no embedding for: {shown}"
        yield Remark("vocabulary", len(tokens), f"{text}; a row that holds one is refused")


def _control(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    """Control tokens in the rows' own fields: those of the template are meant."""
    names = [str(name) for name in encoder.tokenizer.all_special_tokens]
    where = [
        e.rendered.row.where
        for e in examples
        if any(name in value for value in e.rendered.row.values() if isinstance(value, str) for name in names)
        and not e.rendered.end_taken_off
    ]
    if where:
        text = f"{_rows(where)} a control token of the model written in a field ({_first(where)})"
        yield Remark("control", len(where), f"{text}: the model reads it as that token, and answers lack it")


_LOOKS: tuple[Callable[[Encoder, Sequence[Example]], Iterator[Remark]], ...] = (
    _respelled,
    _case_twins,
    _ends,
    _not_back,
    _numbers,
    _vocabulary,
    _control,
)


def _rows(where: Iterable[str]) -> str:
    count = len(list(where))
    return "1 row has" if count == 1 else f"{count} rows have"


def _first(where: Iterable[str]) -> str:
    places = list(where)
    return ", ".join(places[:SHOWN]) + (", …" if len(places) > SHOWN else "")
