"""The connector in a stock vLLM: mixed batches, isolation, and what it does with what is broken."""

from __future__ import annotations

import hashlib
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import safetensors.torch
import torch

from .conftest import BLOCK, VOCAB
from .conftest import PROMPTS as ALL

PROMPTS = [name for name, (_, _, placement) in ALL.items() if placement == "before"]

INPUTS = ([5, 61, 7, 88, 20, 3, 44, 9, 71], [12, 90, 33, 4, 57], [(7 * i) % 96 for i in range(1, 90)])
PLACEHOLDER = 95


def body(entry, ids, **changes):
    """A request as a gateway sends it; `entry` None: the plain model."""
    common = {"model": "base", "max_tokens": 4, "temperature": 0, "logprobs": VOCAB, "return_token_ids": True}
    common |= {"return_tokens_as_token_ids": True}
    if entry is None:
        return {**common, "prompt": ids, **changes}
    named = {"prefix_id": entry.sha256, "prefix_length": entry.length}
    return {
        **common,
        "prompt": [PLACEHOLDER] * entry.length + ids,
        "cache_salt": entry.sha256,
        "kv_transfer_params": named,
        **changes,
    }


def check(world, name, ids, output) -> None:
    """Every token's log-probabilities are transformers' own, to 1e-4."""
    status, answer = output
    assert status == 200, answer
    (choice,) = answer["choices"]
    made = choice["token_ids"]
    expected = world.logprobs(name, ids, made)
    assert len(made) == 4
    for row, top in zip(expected, choice["logprobs"]["top_logprobs"], strict=True):
        found = {int(token.removeprefix("token_id:")): logprob for token, logprob in top.items()}
        assert len(found) == VOCAB
        worst = max(abs(logprob - row[i].item()) for i, logprob in found.items())
        assert worst < 1e-4, (name, worst)


@pytest.fixture
def ask(server):
    return lambda sent: server.post("/v1/completions", sent)


def test_one_at_a_time(world, ask):
    for name in (None, *PROMPTS):
        entry = None if name is None else world.entry(name)
        for ids in INPUTS:
            check(world, name, ids, ask(body(entry, ids)))


def test_a_mixed_batch(world, ask):
    """All at once, twice: what is cached by then must not be another prompt's."""
    cases = [(name, ids) for ids in INPUTS for name in (None, *PROMPTS)] * 2
    sent = [body(None if name is None else world.entry(name), ids) for name, ids in cases]
    with ThreadPoolExecutor(len(cases)) as pool:
        answers = list(pool.map(ask, sent))
    for (name, ids), output in zip(cases, answers, strict=True):
        check(world, name, ids, output)


def test_one_prompts_cache_is_not_anothers(world, ask):
    """Prefixes longer than a block, the same placeholders: only the salt distinguishes them."""
    one, other = world.entry("long"), world.entry("other")
    assert one.length == other.length > 2 * BLOCK
    ids = INPUTS[2]
    for _ in range(2):
        check(world, "long", ids, ask(body(one, ids)))
        check(world, "other", ids, ask(body(other, ids)))
        check(
            world, None, [PLACEHOLDER] * one.length + ids, ask(body(None, [PLACEHOLDER] * one.length + ids))
        )


def test_a_wrong_salt_is_refused(world, server, ask):
    entry = world.entry("long")
    ids = INPUTS[0]
    for salt in (None, "a" * 64, world.entry("other").sha256):
        sent = body(entry, [*ids, 31])
        sent.pop("cache_salt")
        status, _ = ask(sent if salt is None else {**sent, "cache_salt": salt})
        assert status >= 400
    assert server.alive
    check(world, "long", ids, ask(body(entry, ids)))


WRONG = [
    {"prefix_id": "../../etc/passwd", "prefix_length": 7},
    {"prefix_id": 5, "prefix_length": 7},
    {"prefix_id": "f" * 64, "prefix_length": 0},
    {"prefix_id": "f" * 64, "prefix_length": 10_000},
    {"prefix_id": "f" * 64, "prefix_length": "7"},
    {"something": "else"},
]


@pytest.mark.parametrize("params", WRONG)
def test_wrong_parameters(world, server, ask, params):
    sent = body(world.entry("short"), INPUTS[0], kv_transfer_params=params)
    status, _ = ask(sent)
    assert status >= 400 and server.alive


def tensors_of(world, name):
    return safetensors.torch.load(world.compiled.content(world.entry(name).sha256).read_bytes())


def contents(world, kind):
    """A hash and a content that is not good."""
    tensors = tensors_of(world, "short")
    if kind == "missing":
        return "0" * 64, None
    if kind == "corrupted":
        content = bytearray(safetensors.torch.save(tensors))
        content[-3] ^= 1
        return world.entry("short").sha256[:-1] + (
            "0" if world.entry("short").sha256[-1] != "0" else "1"
        ), bytes(content)
    if kind == "no safetensors":
        content = b"not a file of tensors"
    elif kind == "nan":
        content = safetensors.torch.save({**tensors, "v.1": torch.full_like(tensors["v.1"], float("nan"))})
    elif kind == "infinite":
        content = safetensors.torch.save({**tensors, "k.0": tensors["k.0"] / 0.0})
    elif kind == "length":
        content = safetensors.torch.save({name: tensor[:-1].clone() for name, tensor in tensors.items()})
    elif kind == "layers":
        content = safetensors.torch.save({n: t for n, t in tensors.items() if not n.endswith(".2")})
    else:
        content = safetensors.torch.save({n: t.transpose(1, 2).contiguous() for n, t in tensors.items()})
    return hashlib.sha256(content).hexdigest(), content


KINDS = ("missing", "corrupted", "no safetensors", "nan", "infinite", "length", "layers", "turned")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_broken_fails_alone(world, server, ask, spoiled, kind):
    """The request that asked fails, those beside it are answered, and the server lives."""
    name, content = contents(world, kind)
    if content is not None:
        spoiled(name, content)
    broken = body(world.entry("short"), INPUTS[0], cache_salt=name)
    broken["kv_transfer_params"] = {"prefix_id": name, "prefix_length": world.entry("short").length}
    good = body(world.entry("longer"), INPUTS[1])
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, [good, broken, good, broken]))
    assert [answers[i][0] >= 400 for i in range(4)] == [False, True, False, True], answers
    check(world, "longer", INPUTS[1], answers[0])
    check(world, "longer", INPUTS[1], answers[2])
    assert server.alive
    check(world, "short", INPUTS[0], ask(body(world.entry("short"), INPUTS[0])))


def test_a_broken_one_that_is_mended_is_served(world, ask):
    """A file that comes late, as on shared storage."""
    entry = world.entry("soft")
    file = world.compiled.content(entry.sha256)
    content = safetensors.torch.load(file.read_bytes())
    later = safetensors.torch.save(
        {name: tensor.clone() for name, tensor in content.items()}, {"late": "yes"}
    )
    name = hashlib.sha256(later).hexdigest()
    sent = body(entry, INPUTS[0], cache_salt=name)
    sent["kv_transfer_params"] = {"prefix_id": name, "prefix_length": entry.length}
    assert ask(sent)[0] >= 400
    at = world.compiled.content(name)
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_bytes(later)
    check(world, "soft", INPUTS[0], ask(sent))


def test_tensor_parallel(world, start):
    """Two workers, each with its own heads."""
    server = start(world, "--tensor-parallel-size", "2")
    for name in (None, *PROMPTS):
        entry = None if name is None else world.entry(name)
        check(world, name, INPUTS[0], server.post("/v1/completions", body(entry, INPUTS[0])))
    status, _ = server.post("/v1/completions", body(world.entry("short"), INPUTS[0], cache_salt="0" * 64))
    assert status >= 400 and server.alive


def test_data_parallel(world, start):
    """Two engines behind one address, each with the whole model: whichever is asked answers."""
    server = start(world, "--data-parallel-size", "2")
    asked = [(name, ids) for name in (None, *PROMPTS) for ids in INPUTS[:3]]
    bodies = [body(None if name is None else world.entry(name), ids) for name, ids in asked]
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda sent: server.post("/v1/completions", sent), bodies))
    for (name, ids), answer in zip(asked, answers, strict=True):
        check(world, name, ids, answer)
    with urllib.request.urlopen(server.url + "/metrics") as metrics:
        busy = re.findall(
            r'^vllm:generation_tokens_total\{engine="(\d)".*\} [1-9]', metrics.read().decode(), re.M
        )
    assert set(busy) == {"0", "1"}
    broken = body(world.entry("short"), INPUTS[0], cache_salt="0" * 64)
    assert [server.post("/v1/completions", broken)[0] >= 400 for _ in range(2)] == [True, True]
    assert server.alive
