"""The file in which llama.cpp saves a sequence's state is read here, and written as it was read.

    'ggsq', version, number of words of tokens, tokens     a server wraps them: -1, 1, number, tokens, 0
    number of streams; for each its number of cells (0 except for the sequence's own), and then
      position, number of sequences (1), sequence          for each cell
      V is transposed, layers, flags of the version        flags: whether keys or values are rotated
      K of each layer: type, bytes of a row, a row a cell
      V likewise, or transposed: type, bytes of a number, rows, a row of all cells for each number of V

All words have 32 bits except the bytes of a row, which have 64. The version changes often (3 and 4 within a
month), so its number is not used: a state that the engine itself saved is read by its structure, and accepted
only if that explains every byte and writes the same bytes again. This file knows nothing of models.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import gguf
import numpy as np

from ....errors import SoftPromptError

MAGIC = b"qsgg"
WRAPPED = 0xFFFFFFFF
MOST_FLAGS = 4


class Unexplained(Exception):
    """Raised for a state that has another layout than the one read here."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The keys or values of a layer, which are kept as the file's bytes."""

    type: int  # of ggml
    data: np.ndarray  # uint8 [cells, bytes], or transposed [numbers, cells · bytes of a number]


@dataclass(frozen=True, slots=True)
class State:
    """A sequence, and the layout of the engine that saved it."""

    version: int
    wrap: tuple[tuple[int, ...], tuple[int, ...]]  # words ahead of the number of tokens, and after the tokens
    tokens: tuple[int, ...]
    streams: int
    stream: int  # which one holds the sequence
    sequence: int
    transposed: bool
    flags: tuple[int, ...]
    keys: tuple[Columns, ...]
    values: tuple[Columns, ...]

    def with_cells(self, tokens: tuple[int, ...], keys: list[np.ndarray], values: list[np.ndarray]) -> State:
        """Return the same layout with other content: float32 [cells, numbers] for each layer."""
        new_keys = tuple(_encoded(old, rows, False) for old, rows in zip(self.keys, keys, strict=True))
        new_values = tuple(
            _encoded(old, rows, self.transposed) for old, rows in zip(self.values, values, strict=True)
        )
        return replace(self, tokens=tokens, keys=new_keys, values=new_values)

    def key_rows(self, layer: int) -> np.ndarray:
        """Return the keys of a layer, float32 [cells, numbers]."""
        columns = self.keys[layer]
        return gguf.quants.dequantize(columns.data, gguf.GGMLQuantizationType(columns.type))


def read(content: bytes) -> State:
    """Read a state that an engine saved. Raises SoftPromptError where its layout is not understood."""
    if content[:4] != MAGIC:
        raise SoftPromptError(
            "this is not a state of llama.cpp",
            why="it does not begin with its magic number",
            fix="save one: POST /slots/0?action=save to a llama-server that has --slot-save-path",
        )
    for flags in range(MOST_FLAGS + 1):
        try:
            state = _read(_Words(content), flags)
            if write(state) == content:
                break
        except (Unexplained, struct.error):
            continue
    else:
        version = int.from_bytes(content[4:8], "little")
        raise SoftPromptError(
            f"the layout of this llama.cpp state (version {version}) is not known",
            why="its bytes are not all explained by one cache of keys and values for each layer "
            "(a sliding window, a recurrent state and several positions a token are kept otherwise)",
            fix="use a model with full attention, or another version of llama.cpp",
        )
    if any(state.flags):
        raise SoftPromptError(
            "this llama.cpp rotates the keys or values that it keeps",
            why="it does so for quantized caches",
            fix="start the engine with --cache-type-k f16 --cache-type-v f16",
        )
    return state


def write(state: State) -> bytes:
    """Return the content of a state's file."""
    ahead, behind = state.wrap
    tokens = (*ahead, len(state.tokens), *state.tokens, *behind) if ahead else state.tokens
    out = [MAGIC, _words(state.version, len(tokens), *tokens, state.streams)]
    for stream in range(state.streams):
        if stream != state.stream:
            out.append(_words(0))
            continue
        cells = len(state.tokens)
        out.append(_words(cells))
        out += [_words(position, 1, state.sequence) for position in range(cells)]
        out.append(_words(int(state.transposed), len(state.keys), *state.flags))
        for columns in state.keys:
            out += [_words(columns.type), struct.pack("<Q", columns.data.shape[1]), columns.data.tobytes()]
        for columns in state.values:
            rows, width = columns.data.shape
            shape = _words(width // cells, rows) if state.transposed else struct.pack("<Q", width)
            out += [_words(columns.type), shape, columns.data.tobytes()]
    return b"".join(out)


def _read(words: _Words, flags: int) -> State:
    words.skip(len(MAGIC))
    version, count = words.take(2)
    tokens, wrap = _tokens(words.take(count))
    (streams,) = words.take(1)
    sequence = None
    for stream in range(streams):
        (cells,) = words.take(1)
        if cells == 0:
            continue
        if sequence is not None or cells != len(tokens):
            raise Unexplained
        meta = [words.take(3) for _ in range(cells)]
        if [cell[:2] for cell in meta] != [(position, 1) for position in range(cells)]:
            raise Unexplained
        transposed, layers = words.take(2)
        if transposed > 1 or layers > 10_000:
            raise Unexplained
        flag_words = words.take(flags)
        keys = tuple(words.rows(cells) for _ in range(layers))
        values = tuple(words.transposed(cells) if transposed else words.rows(cells) for _ in range(layers))
        sequence = (stream, meta[0][2], bool(transposed), flag_words, keys, values)
    if sequence is None or not words.at_end():
        raise Unexplained
    return State(version, wrap, tokens, streams, *sequence)


def _tokens(words: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]:
    if not words or words[0] != WRAPPED:
        return words, ((), ())
    count = words[2]
    return words[3 : 3 + count], (words[:2], words[3 + count :])


class _Words:
    """It reads little-endian words."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def skip(self, count: int) -> None:
        self._at += count

    def take(self, count: int) -> tuple[int, ...]:
        if count * 4 > len(self._content) - self._at:
            raise Unexplained
        words = struct.unpack_from(f"<{count}I", self._content, self._at)
        self._at += 4 * count
        return words

    def rows(self, cells: int) -> Columns:
        (kind,) = self.take(1)
        low, high = self.take(2)
        return Columns(kind, self._bytes(cells, low + (high << 32)))

    def transposed(self, cells: int) -> Columns:
        kind, size, rows = self.take(3)
        return Columns(kind, self._bytes(rows, cells * size))

    def _bytes(self, rows: int, width: int) -> np.ndarray:
        if rows * width > len(self._content) - self._at:
            raise Unexplained
        data = np.frombuffer(self._content, np.uint8, rows * width, self._at)
        self._at += rows * width
        return data.reshape(rows, width)

    def at_end(self) -> bool:
        return self._at == len(self._content)


def _words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def _encoded(like: Columns, rows: np.ndarray, transposed: bool) -> Columns:
    rows = np.ascontiguousarray(rows.T if transposed else rows, dtype=np.float32)
    encoded = gguf.quants.quantize(rows, gguf.GGMLQuantizationType(like.type))
    data = np.ascontiguousarray(encoded).view(np.uint8).reshape(rows.shape[0], -1)
    if not transposed and data.shape[1] != like.data.shape[1]:
        raise SoftPromptError(
            f"a token takes {like.data.shape[1]} bytes a layer in the engine, and {data.shape[1]} here",
            why="its model has other sizes than the one that the prompt was trained on",
            fix="save a state with the GGUF of the same model",
        )
    return Columns(like.type, data)
