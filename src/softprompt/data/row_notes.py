"""Oddities of usable rows are counted, and the first of them are named.

`check` shows the remarks, and `tune` shows them before it trains. This file knows encoded rows, and no models
or displays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from softprompt.data.encode import Encoder
from softprompt.data.example import Example
from softprompt.data.numbers import expression, outliers, scaled
from softprompt.data.round_trip import lost_characters
from softprompt.data.spelling import same_form
from softprompt.data.task import WRITTEN
from softprompt.data.tokens import unknown_to_model

SHOWN = 3  # rows named in a remark


@dataclass(frozen=True, slots=True)
class Remark:
    """A remark has a `kind` for programs, the number of rows (or labels) it is about, and a sentence."""

    kind: str
    count: int
    text: str


def remarks(encoder: Encoder, examples: Sequence[Example]) -> list[Remark]:
    """Return all remarks about rows that were encoded with their targets."""
    return [remark for look in _LOOKS for remark in look(encoder, examples)]


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
    for noun, names in (("labels", encoder.labels or ()), ("prompts", encoder.prompts)):
        alike: dict[str, list[str]] = {}
        for name in names:
            alike.setdefault(same_form(name).casefold(), []).append(name)
        twins = [group for group in alike.values() if len(group) > 1]
        if twins:
            shown = "; ".join(" and ".join(map(repr, group)) for group in twins[:SHOWN])
            yield Remark(
                "case", len(twins), f"{noun} that differ by case alone are different {noun}: {shown}"
            )


def _ends(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    where = [e.rendered.row.where for e in examples if e.rendered.end_taken_off]
    if where:
        text = f"{_rows(where)} an end token at the end of the target, which is taken off ({_first(where)})"
        yield Remark("end", len(where), f"{text}: one is added to every target")


def _not_back(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    """Find targets that a model cannot write as they are: no sequence of tokens gives their text."""
    if encoder.model.answers in ("head", "pooled") or encoder.kind in ("regression", "token-classification"):
        return
    lost: dict[str, tuple[str, str]] = {}
    outer: list[str] = []
    for example in examples if encoder.kind in WRITTEN else ():
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
        characters = [c for c in characters if not c.isspace()] or characters  # a space falls with its word
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
    """Find labels and choices of which a part is unknown to the model: they are scored without it."""
    unknown = encoder.tokenizer.unk_token_id
    ids = {}
    if encoder.kind == "classification":
        ids = dict(zip(encoder.labels or (), encoder.label_ids or (), strict=True))
    for example in examples if encoder.kind == "choice" else ():
        ids |= dict(zip(example.rendered.choices or (), example.candidates or (), strict=True))
    names = [name for name, tokens in ids.items() if unknown is not None and unknown in tokens]
    if names:
        noun = "label" if encoder.kind == "classification" else "choice"
        words = [encoder.task.verbalizer.get(name, name) for name in names] if noun == "label" else names
        shown = ", ".join(map(ascii, words[:SHOWN])) + (", …" if len(names) > SHOWN else "")
        have = f"1 {noun} has" if len(names) == 1 else f"{len(names)} {noun}s have"
        text = f"{have} characters that the tokenizer does not know, and are scored without them"
        yield Remark(
            "unknown", len(names), f"{text.replace('are', 'is') if len(names) == 1 else text}: {shown}"
        )


def _numbers(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    """Find numbers that a head cannot learn as they are, and those that are far from all others."""
    values = [example.value for example in examples if example.value is not None]
    if not values:
        return
    if min(values) == max(values):
        yield Remark("constant", len(values), f"all targets are the same number, {values[0]:g}")
        return
    far = outliers(values)
    usual = [value for place, value in enumerate(values) if place not in set(far)]
    if far:
        shown = ", ".join(
            f"{values[place]:g} ({examples[place].rendered.row.where})" for place in far[:SHOWN]
        )
        text = f"{_rows(map(str, far))} a target far from all others, which are between "
        text += f"{min(usual):g} and {max(usual):g}: {shown}{', …' if len(far) > SHOWN else ''}"
        yield Remark(
            "outlier", len(far), f"{text}; the squared error hardly counts the others, so check them"
        )
    if min(usual) < max(usual) and (scale := scaled(usual)):
        template = encoder.template
        fields = template.target_fields
        plain = len(fields) == 1 and template.target.strip("{} ") == fields[0]
        target = expression(fields[0] if plain else "your_field", *scale)
        text = f"targets are between {min(usual):g} and {max(usual):g}, far from where a head starts"
        yield Remark("scale", len(values), f'{text}; to bring them near: template.target="{target}"')


def _unread(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    unknown = encoder.tokenizer.unk_token_id
    ends = {encoder.tokenizer.bos_token_id, *encoder.ends}
    if unknown is None or unknown in ends:  # then it has another meaning too
        return
    where = [example.rendered.row.where for example in examples if unknown in example.input_ids]
    if where:
        text = f"{_rows(where)} an input with characters that the tokenizer does not know ({_first(where)})"
        name = encoder.tokenizer.unk_token
        yield Remark("unread", len(where), f"{text}: the model reads {name} in their place")


def _vocabulary(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    tokens = unknown_to_model(encoder.tokenizer, encoder.model.vocabulary)
    if tokens:
        shown = ", ".join(map(repr, tokens[:SHOWN])) + (", …" if len(tokens) > SHOWN else "")
        text = f"the tokenizer has {len(tokens)} tokens that the model has no embedding for: {shown}"
        yield Remark("vocabulary", len(tokens), f"{text}; a row that holds one is refused")


def _control(encoder: Encoder, examples: Sequence[Example]) -> Iterator[Remark]:
    """Find control tokens in the rows' own fields; those of the template are intended."""
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
    _unread,
    _vocabulary,
    _control,
)


def _rows(where: Iterable[str]) -> str:
    count = len(list(where))
    return "1 row has" if count == 1 else f"{count} rows have"


def _first(where: Iterable[str]) -> str:
    places = list(where)
    return ", ".join(places[:SHOWN]) + (", …" if len(places) > SHOWN else "")
