"""A real server on a tiny model, for real clients; and what it must say to them, computed without a server.

Clients that are not among the packages of the tests are installed by `make test-clients`; without it their
tests are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("fastapi", reason="NO SERVER TESTS: pip install softprompt[serve]")

from tests.serve.http.conftest import CHAT, serving

from softprompt.lm.causal import CausalLM
from softprompt.tuned import open_prompt

CONTEXT = 1024  # the tokenizer's tokens are single characters
END = 96


@pytest.fixture(scope="session")
def prompts(tmp_path_factory) -> Path:
    """The folder that is served."""
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture(scope="session")
def lm(new_lm, prompts, publish) -> CausalLM:
    """A tiny base model, which its server calls `smollm2`, and prompts with the documentation's names."""
    lm = new_lm("llama", max_position_embeddings=CONTEXT)
    lm.tokenizer.chat_template = CHAT
    publish(lm, prompts / "soft-before", options={"length": 4, "placement": "before"}, seed=1)
    publish(lm, prompts / "soft-after", options={"length": 4, "placement": "after"}, seed=2)
    publish(lm, prompts / "demo/prefix-tuning", "prefix-tuning", {"length": 3}, prompts=("joke", "fact"))
    return lm


@pytest.fixture(scope="session")
def served(lm, prompts) -> Iterator[str]:
    """The address of the server, without /v1."""
    with serving(lm, prompts, model_name="smollm2", context=CONTEXT, max_tokens=2**16) as running:
        yield running.url


@pytest.fixture(scope="session")
def url(served) -> str:
    return served + "/v1"


@pytest.fixture(scope="session")
def tuned(lm, prompts) -> Callable[..., str]:
    """`tuned(name, text, count=None)`: what a prompt says greedily through its template, by the library."""

    def answer(name: str, text: str, count: int | None = None) -> str:
        path, _, prompt = name.partition(":")
        options = {} if count is None else {"max_new_tokens": count}
        return open_prompt(prompts / path, lm).generate(text, prompt=prompt or None, **options)

    return answer


@pytest.fixture(scope="session")
def plain(lm) -> Callable[..., str]:
    """`plain(text or messages, count, ahead=None)`: what the base model says greedily.

    By transformers' own generate; `ahead` [P, H] are soft tokens ahead of the text.
    """

    def answer(given: str | list[dict[str, Any]], count: int, ahead: torch.Tensor | None = None) -> str:
        if not isinstance(given, str):
            given = lm.tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True)
        vectors = embedded(lm, lm.tokenizer(given)["input_ids"], ahead)
        mask = torch.ones(vectors.shape[:2], dtype=torch.long)
        output = lm.model.generate(
            inputs_embeds=vectors,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=count,
            eos_token_id=END,
            pad_token_id=END,
        )
        return lm.tokenizer.decode(output[0], skip_special_tokens=True)

    return answer


@pytest.fixture(scope="session")
def scored(lm) -> Callable[..., float]:
    """`scored(ids, count, ahead)`: log-probability of the last `count` tokens, by transformers' forward."""

    def score(ids: list[int], count: int, ahead: torch.Tensor) -> float:
        with torch.no_grad():
            logits = lm.model(inputs_embeds=embedded(lm, ids, ahead)).logits[0, len(ahead) :]
        logprobs = logits[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])
        return logprobs[-count:].sum().item()

    return score


@pytest.fixture(scope="session")
def before(prompts, lm) -> torch.Tensor:
    """The vectors of `soft-before`, [P, H], as they lie on disk."""
    return load_file(prompts / "soft-before/prompt.safetensors")["default/before/vectors"]


def embedded(lm: CausalLM, ids: list[int], ahead: torch.Tensor | None) -> torch.Tensor:
    """[1, P + T, H]"""
    vectors = lm.model.get_input_embeddings()(torch.tensor([ids])).detach()
    return vectors if ahead is None else torch.cat([ahead[None], vectors], dim=1)
