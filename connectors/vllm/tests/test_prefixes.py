"""What of a folder is loaded, kept and refused; no engine is needed."""

from __future__ import annotations

import hashlib
import json

import pytest
import safetensors.torch
import torch
from softprompt_vllm.prefixes import BrokenPrefix, Prefixes

SIZE = 2 * 2 * 5 * 3 * 4 * 4  # bytes: keys and values, two layers, five vectors, three heads of four floats


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.json").write_text(json.dumps({"layers": [[3, 4], [3, 4]]}))
    return tmp_path


def put(folder, seed=0, **changes) -> str:
    torch.manual_seed(seed)
    tensors = {f"{part}.{i}": torch.randn(5, 3, 4) for i in range(2) for part in "kv"} | changes
    content = safetensors.torch.save(tensors)
    name = hashlib.sha256(content).hexdigest()
    file = folder / "kv" / name[:2] / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return name


def test_the_last_used_are_kept(folder):
    names = [put(folder, seed) for seed in range(3)]
    prefixes = Prefixes(folder, max_bytes=2 * SIZE)
    first = prefixes.get(names[0])
    prefixes.get(names[1])
    assert prefixes.get(names[0]) is first and prefixes.bytes == 2 * SIZE
    prefixes.get(names[2])  # the second goes
    assert prefixes.bytes == 2 * SIZE and prefixes.get(names[0]) is first
    assert Prefixes(folder, max_bytes=1).get(names[0])[0][0].shape == (5, 3, 4)  # one is always kept


def test_kept_in_the_models_precision(folder):
    large = torch.full((5, 3, 4), 1e5)  # more than half precision holds
    name = put(folder, **{"v.1": large})
    assert Prefixes(folder).get(name)[1][1].dtype == torch.float32
    assert Prefixes(folder, dtype=torch.bfloat16).get(name)[1][1].dtype == torch.bfloat16
    with pytest.raises(BrokenPrefix, match="layer 1 has numbers that are not finite"):
        Prefixes(folder, dtype=torch.float16).get(name)


@pytest.mark.parametrize("name", ["", "../base", "A" * 64, "0" * 63, "0" * 64 + "\n", "0" * 64])
def test_names_that_lead_nowhere(folder, name):
    with pytest.raises(BrokenPrefix):
        Prefixes(folder).get(name)


@pytest.mark.parametrize("wrong", [{"k.1": torch.ones(4, 3, 4)}, {"k.2": torch.ones(5, 3, 4)}])
def test_other_shapes(folder, wrong):
    with pytest.raises(BrokenPrefix):
        Prefixes(folder).get(put(folder, **wrong))
