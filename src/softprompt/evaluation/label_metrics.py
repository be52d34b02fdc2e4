"""The statistics and scores of labels, tags and numbers are computed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softprompt.errors import SoftPromptError
from softprompt.evaluation.metric import Inputs, with_ones

if TYPE_CHECKING:
    import numpy as np


def accuracy_stats(inputs: Inputs) -> np.ndarray:
    pairs = zip(inputs.predictions, inputs.references, strict=True)
    return with_ones([text.strip() in {ref.strip() for ref in refs} for text, refs in pairs])


def f1_stats(inputs: Inputs) -> np.ndarray:
    """Return `[n, 3 * labels]`: right, predicted, true. Of several references, the predicted one counts."""
    predicted = [text.strip() for text in inputs.predictions]
    true = []
    for text, refs in zip(predicted, inputs.references, strict=True):
        stripped = [ref.strip() for ref in refs]
        true.append(text if text in stripped else stripped[0])
    return label_counts([[text] for text in predicted], [[text] for text in true])


def label_counts(predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> np.ndarray:
    """Return `[n, 3 * labels]` for n rows of labels: how often each is right, predicted, true."""
    import numpy as np

    names = {label for rows in (predicted, true) for row in rows for label in row}
    labels = {label: i for i, label in enumerate(sorted(names))}
    stats = np.zeros((len(true), 3, len(labels)))
    for i, (guesses, truths) in enumerate(zip(predicted, true, strict=True)):
        for guess, truth in zip(guesses, truths, strict=True):
            stats[i, 0, labels[truth]] += guess == truth
            stats[i, 1, labels[guess]] += 1
            stats[i, 2, labels[truth]] += 1
    return stats.reshape(len(true), -1)


def f1_score(sums: np.ndarray) -> float:
    """Return the mean F1 of the labels that occur, as scikit-learn's `f1_score(average="macro")` does."""
    right, predicted, true = sums.reshape(3, -1)
    occurs = predicted + true > 0
    return float((2 * right[occurs] / (predicted + true)[occurs]).mean())


def tags_of(inputs: Inputs) -> tuple[list[list[str]], list[list[str]]]:
    """Return the predicted and the true tags of each row; its texts have spaces between them."""
    true = [refs[0].split() for refs in inputs.references]
    guesses = (text.split() for text in inputs.predictions)
    # a word without a predicted tag counts as wrong, a tag without a word not at all
    return [[*row, *[""] * len(tags)][: len(tags)] for row, tags in zip(guesses, true, strict=True)], true


def tag_accuracy_stats(inputs: Inputs) -> np.ndarray:
    """Return `[n, 2]`: right tags and all tags, so that a row counts by its words."""
    import numpy as np

    pairs = list(zip(*tags_of(inputs), strict=True))
    right = [sum(map(str.__eq__, guesses, truths)) for guesses, truths in pairs]
    return np.array([right, [len(truths) for _, truths in pairs]], dtype=np.float64).T


def numbers_of(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    try:
        true = [float(refs[0]) for refs in inputs.references]
        return np.array([float(text) for text in inputs.predictions]), np.array(true)
    except ValueError as error:
        raise SoftPromptError(
            f"this metric needs numbers: {error}", fix="change task.metrics, or set task.kind=regression"
        ) from None


def mse_stats(inputs: Inputs) -> np.ndarray:
    predicted, true = numbers_of(inputs)
    return with_ones(((predicted - true) ** 2).tolist())


def pearson_stats(inputs: Inputs) -> np.ndarray:
    """Return `[n, 6]`: 1, x, y, x², y², xy of the predicted number x and the true number y."""
    import numpy as np

    x, y = numbers_of(inputs)
    # Subtracting the true mean changes no correlation, and keeps the differences of large numbers.
    x, y = x - y.mean(), y - y.mean()
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)


def pearson_score(sums: np.ndarray) -> float:
    """Return the correlation; 0 where one side never changes."""
    n, x, y, xx, yy, xy = sums
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    if spread_x <= 1e-12 * n * xx or spread_y <= 1e-12 * n * yy:
        return 0.0
    return float((n * xy - x * y) / (spread_x * spread_y) ** 0.5)
