"""A request as stock vLLM takes it: /v1/completions, with token ids or embeddings, whatever the prompt.

    plain       prompt = input ids
    kv          prompt = k placeholders + input ids; prefix_id and cache_salt = the content's sha256
    after       prompt_embeds = [embeddings of the input ids | soft tokens], the same salt

This file knows nothing of HTTP.
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
Soft = Callable[[Ids], "Tensor"]  # embeddings [n + Q, H] of an input under soft tokens after it
PLACEHOLDER = 0  # any known token: the salt tells prompts apart, and what it says is never computed


def body(
    request: Request,
    entry: Entry | None,
    model: str,
    soft: Soft | None = None,
    controls: Mapping[int, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """What is posted for a request; `soft` where soft tokens stand after the input.

    `controls`: the tokenizer's control tokens, by id.

    Raises InvalidRequest for what vLLM cannot do exactly.
    """
    if request.echo:
        raise NotScored(
            "log-probabilities of an input are not served by vLLM",
            why="it would compute the prompt's placeholders as text for them"
            if entry is not None
            else "the gateway asks it for answers alone",
            fix="leave echo or logprobs out, or use the embedded engine",
        )
    if request.scale not in (0, 1):
        raise InvalidRequest(
            f"strength {request.scale:g} is not served by vLLM",
            why="compiled prompts are content of a fixed strength",
            fix="strength 1 or 0, or compile a prompt that `softprompt compose --scale` made",
        )
    named = None if request.scale == 0 else entry
    given = prompt(request.input_ids, named, soft)
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    return {"model": model, **streamed, **given, **sampled(request.sampling, controls)}


def prompt(ids: Ids, entry: Entry | None, soft: Soft | None = None) -> dict[str, Any]:
    """The fields that say what is read."""
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


def sampled(how: Sampling, controls: Mapping[int, str] = MappingProxyType({})) -> dict[str, Any]:
    """How tokens are chosen, in vLLM's words; tokens are named by id.

    All of it is said: what is left open vLLM takes from the checkpoint's own settings (see `lm.settings`).
    Raises InvalidRequest for a stop string of a control token and text: vLLM looks for strings in text alone.
    """
    named = [token for token, name in controls.items() if name in how.stop]
    for stop in how.stop:
        if held := next((name for name in controls.values() if name in stop and name != stop), None):
            raise InvalidRequest(
                f"a stop string with the control token {held} and text beside it is not served by vLLM",
                fix="stop at the control token alone, or at the text",
            )
    return {
        "max_tokens": max(1, how.max_tokens),  # vLLM takes no 0; what is not asked for is not given on
        "temperature": how.temperature,
        "top_p": how.top_p,
        "top_k": how.top_k or -1,
        "min_p": 0.0,
        "repetition_penalty": how.repetition_penalty,
        "seed": how.seed,
        "stop": [stop for stop in how.stop if stop not in controls.values()],
        "stop_token_ids": named,
        "logprobs": how.logprobs,
        "frequency_penalty": how.frequency_penalty,
        "presence_penalty": how.presence_penalty,
        "logit_bias": {str(token): value for token, value in how.logit_bias.items()} or None,
        "min_tokens": how.min_tokens,
        "ignore_eos": how.ignore_eos,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def scored(
    ids: Ids, entry: Entry | None, model: str, tokens: Ids, soft: Soft | None = None
) -> dict[str, Any]:
    """A request for the log-probabilities of these next tokens, and for nothing else."""
    wanted = {
        "max_tokens": 1,
        "temperature": 0,
        "repetition_penalty": 1.0,
        "logprobs": 1,
        "logprob_token_ids": list(tokens),
    }
    return {"model": model, **prompt(ids, entry, soft), **wanted, "return_tokens_as_token_ids": True}


def encoded(vectors: Tensor) -> str:
    """Embeddings [n, H] as vLLM reads them. Raises InvalidRequest for those that would poison the engine."""
    import torch

    if not vectors.isfinite().all():
        raise InvalidRequest("the embeddings are not finite", fix="compile the prompt again")
    out = io.BytesIO()
    torch.save(vectors.contiguous(), out)
    return base64.b64encode(out.getvalue()).decode("ascii")


def logprobs_of(top: Mapping[str, float]) -> dict[int, float]:
    """vLLM's top_logprobs by token id, the likeliest first."""
    pairs = ((token_id(name), value) for name, value in top.items())
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


def token_id(name: str) -> int:
    """Of a token as vLLM names it. Raises ValueError for another name."""
    return int(name.removeprefix("token_id:"))


def scores_of(answer: Mapping[str, Any], tokens: Ids) -> dict[int, float] | None:
    """The log-probabilities that `scored` asked for; None where the answer does not have all of them."""
    try:
        (top,) = answer["choices"][0]["logprobs"]["top_logprobs"]
        found = {token: float(value) for token, value in logprobs_of(top).items()}
        return {token: found[token] for token in tokens}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
