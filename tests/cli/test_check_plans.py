"""`check` says what the next slower plan would cost, what a faster one would need, and the precision."""

from __future__ import annotations

import pytest

PLANS = {  # overrides: the plan, the next slower one, and what a faster one needs
    (): ("cached-ram", "recompute", ""),
    ("cache=off",): ("recompute", "full", "train.cache=auto"),
    ("cache=disk",): ("cached-disk", "recompute", "train.cache=auto"),
    ("placement=before",): ("full", "full, with gradient checkpointing", "placement=after"),
    ("placement=before", "gradient_checkpointing=true"): ("full", None, "placement=after"),
    ("base=lora",): ("full", "full, with gradient checkpointing", "base=frozen"),
    ("method=generated-prompt", "source=hidden", "layer=1"): ("cached-ram", "recompute", ""),
}


@pytest.mark.parametrize("overrides", PLANS, ids=" ".join)
def test_next_slower_and_faster(run, recipe, tmp_path, overrides):
    mode, slower, faster = PLANS[overrides]
    more = [*overrides, f"cache_folder={tmp_path / 'kv'}"]
    found = run("check", recipe, *more, "--json").json
    price = found["price"]
    assert found["plan"]["mode"] == mode and not (tmp_path / "kv").exists()
    assert faster in price["faster"] and bool(price["faster"]) == bool(faster)
    output = run("check", recipe, *more)
    assert output.code == 0 and f"precision: float32, {found['precision']['why']}" in output.out
    assert bool(faster) == ("\n  faster: " in output.out)
    if slower is None:
        assert price["slower"] is None and "next slower plan" not in output.out
        return
    assert price["slower"]["name"] == slower and f"the next slower plan, {slower}: " in output.out
    assert price["slower"]["step_seconds"] > 0 and price["slower"]["memory_bytes"] > 0
    steps = price["steps"] * (price["slower"]["step_seconds"] - price["step_seconds"])
    same = price["seconds"] + steps
    if not mode.startswith("cached"):
        assert price["slower"]["seconds"] == pytest.approx(same)
        return
    # Nothing is kept: the training rows cost a part of each step, and the dev rows are read at each
    # evaluation.
    saved = same - price["cache_seconds"]
    assert saved < price["slower"]["seconds"] <= saved + price["cache_seconds"] * price["evaluations"]


def test_what_would_not_fit_is_not_tried(run, recipe, monkeypatch):
    monkeypatch.setattr("softprompt.training.estimate.free_memory", lambda device: -(10**12))
    price = run("check", recipe, "cache=off", "--json").json["price"]
    assert price["slower"]["step_seconds"] == 0 and "more than is free" in price["slower"]["note"]
    assert "not tried" in run("check", recipe, "cache=off").out


def test_measuring_the_slower_plan_leaves_checkpointing_as_it_was(recipe):
    from softprompt.config.load import load_recipe
    from softprompt.training.estimate import measure
    from softprompt.training.prepare import prepare

    for wish in ("auto", "true"):
        overrides = ["method.placement=before", f"train.gradient_checkpointing={wish}"]
        start = prepare(load_recipe(recipe, overrides, method_option_names=["placement"]))
        before = start.lm.checkpointed
        assert measure(start).step_seconds > 0 and start.lm.checkpointed == before


def test_features_are_shown(run, recipe):
    output = run("check", recipe, "method=generated-prefix", "source=hidden", "layer=2", "placement=before")
    assert "hidden states after layer 2: cached once in memory" in output.out and "plan: full" in output.out
