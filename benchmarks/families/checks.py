"""Each check compares an output with the plain model's, as transformers computes it.

Rows have 1 to 23 tokens. A *reference* is the plain model, unchanged, on one row alone, with soft
tokens put in by hand. The plain model has no prefixes: for those the reference is our own output for one
row, computed anew. Outputs are logits at the targets (largest difference as a share of the reference's
largest number) or tokens.
"""

from __future__ import annotations

import copy
import math
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from softprompt.data.collate import Batch, batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, LayerKV, Prefix, SoftTokens
from softprompt.lm.base import LanguageModel
from softprompt.lm.causal import CausalLM
from softprompt.lm.encoder import EncoderLM
from softprompt.lm.seq2seq import Seq2SeqLM

LENGTHS, TARGETS, SOFT, NEW = (20, 1, 7), (3, 2, 1), 3, 3
TOLERANCE = 1e-5  # in float32
ROUNDING = 1e-3  # a difference between the two may be rounding: float64 decides
WRAPPERS = {"causal": CausalLM, "seq2seq": Seq2SeqLM, "encoder": EncoderLM}


@dataclass(frozen=True)
class Result:
    """A check's verdict is "exact", "refused", "wrong" or "traceback"; `detail` is a figure or a reason."""

    check: str
    verdict: str
    detail: str = ""


class Wrong(Exception):
    """Raised if an output differs from the reference by `figure` of its size."""

    def __init__(self, message: str, figure: float = math.inf) -> None:
        super().__init__(message)
        self.figure = figure


def rows(vocab: int) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Return inputs, targets and, for encoders, the positions where targets are read."""
    generator = torch.Generator().manual_seed(7)

    def some(count: int) -> list[int]:
        return torch.randint(5, vocab - 2, (count,), generator=generator).tolist()

    inputs, targets = [some(n) for n in LENGTHS], [some(n) for n in TARGETS]
    places = [[i * 2 % n for i in range(t)] for n, t in zip(LENGTHS, TARGETS, strict=True)]
    return inputs, targets, [sorted(p) for p in places]


@dataclass
class Subject:
    """Holds a wrapped model, the plain one, and rows."""

    kind: str
    plain: Any
    lm: LanguageModel
    inputs: list[list[int]]
    targets: list[list[int]]
    places: list[list[int]]

    def batch(self, rows: slice = slice(None)) -> Batch:
        return batch_of_ids(self.inputs[rows], self.targets[rows], places=self.places[rows])

    def soft(self) -> SoftTokens:
        vectors = self.lm.embed(torch.tensor([[9, 10, 11]])).detach() * 1.5
        return SoftTokens(vectors, torch.ones(1, SOFT, dtype=torch.bool))

    def prefix(self) -> Prefix:
        generator = torch.Generator().manual_seed(3)

        def some(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(self.lm.dtype)

        layers = tuple(
            LayerKV(some(1, s.kv_heads, SOFT, s.head_dim), some(1, s.kv_heads, SOFT, s.v_head_dim))
            for s in self.lm.spec.layers
        )
        return Prefix(layers, torch.ones(1, SOFT, dtype=torch.bool))


@torch.no_grad()
def reference(s: Subject, row: int, before: Tensor | None = None, after: Tensor | None = None) -> Tensor:
    """Return the plain model's logits [T, V] at the targets of one row alone."""
    ids, target = torch.tensor([s.inputs[row]]), torch.tensor([s.targets[row]])
    if s.kind == "seq2seq":
        start = torch.full((1, 1), s.lm._start)  # type: ignore[attr-defined]
        given: dict[str, Any] = {
            "decoder_input_ids": torch.cat([start, target[:, :-1]], 1),
            "use_cache": False,
        }
    else:
        given = {"use_cache": False} if s.kind == "causal" and "use_cache" in s.lm.accepted else {}
    if s.kind == "causal":
        ids = torch.cat([ids, target[:, :-1]], 1)
    if before is None and after is None:
        given["input_ids"] = ids
    else:
        n = len(s.inputs[row])
        vectors = s.lm.embed(ids)
        cut = 1 if s.kind == "encoder" else 0
        none = vectors[:, :0]
        parts = [vectors[:, :cut], none if before is None else before, vectors[:, cut:n]]
        parts += [none if after is None else after, vectors[:, n:]]
        given["inputs_embeds"] = torch.cat(parts, 1)
        pad = getattr(s.plain.config.get_text_config(), "pad_token_id", None) or 0
        soft = [ids[:, :0] if v is None else torch.full(v.shape[:2], pad) for v in (before, after)]
        given |= _per_layer(
            s.plain, torch.cat([ids[:, :cut], soft[0], ids[:, cut:n], soft[1], ids[:, n:]], 1)
        )
    logits = s.plain(**given).logits[0]
    if s.kind == "encoder":
        at = torch.tensor(s.places[row])
        return logits[at + (at > 0) * (0 if before is None else before.shape[1])]
    return logits[-target.shape[1] :]


def _per_layer(plain: Any, ids: Tensor) -> dict[str, Tensor]:
    """Return what Gemma 3n and 4 look up by token id in addition to embeddings."""
    table = getattr(plain.base_model, "language_model", plain.base_model)
    if not getattr(table, "hidden_size_per_layer_input", 0):
        return {}
    entries = table.embed_tokens_per_layer(ids)
    return {"per_layer_inputs": entries.unflatten(-1, (table.config.num_hidden_layers, -1))}


def off(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        raise Wrong(f"shape {tuple(ours.shape)}, not {tuple(theirs.shape)}")
    figure = ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)).item()
    return figure if math.isfinite(figure) else math.inf


def near(figure: float, tolerance: float = TOLERANCE) -> str:
    if not figure <= tolerance:
        raise Wrong(f"{figure:.2g}", figure)
    return f"{figure:.1e}"


@torch.no_grad()
def alone(s: Subject) -> str:
    """Compare each row alone."""
    pairs = [(s.lm.logits(s.batch(slice(i, i + 1)))[0], reference(s, i)) for i in range(len(s.inputs))]
    return near(max(off(a, b) for a, b in pairs))


def _batched(
    s: Subject, injection: Injection | None, of: Callable[[int], Tensor], context: Any = None
) -> float:
    batch = s.batch()
    logits = s.lm.logits(batch, injection, context)
    return max(off(logits[i][batch.target_mask[i]], of(i)) for i in range(batch.size))


@torch.no_grad()
def batch(s: Subject) -> str:
    """Compare the rows in one padded batch."""
    return near(_batched(s, None, lambda i: reference(s, i)))


@torch.no_grad()
def cached(s: Subject) -> str:
    """Compare with the input's keys and values computed before."""
    return near(_batched(s, None, lambda i: reference(s, i), s.lm.prefill(s.batch())))


@torch.no_grad()
def generated(s: Subject, injection: Injection | None = None, **options: Any) -> str:
    """Compare tokens of `generate` in a batch with those of the row alone, computed anew for each token."""
    batch = s.batch()
    output = s.lm.generate(batch, injection, max_new_tokens=NEW, do_sample=False, **options).tolist()
    for i, ids in enumerate(s.inputs):
        row: list[int] = []
        for _ in range(NEW):
            if injection is None:
                logits = reference(replace_row(s, i, row), 0)[-1]
            else:
                logits = s.lm.logits(batch_of_ids([ids], [[*row, 0]]), injection)[0, -1]
            best = logits.topk(2)
            row.append(int(best.indices[0]))
            if output[i][len(row) - 1] != row[-1]:
                if best.values[0] - best.values[1] < 1e-4 * logits.abs().max():
                    break  # a tie
                raise Wrong(f"row {i}: {output[i]} is not {row}…")
    return "tokens"


def replace_row(s: Subject, i: int, row: list[int]) -> Subject:
    return replace(s, inputs=[s.inputs[i]], targets=[[*row, 0]], places=[s.places[i]])


def _injected(s: Subject, name: str) -> Injection:
    part: Any = s.prefix() if name.startswith("kv") else s.soft()
    return Injection(**{name: part})


def _leaves(injection: Injection) -> list[Tensor]:
    """Return the vectors that would be trained: soft tokens, or each layer's values."""
    part = next(iter(injection.channels().values()))
    if isinstance(part, SoftTokens):
        return [part.vectors.requires_grad_(True)]
    return [layer.value.requires_grad_(True) for layer in part.layers if layer is not None]


def _static(s: Subject) -> str:
    return generated(s, cache_implementation="static")


def _soft(name: str) -> Callable[[Subject], str]:

    @torch.no_grad()
    def check(s: Subject) -> str:
        soft = s.soft()
        injection = _injected(s, name)
        if name == "decoder":
            return near(_batched(s, injection, lambda i: _ours_alone(s, i, injection)))
        return near(_batched(s, injection, lambda i: reference(s, i, **{name: soft.vectors})))

    return check


def _ours_alone(s: Subject, i: int, injection: Injection) -> Tensor:
    return s.lm.logits(s.batch(slice(i, i + 1)), injection)[0]


def _prefix(name: str) -> Callable[[Subject], str]:

    @torch.no_grad()
    def check(s: Subject) -> str:
        injection = _injected(s, name)
        return near(_batched(s, injection, lambda i: _ours_alone(s, i, injection)))

    return check


def _decoded(name: str) -> Callable[[Subject], str]:

    def check(s: Subject) -> str:
        return generated(s, _injected(s, name))

    return check


def _gradient(s: Subject, injection: Injection, leaves: list[Tensor]) -> list[Tensor]:
    batch = s.batch()
    with torch.enable_grad():
        loss = s.lm.logits(batch, injection)[batch.target_mask].float().log_softmax(-1).square().mean()
        computed = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, computed, strict=True)]


def gradients(name: str) -> Callable[[Subject], str]:
    """Check that every vector gets a gradient, and with checkpointing the same one."""

    def check(s: Subject) -> str:
        injection = _injected(s, name)
        leaves = _leaves(injection)
        plain = _gradient(s, injection, leaves)
        for i, g in enumerate(plain):
            if not (g.abs().amax(-1) > 0).any():
                raise Wrong(f"vectors {i} of {len(plain)} get no gradient")
        if not s.lm.checkpointable_layers:
            return "none to check"
        s.lm.set_gradient_checkpointing(True)
        try:
            again = _gradient(s, injection, leaves)
        finally:
            s.lm.set_gradient_checkpointing(False)
        scale = max(g.abs().max() for g in plain).clamp(min=1e-9)
        worst = max(((a - b).abs().max() / scale).item() for a, b in zip(again, plain, strict=True))
        return near(worst if math.isfinite(worst) else math.inf)

    return check


CHECKS: dict[str, Callable[[Subject], str]] = {
    "alone": alone,
    "batch": batch,
    "cached": cached,
    "generate": generated,
    "generate, static cache": _static,
    **{f"soft {n}": _soft(n) for n in ("before", "after", "decoder")},
    **{f"prefix {n}": _prefix(f"kv_{n}") for n in ("before", "after")},
    **{f"generate, soft {n}": _decoded(n) for n in ("before", "after", "decoder")},
    **{f"generate, prefix {n}": _decoded(f"kv_{n}") for n in ("before", "after")},
    "gradient, soft": gradients("before"),
    "gradient, soft decoder": gradients("decoder"),
    "gradient, prefix": gradients("kv_before"),
}


def applies(name: str, kind: str) -> bool:
    if "decoder" in name:
        return kind == "seq2seq"
    return kind != "encoder" or not name.startswith("generate")


def run(kind: str, model: Any) -> Iterator[Result]:
    """Run every check on a model that `small.build` built."""
    plain = copy.deepcopy(model)
    vocab = getattr(plain.config.get_text_config(), "vocab_size", None) or 101
    inputs, targets, places = rows(min(vocab, 101))
    try:
        lm = WRAPPERS[kind](model, None, "census")
    except SoftPromptError as error:
        yield Result("load", "refused", error.why or error.what)
        return
    except Exception as error:  # what a user would see as a traceback
        yield Result("load", "traceback", _where(error))
        return
    s = Subject(kind, plain, lm, inputs, targets, places)
    for name, check in CHECKS.items():
        if applies(name, kind):
            yield _ask(s, name, check)


def _ask(s: Subject, name: str, check: Callable[[Subject], str]) -> Result:
    try:
        return Result(name, "exact", check(s))
    except Wrong as error:
        return _in_double(s, name, check, error)
    except SoftPromptError as error:
        return Result(name, _verdict(error), error.why or error.what)
    except Exception as error:  # what a user would see as a traceback
        return Result(name, "traceback", _where(error))


def _verdict(error: SoftPromptError) -> str:
    """A refusal is fine, unless the error asks the user to report it: then the fault is softprompt's."""
    return "traceback" if error.fix.startswith("report it") else "refused"


def _in_double(s: Subject, name: str, check: Callable[[Subject], str], error: Wrong) -> Result:
    """Repeat the check in float64 if the difference in float32 may be rounding."""
    if TOLERANCE < error.figure <= ROUNDING:
        plain = copy.deepcopy(s.plain).double()
        try:
            twin = replace(s, plain=plain, lm=WRAPPERS[s.kind](copy.deepcopy(plain), None, "census"))
            return Result(name, "exact", f"{error}, in float64 {check(twin)}")
        except Exception as other:
            return Result(name, "wrong", f"{error}, in float64 {str(other).strip()[:100]}")
    return Result(name, "wrong", str(error))


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename.split('/')[-1]}:{frames[-1].lineno}" if frames else ""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''} ({place})"
