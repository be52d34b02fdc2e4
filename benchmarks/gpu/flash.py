"""Flash kernels with prefix columns are checked, and timed beside sdpa with a mask over joined columns.

A row has a cached context, a prefix of 16 vectors that all rows share, and its own tokens; rows are padded.
Both sides compute the output and the gradients of query, prefix and own keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import softprompt
from benchmarks import base_models
from benchmarks.training import clock
from benchmarks.training.line import Line, apart
from benchmarks.training.ours import Ours
from benchmarks.training.rows import example
from softprompt.injection import LayerKV
from softprompt.lm import flash_attention
from softprompt.lm.flash_layout import Layout

from .piece import Subject

PREFIX = 16
CONTEXT = 8  # a row's own tokens are a multiple of its cached ones
ALLOWED = 3.0  # times sdpa's own error in the same precision
TURNS = 7


@dataclass(frozen=True)
class Sizes:
    """Holds the rows, heads of queries and of keys, and numbers in a head."""

    rows: int = 4
    heads: int = 32
    kv_heads: int = 8
    size: int = 128


def measure(subject: Subject) -> Iterator[Line]:
    """Measure attention forward and backward by the tokens of a row."""
    sizes, lengths = (Sizes(3, 4, 2, 16), (24,)) if subject.short else (Sizes(), (512, 2048, 8192))
    for tokens in lengths:
        given, layout = _made(sizes, tokens, subject.device)
        mask = _mask(layout, tokens)  # made once for all layers of a model, as a layout's blocks are
        sides = {
            "flash": lambda g=given, m=layout: _flash(g, m),
            "sdpa": lambda g=given, m=mask: _sdpa(g, m),
        }
        wrong = _wrong(sides, given, layout) if tokens == lengths[0] else ""
        seconds = _timed(sides, given)
        yield Line(
            "flash",
            f"attention over {tokens:,} tokens × {sizes.rows} rows, {sizes.heads} heads of {sizes.size}",
            1000 * seconds["flash"],
            1000 * seconds["sdpa"],
            "ms",
            seconds["sdpa"] / seconds["flash"],
            1.0,
            note="theirs: sdpa with a mask over joined columns",
            wrong=wrong,
        )


def steps(subject: Subject, model: str, tokens: int) -> Iterator[Line]:
    """Measure a full step of a prefix on one model under both kinds of attention."""
    dtype = "float32" if subject.short else "bfloat16"
    count, tokens = (3, 24) if subject.short else (4, tokens)
    lm = base_models.load(subject.model(model), dtype)
    flash = softprompt.load(base_models.plain(lm), lm.tokenizer, attn_implementation="flash")
    rows = random_rows(lm, count, tokens)
    sides = {"flash": Ours(flash, "prefix-tuning", rows), "sdpa": Ours(lm, "prefix-tuning", rows)}
    losses = [side.backward(range(count)).item() for side in sides.values()]
    wrong = apart(losses[:1], losses[1:], 1e-3 if subject.short else 5e-2, "flash against sdpa")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-1, 1 if subject.short else TURNS):
        for name, side in sides.items():
            started = clock.now()
            side.backward(range(count))
            if turn >= 0:
                seconds[name].append(clock.now() - started)
    ours, theirs = (1000 * median(seconds[name]) for name in ("flash", "sdpa"))
    case = f"a full step of {tokens:,} tokens × {count} rows, {dtype}"
    yield Line("flash-step", case, ours, theirs, "ms", theirs / ours, 1.0, note="theirs: sdpa", wrong=wrong)


def random_rows(lm: Any, count: int, tokens: int) -> list[Any]:
    """Return rows of random tokens, with one target each."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, lm.spec.vocab_size, (count, tokens + 1), generator=generator).tolist()
    return [example(row[:-1], row[-1:]) for row in ids]


def _made(sizes: Sizes, tokens: int, device: str) -> tuple[list[Tensor], Layout]:
    """Return query, and keys and values of the context, the prefix and the row, and who sees them."""
    torch.manual_seed(0)

    def draw(rows: int, heads: int, columns: int) -> Tensor:
        numbers = torch.randn(rows, heads, columns, sizes.size, device=device, dtype=torch.bfloat16)
        return numbers.requires_grad_()

    before = tokens // CONTEXT
    given = [draw(sizes.rows, sizes.heads, tokens)]
    for rows, columns in ((sizes.rows, before), (1, PREFIX), (sizes.rows, tokens)):
        given += [draw(rows, sizes.kv_heads, columns), draw(rows, sizes.kv_heads, columns)]
    given[1].requires_grad_(False)  # what is cached is constant
    given[2].requires_grad_(False)
    padding = torch.arange(sizes.rows, device=device)[:, None] * tokens // (4 * sizes.rows)
    real = torch.arange(tokens, device=device) >= padding
    everyone = torch.ones(sizes.rows, tokens, dtype=torch.bool, device=device)
    whole = torch.ones(sizes.rows, before, dtype=torch.bool, device=device)
    prefix = torch.ones(sizes.rows, PREFIX, dtype=torch.bool, device=device)
    return given, Layout(real, tokens, [(whole, everyone), (prefix, everyone)])


def _flash(given: list[Tensor], layout: Layout) -> Tensor:
    parts = [LayerKV(given[i], given[i + 1]) for i in (1, 3, 5)]
    return flash_attention.attend(given[0], parts, layout, None)


def _mask(layout: Layout, queries: int) -> Tensor:
    """Return who sees what as a mask of the size of a head's scores; padding sees what it likes."""
    return layout.dense() | ~layout.real[:, None, -queries:, None]


def _sdpa(given: list[Tensor], mask: Tensor) -> Tensor:
    """Join the parts, as `lm.attention` does for sdpa."""
    rows = given[0].shape[0]
    key, value = (
        torch.cat([given[i].expand(rows, -1, -1, -1) for i in (k, k + 2, k + 4)], 2) for k in (1, 2)
    )
    groups = given[0].shape[1] // key.shape[1]
    module = SimpleNamespace(num_key_value_groups=groups, is_causal=False)
    return sdpa_attention_forward(module, given[0], key, value, mask)[0]  # type: ignore[arg-type]


def _wrong(sides: dict[str, Callable[[], Tensor]], given: list[Tensor], layout: Layout) -> str:
    """Compare outputs and gradients of both sides with those of float32."""
    real = layout.real[:, -given[0].shape[2] :]
    exact = [t.detach().float().requires_grad_(t.requires_grad) for t in given]
    expected = _results(_sdpa(exact, _mask(layout, given[0].shape[2]))[real], exact)
    errors = {name: _errors(_results(side()[real], given), expected) for name, side in sides.items()}
    for mine, theirs in zip(errors["flash"], errors["sdpa"], strict=True):
        if not mine <= max(1e-4, ALLOWED * theirs):
            return f"flash differs from float32 by {mine:.1e}, sdpa by {theirs:.1e}"
    return ""


def _results(out: Tensor, given: list[Tensor]) -> list[Tensor]:
    leaves = [t for t in given if t.requires_grad]
    weight = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
    return [out, *torch.autograd.grad((out.float() * weight).sum(), leaves)]


def _errors(results: list[Tensor], expected: list[Tensor]) -> list[float]:
    pairs = zip(results, expected, strict=True)
    return [((a.float() - b).norm() / b.norm()).item() for a, b in pairs]


def _timed(sides: dict[str, Callable[[], Tensor]], given: list[Tensor]) -> dict[str, float]:
    leaves = [t for t in given if t.requires_grad]
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-2, TURNS):
        for name, side in sides.items():
            started = clock.now()
            out = side()
            torch.autograd.grad(out, leaves, out)
            if turn >= 0:
                seconds[name].append(clock.now() - started)
    return {name: median(times) for name, times in seconds.items()}
