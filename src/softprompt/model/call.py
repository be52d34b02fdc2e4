"""Runs a forward call, or a `generate`, of a model with a prompt."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .._system.notes import note
from ..data.collate import Batch
from ..errors import SoftPromptError, unknown
from ..injection import Injection
from ..lm.apply import injection_for
from ..lm.attention import not_compiled
from ..lm.causal import CausalLM
from ..lm.equal_lengths import NOT_KEPT
from ..lm.gradient_checkpointing import recomputed
from . import kinds, row_prompts
from .holder import MODULE, Holder, alone, holder_of, is_alone
from .rows import Rows, rows_of
from .trl_calls import reads_reference

ARGUMENTS = ("prompts", "input_lengths")  # what `forward` takes beside the model's own arguments
#: Arguments that say that several sequences share a row.
PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "seq_idx", "packed_seq_lengths")


def forward(model: Any, call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run `call`, the model's own forward, with the vectors of each row's prompt."""
    if torch.compiler.is_compiling():
        _note_compile()
    return _forward(model, call, args, kwargs)


@not_compiled
def _note_compile() -> None:
    note(
        "torch.compile(model) compiles nothing of a model with a prompt, as each call's vectors are others. "
        "model.compile() compiles its layers."
    )


@not_compiled
def _forward(model: Any, call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    holder = holder_of(model)
    named = bound(holder, args, kwargs)
    prompts, lengths = (named.pop(name, None) for name in ARGUMENTS)
    if is_alone():
        return call(**named)
    if reads_reference():
        with alone():
            return call(**named)
    _check_call(model, named)
    as_object = named.get("return_dict") is not False
    if not as_object:
        named["return_dict"] = True
    ids, mask = named["input_ids"], named.get("attention_mask")
    splits = holder.splits and isinstance(holder.lm, CausalLM) and holder.lm.head is None
    index = prompt_index(holder, prompts, len(ids), ids.device)
    rows = rows_of(ids, mask, index, labels=named.get("labels"), input_lengths=lengths, is_split=splits)
    _check_positions(named.get("position_ids"), rows)
    _check_lengths(holder.lm, rows)
    with alone():
        injection = injection_of(model, holder, rows.batch)
        holder.lm._check(injection)
        changes, active, laid_out = kinds.prepare(holder.lm, rows, injection)
        with holder.lm.running(active), recomputed(holder.lm.checkpointed), laid_out:
            output = call(**{name: value for name, value in (named | changes).items() if value is not None})
    _check_gradient(model, output)
    return output if as_object else output.to_tuple()


@not_compiled
def generate(model: Any, call: Callable[..., Any], inputs: Tensor | None, options: dict[str, Any]) -> Any:
    """Run transformers' `generate` with vectors; what it gives back has the form that transformers gives."""
    holder = holder_of(model)
    prompts = options.pop("prompts", None)
    options.pop("input_lengths", None)
    ids = options.pop("input_ids", None) if inputs is None else inputs
    if is_alone():
        return call(ids, **options)
    if ids is None:
        raise _needs_ids("generate")
    options.pop("encoder_outputs", None)  # they are without vectors: the encoder runs again, as in `forward`
    lm, mask = holder.lm, options.pop("attention_mask", None)
    rows = rows_of(ids, mask, prompt_index(holder, prompts, len(ids), ids.device), is_split=False)
    batch = replace(
        rows.batch, target_ids=ids[:, :0], target_mask=torch.zeros_like(ids[:, :0], dtype=torch.bool)
    )
    with alone():
        new = lm.generate(batch, injection_of(model, holder, batch), **options)
    tokens = new if isinstance(new, Tensor) else new.sequences
    begin = ids if isinstance(lm, CausalLM) else ids.new_tensor([lm._begin] * len(ids))
    whole = torch.cat([begin.repeat_interleave(len(tokens) // len(ids), dim=0), tokens], dim=1)
    if isinstance(new, Tensor):
        return whole
    new.sequences = whole
    return new


def injection_of(model: Any, holder: Holder, batch: Batch) -> Injection:
    """Return the injection of the rows, from the model's trained module."""
    method = getattr(model, MODULE)
    if method.reads is not None and method.reads.kind == "encoder":
        ids = [row[mask].tolist() for row, mask in zip(batch.input_ids, batch.input_mask, strict=True)]
        tokenizer: Any = holder.lm.tokenizer
        batch = replace(batch, texts=tuple(tokenizer.batch_decode(ids, skip_special_tokens=True)))
    return injection_for(holder.lm, method, batch).fit(batch.size)


def bound(holder: Holder, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments by name."""
    return {**dict(zip(_argument_names(holder.own_class), args, strict=False)), **kwargs}


@lru_cache
def _argument_names(model_class: Any) -> tuple[str, ...]:
    # kept, because a signature takes long to read and every forward call needs it
    return tuple(name for name in inspect.signature(model_class.forward).parameters if name != "self")


def prompt_index(holder: Holder, prompts: Any, rows: int, device: torch.device) -> Tensor:
    """Return the number of each row's prompt, [batch].

    Raises SoftPromptError for a prompt that is not in the table.
    """
    names = holder.prompts
    prompts = row_prompts.of_next(rows) if prompts is None else prompts
    if prompts is None and len(names) > 1:
        raise SoftPromptError(
            "the batch does not say which prompt each row uses",
            why=f"the model has {len(names)} of them: {', '.join(names[:10])}",
            fix=f'pass prompts=["{names[0]}", …], one name (or number) for each row, or one for all',
        )
    if prompts is None:
        return torch.zeros(rows, dtype=torch.long, device=device)
    chosen = _listed(prompts, rows)
    if len(chosen) != rows:
        raise SoftPromptError(
            f"{len(chosen)} prompts are given for {rows} rows",
            fix="give one for each row, or one name for all",
        )
    for each in chosen:
        if each not in names if isinstance(each, str) else not 0 <= each < len(names):
            fix = f"names, or numbers from 0 to {len(names) - 1}: prompts={list(names[:3])!r}"
            raise unknown("prompt", str(each), names, fix)
    return torch.tensor(
        [names.index(each) if isinstance(each, str) else each for each in chosen], device=device
    )


def _listed(prompts: Any, rows: int) -> list[str | int]:
    """Return the name or number of each row; raise SoftPromptError for any other value."""
    given: Any = (
        prompts.tolist() if hasattr(prompts, "tolist") else prompts
    )  # tensors, arrays and their scalars
    if isinstance(given, str | int):
        given = [given] * rows
    chosen: list[Any] | None
    chosen = [each.item() if hasattr(each, "item") else each for each in given] if _is_list(given) else None
    # a truth value counts as a number in Python, and as a mask in torch
    if chosen is None or any(isinstance(each, bool) or not isinstance(each, str | int) for each in chosen):
        raise SoftPromptError(
            f"prompts={prompts!r} do not say which prompt each row uses",
            why="a prompt is given by its name, or by its number in the table",
            fix="pass a list of names or of whole numbers, one for each row, or one of them for all rows",
        )
    return chosen


def _is_list(given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, bytes)


def _needs_ids(call: str) -> SoftPromptError:
    return SoftPromptError(
        f"{call} needs input_ids",
        why="vectors have their places among a row's tokens",
        fix="pass input_ids (and attention_mask where rows are padded), not inputs_embeds",
    )


def _check_call(model: Any, named: dict[str, Any]) -> None:
    """Raise SoftPromptError for a call that vectors cannot be put into exactly."""
    if named.get("input_ids") is None or named.get("inputs_embeds") is not None:
        raise _needs_ids("a forward call")
    if named["input_ids"].dim() != 2 or not named["input_ids"].numel():
        raise SoftPromptError(
            f"input_ids have the shape {list(named['input_ids'].shape)}",
            why="a batch of rows is needed, [rows, columns]",
            fix="give at least one row; one row of ids alone is input_ids[None]",
        )
    if getattr(model.config, "return_dict", True) is False:
        raise SoftPromptError(
            "the model's configuration has return_dict=False",
            why="vectors are put in between the backbone and the head, which then have no named outputs",
            fix="set model.config.return_dict = True, and pass return_dict=False to calls",
        )
    if named.get("past_key_values") is not None:
        raise SoftPromptError(
            "a forward call with a cache of earlier tokens takes no prompt",
            why="the vectors would be put in at every call again",
            fix="use model.generate, which decodes with a cache",
        )
    packed = [name for name in PACKED if named.get(name) is not None]
    mask = named.get("attention_mask")
    dimensions = 2 if mask is None else mask.dim()
    if packed or dimensions != 2:
        raise SoftPromptError(
            "packed sequences take no prompt",
            why=f"the call has {packed[0]}" if packed else f"its attention_mask has {dimensions} dimensions",
            fix="give one sequence a row (in TRL: packing=False, padding_free=False)",
        )
    if torch.is_grad_enabled():
        holder_of(model).frozen.check(model)


def _check_positions(positions: Tensor | None, rows: Rows) -> None:
    """Raise SoftPromptError for positions other than those that each row's tokens have anyway."""
    if positions is None:
        return
    natural, real = rows.columns, rows.columns >= 0
    if positions.dim() != 2 or bool((positions.expand_as(natural)[real] != natural[real]).any()):
        raise SoftPromptError(
            "position_ids other than 0, 1, 2, … in each row take no prompt",
            why="vectors shift the positions of what follows, and packed sequences would see each other",
            fix="leave position_ids out, with one sequence a row (in TRL: packing=False, padding_free=False)",
        )


def _check_lengths(lm: Any, rows: Rows) -> None:
    """Raise SoftPromptError for rows that the model does not answer exactly in one batch."""
    lengths = {tuple(pair) for pair in zip(rows.lengths.tolist(), rows.inputs.tolist(), strict=True)}
    single = lm.spec.batching == "one" and len(rows.inputs) > 1
    if single or (lm.spec.batching != "any" and len(lengths) > 1):
        raise SoftPromptError(
            f"these rows do not go into one batch of a {lm.spec.family} model",
            why=NOT_KEPT,
            fix="use batches of one row" if single else "batch rows of the same length, or one row at a time",
        )


def _check_gradient(model: Any, output: Any) -> None:
    """Raise SoftPromptError where a trained prompt gets no gradient from the model."""
    if not (torch.is_grad_enabled() and any(p.requires_grad for p in getattr(model, MODULE).parameters())):
        return
    shown = output.get("logits", output.get("last_hidden_state"))
    if isinstance(shown, Tensor) and not shown.requires_grad:
        raise SoftPromptError(
            "the model gives no gradient to its prompt",
            why="its layers compute without one, as some quantised weights do",
            fix="load the base with another quantisation (or none), or use torch.no_grad() to score rows",
        )
