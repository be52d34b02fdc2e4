"""The values of metrics are compared with those of the libraries, called directly."""

from __future__ import annotations

import importlib.metadata
import math
import random

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, f1_score

from softprompt.errors import SoftPromptError
from softprompt.evaluation import metrics
from softprompt.evaluation.metric_intervals import compute
from softprompt.evaluation.metrics import METRICS, Inputs, default_metrics


def streams(references: list[list[str]]) -> list[list[str | None]]:
    most = max(map(len, references))
    return [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]


def test_bleu_and_chrf_are_sacrebleus(ragged):
    predictions, references = ragged
    scores = compute(["bleu", "chrf"], predictions, references, resamples=50)
    assert scores["bleu"].value == pytest.approx(
        sacrebleu.corpus_bleu(predictions, streams(references)).score
    )
    assert scores["chrf"].value == pytest.approx(
        sacrebleu.corpus_chrf(predictions, streams(references)).score
    )
    for score in scores.values():
        assert 0 < score.low < score.value < score.high < 100 and score.n == 40


def test_accuracy_and_macro_f1_are_scikit_learns():
    rng = random.Random(0)
    true = rng.choices(["a", "b", "c"], [6, 3, 1], k=200)
    predicted = [label if rng.random() < 0.7 else rng.choice(["a", "b", "d"]) for label in true]
    scores = compute(["accuracy", "macro_f1"], predicted, [[label] for label in true])
    assert scores["accuracy"].value == pytest.approx(accuracy_score(true, predicted))
    assert scores["macro_f1"].value == pytest.approx(
        f1_score(true, predicted, average="macro", zero_division=0)
    )


def test_exact_match_looks_past_case_and_spaces_and_at_every_reference():
    predictions = ["  The  Cat ", "a dog", "one"]
    references = [["the cat"], ["no", "A Dog"], ["two"]]
    assert compute(["exact_match"], predictions, references)["exact_match"].value == pytest.approx(2 / 3)
    assert compute(["accuracy"], predictions, references)["accuracy"].value == 0


def test_rouge_l_is_the_best_over_references_and_the_mean_over_examples(ragged):
    predictions, references = ragged
    scorer = RougeScorer(["rougeL"])
    best = [
        max(scorer.score(text, guess)["rougeL"].fmeasure for text in texts)
        for guess, texts in zip(predictions, references, strict=True)
    ]
    score = compute(["rouge_l"], predictions, references)["rouge_l"]
    assert score.value == pytest.approx(sum(best) / len(best))
    half = 1.96 * np.std(best) / math.sqrt(len(best))
    assert score.high - score.low == pytest.approx(2 * half, rel=0.15)


def test_perplexity_weighs_by_tokens():
    score = compute(["perplexity"], [], [], nll=[2.0, 12.0], tokens=[1, 9])["perplexity"]
    assert score.value == pytest.approx(math.exp(1.4))
    assert score.low == pytest.approx(math.exp(12 / 9)) and score.high == pytest.approx(math.exp(2.0))
    assert not METRICS["perplexity"].higher_is_better and METRICS["perplexity"].needs == "nll"
    assert compute(["perplexity"], [], [], nll=[1e6], tokens=[1])["perplexity"].value == math.inf


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.needs == "prediction"])
def test_empty_predictions_score_zero_and_perfect_ones_full(name, sentences):
    texts = sentences(20, 7)
    references = [[text] for text in texts]
    assert compute([name], [""] * 20, references, resamples=10)[name].value == 0
    full = 100 if name in ("bleu", "chrf") else 1
    assert compute([name], texts, references, resamples=10)[name].value == pytest.approx(full)


def test_every_task_has_default_metrics():
    for kind in ("generation", "classification", "choice", "token-classification", "regression"):
        assert default_metrics(kind) and set(default_metrics(kind)) <= set(METRICS)
    with pytest.raises(SoftPromptError, match="did you mean 'choice'"):
        default_metrics("choise")


def test_numbers_against_numpy():
    rng = np.random.default_rng(0)
    true = rng.normal(1e4, 1.0, 30)  # far from zero, where sums of squares lose their differences
    guessed = 1e4 + 0.5 * (true - 1e4) + rng.normal(0, 0.3, 30)
    texts = [[repr(float(x)) for x in part] for part in (guessed, true)]
    scores = compute(["mse", "pearson"], texts[0], [[text] for text in texts[1]], resamples=50)
    assert scores["mse"].value == pytest.approx(((guessed - true) ** 2).mean())
    assert scores["pearson"].value == pytest.approx(np.corrcoef(guessed, true)[0, 1])
    assert scores["pearson"].low < scores["pearson"].value < scores["pearson"].high
    assert not METRICS["mse"].higher_is_better
    constant = compute(["pearson"], ["2"] * 30, [[text] for text in texts[1]], resamples=5)
    assert constant["pearson"].value == 0
    with pytest.raises(SoftPromptError, match="needs numbers"):
        compute(["mse"], ["warm"], [["1"]])


def test_tags_count_by_words():
    guessed, true = ["O B O", "B", "O O"], ["O B B", "O", "O O"]
    flat = [[tag for text in part for tag in text.split()] for part in (guessed, true)]
    scores = compute(["tag_accuracy", "tag_macro_f1"], guessed, [[text] for text in true], resamples=20)
    assert scores["tag_accuracy"].value == pytest.approx(accuracy_score(flat[1], flat[0]))
    assert scores["tag_macro_f1"].value == pytest.approx(f1_score(flat[1], flat[0], average="macro"))
    assert scores["tag_accuracy"].n == 3
    short = compute(["tag_accuracy"], ["O"], [["O B B B"]], resamples=2)
    assert short["tag_accuracy"].value == 1 / 4  # a word without a tag is wrong


def test_a_metric_is_one_function_and_one_line_of_the_registry(monkeypatch):
    def lengths(inputs: Inputs) -> np.ndarray:
        return np.array([[len(text), 1] for text in inputs.predictions])

    monkeypatch.setitem(METRICS, "length", metrics.Metric(lengths, metrics.mean_score))
    assert compute(["length"], ["a", "bcd"], [["x"], ["y"]])["length"].value == 2


@pytest.mark.parametrize("kind", ["BLEU", "CHRF"])
def test_sacrebleus_private_functions_are_those_of_version_2(kind):
    assert importlib.metadata.version("sacrebleu").startswith("2.")
    statistics, score = metrics._sacrebleu(kind)
    rows = statistics(["the cat sat here", "a dog"], [["the cat sat", "a dog"], ["a cat", None]])
    assert len(rows) == 2 and all(isinstance(number, int) for row in rows for number in row)
    public = sacrebleu.corpus_bleu if kind == "BLEU" else sacrebleu.corpus_chrf
    expected = public(["the cat sat here", "a dog"], [["the cat sat", "a dog"], ["a cat", None]]).score
    assert score([sum(column) for column in zip(*rows, strict=True)]).score == pytest.approx(expected)
