"""The checks of all families pass on a sound model, and find a fault that is put into one."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("benchmarks.families")

from benchmarks.families import checks, small
from benchmarks.families.__main__ import _results, summary

pytestmark = pytest.mark.whole


@pytest.mark.parametrize(
    "case",
    [
        *("causal:llama", "seq2seq:t5", "encoder:bert"),
        "causal:ctrl",  # changes its embeddings in place
        "causal:got_ocr2",  # its parts have other attention implementations
        "causal:gemma4_unified",  # its masks read a table of the columns of the call
    ],
)
def test_sound_models(case):
    if case not in small.cases():
        pytest.skip(f"this transformers has no {case.split(':')[1]}")
    found = list(checks.run(case.split(":")[0], small.build(case)))
    assert summary(found) in ("exact", "exact or refused"), found
    assert {r.check for r in found} == {n for n in checks.CHECKS if checks.applies(n, case.split(":")[0])}


def test_a_fault_is_found():
    """The model adds the mean of the batch, padding included, to each row."""
    model: Any = small.build("causal:llama")
    layer = model.model.layers[1].mlp
    plain = layer.forward
    layer.forward = lambda x: plain(x) + x.mean((0, 1))
    found = {r.check: r.verdict for r in checks.run("causal", model)}
    assert "wrong" in found.values() or set(found.values()) == {"refused"}


@pytest.mark.parametrize(
    ("case", "verdict"),
    [("encoder:bart", "another case"), ("seq2seq:qwen2_audio", "refused"), ("causal:musicgen", "refused")],
)
def test_a_case_is_loaded_as_softprompt_load_would(case, verdict):
    """A class of transformers that `softprompt.load` would not request is not measured as if it were."""
    assert summary(list(_results(case))) == verdict


def test_every_family_has_a_name():
    """All families of transformers are listed: none is left out by hand."""
    names = list(small.cases())
    assert {"causal:llama4_text", "seq2seq:led", "encoder:fnet"} <= set(names) and len(names) > 200
