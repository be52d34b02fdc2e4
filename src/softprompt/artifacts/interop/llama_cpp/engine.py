"""A llama.cpp engine that runs a GGUF file and saves a state, by xllamacpp, which contains its server."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...._system.files import check_pulled
from ....errors import SoftPromptError

CacheType = Literal["f32", "f16"]
TOKENS = 8
CONTEXT = 256  # tokens a slot: all that is done here is short


@dataclass(frozen=True, slots=True)
class Engine:
    """The settings of the engine that will restore the states.

    With an "f32" cache it computes in float32 throughout: flash attention would round to half precision.
    """

    gguf: Path
    cache_type: CacheType = "f16"
    slots: int = 1

    def saved_state(self) -> bytes:
        """Return the state of a few tokens in slot 0.

        Raises SoftPromptError where xllamacpp is missing or cannot run the file.
        """
        if not self.gguf.exists():
            raise SoftPromptError(f"no GGUF file at {self.gguf}", fix="check the path given as --gguf")
        check_pulled(self.gguf)
        with tempfile.TemporaryDirectory() as folder:
            server = self.start(Path(folder))
            address = server.listening_address
            ids = [3 + 2 * i for i in range(TOKENS)]
            post(f"{address}/completion", {"prompt": ids, "n_predict": 1, "id_slot": 0, "cache_prompt": True})
            post(f"{address}/slots/0?action=save", {"filename": "state.bin"})
            return (Path(folder) / "state.bin").read_bytes()

    def start(self, folder: Path, context: int = CONTEXT) -> Any:
        """Start the engine on a port of its own, with `context` tokens a slot; it ends with the object.

        It saves states to `folder` and restores them from there.
        """
        try:
            xllamacpp: Any = importlib.import_module("xllamacpp")  # compiled, unknown to type checkers
        except ImportError:
            raise SoftPromptError(
                "llama.cpp cannot be run here",
                why="the package xllamacpp is missing",
                fix="pip install xllamacpp, or give a state that your own engine saved: --state FILE",
            ) from None
        kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{self.cache_type.upper()}")
        params = xllamacpp.CommonParams()
        params.model.path = str(self.gguf)
        params.slot_save_path = f"{folder}/"
        params.cache_type_k = params.cache_type_v = kind
        params.n_parallel, params.n_ctx = self.slots, context * self.slots
        if self.cache_type == "f32":
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.port, params.warmup, params.verbosity = _free_port(), False, -1
        try:
            return xllamacpp.Server(params)
        except RuntimeError as error:
            raise SoftPromptError(
                f"llama.cpp cannot run {self.gguf}", why=str(error), fix="try the file with llama-server"
            ) from None


def version() -> str:
    """Return the installed version of xllamacpp."""
    return importlib.metadata.version("xllamacpp")


def post(url: str, body: dict[str, Any]) -> Any:
    """Send JSON, return JSON. Raises SoftPromptError with the server's own message."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        why = error.read().decode(errors="replace")
        raise SoftPromptError(f"llama.cpp refused {url}", why=why, fix="look at the engine's log") from None


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
