"""A stock vLLM server on a tiny random model, and the same prompts through transformers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from softprompt import methods
from softprompt.artifacts.interop import foreign
from softprompt.artifacts.interop.kv_cache.batch import compile_all, sources
from softprompt.artifacts.interop.kv_cache.folder import Entry, Folder
from softprompt.artifacts.manifest import text_of
from softprompt.data.collate import batch_of_ids
from softprompt.injection import Injection
from softprompt.lm.causal import CausalLM
from softprompt.methods.base import Setting

CONNECTOR = Path(__file__).parents[1] / "src"
LABELS = ["good", "go", "bad"]
VOCAB, BLOCK = 97, 32  # a CPU takes blocks of 32 tokens
START_SECONDS = 300
CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}bot: "
# name -> method, vectors, placement: shorter than a block, longer, of several blocks, soft tokens, and others
PROMPTS = {
    "short": ("prefix-tuning", 7, "before"),
    "long": ("prefix-tuning", 70, "before"),
    "longer": ("prefix-tuning", 130, "before"),
    "other": ("prefix-tuning", 70, "before"),
    "soft": ("prompt-tuning", 40, "before"),
    "late": ("prompt-tuning", 5, "after"),
    "mood": ("prefix-tuning", 6, "before"),
    "late-mood": ("prompt-tuning", 6, "after"),
}


@dataclass(frozen=True)
class World:
    """A model, tuned prompts on it, and their compiled form."""

    lm: CausalLM
    model: Path
    compiled: Folder
    injections: dict[str, Injection | None]

    def entry(self, name: str) -> Entry:
        return self.compiled.entry(name)

    def logprobs(self, prompt: str | None, ids: list[int], answer: list[int]) -> torch.Tensor:
        """Log-probabilities [len(answer), V] of each next token, by transformers."""
        injection = None if prompt is None else self.injections[prompt]
        with torch.no_grad():
            logits = self.lm.logits(batch_of_ids([ids], [answer]), injection)
        return logits[0].float().log_softmax(-1)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world")
    lm = CausalLM(_model(), _tokenizer(), str(folder / "model"))
    lm.model.save_pretrained(folder / "model")
    lm.tokenizer.save_pretrained(folder / "model")
    injections: dict[str, Injection | None] = {}
    for number, (name, (method, length, placement)) in enumerate(PROMPTS.items()):
        options = {"length": length, "placement": placement}
        injections[name] = _tuned(lm, method, options, folder / "prompts" / name, number)
    found = list(compile_all(sources([folder / "prompts"]), lm, folder / "compiled"))
    assert {entry.name for entry in found} == set(PROMPTS)
    return World(lm, folder / "model", Folder(folder / "compiled"), injections)


def _tuned(lm: CausalLM, method: str, options: dict[str, Any], out: Path, seed: int) -> Injection:
    """A prompt of random vectors, saved as an artifact; one for moods is a classifier."""
    built = methods.build(method, Setting(lm, ("default",)), {**options, "init": "vocab"})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    foreign.save(out, lm, method, options, built.state_dict(), ("default",), "a test")
    if "mood" in out.name:
        _as_classifier(out / "softprompt.json")
    with torch.no_grad():
        return built(torch.tensor([0]))


def _as_classifier(file: Path) -> None:
    manifest = json.loads(file.read_text())
    manifest["recipe"]["task"] = {"kind": "classification", "labels": LABELS}
    file.write_text(text_of({**manifest, "labels": LABELS}))


def _model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=128,
        num_hidden_layers=3,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[VOCAB - 1] = 0  # an end is never the likeliest: answers are as long as asked
    return model.eval()


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a printable character, and an end."""
    characters = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ"]
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<end>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>")
    tokenizer.chat_template = CHAT
    return tokenizer


@dataclass(frozen=True)
class Server:
    """A running vLLM."""

    url: str
    process: subprocess.Popen
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None and self.post("/health", None)[0] == 200

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON; a `body` of None is a GET."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                content = answer.read()
                return answer.status, json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")


@pytest.fixture(scope="session")
def start(tmp_path_factory) -> Iterator[Callable[..., Server]]:
    """`start(world, *flags)`: a server; all of them end with the session."""
    running: list[Server] = []

    def run(world: World, *flags: str) -> Server:
        server = _start(world, tmp_path_factory.mktemp("vllm") / "log.txt", flags)
        running.append(server)
        return server

    yield run
    for server in running:
        stop(server)


@pytest.fixture(scope="session")
def server(world, start) -> Server:
    return start(world)


def _start(world: World, log: Path, flags: tuple[str, ...]) -> Server:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    transfer = {
        "kv_connector": "PrefixConnector",
        "kv_connector_module_path": "softprompt_vllm.connector",
        "kv_role": "kv_consumer",
        "kv_connector_extra_config": {"folder": str(world.compiled.path), "max_bytes": 1 << 20},
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(world.model)]
    command += ["--served-model-name", "base", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "8"]
    command += ["--block-size", str(BLOCK), "--max-num-batched-tokens", "64", "--enable-prompt-embeds"]
    command += ["--max-logprobs", str(VOCAB), "--kv-transfer-config", json.dumps(transfer), *flags]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(CONNECTOR), os.environ.get("PYTHONPATH", "")]),
    }
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, cwd=log.parent, start_new_session=True
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            if server.post("/health", None)[0] == 200:
                return server
        time.sleep(0.5)
    stop(server)
    pytest.fail(f"vLLM did not start:\n{log.read_text()[-4000:]}", pytrace=False)


def stop(server: Server) -> None:
    """End a server and all its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGTERM)
    try:
        server.process.wait(20)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)


@pytest.fixture
def spoiled(world) -> Callable[..., str]:
    """`spoiled(content)`: the identifier of a file whose content is `content`, or is missing."""
    made: list[Path] = []

    def make(name: str, content: bytes) -> str:
        file = world.compiled.content(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        made.append(file)
        return name

    yield make
    for file in made:
        file.unlink()
