"""Clients of the gateway, ahead of a real vLLM: the same API as the embedded server's, the same answers."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
import torch

from softprompt.data.collate import batch_of_ids

from .conftest import LABELS, PROMPTS, VOCAB, World

WRITERS = [name for name in PROMPTS if "mood" not in name]  # the others answer with a label
TEXTS = ("what a lovely day", "the rain in Spain stays mainly in the plain, they say, and so do I", "x")


@pytest.fixture(scope="module")
def gateway(world, server, tmp_path_factory) -> Iterator[str]:
    """The command itself, on a port of its own."""
    command = [str(Path(sys.executable).with_name("softprompt")), "serve", str(world.compiled.path)]
    command += ["--engine", "vllm", "--vllm-url", server.url, "--port", "0", "--drain", "1", "--json"]
    log = tmp_path_factory.mktemp("gateway") / "log.txt"
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    output = process.stdout.readline()
    assert output, log.read_text()
    yield json.loads(output)["url"]
    process.terminate()
    assert process.wait(30) == 0, log.read_text()


@pytest.fixture(scope="module")
def client(gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def plain(world) -> str:
    return world.model.name


def greedy(world: World, name: str | None, text: str, tokens: int) -> str:
    injection = None if name is None else world.injections[name]
    batch = batch_of_ids([world.lm.text_ids(text)])
    made = world.lm.generate(batch, injection, max_new_tokens=tokens, do_sample=False)
    return world.lm.tokenizer.decode(made[0], skip_special_tokens=True)


def test_models(client, plain):
    found = {model.id: model.parent for model in client.models.list().data}
    assert found == {plain: None, **dict.fromkeys(PROMPTS, plain)}


def test_all_prompts_at_once(client, world, plain):
    cases = [(name, text) for text in TEXTS for name in (None, *WRITERS)]

    def ask(case):
        name, text = case
        return client.completions.create(model=name or plain, prompt=text, max_tokens=6, temperature=0)

    with ThreadPoolExecutor(len(cases)) as pool:
        answers = list(pool.map(ask, cases))
    for (name, text), output in zip(cases, answers, strict=True):
        assert output.choices[0].text == greedy(world, name, text, 6), name
        ids = world.lm.text_ids(text)
        assert output.usage.prompt_tokens == len(ids) and output.usage.completion_tokens == 6
        assert output.model == (name or plain)
    assert len({output.choices[0].text for output in answers}) > len(TEXTS)


@pytest.mark.parametrize("name", [*WRITERS, None])
def test_log_probabilities(client, world, plain, name):
    output = client.completions.create(
        model=name or plain, prompt=TEXTS[1], max_tokens=5, temperature=0, logprobs=4
    )
    found = output.choices[0].logprobs
    made = world.lm.text_ids(greedy(world, name, TEXTS[1], 5))
    expected = world.logprobs(name, world.lm.text_ids(TEXTS[1]), made)
    for row, token, logprob, top in zip(
        expected, made, found.token_logprobs, found.top_logprobs, strict=True
    ):
        assert abs(row[token].item() - logprob) < 1e-4
        likeliest = sorted(row.tolist(), reverse=True)[: len(top)]
        assert sorted(top.values(), reverse=True) == pytest.approx(likeliest, abs=1e-4)


def test_streaming_says_the_same(client, world, plain):
    for name in ("long", "late", None):
        parts = list(
            client.completions.create(
                model=name or plain,
                prompt=TEXTS[0],
                max_tokens=8,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        text = "".join(choice.text for part in parts for choice in part.choices)
        assert text == greedy(world, name, TEXTS[0], 8)
        assert parts[-1].usage.completion_tokens == 8
        assert [choice.finish_reason for part in parts for choice in part.choices][-1] == "length"


def test_chat(client, world, plain):
    messages = [{"role": "user", "content": TEXTS[0]}]
    output = client.chat.completions.create(model="short", messages=messages, max_tokens=6, temperature=0)
    assert output.choices[0].message.content == greedy(world, "short", TEXTS[0], 6)  # through the template
    output = client.chat.completions.create(model=plain, messages=messages, max_tokens=6, temperature=0)
    chat = world.lm.tokenizer.apply_chat_template(messages, tokenize=False)
    assert output.choices[0].message.content == greedy(world, None, chat, 6)
    parts = client.chat.completions.create(
        model="short", messages=messages, max_tokens=6, temperature=0, stream=True
    )
    streamed = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert streamed == greedy(world, "short", TEXTS[0], 6)


def test_stop_n_and_seed(client, world):
    whole = greedy(world, "soft", TEXTS[0], 12)
    stop = whole[3:5]
    output = client.completions.create(
        model="soft", prompt=TEXTS[0], max_tokens=12, temperature=0, stop=[stop]
    )
    assert output.choices[0].text == whole[: whole.index(stop)] and output.choices[0].finish_reason == "stop"
    drawn = [
        [
            choice.text
            for choice in client.completions.create(
                model="soft", prompt=TEXTS[0], max_tokens=6, temperature=1, seed=5, n=3
            ).choices
        ]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) > 1


@pytest.mark.parametrize("kind", ["missing", "damaged"])
def test_broken_content_is_a_4xx_and_the_server_lives(client, world, server, kind):
    file = world.compiled.content(world.entry("other").sha256)
    content = file.read_bytes()
    if kind == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(openai.APIStatusError) as refused:
            client.completions.create(model="other", prompt=TEXTS[0], max_tokens=4)
    finally:
        file.write_bytes(content)
    assert 400 <= refused.value.status_code < 500 and server.alive
    output = client.completions.create(model="other", prompt=TEXTS[0], max_tokens=4, temperature=0)
    assert output.choices[0].text == greedy(world, "other", TEXTS[0], 4)


def test_refusals(client, server):
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="unknown", prompt="x")
    for field in ("kv_transfer_params", "cache_salt", "prompt_embeds"):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="short", prompt="x", extra_body={field: "y"})
    with pytest.raises(openai.BadRequestError):  # the prompt's vectors and the input are too long for vLLM
        client.completions.create(model="longer", prompt=[5] * 450, max_tokens=4)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="short", prompt="x", echo=True, logprobs=1)
    assert server.alive


def test_labels(gateway, world, client):
    """What `classify` says is what transformers says of each label."""
    for name in ("mood", "late-mood"):
        body = json.dumps({"model": name, "input": [TEXTS[0], TEXTS[2]]}).encode()
        request = urllib.request.Request(f"{gateway}/v1/classify", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            rows = json.load(answer)["data"]
        for text, row in zip((TEXTS[0], TEXTS[2]), rows, strict=True):
            ids = world.lm.text_ids(text)
            scores = []
            for label in LABELS:
                # " good" begins with " go": an end closes each of them
                answer_ids = [*world.lm.text_ids(f" {label}"), VOCAB - 1]
                logprobs = world.logprobs(name, ids, answer_ids)
                scores.append(sum(logprobs[i, token].item() for i, token in enumerate(answer_ids)))
            expected = torch.tensor(scores).softmax(0).tolist()
            assert list(row["probs"].values()) == pytest.approx(expected, abs=1e-4)
            output = client.completions.create(model=name, prompt=text)
            assert output.choices[0].text == row["label"]
