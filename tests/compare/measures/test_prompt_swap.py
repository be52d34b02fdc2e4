"""Swapped prompts: two that force their answers, the same two exchanged, and likelihoods token by token."""

from __future__ import annotations

import math

import pytest
import torch

from softprompt import methods
from softprompt.compare.measures.outputs import likelihoods, under, written
from softprompt.compare.measures.prompt_swap import swap
from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.evaluation.likelihood import target_nll
from softprompt.evaluation.metric_intervals import share
from softprompt.lm.apply import injection_for
from softprompt.methods.materialised import Materialised, materialise
from softprompt.methods.side_by_side import SideBySide

NAMES = ("joke", "fact")


def exchanged(method) -> Materialised:
    return Materialised(materialise(method).prompts[::-1])


@pytest.mark.parametrize(("kind", "labels"), [("generation", None), ("classification", ["no", "yes"])])
@pytest.mark.parametrize("how", ["references", "likelihood"])
def test_prompts_that_force_an_answer_are_followed(forcing, evaluator, rows, kind, labels, how):
    judge = evaluator(kind, labels)
    found = swap(judge, forcing, judge.encoder.encode_rows(rows), NAMES, how)
    assert found.matrix == [[4, 0], [0, 4]] and found.undecided == [0, 0]
    assert found.followed.value == 1 and found.followed.n == 8
    assert (found.prompts, found.rule, found.inputs, found.left_out) == (NAMES, how, 4, 0)


@pytest.mark.parametrize(("kind", "labels"), [("generation", None), ("classification", ["no", "yes"])])
def test_prompts_in_each_others_places_follow_each_other(forcing, evaluator, rows, kind, labels):
    judge = evaluator(kind, labels)
    found = swap(judge, exchanged(forcing), judge.encoder.encode_rows(rows), NAMES)
    assert found.rule == "references"
    assert found.matrix == [[0, 4], [4, 0]] and found.followed.value == 0


def test_artifacts_side_by_side_are_swapped_like_prompts_of_one(forcing, evaluator, rows):
    judge = evaluator()
    first, second = ([prompt] for prompt in materialise(forcing).prompts)
    both = SideBySide([Materialised(first), Materialised(second)])
    assert swap(judge, both, judge.encoder.encode_rows(rows), NAMES).matrix == [[4, 0], [0, 4]]


def test_without_shared_inputs_the_likelihood_decides_token_by_token(
    llama, setting, perturb, evaluator, rows
):
    """Against log-probabilities summed over one model call a token, for prompts that nobody trained."""
    method = perturb(methods.build("prefix-tuning", setting(llama), {"length": 3}), 0.6)
    judge = evaluator()
    apart = judge.encoder.encode_rows([rows[0], rows[3], rows[4], rows[7]])
    found = swap(judge, method, apart, NAMES)
    assert found.rule == "likelihood" and found.inputs == 4
    expected = [[0, 0], [0, 0]]
    for example in apart:
        for given in (0, 1):
            (output,) = written(judge, method, under([example], given))
            scores = []
            for prompt in (0, 1):
                total = 0.0
                for n, token in enumerate(output):
                    one = batch_of_ids([example.input_ids], [[*output[:n], token]], [prompt])
                    with torch.no_grad():
                        logits = llama.logits(one, injection_for(llama, method, one))[0, -1].double()
                    total += (logits[token] - logits.logsumexp(0)).item()
                scores.append(total / len(output))
            expected[given][scores.index(max(scores))] += 1
            assert likelihoods(llama, method, under([example], given), [output]) == pytest.approx(
                [scores[given]], rel=1e-4
            )
    assert found.matrix == expected
    assert found.followed.value == (expected[0][0] + expected[1][1]) / 8


def test_of_labels_the_share_among_the_labels_decides(llama, setting, perturb, evaluator, rows):
    """A prompt that makes every label likelier than another does not thereby own their answers."""
    labels = ["no", "yes", "so"]
    judge = evaluator("classification", labels)
    method = perturb(methods.build("prefix-tuning", setting(llama), {"length": 3}), 0.6)
    apart = judge.encoder.encode_rows([rows[0], rows[3], rows[4], rows[7]])
    expected, by_raw = [[0, 0], [0, 0]], [[0, 0], [0, 0]]
    for example in apart:
        raw = []
        for prompt in (0, 1):
            scores = []
            for ids in example.candidates:
                one = batch_of_ids([example.input_ids], [ids], [prompt])
                with torch.no_grad():
                    logits = llama.logits(one, injection_for(llama, method, one))
                scores.append(-target_nll(logits, one).item())
            raw.append(scores)
        for given in (0, 1):
            label = raw[given].index(max(raw[given]))
            shares = [s[label] - math.log(sum(map(math.exp, s))) for s in raw]
            expected[given][shares[1] > shares[0]] += 1
            by_raw[given][raw[1][label] > raw[0][label]] += 1
    assert expected != by_raw  # or this would not tell the two apart
    assert swap(judge, method, apart, NAMES).matrix == expected


def test_equal_prompts_are_followed_by_nobody(forcing, evaluator, rows):
    judge, prompt = evaluator(), materialise(forcing).prompts[0]
    examples = judge.encoder.encode_rows(rows)
    found = swap(judge, Materialised([prompt, prompt]), examples, NAMES, "likelihood")
    assert found.undecided == [4, 4] and found.followed.value == 0


def test_inputs_whose_references_are_the_same_tell_nothing(forcing, evaluator, rows):
    judge = evaluator()
    same = [{**row, "target": "yes"} for row in rows[:2]]
    found = swap(judge, forcing, judge.encoder.encode_rows([*same, *rows[2:]]), NAMES)
    assert (found.rule, found.inputs, found.left_out) == ("references", 3, 1)
    with pytest.raises(SoftPromptError, match="under two prompts"):
        swap(judge, forcing, judge.encoder.encode_rows(same), NAMES, "references")


def test_outputs_end_with_the_end_token(forcing, evaluator, rows, llama):
    judge = evaluator()
    examples = judge.encoder.encode_rows(rows[:2])
    end = llama.tokenizer.eos_token_id
    assert written(judge, forcing, examples) == [example.target_ids for example in examples]
    assert all(example.target_ids[-1] == end for example in examples)


def test_one_prompt_cannot_be_swapped(llama, setting, evaluator, rows):
    judge = evaluator()
    alone = methods.build("prompt-tuning", setting(llama, prompts=("joke",), examples_by_prompt={}))
    with pytest.raises(SoftPromptError, match="cannot be swapped"):
        swap(judge, alone, judge.encoder.encode_rows(rows[:1]))


def test_shares_weigh_rows_by_what_they_count():
    found = share([1, 0, 3], [1, 1, 4])
    assert found.value == pytest.approx(4 / 6) and found.n == 6
    assert 0 <= found.low <= found.value <= found.high <= 1
    many = share([1.0, 0.0] * 200)
    # the normal interval of a share of one half over 400 rows
    assert (many.low, many.high) == pytest.approx((0.451, 0.549), abs=0.012)
