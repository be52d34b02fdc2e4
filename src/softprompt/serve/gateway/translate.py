"""Requests are translated for stock vLLM's /v1/completions, with token ids or embeddings.

    plain       prompt = input ids
    kv          prompt = k placeholders + input ids; prefix_id and cache_salt = the content's sha256
    after       prompt_embeds = [embeddings of the input ids | soft tokens], the same salt

Nothing here knows HTTP.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...artifacts.interop.kv_cache.folder import Entry
from ..request import InvalidRequest, NotScored, Request, Sampling

if TYPE_CHECKING:
    from torch import Tensor

Ids = Sequence[int]
Soft = Callable[[Ids], "Tensor"]  # returns embeddings [n + Q, H] of an input and soft tokens after it
PLACEHOLDER = 0  # any known token: the salt distinguishes prompts, and the token itself is never computed


def body(
    request: Request,
    entry: Entry | None,
    model: str,
    soft: Soft | None = None,
    controls: Mapping[int, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the body for a request; `soft` is needed for soft tokens after the input.

    `controls`: the tokenizer's control tokens, by id. Raises InvalidRequest for what vLLM cannot do exactly.
    """
    if request.echo:
        raise NotScored(
            "log-probabilities of an input are not served by vLLM",
            why="it would compute the prompt's placeholders as text"
            if entry is not None
            else "the gateway requests answers only",
            fix="leave echo or logprobs out, or use the embedded engine",
        )
    if request.scale not in (0, 1):
        raise InvalidRequest(
            f"strength {request.scale:g} is not served by vLLM",
            why="compiled prompts have a fixed strength",
            fix="strength 1 or 0, or compile a prompt that `softprompt compose --scale` made",
        )
    named = None if request.scale == 0 else entry
    given = prompt(request.input_ids, named, soft)
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    return {"model": model, **streamed, **given, **sampled(request.sampling, controls)}


def prompt(ids: Ids, entry: Entry | None, soft: Soft | None = None) -> dict[str, Any]:
    if entry is None:
        return {"prompt": list(ids)}
    if entry.kind == "after":
        assert soft is not None
        return {"prompt_embeds": encoded(soft(ids)), "cache_salt": entry.sha256}
    return {
        "prompt": [PLACEHOLDER] * entry.length + list(ids),
        "cache_salt": entry.sha256,
        "kv_transfer_params": {"prefix_id": entry.sha256, "prefix_length": entry.length},
    }


def sampled(sampling: Sampling, controls: Mapping[int, str] = MappingProxyType({})) -> dict[str, Any]:
    """Return the settings of sampling in vLLM's words; tokens are named by id.

    Every setting is sent, since vLLM takes missing ones from the checkpoint (see `lm.settings`). Raises
    InvalidRequest for a stop string of a control token and text: vLLM searches only text for strings.
    """
    named = [token for token, name in controls.items() if name in sampling.stop]
    for stop in sampling.stop:
        if held := next((name for name in controls.values() if name in stop and name != stop), None):
            raise InvalidRequest(
                f"a stop string with the control token {held} and text beside it is not served by vLLM",
                fix="stop at the control token alone, or at the text",
            )
    return {
        "max_tokens": max(1, sampling.max_tokens),  # vLLM does not accept 0; an extra token is dropped
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": 0.0,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "stop": [stop for stop in sampling.stop if stop not in controls.values()],
        "stop_token_ids": named,
        "logprobs": sampling.logprobs,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "logit_bias": {str(token): value for token, value in sampling.logit_bias.items()} or None,
        "min_tokens": sampling.min_tokens,
        "ignore_eos": sampling.ignore_eos,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def scored(
    ids: Ids, entry: Entry | None, model: str, tokens: Ids, soft: Soft | None = None
) -> dict[str, Any]:
    """Return a request for the log-probabilities of these next tokens only."""
    wanted = {
        "max_tokens": 1,
        "temperature": 0,
        "repetition_penalty": 1.0,
        "logprobs": 1,
        "logprob_token_ids": list(tokens),
    }
    return {"model": model, **prompt(ids, entry, soft), **wanted, "return_tokens_as_token_ids": True}


def encoded(vectors: Tensor) -> str:
    """Encode embeddings [n, H] for vLLM. Raises InvalidRequest for ones that are not finite."""
    import torch

    if not vectors.isfinite().all():
        raise InvalidRequest("the embeddings are not finite", fix="compile the prompt again")
    out = io.BytesIO()
    torch.save(vectors.contiguous(), out)
    return base64.b64encode(out.getvalue()).decode("ascii")


def logprobs_of(top: Mapping[str, float]) -> dict[int, float]:
    """Return vLLM's top_logprobs by token id, the likeliest first."""
    pairs = ((token_id(name), value) for name, value in top.items())
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


def token_id(name: str) -> int:
    """Return the id in vLLM's name of a token. Raises ValueError for another name."""
    return int(name.removeprefix("token_id:"))


def scores_of(answer: Mapping[str, Any], tokens: Ids) -> dict[int, float] | None:
    """Return the log-probabilities that `scored` requested; None where the answer lacks some of them."""
    try:
        (top,) = answer["choices"][0]["logprobs"]["top_logprobs"]
        values = {token: float(value) for token, value in logprobs_of(top).items()}
        return {token: values[token] for token in tokens}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
