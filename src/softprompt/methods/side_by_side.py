"""Several methods as one: rows of each go through the model in the same batch.

Prompt `offsets[k] + i` is prompt i of method k. Rows keep to their own method, of whatever kind and length,
so a gradient of one row never reaches the parameters of another row's method.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import final

import torch
from torch import Tensor, nn

from ..errors import SoftPromptError
from ..injection import Injection
from .base import Features, SoftPrompt


@final
class SideBySide(SoftPrompt):
    """`methods[k]` owns the prompt ids from `offsets[k]` to `offsets[k + 1]`.

    Those that read the input must read the same of it. Raises SoftPromptError where they do not.
    """

    def __init__(self, methods: Sequence[SoftPrompt]) -> None:
        super().__init__()
        self.methods = nn.ModuleList(methods)
        self.offsets = [0, *accumulate(method.num_prompts for method in methods)]
        reads = {method.reads for method in methods if method.reads is not None}
        if len(reads) > 1:
            raise SoftPromptError(
                "these prompts cannot go through the model together",
                why=f"they read different things of the input: {', '.join(map(str, reads))}",
                fix="run those of one kind at a time",
            )
        self.reads = next(iter(reads), None)

    @property
    def num_prompts(self) -> int:
        return self.offsets[-1]

    def forward(self, prompt_ids: Tensor, inputs: Features | None = None) -> Injection:
        ends = torch.tensor(self.offsets[1:], device=prompt_ids.device)
        owners = torch.bucketize(prompt_ids, ends, right=True)
        parts, sizes, order = [], [], []
        for owner in owners.unique().tolist():
            rows = (owners == owner).nonzero()[:, 0]
            method = self.methods[owner]
            own = None
            if inputs is not None and method.reads is not None:
                own = Features(inputs.values[rows], inputs.mask[rows])
            parts.append(method(prompt_ids[rows] - self.offsets[owner], own).fit(len(rows)))
            sizes.append(len(rows))
            order.append(rows)
        merged, places = Injection.cat(parts, sizes), torch.cat(order)
        in_order = bool((places[1:] > places[:-1]).all())
        return merged if in_order else merged.select(places.argsort())
