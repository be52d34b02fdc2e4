"""Each case takes one forward pass: padding, mixed batches, the logits returned, the prompt's place."""

from __future__ import annotations

import torch

from softprompt.data.collate import batch_of_ids
from softprompt.injection import Injection

from .models import LENGTH, LONG, METHODS, SHORT, here, in_peft, padded, peft_config, prompt, row
from .rows import Row, compare, difference

ALONE = "logits of a padded row against the same row alone"


def left_padding_soft_prompt() -> Row:
    """Run a short row beside a longer one, padded on the left as for generation."""
    return _left_padding("soft prompt")


def left_padding_prefix() -> Row:
    """Do the same with keys and values in every layer."""
    return _left_padding("prefix")


@torch.no_grad()
def _left_padding(kind: str) -> Row:
    def peft() -> float:
        model = in_peft(METHODS[kind])
        return difference(model(**padded(left=True)).logits[1, -1], model(**row(SHORT)).logits[0, -1])

    def ours() -> float:
        lm = here()
        injection = prompt(lm, METHODS[kind])(torch.tensor([0]))
        together = lm.logits(batch_of_ids([LONG, SHORT], [[1], [1]]), injection)[1]
        return difference(together, lm.logits(batch_of_ids([SHORT], [[1]]), injection)[0])

    return compare(f"left padding, {kind}", ALONE, peft=peft, ours=ours)


@torch.no_grad()
def mixed_batch() -> Row:
    """Run two rows of one batch under two prompts."""

    def peft() -> float:
        model = in_peft("prompt-tuning")
        model.add_adapter("other", peft_config("prompt-tuning"))
        two = {name: tensor.repeat(2, 1) for name, tensor in row(LONG).items()}
        mixed = model.eval()(**two, adapter_names=["default", "other"]).logits[1, -1]
        model.set_adapter("other")
        return difference(mixed, model(**row(LONG)).logits[0, -1])

    def ours() -> float:
        lm = here()
        method = prompt(lm, "prompt-tuning", ("default", "other"))
        mixed = lm.logits(batch_of_ids([LONG, LONG], [[1], [1]]), method(torch.tensor([0, 1])))[1]
        return difference(mixed, lm.logits(batch_of_ids([LONG], [[1]]), method(torch.tensor([1])))[0])

    measured = "logits of a row beside one under another prompt against the same row alone"
    return compare("mixed batch", measured, peft=peft, ours=ours)


@torch.no_grad()
def extra_logits() -> Row:
    """The logits returned should match the positions that were requested."""

    def peft() -> float:
        return in_peft("prompt-tuning")(**row(LONG)).logits.shape[1] - len(LONG)

    def ours() -> float:
        lm = here()
        method = prompt(lm, "prompt-tuning")
        return lm.logits(batch_of_ids([LONG], [SHORT]), method(torch.tensor([0]))).shape[1] - len(SHORT)

    measured = "logits returned beyond those that were asked for"
    return compare("logits of the prompt's own positions", measured, peft=peft, ours=ours, allowed=0)


@torch.no_grad()
def place_of_the_prompt() -> Row:
    """Place soft tokens between the input and the output."""

    def peft() -> float:
        model = in_peft("prompt-tuning", placement="after")
        base = model.get_base_model()
        vectors = torch.cat([base.get_input_embeddings()(row(LONG)["input_ids"]), model.get_prompt(1)], dim=1)
        return difference(model(**row(LONG)).logits[0, -1], base(inputs_embeds=vectors).logits[0, -1])

    def ours() -> float:
        lm = here()
        injection: Injection = prompt(lm, "prompt-tuning", placement="after")(torch.tensor([0]))
        assert injection.after is not None and injection.after.mask.shape[1] == LENGTH
        vectors = torch.cat([lm.embed(torch.tensor([LONG])), injection.after.vectors], dim=1)
        logits = lm.logits(batch_of_ids([LONG], [[1]]), injection)[0]
        return difference(logits, lm.model(inputs_embeds=vectors).logits[0, -1:])

    measured = "logits under a prompt after the input against the vectors put in by hand"
    return compare("place of the prompt", measured, peft=peft, ours=ours)
