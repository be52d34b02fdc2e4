"""An objective is a function of model, method and batch that returns losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..config.sections.task import TaskConfig
from ..data.collate import Batch
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.context import Context
from ..lm.contrastive import comparisons, ranking_losses, unit
from ..lm.divergence import divergence
from ..methods.base import SoftPrompt
from .cross_entropy import cross_entropy


@dataclass(frozen=True, slots=True)
class Losses:
    """A batch has one loss for each token, label or number that is predicted, or for each pair of answers."""

    values: Tensor  # [N] float32
    rows: Tensor  # [N] the batch's row that each belongs to

    def mean(self) -> Tensor:
        """Return the mean of all losses."""
        return self.values.mean()


Objective = Callable[[LanguageModel, SoftPrompt, Batch, Context | None], Losses]


def token_losses(
    lm: LanguageModel, method: SoftPrompt, batch: Batch, context: Context | None = None
) -> Losses:
    """Cross entropy (nats) of every target of the batch: tokens, or a head's labels and tags."""
    logits = lm.logits(batch, injection_for(lm, method, batch), context)
    real = batch.target_mask  # [tokens, V] of real positions only; all of them are no copy
    flat = logits.flatten(0, 1) if bool(real.all()) else logits[real]
    return Losses(cross_entropy(flat, batch.target_ids[real]), real.nonzero()[:, 0])


def teacher_divergences(
    lm: LanguageModel, method: SoftPrompt, batch: Batch, context: Context | None = None
) -> Losses:
    """Compute the divergence (nats) from the teacher at every target token, as `lm.divergence` defines it."""
    assert batch.teacher_ids is not None and batch.teacher_logprobs is not None
    logits = lm.logits(batch, injection_for(lm, method, batch), context)
    real = batch.target_mask
    values = divergence(logits[real], batch.teacher_ids[real], batch.teacher_logprobs[real])
    return Losses(values, real.nonzero()[:, 0])


def squared_errors(
    lm: LanguageModel, method: SoftPrompt, batch: Batch, context: Context | None = None
) -> Losses:
    """Compute the squared differences between a head's output and the rows' numbers (`batch.values`)."""
    outputs = lm.logits(batch, injection_for(lm, method, batch), context)[:, 0, 0]
    assert batch.values is not None
    errors = (outputs.float() - batch.values).square()
    return Losses(errors, torch.arange(batch.size, device=errors.device))


@dataclass(frozen=True, slots=True)
class PreferenceLoss:
    """This is the loss of DPO (Rafailov et al. 2023, equation 7), with the plain model as reference.

        loss = -log sigmoid(beta * ((log p(y_w|x) - log p_ref(y_w|x)) - (log p(y_l|x) - log p_ref(y_l|x))))

    Rows of a batch are the sides of pairs (`Example.sides`): the chosen answer y_w, then the rejected y_l.
    `batch.values` holds log p_ref of each row, in nats.
    """

    beta: float

    def __call__(
        self, lm: LanguageModel, method: SoftPrompt, batch: Batch, context: Context | None = None
    ) -> Losses:
        """Return one loss a pair, which belongs to the row of its chosen answer."""
        if batch.values is None:
            raise ValueError("the rows of a preference task have no reference log-probabilities")
        tokens = token_losses(lm, method, batch, context)
        nll = tokens.values.new_zeros(batch.size).index_add(0, tokens.rows, tokens.values)  # [2 pairs]
        ratios = -nll - batch.values
        margins = self.beta * (ratios[0::2] - ratios[1::2])
        return Losses(-logsigmoid(margins), torch.arange(0, batch.size, 2, device=margins.device))


@dataclass(frozen=True, slots=True)
class RankingLoss:
    """This is the ranking loss of an embedding task, over all documents of a step: see `lm.contrastive`."""

    scale: float
    whole_step = True  # rows in other passes would not be compared

    def __call__(
        self, lm: LanguageModel, method: SoftPrompt, batch: Batch, context: Context | None = None
    ) -> Losses:
        """Return one loss a query. Rows of the batch are the sides of rows (`Example.sides`)."""
        vectors = unit(lm.logits(batch, injection_for(lm, method, batch), context)[:, 0])
        queries, documents, positive, allowed = comparisons(batch)
        values = ranking_losses(vectors[queries], vectors[documents], positive, allowed, self.scale)
        return Losses(values, queries)


def cosine_errors(
    lm: LanguageModel, method: SoftPrompt, batch: Batch, context: Context | None = None
) -> Losses:
    """Compute the squared differences between the cosine of a pair's vectors and its score (0 … 1)."""
    assert batch.values is not None
    vectors = unit(lm.logits(batch, injection_for(lm, method, batch), context)[:, 0])
    cosines = (vectors[0::2] * vectors[1::2]).sum(1)  # rows are query, document, query, …
    errors = (cosines - batch.values[0::2]).square()
    return Losses(errors, torch.arange(0, batch.size, 2, device=errors.device))


def objective_of(task: TaskConfig) -> Objective:
    """Return what a recipe's task minimises."""
    if task.kind == "embedding":
        return RankingLoss(task.scale) if task.score is None else cosine_errors
    if task.kind == "preference":
        return PreferenceLoss(task.beta)
    if task.objective == "distil":
        return teacher_divergences
    return squared_errors if task.kind == "regression" else token_losses


def next_token(lm: LanguageModel, method: SoftPrompt, batch: Batch, context: Context | None = None) -> Tensor:
    """Mean cross entropy (nats) over the targets of the batch."""
    return token_losses(lm, method, batch, context).mean()
