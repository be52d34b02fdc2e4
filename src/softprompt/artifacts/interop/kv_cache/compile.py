"""One prompt of an artifact becomes a verified KV prefix."""

from __future__ import annotations

from torch import Tensor

from ....injection import Injection
from ....lm.base import LanguageModel
from ....lm.loading import fingerprint
from ...artifact import Artifact
from .checks import injection_of
from .folder import Base
from .kv import CompiledKV, compile_injection, not_finite
from .verify import verify


def compile_artifact(
    artifact: Artifact, lm: LanguageModel, prompt: str | None = None, *, other_base: bool = False
) -> CompiledKV:
    """One prompt of an artifact as a KV prefix for `lm`, in the precision that `lm` computes in.

    Verified against `lm` itself. Raises SoftPromptError with the reason for what is not exactly that.
    """
    return compiled_kv(injection_of(artifact, lm, prompt, other_base=other_base), lm)


def compiled_kv(injection: Injection, lm: LanguageModel) -> CompiledKV:
    """`compile_injection`, verified."""
    compiled = compile_injection(lm, injection)
    verify(lm, injection, compiled)
    return compiled


def tokens_after(injection: Injection) -> Tensor | None:
    """Soft tokens [Q, H] of an injection that has nothing but some after the input; else None.

    No cache ahead of the input holds them, but an engine that takes embeddings does.
    """
    if injection.after is None or len(injection.channels()) > 1:
        return None
    vectors = injection.after.vectors[0]
    if not vectors.isfinite().all():
        raise not_finite()
    return vectors


def base_of(lm: LanguageModel) -> Base:
    """What a folder of compiled prompts says of the base that they are for."""
    return Base(
        name=lm.name,
        fingerprint=fingerprint(lm),
        hidden_size=lm.spec.hidden_size,
        layers=tuple((spec.kv_heads, spec.head_dim) for spec in lm.spec.layers),
    )
