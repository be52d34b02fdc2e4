"""What `export` writes is restored by a stock llama.cpp, which then answers as transformers does."""

from __future__ import annotations

import json
import struct

import pytest
import torch

from softprompt.artifacts.interop import llama_cpp
from softprompt.artifacts.interop.kv_cache.compile import compile_artifact
from softprompt.artifacts.interop.llama_cpp import effect, engine, layout, state
from softprompt.errors import SoftPromptError

from ...conftest import tiny_model
from .conftest import ROWS

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

from . import gguf_file


@pytest.fixture(scope="module")
def ggufs(tmp_path_factory):
    """The models of `lms` as F32 GGUF files."""
    folder = tmp_path_factory.mktemp("gguf")
    return {name: gguf_file.write(tiny_model(name), folder / f"{name}.gguf") for name in ("llama", "qwen3")}


def answers(address: str, slot: int, tokens, row: list[int], cached: int) -> dict[int, float]:
    """Log-probabilities of the engine's 20 likeliest next tokens; `cached` tokens were there before."""
    body = {"prompt": [*tokens, *row], "n_predict": 1, "id_slot": slot, "n_probs": 20, "temperature": 0}
    output = engine.post(f"{address}/completion", {**body, "cache_prompt": True})
    assert output["timings"]["cache_n"] >= cached
    top = output["completion_probabilities"][0]["top_logprobs"]
    return {one["id"]: one["logprob"] for one in top}


def agree(found: dict[int, float], expected: torch.Tensor, limit: float) -> None:
    """`expected`: logits of the next token."""
    wanted = expected.log_softmax(-1)
    assert len(found) == 20
    assert max(abs(logprob - wanted[i].item()) for i, logprob in found.items()) < limit


@pytest.mark.parametrize("family", ["llama", "qwen3"])  # keys in neighbours, and in halves
@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
def test_a_slot_a_prompt(family, method, lms, ggufs, artifact_of, our_logits, tmp_path):
    lm, names = lms(family), ("joke", "fact")
    artifact = artifact_of(lm, method, names, length=5, placement="before")
    saved = engine.Engine(ggufs[family], cache_type="f32", slots=2).saved_state()
    slots = llama_cpp.export(artifact, lm, saved, tmp_path / "slots")
    assert [slot.prompt for slot in slots] == list(names)
    assert not set(slots[0].tokens) <= set(slots[1].tokens)
    server = engine.Engine(ggufs[family], cache_type="f32", slots=2).start(tmp_path / "slots")
    for number, slot in enumerate(slots):
        url = f"{server.listening_address}/slots/{number}?action=restore"
        assert engine.post(url, {"filename": slot.file})["n_restored"] == 5
    for number in (0, 1, 0):  # the second time the slot holds another row's text after the prompt
        for row, logits in zip(ROWS, our_logits(lm, artifact, number), strict=True):
            found = answers(server.listening_address, number, slots[number].tokens, row, cached=5)
            agree(found, logits[-1], 1e-4)


def test_half_precision_and_one_slot(lms, ggufs, artifact_of, our_logits, tmp_path):
    lm = lms("llama")
    artifact = artifact_of(lm, "prefix-tuning", length=5, placement="before")
    saved = engine.Engine(ggufs["llama"]).saved_state()
    assert {columns.type for columns in state.read(saved).keys} == {1}  # F16
    (slot,) = llama_cpp.export(artifact, lm, saved, tmp_path / "slots")
    server = engine.Engine(ggufs["llama"]).start(tmp_path / "slots")
    engine.post(f"{server.listening_address}/slots/0?action=restore", {"filename": slot.file})
    agree(
        answers(server.listening_address, 0, slot.tokens, ROWS[0], cached=5),
        our_logits(lm, artifact)[0][-1],
        1e-2,
    )
    facts = json.loads((tmp_path / "slots/slots.json").read_text())
    assert facts["slots"][0]["tokens"] == list(slot.tokens) and facts["template"]["input"] == "{{ input }}"
    with pytest.raises(SoftPromptError, match="already holds an export"):
        llama_cpp.export(artifact, lm, saved, tmp_path / "slots")


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("kind", ["f16", "f32"])
def test_what_is_read_is_written(ggufs, slots, kind):
    saved = engine.Engine(ggufs["llama"], cache_type=kind, slots=slots).saved_state()
    found = state.read(saved)
    assert state.write(found) == saved and found.streams == slots and len(found.keys) == 3
    assert found.tokens == tuple(3 + 2 * i for i in range(engine.TOKENS))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("version", "flags"), [(3, ()), (4, (0, 0)), (9, (0,))])
def test_other_versions_and_layouts(version, flags, wrapped, transposed):
    """Written word by word as the documented layout says; V by rows or transposed."""
    tokens = (7, 8, 9)
    head = (0xFFFFFFFF, 1, 3, *tokens, 0) if wrapped else tokens
    words = [version, len(head), *head, 2, 0, 3]
    for position in range(3):
        words += [position, 1, 5]
    content = b"qsgg" + struct.pack(f"<{len(words)}I", *words)
    content += struct.pack(f"<{2 + len(flags)}I", int(transposed), 1, *flags)
    keys = [float(i) for i in range(12)]
    content += struct.pack("<IQ12f", 0, 16, *keys)
    content += struct.pack("<III12f", 0, 4, 4, *keys) if transposed else struct.pack("<IQ12f", 0, 16, *keys)
    found = state.read(content)
    assert (found.version, found.tokens, found.flags, found.stream) == (version, tokens, flags, 1)
    assert found.key_rows(0).tolist() == [keys[:4], keys[4:8], keys[8:]]
    rows = [found.key_rows(0)[:2]]
    smaller = state.read(state.write(found.with_cells((1, 2), rows, rows)))
    assert smaller.tokens == (1, 2) and smaller.key_rows(0).tolist() == [keys[:4], keys[4:8]]
    if transposed:  # one row for each number of V, of both cells
        numbers = smaller.values[0].data.view("float32").tolist()
        assert numbers == [[keys[i], keys[4 + i]] for i in range(4)]


def test_what_is_not_understood_is_refused(ggufs, lms, new_lm, artifact_of, tmp_path):
    saved = engine.Engine(ggufs["llama"], cache_type="f32").saved_state()
    for damaged in (saved + b"\0\0\0\0", saved[:-4], saved[:60]):
        with pytest.raises(SoftPromptError, match="is not known"):
            state.read(damaged)
    with pytest.raises(SoftPromptError, match="this is not a state of"):
        state.read(b"PK" + saved)
    rotated = state.write(state.replace(state.read(saved), flags=(1, 0)))
    with pytest.raises(SoftPromptError, match="rotates the keys"):
        state.read(rotated)
    artifact = artifact_of(lms("llama"), "prompt-tuning", length=5, placement="before")
    compiled = compile_artifact(artifact, lms("llama"))
    for other in (lms("qwen3"), new_lm("llama", seed=9), new_lm("llama", num_hidden_layers=2)):
        with pytest.raises(SoftPromptError, match="not saved by an engine that runs"):
            llama_cpp.filled(compiled, other, state.read(saved), (1,) * 5)
    with pytest.raises(SoftPromptError, match="no GGUF file"):
        engine.Engine(tmp_path / "no.gguf").saved_state()


def test_the_order_of_a_key_is_measured(ggufs, lms):
    for family, order in (("llama", layout.neighbours), ("qwen3", layout.halves)):
        saved = state.read(engine.Engine(ggufs[family]).saved_state())
        assert layout.measure(lms(family), saved) is order
    key = torch.arange(8.0).reshape(1, 1, 8)
    assert layout.neighbours(key).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_placeholders_are_of_their_content():
    one, other = (llama_cpp.placeholders(content, 40, 100, [0, 1]) for content in (b"a", b"b"))
    assert one == llama_cpp.placeholders(b"a", 40, 100, [0, 1]) != other
    assert len(one) == 40 and min(one) > 1 and max(one) < 100 and len(set(one)) > 20


def test_placement_after_is_refused(lms, ggufs, artifact_of, tmp_path):
    lm = lms("llama")
    artifact = artifact_of(lm, "prefix-tuning", length=3, placement="after")
    with pytest.raises(SoftPromptError, match="after the input"):
        llama_cpp.export(artifact, lm, b"", tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("cache_type", ["f16", "f32"])
def test_a_state_is_tried_before_it_is_written(family, cache_type, lms, ggufs, artifact_of, tmp_path):
    artifact = artifact_of(lms(family), "prompt-tuning", ("a", "b"), length=5, placement="before")
    ran = engine.Engine(ggufs[family], cache_type, 2)
    slots = llama_cpp.export(artifact, lms(family), ran.saved_state(), tmp_path / "slots", engine=ran)
    assert [slot.prompt for slot in slots] == ["a", "b"]


def test_a_state_that_is_longer_than_the_layouts_slot(new_lm, artifact_of, tmp_path):
    lm = new_lm("llama", max_position_embeddings=1024)
    ran = engine.Engine(
        gguf_file.write(tiny_model("llama", max_position_embeddings=1024), tmp_path / "a.gguf")
    )
    artifact = artifact_of(lm, "prefix-tuning", length=300, placement="before")
    (slot,) = llama_cpp.export(artifact, lm, ran.saved_state(), tmp_path / "slots", engine=ran)
    assert len(slot.tokens) == 300 > engine.CONTEXT


@pytest.mark.parametrize(
    ("false_reports", "words"),
    [
        (("restore",), "restored 5 of 5 tokens, and the next request continued from 0"),
        (("restore", "count"), "its keys differ from those of the file"),
        (("restore", "count", "keys"), "answers as if the placeholder tokens were text"),
        (("fewer",), "restored 3 of 5 tokens"),
    ],
)
def test_an_engine_that_restores_nothing_is_found_out(
    false_reports, words, lms, ggufs, artifact_of, monkeypatch, tmp_path
):
    """The real engine, whose answers are changed: it restores nothing, and reports that it did."""

    def post(url, body):
        if "action=restore" in url and "restore" in false_reports:
            return {"n_restored": 5}
        output = engine.post(url, body)
        if "action=restore" in url and "fewer" in false_reports:
            output["n_restored"] = 3
        if "count" in false_reports and "timings" in output:
            output["timings"]["cache_n"] = 5
        return output

    monkeypatch.setattr(effect, "post", post)
    if "keys" in false_reports:
        monkeypatch.setattr(effect, "_holds", lambda *_: True)
    artifact = artifact_of(lms("llama"), "prefix-tuning", length=5, placement="before")
    ran = engine.Engine(ggufs["llama"], "f32")
    with pytest.raises(SoftPromptError, match="does not restore the state of 'default'") as error:
        llama_cpp.export(artifact, lms("llama"), ran.saved_state(), tmp_path / "slots", engine=ran)
    assert words in error.value.why and "xllamacpp 2026" in error.value.fix
    assert not (tmp_path / "slots").exists()
