"""`softprompt models`, and the page that it writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers
from transformers.models.llama.modeling_llama import LlamaModel

from softprompt.cli.models import COLUMNS, page
from softprompt.lm.families import FAMILIES
from softprompt.lm.support_matrix import survey

pytestmark = pytest.mark.whole

PAGE = Path(__file__).parents[2] / "docs/models.md"


def test_the_page_is_current():
    """docs/models.md is what `softprompt models --markdown` writes today, on the pinned transformers."""
    pins = (PAGE.parents[1] / "constraints.txt").read_text()
    pinned = re.search(r"^transformers==(\d+\.\d+)", pins, re.MULTILINE)
    assert pinned and f"with transformers {pinned[1]};" in PAGE.read_text(encoding="utf-8")
    if not transformers.__version__.startswith(f"{pinned[1]}."):
        pytest.skip(f"the page is of transformers {pinned[1]}; {transformers.__version__} is installed")
    assert page([survey(family) for family in FAMILIES]).strip() == PAGE.read_text(encoding="utf-8").strip()


def test_how_rows_are_run(run):
    output = run("models", "llama", "rwkv")
    llama, rwkv = (line for line in output.out.splitlines() if line.startswith(("  llama", "  rwkv")))
    assert "any batch" in llama and "of one length" in rwkv


@pytest.mark.parametrize("part", ["building", "loading"])
def test_a_family_that_cannot_be_built_does_not_end_the_survey(run, monkeypatch, part):
    def broken(*args, **named):
        raise TypeError("no such size")

    if part == "building":
        monkeypatch.setattr(LlamaModel, "__init__", broken)
    else:
        monkeypatch.setattr(LlamaModel, "forward", broken)
    output = run("models", "llama", "gpt2")
    assert output.code == 0 and "TypeError: no such size" in output.out and "exact" in output.out
    llama, gpt2 = run("models", "llama", "gpt2", "--json").json["models"]
    assert "no such size" in llama["failed"] and llama["batching"] is None and not llama["results"]
    assert gpt2["failed"] == "" and gpt2["batching"] == "any"


def test_families_by_name(run):
    result = run("models", "llama", "mamba", "--json")
    llama, mamba = result.json["models"]
    assert set(llama["results"]) <= set(COLUMNS) and not any(llama["results"].values())
    assert "attention interface" in mamba["results"]["prefix before"] and not mamba["results"]["soft after"]
    wrong = run("models", "llamma")
    assert wrong.code == 1 and "'llama'" in wrong.err


def test_a_model_of_ones_own(run, model_folder):
    report = run("models", "--model", str(model_folder), "--json").json["models"][0]
    assert report["family"] == "llama" and not any(report["results"].values())
