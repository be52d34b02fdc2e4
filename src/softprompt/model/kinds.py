"""Each kind of model is called with vectors in its own way: what its backbone reads, and where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..injection import Injection, SoftTokens
from ..lm import causal_rows
from ..lm.base import LanguageModel
from ..lm.causal import CausalLM
from ..lm.context import positions_after
from ..lm.encoder import EncoderLM
from ..lm.injected import Active
from ..lm.seq2seq import Seq2SeqLM
from .layout import Layout, causal_places, laid_out
from .rows import Rows

#: Arguments to change in the caller's call, what is injected, and the context that the call runs in.
Prepared = tuple[dict[str, Any], Active, AbstractContextManager]


def prepare(lm: LanguageModel, rows: Rows, injection: Injection) -> Prepared:
    """Prepare one forward call of the model with an injection of its rows."""
    return _KINDS[type(lm)](lm, rows, injection)


def _causal(lm: Any, rows: Rows, injection: Injection) -> Prepared:
    batch = rows.batch
    vectors, mask = causal_rows.sequence(lm, batch, injection)
    positions = positions_after(None, mask)
    behind = batch.target_mask.sum(1) + _count(injection.after)
    start, last_input = vectors.shape[1] - behind, positions[:, -1] - behind + 1
    active = causal_rows.injected(lm, injection, positions, start, last_input, None)
    inputs = {"inputs_embeds": vectors, "attention_mask": mask.long()}
    inputs |= lm.model_arguments(position_ids=positions)
    places = causal_places(rows, mask, _count(injection.before), _count(injection.after))
    changes = {"use_cache": False} if "use_cache" in lm.accepted else {}
    return changes, active, laid_out(lm.model, Layout(inputs, places))


def _encoder(lm: Any, rows: Rows, injection: Injection) -> Prepared:
    vectors, mask = lm._sequence(rows.batch, injection)
    before = 0 if injection.before is None else injection.before.mask.sum(1, keepdim=True)
    places = (rows.columns + (rows.columns > 0) * before).clamp(min=0)  # the first token stays in front
    inputs = {"inputs_embeds": vectors, "attention_mask": mask.long()}
    return {}, lm._active(injection, mask), laid_out(lm.model, Layout(inputs, places))


def _seq2seq(lm: Any, rows: Rows, injection: Injection) -> Prepared:
    # The encoder runs first; the decoder's columns are the caller's already.
    read, active = lm._read(rows.batch, injection)
    return {"input_ids": None, "use_cache": False, **read}, active, nullcontext()


_KINDS: dict[type, Callable[[Any, Rows, Injection], Prepared]] = {
    CausalLM: _causal,
    EncoderLM: _encoder,
    Seq2SeqLM: _seq2seq,
}


def _count(tokens: SoftTokens | None) -> Any:
    return 0 if tokens is None else tokens.mask.sum(1)
