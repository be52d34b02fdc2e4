"""The harness's texts are encoded as token ids, within the positions of the model.

By default they are tokenized, cut and put into windows as the harness's own `hf` model does it. With
`template` a context is the only field of the artifact's template, as in training.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lm_eval import utils

from ..errors import SoftPromptError
from .arguments import Subject
from .generation import Opening
from .likelihood import Pair

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Texts:
    """Encodes the texts of one evaluation; `max_length` is how many tokens of text a row may have."""

    subject: Subject
    max_length: int
    template: bool = False
    add_bos_token: bool | None = None
    first_token: int | None = None  # what a text without a context follows; None: the tokenizer's

    def __post_init__(self) -> None:
        if self.template:
            check_template(self.subject)

    @property
    def tokenizer(self) -> Any:
        return self.subject.lm.tokenizer

    @property
    def prefix(self) -> int:
        """Return the token that a text without a context follows. Raises SoftPromptError for none."""
        for token in (self.first_token, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise SoftPromptError(
            f"no token of '{self.subject.lm.name}' can stand ahead of a text without a context",
            why="its tokenizer has neither a beginning nor an end token",
            fix="--model_args prefix_token_id=NUMBER",
        )

    def ids(self, text: str, special: bool | None = None) -> list[int]:
        """Return the token ids of a text.

        `special`: with the tokenizer's special tokens; None: as the tokenizer does, or as `add_bos_token`
        says, and without a second beginning token where the text has one.
        """
        if special is None and text.startswith(self.tokenizer.decode(self.prefix)):
            special = False
        special = self.add_bos_token if special is None else special
        return self.tokenizer.encode(text, **({} if special is None else {"add_special_tokens": special}))

    def rendered_pair(self, context: str, continuation: str) -> Pair:
        """Render a context by the artifact's template, and encode both as in training."""
        encoder = self.subject.encoder
        assert encoder is not None
        example = encoder.encode(context, with_target=False, prompt=self.subject.name)
        target = encoder.following(example.rendered.input, continuation)
        return Pair(example.input_ids, target, len(target), example.rendered.input)

    def pair(self, texts: tuple[str, str], context: list[int], continuation: list[int]) -> Pair:
        """Cut a context at its start where a row is too long. Raises SoftPromptError for what cannot fit."""
        if not continuation and texts[1]:
            raise SoftPromptError(
                f"the continuation {texts[1]!r:.60} has no tokens of its own after its context",
                why="the tokenizer joins it with the end of the context",
                fix="end the task's context, and begin its continuations, where a word ends",
            )
        if len(continuation) > self.max_length:
            raise SoftPromptError(
                f"the continuation {texts[1]!r:.60} has {len(continuation)} tokens",
                why=f"a row of this model has {self.max_length}",
                fix="use a model with a longer context",
            )
        # the last token is not read; an encoder reads the context apart
        room = self.max_length + (0 if self.apart else 1 - len(continuation))
        cut = self._last(context, room)
        return Pair(tuple(cut), tuple(continuation), len(continuation), texts[0])

    def without_context(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return (the token that a text without a context follows, the ids of the text)."""
        ids = self.ids(continuation, special=False)
        return (ids[:1], ids[1:]) if ids[:1] == [self.prefix] else ([self.prefix], ids)

    def windows(self, text: str) -> Iterator[Pair]:
        """Yield the windows of a whole text, each token of which is scored in one of them."""
        for window in utils.get_rolling_token_windows(
            token_list=self.ids(text), prefix_token=self.prefix, max_seq_len=self.max_length, context_len=1
        ):
            context, scored = utils.make_disjoint_window(window)
            # the first token is the input: vectors that are placed after an input follow it
            yield Pair((context[0],), (*context[1:], *scored), len(scored))

    def context(self, text: str, new_tokens: int) -> Opening:
        """Encode a context, and cut it at its start so that `new_tokens` fit after it."""
        room = self.max_length - (0 if self.apart else new_tokens)
        if room < 1:
            raise SoftPromptError(
                f"the task generates up to {new_tokens} tokens, which leaves no room for a context",
                why=f"a row of this model has {self.max_length}",
                fix=f"--gen_kwargs max_gen_toks={max(1, self.max_length // 2)}, or use a longer model",
            )
        if self.template:
            encoder = self.subject.encoder
            assert encoder is not None
            encoder = encoder.settled(new_tokens)
            example = encoder.encode(text, with_target=False, prompt=self.subject.name)
            return Opening(example.input_ids, example.rendered.input)
        ids = self.ids(text) or [self.prefix]
        return Opening(tuple(self._last(ids, room)), text)

    @property
    def apart(self) -> bool:
        """Return whether an encoder reads the context, apart from the continuation."""
        return self.subject.lm.spec.kind == "encoder-decoder"

    def _last(self, ids: list[int], room: int) -> list[int]:
        if len(ids) > room:
            log.warning(f"a context of {len(ids)} tokens lost its first {len(ids) - room}")
        return ids[-room:]


def check_template(subject: Subject) -> None:
    """Raise SoftPromptError where contexts cannot go through the artifact's template."""
    if subject.encoder is None:
        raise SoftPromptError(
            "template=true needs an artifact",
            why="a plain base model has no template",
            fix="leave template= out, or add artifact=FOLDER",
        )
    fields = subject.encoder.template.input_fields
    if len(fields) != 1:
        raise SoftPromptError(
            "template=true cannot render a context",
            why=f"a context is one text, and the template has the fields {', '.join(fields) or 'none'}",
            fix="leave template= out, and write in the task's doc_to_text what the template would write",
        )


def check_rolling(subject: Subject, template: bool) -> None:
    """Raise SoftPromptError where a text without a context has no likelihood under the prompt."""
    if subject.method.reads is not None:
        raise SoftPromptError(
            "loglikelihood_rolling cannot be computed under a prompt that is generated from the input",
            why="the text is what is scored, so there is no input to generate the prompt from",
            fix="use tasks with a context, or plain=true for the base model",
        )
    if template:
        raise SoftPromptError(
            "template=true cannot be combined with loglikelihood_rolling",
            why="the template renders an input, and these texts have none",
            fix="leave template= out for these tasks",
        )
