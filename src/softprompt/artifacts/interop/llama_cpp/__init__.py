"""A tuned prompt becomes the state of a llama.cpp sequence, which a stock server restores into a slot.

The server identifies a slot by its tokens. A prompt of k vectors has none, so it gets k placeholder tokens,
drawn by a hash of its content: a request names the prompt by sending them ahead of its input.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ...._system.files import replacing, write_text
from ....lm.base import LanguageModel
from ...artifact import Artifact
from ...prompt_names import slot_files
from .. import check_free
from ..kv_cache.compile import compile_artifact
from ..kv_cache.kv import CompiledKV
from . import effect, layout, state
from .engine import Engine
from .state import State

__all__ = ["Slot", "export", "filled", "placeholders"]

SLOTS = "slots.json"
TAKEN = SLOTS, "an export"  # for `check_free`


@dataclass(frozen=True, slots=True)
class Slot:
    """A prompt that was exported."""

    prompt: str
    file: str  # that a slot restores
    tokens: tuple[int, ...]  # placeholders, sent ahead of the input
    sha256: str


def export(
    artifact: Artifact,
    lm: LanguageModel,
    saved: bytes,
    folder: Path,
    *,
    prompt: str | None = None,
    other_base: bool = False,
    engine: Engine | None = None,
) -> list[Slot]:
    """Write prompts as files `PROMPT.bin`, with `slots.json` beside them: their files, tokens and template.

    `saved` is a state of any text, saved by the engine that will restore them: versions, cache types and the
    order of a key's numbers are read from it. `lm` should compute in float32. With `engine` each state is
    restored and tried there before anything is written. Raises SoftPromptError for prompts that are not
    exactly a KV prefix, for a state of another model, and where a restored state has no effect.
    """
    check_free(folder, *TAKEN)
    names = artifact.prompts if prompt is None else (artifact.prompts[artifact.index(prompt)],)
    compiled = {name: compile_artifact(artifact, lm, name, other_base=other_base) for name in names}
    layout_of = state.read(saved)
    files = slot_files(names, ".bin")
    exported = [_slot(name, files[name], kv, lm, layout_of) for name, kv in compiled.items()]
    if engine is not None:
        effect.check(
            engine,
            {
                slot.prompt: effect.Filled(
                    slot.tokens,
                    content,
                    effect.expected(artifact, lm, slot.prompt, other_base=other_base),
                )
                for slot, content in exported
            },
        )
    for slot, content in exported:
        with replacing(folder / slot.file) as temporary:
            temporary.write_bytes(content)
    recipe = artifact.manifest["recipe"]
    facts = {"base": lm.name, "template": recipe["template"], "task": recipe["task"]}
    slots = {"slots": [asdict(slot) for slot, _ in exported], **facts}
    write_text(folder / SLOTS, json.dumps(slots, indent=2, ensure_ascii=False) + "\n")
    return [slot for slot, _ in exported]


def filled(compiled: CompiledKV, lm: LanguageModel, engine: State, tokens: Sequence[int]) -> State:
    """Return the engine's state with a compiled prompt in it."""
    order = layout.measure(lm, engine)
    keys = [_flat(order(key)) for key in compiled.keys]
    values = [_flat(value) for value in compiled.values]
    return engine.with_cells(tuple(tokens), keys, values)


def placeholders(content: bytes, length: int, vocab: int, special: Sequence[int] = ()) -> tuple[int, ...]:
    """Draw placeholder tokens by the hash of some content; none of them is special."""
    draw = random.Random(hashlib.sha256(content).digest())
    usable = sorted(set(range(vocab)) - set(special))
    return tuple(draw.choice(usable) for _ in range(length))


def _slot(name: str, file: str, compiled: CompiledKV, lm: LanguageModel, engine: State) -> tuple[Slot, bytes]:
    """Return the entry of an exported prompt, and the content of its file."""
    content = b"".join(_flat(tensor).tobytes() for tensor in compiled.tensors().values())
    special = lm.tokenizer.all_special_ids if lm.tokenizer is not None else []
    size = lm.spec.vocab_size if lm.tokenizer is None else min(lm.spec.vocab_size, len(lm.tokenizer))
    tokens = placeholders(content, compiled.length, size, special)
    written = state.write(filled(compiled, lm, engine, tokens))
    return Slot(name, file, tokens, hashlib.sha256(written).hexdigest()), written


def _flat(tensor: Tensor) -> np.ndarray:
    """Convert [k, heads, d] to float32 [k, heads · d]."""
    return tensor.detach().float().flatten(1).cpu().numpy()
