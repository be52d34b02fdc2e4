"""The embedded model in a stock llama.cpp: as float32 it answers as transformers does, as shipped alike."""

from __future__ import annotations

import pytest
import torch

import softprompt
from softprompt import methods
from softprompt.artifacts.interop import foreign, llama_cpp
from softprompt.artifacts.interop.kv_cache.compile import compile_artifact
from softprompt.artifacts.interop.llama_cpp import engine, state
from softprompt.data.collate import batch_of_ids
from softprompt.lm import smollm2 as embedded
from softprompt.methods.base import Setting

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.real
TEXT = "The capital of France is"


@pytest.fixture(scope="module")
def lm():
    return softprompt.load("smollm2", dtype="float32")


@pytest.fixture(scope="module")
def gguf32(tmp_path_factory):
    """The package's file with its weights as `softprompt` keeps them (bfloat16), written as F32."""
    import gguf
    import numpy as np

    source = gguf.GGUFReader(embedded.gguf_path())
    path = tmp_path_factory.mktemp("gguf") / "f32.gguf"
    writer = gguf.GGUFWriter(path, source.fields["general.architecture"].contents())
    for name, field in source.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.quantization_version"):
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, field.contents())
        else:
            writer.add_key_value(name, field.contents(), field.types[0])
    for tensor in source.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, torch.from_numpy(weights).bfloat16().float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def artifacts(lm, perturb, tmp_path_factory):
    """A soft prompt and a prefix, moved away from the text that they start as."""
    made = {}
    for method, size in (("prompt-tuning", 0.02), ("prefix-tuning", 0.1)):
        options = {"length": 9, "placement": "before"}
        setting = Setting(
            lm, ("default",), examples=(tuple(lm.text_ids("Once upon a time there was a fox.")),)
        )
        built = perturb(methods.build(method, setting, options), size)
        out = tmp_path_factory.mktemp(method) / "artifact"
        made[method] = foreign.save(out, lm, method, options, built.state_dict(), ("default",), "a test")
    return made


def expected(lm, artifact) -> torch.Tensor:
    batch = batch_of_ids([lm.text_ids(TEXT)], [[0]])
    return lm.logits(batch, artifact.method(lm)(torch.tensor([0])))[0, -1].log_softmax(-1)


def restored(gguf, folder, slot, cache_type: engine.CacheType, vocab: int) -> torch.Tensor:
    """Log-probabilities [vocab] of the next token, normalised again: the server sums 49,152 of them one after
    the other in single precision, which is off by 2e-4 for the plain model too."""
    server = engine.Engine(gguf, cache_type=cache_type).start(folder)
    address = server.listening_address
    engine.post(f"{address}/slots/0?action=restore", {"filename": slot.file})
    body = {"prompt": [*slot.tokens, TEXT], "n_predict": 1, "id_slot": 0, "n_probs": vocab, "temperature": 0}
    output = engine.post(f"{address}/completion", {**body, "cache_prompt": True})
    assert output["timings"]["cache_n"] == 9
    found = torch.full((vocab,), float("-inf"), dtype=torch.float64)
    for one in output["completion_probabilities"][0]["top_logprobs"]:
        found[one["id"]] = one["logprob"]
    assert found.isfinite().all()
    return found.log_softmax(-1).float()


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
def test_float32(method, lm, artifacts, gguf32, tmp_path):
    saved = engine.Engine(gguf32, cache_type="f32").saved_state()
    (slot,) = llama_cpp.export(artifacts[method], lm, saved, tmp_path)
    found = restored(gguf32, tmp_path, slot, "f32", lm.spec.vocab_size)
    wanted = expected(lm, artifacts[method])
    assert (found - wanted).abs().max() < 1e-4


def test_as_it_is_shipped(lm, artifacts, tmp_path):
    """Four-bit weights and a half-precision cache are used: key order and the likeliest token stay."""
    artifact = artifacts["prompt-tuning"]
    saved = engine.Engine(embedded.gguf_path()).saved_state()
    (slot,) = llama_cpp.export(artifact, lm, saved, tmp_path)
    found = restored(embedded.gguf_path(), tmp_path, slot, "f16", lm.spec.vocab_size)
    assert found.argmax() == expected(lm, artifact).argmax()
    rows = llama_cpp.filled(compile_artifact(artifact, lm), lm, state.read(saved), slot.tokens)
    assert len(rows.keys) == 30
