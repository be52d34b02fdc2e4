"""Several methods are joined into one, so that rows of each go through the model in the same batch.

Prompt `offsets[k] + i` is prompt i of method k. Methods may differ in kind and
length. A gradient of one row never reaches the parameters of another row's method.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..errors import SoftPromptError
from ..injection import Injection
from .base import Features, SoftPrompt


@final
class SideBySide(SoftPrompt):
    """Give the prompt ids from `offsets[k]` to `offsets[k + 1]` to `methods[k]`.

    Raises SoftPromptError where methods read different parts of the input.
    """

    def __init__(self, methods: Sequence[SoftPrompt]) -> None:
        super().__init__()
        self.methods = nn.ModuleList(methods)
        self.offsets = [0, *accumulate(method.num_prompts for method in methods)]
        self.num_prompts = self.offsets[-1]
        reads = {method.reads for method in methods if method.reads is not None}
        if len(reads) > 1:
            raise SoftPromptError(
                "these prompts cannot go through the model together",
                why=f"they read different parts of the input: {', '.join(map(str, reads))}",
                fix="run those of one kind at a time",
            )
        self.reads = next(iter(reads), None)

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        ends = torch.tensor(self.offsets[1:], device=prompt_ids.device)
        owners = torch.bucketize(prompt_ids, ends, right=True)
        places = torch.empty_like(prompt_ids)  # [B] where each row's injection is among the parts'
        parts, sizes = [], []
        for owner in owners.unique().tolist():
            rows = (owners == owner).nonzero()[:, 0]
            part, row_of = self._part(owner, prompt_ids[rows] - self.offsets[owner], rows, inputs)
            places[rows] = row_of + sum(sizes)
            sizes.append(int(row_of.max()) + 1)
            parts.append(part.fit(sizes[-1]))
        merged = Injection.cat(parts, sizes)
        one_each = torch.equal(places, torch.arange(sum(sizes), device=places.device))
        return merged if one_each else merged.select(places)

    def _part(
        self, owner: int, ids: Int[Tensor, " rows"], rows: Int[Tensor, " rows"], inputs: Features | None
    ) -> tuple[Injection, Int[Tensor, " rows"]]:
        """Compute a method's injection for its rows, and for each of them the number of its row in it."""
        method = self.methods[owner]
        if method.reads is None or inputs is None:
            distinct, row_of = ids.unique(return_inverse=True)
            return method(distinct), row_of
        features = Features(inputs.values[rows], inputs.mask[rows])
        return method(ids, features), torch.arange(len(ids), device=ids.device)
