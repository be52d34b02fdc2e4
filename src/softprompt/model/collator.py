"""A collator that keeps the column which says whose prompt each row uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from ..errors import SoftPromptError
from .call import prompt_index
from .holder import NAME, holder_of

COLUMN = "prompts"  # of rows: the name or the number of the prompt of each


def numbers_of(model: Any, rows: Sequence[Mapping[str, Any]], column: str) -> Tensor:
    """Return the number of each row's prompt, [rows], from a column of names or numbers.

    Raises SoftPromptError for a row without the column, and for a prompt that the model does not have.
    """
    if missing := [row for row in rows if row.get(column) is None]:
        raise SoftPromptError(
            f"a row has no column '{column}'",
            why=f"its columns are {', '.join(missing[0])}",
            fix="give each row the column, and the trainer remove_unused_columns=False",
        )
    return prompt_index(holder_of(model), [row[column] for row in rows], len(rows), torch.device("cpu"))


@final
class PromptCollator:
    """Wraps a data collator: the batch also has `prompts` [rows], the number of each row's prompt.

    Collators of transformers and TRL drop the columns that they do not know. `column` of the rows holds names
    or numbers of the model's table. Where the collator makes several rows of each (a chosen and a rejected
    answer), all of them have its prompt. Use it with `remove_unused_columns=False`. Raises SoftPromptError
    for a `model` without a table of prompts; a batch does so for a row without the column or of an unknown
    prompt.
    """

    def __init__(
        self, collator: Callable[[list[dict[str, Any]]], Any], model: Any, column: str = COLUMN
    ) -> None:
        if NAME not in vars(model):
            raise SoftPromptError(
                "the model has no table of prompts",
                why="no prompt is attached to it",
                fix="model = softprompt.attach(model, tokenizer, …, prompts=[…])",
            )
        self.collator, self.model, self.column = collator, model, column

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Return the batch of the rows.

        Raises SoftPromptError for a row without the column, and for a prompt that the model does not have.
        """
        index = numbers_of(self.model, rows, self.column)
        batch = self.collator([{k: v for k, v in row.items() if k != self.column} for row in rows])
        times, rest = divmod(len(batch["input_ids"]), len(rows))
        if rest:
            raise SoftPromptError(
                f"{len(rows)} rows became {len(batch['input_ids'])}",
                why="so it is not known which prompt each of them uses",
                fix="use a collator that makes the same number of rows of each (in TRL: no padding_free)",
            )
        batch[COLUMN] = index.repeat(times)
        return batch
