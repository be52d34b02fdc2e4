"""The short form of benchmarks.distill measures something, and fails where nothing is measured."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from benchmarks.distill import MEASURES, main
from benchmarks.distillation import wide
from benchmarks.distillation.beta_fits import budgets

from softprompt.data.collate import batch_of_ids
from softprompt.injection import Injection, LayerKV, Prefix


def test_every_short_form_gives_results(capsys):
    assert main(["--short"]) == 0
    out = capsys.readouterr().out
    assert "not measured" not in out
    assert all(f"## {name}" in out for name in MEASURES)
    assert out.count("| pirate | ") == 10  # three lengths, three shares of general text, four ways of a bias
    assert out.count("| 4 | kept | ") == out.count("| 4 | by head | ") == 2  # and over absorbed ones
    assert out.count("| short | 185 |") == 2  # two ratios
    assert out.count("demonstrations-short-") == 4  # two seeds, with and without the tricks
    assert len(re.findall(r"\| short \| \d\.\d{3} \| \d\.\d{3} \|", out)) == 1  # without and with it
    assert out.count("| support | ") == 5  # three starts, two of which are plain
    assert out.count("| embedded | ") == 2  # alone and under load
    assert out.count("| alone | ") == out.count("| together | ") == 2  # with one sink, and with all


def test_a_measure_that_fails_makes_the_call_fail(capsys):
    assert main(["system", "--short", "--lengths", "4", "--set", "lr=-1"]) == 1
    assert "not measured: system-pirate-4" in capsys.readouterr().out


def test_an_unknown_prompt_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["system", "--only", "pirat"])
    assert "it has pirate" in capsys.readouterr().err


def test_a_bias_of_ln_2_is_a_second_copy_of_a_column(llama):
    """And a hidden column is none. The columns of every layer and head have the same biases."""
    text = [5, 6, 7, 8]
    rows = batch_of_ids([(9, 10, 11), (12, 13)], [(14,), (15,)])

    def logits(layers):
        mask = torch.ones(1, layers[0].key.shape[2], dtype=torch.bool)
        return llama.logits(rows, Injection(kv_before=Prefix(layers, mask)))

    def picked(layers, columns):
        return tuple(kv.map(lambda t: t[:, :, columns]) for kv in layers)

    def biased(kv, biases):
        last = torch.tensor(biases)[None, None, :, None].expand(*kv.key.shape[:3], 1)
        return LayerKV(torch.cat([kv.key, last], dim=-1), kv.value)

    with torch.no_grad():
        layers = llama.kv_of(text)
        expected, plain = logits(picked(layers, [0, 1, 1, 3])), logits(layers)
        with wide.attention():
            result = logits(tuple(biased(kv, [0.0, math.log(2), wide.HIDDEN, 0.0]) for kv in layers))
            even = logits(tuple(biased(kv, [0.0] * 4) for kv in layers))
        after = logits(layers)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(even, plain, atol=1e-4, rtol=1e-4)
    assert torch.equal(after, plain)  # what was changed is put back


def test_budgets_are_the_best_of_all():
    """Of errors that fall ever more slowly, no other way to give out as many columns leaves a smaller sum."""
    sizes, scale = (2, 4, 8), {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 0.2, (1, 1): 10.0}
    errors = {head: {n: size / n for n in sizes} for head, size in scale.items()}
    given = budgets(errors, 4)
    heads = sorted(errors)
    result = [given[site][head] for site, head in heads]
    fitting = [c for c in itertools.product(sizes, repeat=4) if sum(c) <= 16]
    best = min(fitting, key=lambda c: sum(errors[h][n] for h, n in zip(heads, c, strict=True)))
    assert tuple(result) == best and len(set(best)) > 1
