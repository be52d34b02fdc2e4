"""Prompts that can be no KV prefix are refused with the reason.

This file decides by what a prompt injects and what the model keeps, never by a method's name.
"""

from __future__ import annotations

from ....errors import SoftPromptError
from ....injection import Injection, LayerKV, Prefix
from ....lm.base import LanguageModel
from ....methods.materialised import Materialised
from ...artifact import Artifact

LATER = {
    "after": "soft tokens after the input",
    "kv_after": "a prefix after the input",
    "decoder": "soft tokens of a decoder",
    "adapter": "a gated prefix (llama-adapter)",
}


def injection_of(
    artifact: Artifact, lm: LanguageModel, prompt: str | None, *, other_base: bool = False
) -> Injection:
    """Return the prompt's fixed vectors, one row. Raises SoftPromptError where a frozen base has none."""
    mode = artifact.manifest["base"]["mode"]
    if mode != "frozen" or "base.safetensors" in artifact.manifest["files"]:
        raise SoftPromptError(
            f"{artifact} was trained together with its base ({mode}) or a head",
            why="the engine serves the original base, on which the vectors alone give other answers",
            fix="train it with base=frozen and without a head",
        )
    check_model(lm)
    method = artifact.method(lm, other_base=other_base)
    if not isinstance(method, Materialised):
        raise SoftPromptError(
            f"{artifact} generates its prompts from the input",
            why="a compiled prompt is fixed before the engine reads the input",
            fix="serve it with `softprompt serve`, or train prompt-tuning or prefix-tuning",
        )
    injection = method.prompts[artifact.index(prompt)]
    if not injection.channels():
        raise SoftPromptError(
            f"there is nothing to compile in {artifact}",
            why="it injects no vectors",
            fix="leave it out: it is the plain model",
        )
    return injection


def check_model(lm: LanguageModel) -> None:
    """Raise SoftPromptError for a model that a KV prefix cannot serve."""
    if lm.spec.kind != "decoder" or lm.answers != "next":
        raise SoftPromptError(
            f"'{lm.name}' ({lm.spec.family}) takes no compiled prompts",
            why="only a decoder-only model generates answers from a KV cache",
            fix="serve it with `softprompt serve`",
        )
    for feature in ("prefix", "cache"):
        lm.refuse(feature)
    uneven = [spec for spec in lm.spec.layers if spec.head_dim != spec.v_head_dim]
    if len(lm.spec.layers) != lm.spec.depth or uneven:
        raise SoftPromptError(
            f"'{lm.name}' ({lm.spec.family}) takes no compiled prompts",
            why="the engines keep a compressed form of its keys and values"
            if uneven
            else f"only {len(lm.spec.layers)} of its {lm.spec.depth} layers keep keys and values",
            fix="serve it with `softprompt serve`",
        )


def check_injection(injection: Injection, lm: LanguageModel) -> None:
    """Raise SoftPromptError unless everything that is injected precedes the input."""
    if late := [LATER[name] for name in injection.channels() if name in LATER]:
        raise SoftPromptError(
            f"a KV prefix cannot hold {' or '.join(late)}",
            why="it has what the model keeps of positions ahead of the input",
            fix="train it with placement=before, or serve it with `softprompt serve`",
        )
    if not injection.channels():
        raise SoftPromptError(
            "there is nothing to compile", why="it injects no vectors", fix="leave it out: it is the model"
        )
    if injection.kv_before is not None:
        _check_prefix(injection.kv_before, lm)


def _check_prefix(prefix: Prefix, lm: LanguageModel) -> None:
    missing = [layer for layer in prefix.layers if layer is None]
    if missing or any(reach is not None for reach in prefix.reach):
        raise SoftPromptError(
            f"the prefix is in {len(prefix.layers) - len(missing)} of {len(prefix.layers)} layers",
            why="an engine's cache holds as many tokens in one layer as in another",
            fix="train one with prefix-tuning",
        )
    if lm.spec.positions not in ("rotary", "relative", "none"):
        raise SoftPromptError(
            f"a prefix for {lm.spec.family} cannot be compiled",
            why="in an engine the input starts after the prefix, and this model adds a vector of its own for "
            "each position (or its rotation of keys was not recognised)",
            fix="use a soft prompt (prompt-tuning, placement=before): its positions are the same in both",
        )
    window = getattr(lm.model.config.get_text_config(decoder=True), "sliding_window", None)
    if window:
        raise SoftPromptError(
            f"a prefix for {lm.spec.family} cannot be compiled",
            why=f"in an engine it leaves the sliding window of {window} tokens; "
            "in training it was visible at any distance",
            fix="use a soft prompt (prompt-tuning, placement=before), which leaves the window in both",
        )


def length(layers: tuple[LayerKV | None, ...]) -> int:
    """Return the number P of positions of keys [1, kv_heads, P, head_dim]."""
    return next(layer.key.shape[2] for layer in layers if layer is not None)
