"""Run the same cases through Hugging Face PEFT and through softprompt on tiny random models.

    python -m benchmarks.exactness [--json | --markdown]

Every case is a function that measures one number on both sides: how far an answer is from what it
should be. Nothing is downloaded and nothing is trained for longer than a few steps: it takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from . import batches, generation, reach, training
from .rows import Row

#: Every case, in the order of docs/exactness.md.
CASES: tuple[Callable[[], Row], ...] = (
    batches.left_padding_soft_prompt,
    batches.left_padding_prefix,
    batches.mixed_batch,
    batches.extra_logits,
    batches.place_of_the_prompt,
    training.resumed_training,
    training.reloaded_p_tuning,
    training.checkpointed_prefix,
    training.tags_with_labels,
    partial(generation.static_cache, "soft prompt"),
    partial(generation.static_cache, "prefix"),
    generation.no_cache,
    partial(generation.second_turn, "soft prompt"),
    partial(generation.second_turn, "prefix"),
    reach.encoder_decoder_soft_prompt,
    reach.encoder_decoder_prefix,
    reach.encoder_decoder_prefix_in_use,
    *(partial(reach.prefix_on, family) for family in reach.FAMILIES),
    reach.prefix_on_rwkv,
    reach.prefix_on_albert,
)
