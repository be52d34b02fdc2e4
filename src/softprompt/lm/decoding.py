"""Many rows are answered by continuous batching: a row that ends makes room for the next one.

A padded batch takes as many steps as its longest answer, and a step of few rows takes almost as long as one
of many, because every weight is read from memory for it. So as many rows as pay run side by side
(`lm.kv_store`), and new ones are read while others are decoded. Each row gets the tokens that transformers'
greedy `generate` gives it. This file knows nothing of methods, templates or texts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor

from .._system.memory import free_memory
from ..data.collate import batch_of_ids
from ..injection import Injection
from . import held_weights, packed, probe_lengths, settings
from .attachment import attach
from .base import LanguageModel
from .causal import CausalLM
from .context import Context
from .joining import PACKED_PADDING, PADDING, Joined, Joining, alike
from .kv_store import Running
from .probe_generate import LENGTHS, NEW, ROUNDED, TOLERANCE

LINES = 64  # rows side by side; more gain little on a CPU
FREE = LINES // 8  # free lines that are waited for: few new rows in one pass cost more for each
READ = 512  # positions of new rows in one pass
MEMORY = 0.2  # share of the free memory for keys and values
KIND = "lines"  # the name under which a model's `decoding` holds whether this is exact
HELD = (
    16  # rows read, and steps, after which weights are held in a faster form: making it takes about as long
)
PACKS = "packed rows"  # the name of a measurement
PLAIN = {"num_beams": 1, "use_cache": True, "do_sample": False, "num_return_sequences": 1}

Name = TypeVar("Name")


def suits(lm: LanguageModel, options: Mapping[str, Any]) -> bool:
    """Return whether these options of `generate` are plain greedy decoding, and the model decodes so exactly.

    The model is tried on two short rows at the first call.
    """
    if not isinstance(lm, CausalLM) or {"cache", "prefix", "generate"} & set(lm.spec.limits):
        return False
    if lm.head is not None or lm.is_sharded or not _plain(lm, options):
        return False
    if KIND not in lm.decoding:
        lm.decoding[KIND] = "" if _is_exact(lm) else "it gives other logits than for the whole row"
    return not lm.decoding[KIND]


def joining(
    lm: CausalLM, ids: Sequence[int], injection: Injection, new_tokens: int, known: Context | None = None
) -> Joining:
    """Return a row of [before | input | after] that gets `new_tokens` tokens, under an injection of one row.

    `known` are the keys and values of its beginning: see `beginning`. Raises SoftPromptError for a row that
    is longer than the model's answers are exact.
    """
    parts = [lm.token_inputs(torch.tensor([*ids], dtype=torch.long, device=lm.device))]
    after = 0
    if injection.before is not None:
        parts.insert(0, _real(lm, injection.before.vectors, injection.before.mask))
    if injection.after is not None:
        parts.append(_real(lm, injection.after.vectors, injection.after.mask))
        after = parts[-1].shape[0]
    vectors = torch.cat(parts)
    if (why := lm.spec.limits.get("length")) is not None:  # the last token is not fed back
        probe_lengths.refuse_longer(lm.spec.context, why, len(vectors) + new_tokens - 1)
    count = 0 if known is None else known.mask.shape[1]
    return Joining(vectors[count:], after, replace(injection, before=None, after=None), known, new_tokens)


@torch.no_grad()
def beginning(lm: CausalLM, ids: Sequence[int], injection: Injection) -> Context:
    """Compute the keys and values of tokens that rows begin with, and of the soft tokens ahead of them."""
    row = joining(lm, ids, replace(injection, after=None, kv_after=None), 0)
    return Joined(lm, [row]).run(lm).context(0, 0, len(row.vectors))


@torch.no_grad()
def decode(
    lm: CausalLM, rows: Iterable[tuple[Name, Joining]], *, lines: int = LINES
) -> Iterator[tuple[Name, list[int]]]:
    """Yield each row's name and its new tokens, the end token included, in the order in which rows end.

    A row gets at most as many tokens as its `Joining.room`. Rows are taken from `rows` when there is room.
    """
    decoder = Decoder[Name](lm, lines)
    waiting = iter(rows)
    row = next(waiting, None)
    while row is not None or decoder.is_busy:
        if decoder.wants_rows:
            taken: list[tuple[Name, Joining]] = []
            while row is not None and decoder.takes(taken, row[1]):
                taken.append(row)
                row = next(waiting, None)
            if taken:
                yield from decoder.join(taken)
                continue
        yield from decoder.step()


@dataclass(slots=True)
class _Line(Generic[Name]):
    """A row that is decoded now."""

    name: Name
    room: int
    tokens: list[int] = field(default_factory=list)


@final
class Decoder(Generic[Name]):
    """The rows that are decoded side by side."""

    def __init__(self, lm: CausalLM, lines: int) -> None:
        self.lm, self.lines, self.ends = lm, lines, lm.ends
        size = lm.spec.kv_numbers_per_token * lm.dtype.itemsize
        self.running = Running(lm, int(MEMORY * free_memory(str(lm.device)) / max(1, size)))
        self.packs = _packs(lm)
        self._lines: list[_Line[Name]] = []  # by line of the store
        self._work = 0  # rows read, and steps
        self._is_full = False  # the next row is too long for the room that is left

    @property
    def is_busy(self) -> bool:
        return bool(self._lines)

    @property
    def wants_rows(self) -> bool:
        """Return whether so many lines are free that new rows are read together."""
        free = self.lines - len(self._lines)
        return not self._lines or (free >= min(FREE, self.lines) and not self._is_full)

    def takes(self, taken: Sequence[tuple[Name, Joining]], row: Joining) -> bool:
        """Return whether one more row can be read together with those that are taken."""
        rows = [*(each for _, each in taken), row]
        if len(self._lines) + len(rows) > self.lines:
            return False
        if taken and sum(len(each.vectors) for each in rows) > READ:
            return False
        self._is_full = not self.running.fits(len(rows), max(each.columns + each.room for each in rows))
        return not self._is_full

    def join(self, rows: Sequence[tuple[Name, Joining]]) -> Iterator[tuple[Name, list[int]]]:
        """Read new rows, and yield those that end with their first token."""
        groups = alike(rows, PACKED_PADDING if self.packs else PADDING)
        joined = [Joined(self.lm, [row for _, row in group]) for group in groups]
        with self._weights(len(rows)):
            if self.packs and len(joined) > 1:
                Joined.run_packed(self.lm, joined)
            else:
                for each in joined:
                    each.run(self.lm)
        for group, each in zip(groups, joined, strict=True):
            begun = [_Line(name, row.room) for name, row in group]
            ended = self._take(begun, each.logits[:, -1])
            staying = [i for i in range(len(begun)) if i not in ended]
            self.running.join(each, staying)
            self._lines += [begun[i] for i in staying]
            yield from ((begun[i].name, begun[i].tokens) for i in ended)

    def step(self) -> Iterator[tuple[Name, list[int]]]:
        """Give each row its next token, and yield those that end with it."""
        with self._weights(1):
            logits = self.running.step([line.tokens[-1] for line in self._lines])
        ended = self._take(self._lines, logits)
        for number in reversed(ended):
            line = self._lines[number]
            self.running.leave(number)
            self._lines[number] = self._lines[-1]
            self._lines.pop()
            self._is_full = False
            yield line.name, line.tokens

    def _weights(self, work: int) -> contextlib.AbstractContextManager[None]:
        """Return the weights with which the next `work` rows or steps are run.

        The first ones are run plainly even where weights are held already: then the same rows get the same
        numbers at every call, and in a run that was resumed.
        """
        before, self._work = self._work, self._work + work
        if self._work < HELD:
            return contextlib.nullcontext()
        if before < HELD:
            held_weights.hold(self.lm)
        return held_weights.known(self.lm)

    def _take(self, lines: Sequence[_Line[Name]], logits: Tensor) -> list[int]:
        """Add the likeliest tokens; return the numbers of the lines that end with theirs."""
        for line, token in zip(lines, logits.float().argmax(-1).tolist(), strict=True):
            line.tokens.append(token)
        return [
            i for i, line in enumerate(lines) if line.tokens[-1] in self.ends or len(line.tokens) >= line.room
        ]


def _real(lm: CausalLM, vectors: Tensor, mask: Tensor) -> Tensor:
    return lm.soft_inputs(vectors[0][mask[0]])


def _plain(lm: CausalLM, options: Mapping[str, Any]) -> bool:
    """Return whether options, and the model's own settings, change no greedy token."""
    given = {name: value for name, value in options.items() if value is not None}
    new_tokens, ends = given.pop("max_new_tokens", None), given.pop("eos_token_id", ())
    given.pop("pad_token_id", None)
    if not isinstance(new_tokens, int) or new_tokens < 1 or given.pop("do_sample", True):
        return False
    if any(name not in PLAIN or value != PLAIN[name] for name, value in given.items()):
        return False
    changed = lm.model.generation_config.to_diff_dict()
    wanted = {ends} if isinstance(ends, int) else set(ends)
    return wanted == lm.ends and changed.keys() <= {*settings.TOKENS, "transformers_version"}


def _packs(lm: CausalLM) -> bool:
    measured = attach(lm.model).measured
    if PACKS not in measured:
        measured[PACKS] = packed.suits(lm)
    return measured[PACKS]


@torch.no_grad()
def _is_exact(lm: CausalLM) -> bool:
    """Return whether rows of unlike lengths get the logits, step by step, that they get as whole rows."""
    first = min(4, lm.spec.vocab_size - 1)  # special tokens come first
    count = min(LENGTHS[0], max(1, lm.spec.context - NEW))
    ids = (torch.arange(count + NEW) * 7 % max(1, lm.spec.vocab_size - first) + first).tolist()
    rows, targets = [ids[:count], ids[1:2]], ids[count:]
    joined = Joined(lm, [joining(lm, row, Injection(), NEW) for row in rows]).run(lm)
    running, stepped = Running(lm), [joined.logits[:, -1]]
    running.join(joined, range(len(rows)))
    stepped += [running.step([token] * len(rows)) for token in targets[:-1]]
    whole = lm.logits(batch_of_ids(rows, [targets] * len(rows), device=lm.device)).float()
    off = (torch.stack(stepped, 1).float() - whole).abs().amax(-1).flatten()  # [B × T]
    # rounding may send a token to other experts: in other precisions the middle one decides
    worst = off.max() if lm.dtype in TOLERANCE else off.median()
    return bool(worst <= TOLERANCE.get(lm.dtype, ROUNDED) * whole.abs().max().clamp(min=1e-3))
