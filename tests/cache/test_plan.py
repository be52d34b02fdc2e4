"""The plan: decided by what is injected and not by a method's name; never more memory than the budget."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch

from softprompt.cache import KeyValues, memory_store, planning
from softprompt.cache.folders import CacheFolder
from softprompt.cache.planning import decide, with_checkpointing
from softprompt.injection import Injection, Prefix, SoftTokens
from softprompt.lm import finetune
from softprompt.methods.base import Reads

LENGTHS = (5, 1, 9, 3, 9, 2)


@pytest.fixture(scope="module")
def examples():
    rows = []
    for index, length in enumerate(LENGTHS):
        ids = tuple(range(10 + index, 10 + index + length))
        rendered = SimpleNamespace(input="")
        encoded = {"input_ids": ids, "target_ids": (1, 2), "places": (), "value": None}
        encoded |= {"answers": ((1, 2),), "answer_tokens": 2}
        rows.append(SimpleNamespace(**encoded, prompt=0, rendered=rendered))
    return rows


def parts(lm):
    soft = SoftTokens(torch.zeros(1, 4, 32), torch.ones(1, 4, dtype=torch.bool))
    kv = Prefix(lm.kv_of([1, 2, 3]), torch.ones(1, 3, dtype=torch.bool))
    return {"before": soft, "after": soft, "kv_before": kv, "kv_after": kv, "adapter": kv}


@pytest.mark.parametrize(
    ("channels", "mode"),
    [
        ([], "cached-ram"),
        (["after"], "cached-ram"),
        (["kv_after"], "cached-ram"),
        (["after", "kv_after"], "cached-ram"),
        (["before"], "full"),
        (["kv_before"], "full"),
        (["adapter"], "full"),
        (["after", "kv_before"], "full"),
    ],
)
def test_mode_follows_the_injection(llama, examples, channels, mode):
    found = parts(llama)
    injection = Injection(**{name: found[name] for name in channels})
    chosen = decide(llama, injection, examples, 2, budget_bytes=10**9)
    assert chosen.mode == mode
    if mode == "full":
        assert all((name in chosen.reason) == (name != "after") for name in channels)
    assert f"plan: {mode}" in str(chosen) and chosen.reason in str(chosen)


def test_no_method_is_named():
    source = inspect.getsource(planning)
    from softprompt.methods import METHODS

    assert not [name for name in METHODS if name != "none" and name in source]


def test_numbers(llama, examples):
    inputs = sum(LENGTHS) - len(LENGTHS)  # the last token of each belongs to the tail
    soft = Injection(after=parts(llama)["after"])
    chosen = decide(llama, soft, examples, 2, budget_bytes=10**9)
    assert chosen.prefill_tokens == inputs
    assert chosen.cache_bytes == inputs * llama.spec.kv_numbers_per_token * 4  # float32
    assert chosen.step_tokens == 2 * (2 + 4)  # per row two targets and four soft tokens
    whole = decide(llama, Injection(before=parts(llama)["before"]), examples, 2, budget_bytes=10**9)
    assert whole.step_tokens == round(2 * (inputs / 6 + 2 + 4)) and whole.prefill_tokens == 0


def test_budget_and_switches(llama, examples):
    injection = Injection(after=parts(llama)["after"])
    needed = decide(llama, injection, examples, 2).cache_bytes
    assert decide(llama, injection, examples, 2, budget_bytes=needed).mode == "cached-ram"
    short = decide(llama, injection, examples, 2, budget_bytes=needed - 1, cache="ram")
    assert short.mode == "recompute" and "more than the budget" in short.reason
    assert decide(llama, injection, examples, 2, cache="off").mode == "recompute"
    assert memory_store.default_budget() > 0


def test_a_trained_base_makes_nothing_constant(new_lm, examples):
    lm = new_lm("llama")
    finetune.unfreeze(lm, "full")
    chosen = decide(lm, Injection(after=parts(lm)["after"]), examples, 2, budget_bytes=10**9)
    assert chosen.mode == "full" and "trained too" in chosen.reason


def test_what_does_not_fit_in_memory_is_kept_on_disk(llama, examples, tmp_path):
    injection = Injection(after=parts(llama)["after"])
    needed = decide(llama, injection, examples, 2).cache_bytes
    here = {"place": CacheFolder(tmp_path / "kv", limit=needed), "budget_bytes": needed - 1}
    chosen = decide(llama, injection, examples, 2, **here)
    assert chosen.mode == "cached-disk" and chosen.is_cached and not chosen.stored
    assert chosen.cache_bytes == needed and chosen.disk_bytes == needed
    assert chosen.folder is not None and chosen.folder in str(chosen) and str(tmp_path) in chosen.folder
    assert not (tmp_path / "kv").exists()  # deciding writes nothing
    asked = decide(llama, injection, examples, 2, cache="disk", place=here["place"], budget_bytes=10**9)
    assert (
        asked.mode == "cached-disk" and asked.folder == chosen.folder and "train.cache=disk" in asked.reason
    )
    tight = {"place": CacheFolder(tmp_path / "kv", limit=needed - 1), "budget_bytes": needed - 1}
    for wish, both in (("auto", True), ("disk", False)):
        refused = decide(llama, injection, examples, 2, cache=wish, **tight)
        assert refused.mode == "recompute" and "budget of the disk" in refused.reason
        assert ("or of memory" in refused.reason) == both and refused.folder is None


def test_an_input_that_occurs_twice_is_kept_once_on_disk(llama, examples, tmp_path):
    injection = Injection(after=parts(llama)["after"])
    once, twice = (
        decide(llama, injection, rows, 2, cache="disk", place=CacheFolder(tmp_path))
        for rows in (examples, [*examples, *examples[::-1]])
    )
    assert twice.cache_bytes == once.cache_bytes and twice.folder == once.folder


def test_int8_takes_a_byte_a_number_and_a_scale_a_channel(llama, examples):
    injection = Injection(after=parts(llama)["after"])
    chosen = decide(llama, injection, examples, 2, form="int8", budget_bytes=10**9)
    numbers = llama.spec.kv_numbers_per_token
    assert chosen.cache_bytes == (sum(LENGTHS) - len(LENGTHS)) * numbers + len(LENGTHS) * numbers * 4


def test_a_cache_that_an_earlier_run_left_is_said(llama, examples, tmp_path):
    from softprompt.cache import disk_store

    injection, place = Injection(after=parts(llama)["after"]), CacheFolder(tmp_path)
    disk_store.open_or_build(place, KeyValues(llama), examples)
    chosen = decide(llama, injection, examples, 2, cache="disk", place=place)
    assert chosen.stored and "cached already" in str(chosen)


def test_an_input_that_occurs_twice_counts_once_in_memory_too(llama, examples):
    injection = Injection(after=parts(llama)["after"])
    once, twice = (decide(llama, injection, rows, 2, budget_bytes=10**9) for rows in (examples, examples * 2))
    assert twice.cache_bytes == once.cache_bytes and twice.prefill_tokens == once.prefill_tokens


HIDDEN = Reads("hidden", layer=2)


@pytest.mark.parametrize("channel", ["before", "after"])
def test_what_a_prompt_reads_is_kept_wherever_it_stands(llama, examples, channel):
    injection = Injection(**{channel: parts(llama)[channel]})
    chosen = decide(llama, injection, examples, 2, reads=HIDDEN, budget_bytes=10**9)
    assert chosen.mode == ("full" if channel == "before" else "cached-ram")
    kept = chosen.features
    assert kept is not None and kept.where == "ram" and kept.tokens == sum(LENGTHS)
    assert kept.bytes == sum(LENGTHS) * 32 * 4 and "hidden states after layer 2" in str(chosen)
    assert chosen.ram_bytes == kept.bytes + (chosen.cache_bytes if chosen.is_cached else 0)
    assert decide(llama, injection, examples, 2, reads=Reads("embeddings")).features is None
    off = decide(llama, injection, examples, 2, reads=HIDDEN, cache="off").features
    assert off is not None and off.where == "nowhere" and "train.cache=off" in str(off)


def test_both_share_the_budgets(llama, examples, tmp_path):
    """What is read comes first; keys and values get what is left."""
    injection = Injection(after=parts(llama)["after"])
    whole = decide(llama, injection, examples, 2, reads=HIDDEN, budget_bytes=10**9)
    both = whole.ram_bytes
    assert decide(llama, injection, examples, 2, reads=HIDDEN, budget_bytes=both).mode == "cached-ram"
    short = decide(llama, injection, examples, 2, reads=HIDDEN, budget_bytes=both - 1, cache="ram")
    assert short.mode == "recompute" and short.features is not None and short.features.where == "ram"
    for limit, mode in ((both, "cached-disk"), (both - 1, "recompute")):
        place = CacheFolder(tmp_path, limit=limit)
        chosen = decide(llama, injection, examples, 2, reads=HIDDEN, cache="disk", place=place)
        assert chosen.mode == mode and chosen.features is not None and chosen.features.where == "disk"
        assert chosen.features.folder != chosen.folder


def test_a_trained_base_makes_no_hidden_state_constant(new_lm, examples):
    lm = new_lm("llama")
    finetune.unfreeze(lm, "full")
    assert decide(lm, Injection(after=parts(lm)["after"]), examples, 2, reads=HIDDEN).features is None


def test_checkpointing_where_memory_is_short(llama, examples):
    plan = decide(llama, Injection(after=parts(llama)["after"]), examples, 2, budget_bytes=10**9)
    step, free = 10**6, int((10**6 + plan.cache_bytes) / 0.8) + 2
    roomy = with_checkpointing(plan, "auto", step, free)
    assert not roomy.checkpointing and "less than 80%" in roomy.checkpointing_reason
    short = with_checkpointing(plan, "auto", step, free - 4)
    assert short.checkpointing and "gradient checkpointing: on" in str(short) and "1 MB" in str(short)
    impossible = with_checkpointing(plan, "auto", step, free - 4, possible=False)
    assert not impossible.checkpointing and "none for this family" in str(impossible)
    for wish in (True, False):
        assert with_checkpointing(plan, wish, 0, 1).checkpointing == wish
    assert "checkpointing" not in str(with_checkpointing(plan, "auto", 0, 1))  # nothing is trained
