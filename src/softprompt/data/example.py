"""An example is an encoded row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from softprompt.data.template import Rendered
from softprompt.data.tokens import Ids

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Example:
    """An example is one row as token ids; `target_ids` is empty if it was encoded without a target."""

    input_ids: Ids  # at least one token
    target_ids: Ids
    prompt: int  # index into the encoder's prompt names
    rendered: Rendered
    candidates: tuple[Ids, ...] | None  # labels or choices; `target_ids` is one of them
    truncated: int = 0  # tokens cut off, of the input (at its start) and of the target (at its end)
    places: Ids = ()  # where an encoder's answers are read, one a target; see `data.answer_positions`
    value: float | None = None  # the number that a regression row names
    rejected_ids: Ids = ()  # of a preference row: the answer that `target_ids` is preferred to
    reference: tuple[float, float] | None = None  # log-probabilities (nats) of both without the prompt
    demonstration: int | None = None  # the number of the demonstration that this row is, among the prompt's
    begin: Ids = ()  # tokens ahead of the input that the vectors hold, and a model without vectors reads
    # of a teacher at each target token: ids [T, k] of its likeliest tokens, and their log-probabilities
    teacher: tuple[Tensor, Tensor] | None = None
    documents: tuple[Ids, ...] = ()  # of an embedding row: its positive, then its negatives
    side: int | None = None  # of an embedding row in a batch: 0 a query, 1 its positive, 2 … its negatives

    def begun(self) -> Example:
        """Return the row with its beginning, as a model without vectors reads it."""
        return replace(self, input_ids=(*self.begin, *self.input_ids), begin=()) if self.begin else self

    @property
    def answers(self) -> tuple[Ids, ...]:
        """Return the targets that a step computes: two for a pair."""
        return (self.target_ids, self.rejected_ids) if self.rejected_ids else (self.target_ids,)

    @property
    def answer_tokens(self) -> int:
        """Return the number of tokens of all targets."""
        return len(self.target_ids) + len(self.rejected_ids)

    @property
    def lengths(self) -> tuple[tuple[int, int], ...]:
        """Return (tokens of the input, of the target) of each row of a batch that a step computes."""
        if self.documents:
            return tuple((len(ids), 1) for ids in (self.input_ids, *self.documents))
        return tuple((len(self.input_ids), len(ids)) for ids in self.answers)

    def sides(self) -> tuple[Example, ...]:
        """Return the rows of a batch that a step computes: two for a pair, each with its reference.

        Of an embedding row they are its query, its positive and its negatives, each as an input.
        """
        if self.documents:
            texts = zip(self.documents, self.rendered.documents, strict=True)
            others = (
                replace(self, input_ids=ids, rendered=replace(self.rendered, input=text), side=number)
                for number, (ids, text) in enumerate(texts, 1)
            )
            return (replace(self, side=0), *others)
        if self.reference is None:
            return (self,)
        chosen, rejected = self.reference
        return (replace(self, value=chosen), replace(self, value=rejected, target_ids=self.rejected_ids))
