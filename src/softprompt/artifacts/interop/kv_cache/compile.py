"""One prompt of an artifact is compiled into a verified KV prefix."""

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
    """Compile one prompt of an artifact into a KV prefix for `lm`, in its precision, and verify it.

    Raises SoftPromptError with the reason for a prompt that has no exact KV prefix.
    """
    return compiled_kv(injection_of(artifact, lm, prompt, other_base=other_base), lm)


def compiled_kv(injection: Injection, lm: LanguageModel) -> CompiledKV:
    """Compile an injection, and verify the result."""
    compiled = compile_injection(lm, injection)
    verify(lm, injection, compiled)
    return compiled


def tokens_after(injection: Injection) -> Tensor | None:
    """Return soft tokens [Q, H] of an injection that has only some after the input; else None.

    A cache ahead of the input cannot hold them, but an engine can take them as embeddings.
    """
    if injection.after is None or len(injection.channels()) > 1:
        return None
    vectors = injection.after.vectors[0]
    if not vectors.isfinite().all():
        raise not_finite()
    return vectors


def base_of(lm: LanguageModel) -> Base:
    return Base(
        name=lm.name,
        fingerprint=fingerprint(lm),
        hidden_size=lm.spec.hidden_size,
        layers=tuple((spec.kv_heads, spec.head_dim) for spec in lm.spec.layers),
    )
