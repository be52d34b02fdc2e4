"""Queries are compared with documents by the cosine of their vectors; the losses of an embedding task.

    L_i = -log exp(s cos(q_i, d_i+)) / Σ_{d allowed for i} exp(s cos(q_i, d))    (multiple negatives ranking)

The documents of a batch are negatives of every query in it (Henderson et al. 2017). Departures: a document
that occurs several times counts once, and one that is no certain negative is left out of the sum. It is the
query's own text, or that of a positive of the same query in the batch, or belongs to another prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..data.collate import Batch


def unit(vectors: Tensor) -> Tensor:
    """Return vectors [..., H] of length 1, in float32."""
    return normalize(vectors.float(), dim=-1)


def ranking_losses(
    queries: Tensor, documents: Tensor, positive: Tensor, allowed: Tensor, scale: float
) -> Tensor:
    """Return the loss [Q] (nats) of unit vectors [Q, H] among documents [D, H].

    `positive` [Q] is the column of each query's document, `allowed` [Q, D] marks the columns that it is
    compared with, its own included.
    """
    scores = scale * queries @ documents.T
    scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.logsumexp(1) - scores.gather(1, positive[:, None])[:, 0]


def comparisons(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the rows of a batch that are queries [Q] and documents [D], and who is compared with whom.

    The third tensor [Q] is the column of each query's positive, the fourth [Q, D] marks the documents that it
    is compared with.
    """
    assert batch.sides is not None
    texts = _texts(batch)
    row_of_query = (batch.sides == 0).long().cumsum(0) - 1  # [B] number of the query that a row belongs to
    queries, documents = (batch.sides == 0).nonzero()[:, 0], (batch.sides > 0).nonzero()[:, 0]
    owner, is_positive = row_of_query[documents], batch.sides[documents] == 1
    owned = torch.arange(len(queries), device=owner.device)[:, None] == owner
    positive = (owned & is_positive).long().argmax(1)
    query_texts, answers = texts[queries], texts[documents]
    known = (query_texts[owner] == query_texts[:, None]) & is_positive  # [Q, D] positives of the same query
    same = answers == query_texts[:, None]
    alike = (answers[:, None] == answers).float()  # [D, D]
    same |= known.float() @ alike > 0
    prompts = batch.prompt_ids[documents]
    again = (alike.bool() & (prompts[:, None] == prompts)).tril(-1).any(1)  # a document that is there already
    allowed = (batch.prompt_ids[queries][:, None] == prompts) & ~same & ~again
    allowed[torch.arange(len(queries)), positive] = True
    return queries, documents, positive, allowed


def _texts(batch: Batch) -> Tensor:
    """Return a number [B] for each row; rows with the same tokens have the same."""
    lengths = batch.input_mask.sum(1, keepdim=True)
    ids = torch.where(batch.input_mask, batch.input_ids, 0)
    return torch.cat([lengths, ids], 1).unique(dim=0, return_inverse=True)[1]
