"""Training is tested: resumed and reloaded prompts, gradient checkpointing, and tags with labels."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForTokenClassification

from softprompt.artifacts.interop import foreign
from softprompt.data.collate import batch_of_ids
from softprompt.evaluation.records import DevScore
from softprompt.lm.base import LanguageModel
from softprompt.lm.encoder import EncoderLM
from softprompt.lm.families import HIDDEN, VOCAB, tiny
from softprompt.lm.heads import Head, parameter_names
from softprompt.methods.base import SoftPrompt
from softprompt.training.checkpoint import Checkpoints, together
from softprompt.training.learner import Learner, Optimization, Outcome
from softprompt.training.loop import fit_together
from softprompt.training.losses import next_token
from softprompt.training.trained import named_parameters

from .models import LENGTH, LONG, SHORT, here, in_peft, prompt, row
from .rows import Row, compare, difference

STEPS, STOP = 6, 3
TAGS = [0, 1, 2, 3, 0, 1, 2]  # of the words of LONG
IGNORED = -100  # transformers leaves such labels out of its loss


def resumed_training() -> Row:
    """Resume a run that was stopped in the middle."""

    def peft() -> float:
        from peft import PeftModel

        straight, stopped = in_peft("prompt-tuning"), in_peft("prompt-tuning")
        _train(straight, STEPS)
        optimizer = _train(stopped, STOP)
        with tempfile.TemporaryDirectory() as folder:
            stopped.save_pretrained(folder)
            resumed = PeftModel.from_pretrained(tiny("llama"), folder, is_trainable=True)
        _train(resumed, STEPS - STOP, optimizer.state_dict())
        return difference(resumed.get_prompt(1), straight.get_prompt(1))

    def ours() -> float:
        lm = here()
        straight, resumed = (prompt(lm, "prompt-tuning") for _ in range(2))
        _fit(lm, straight, None)
        with tempfile.TemporaryDirectory() as folder:
            stopped = _fit(lm, prompt(lm, "prompt-tuning"), Path(folder), stop_after=STOP)
            assert (stopped.stopped, stopped.step) == ("interrupted", STOP)
            _fit(lm, resumed, Path(folder))
        return difference(_table(resumed), _table(straight))

    measured = "vectors of a run that was stopped and resumed against one that was not"
    return compare("resumed training", measured, peft=peft, ours=ours, allowed=0)


def _train(model, steps: int, state: dict | None = None) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    if state is not None:
        optimizer.load_state_dict(state)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**row(LONG), labels=row(LONG)["input_ids"]).loss.backward()
        optimizer.step()
    return optimizer


def _fit(
    lm: LanguageModel, method: SoftPrompt, folder: Path | None, stop_after: int | None = None
) -> Outcome:
    taken: list[list[int]] = []

    def backward(parts: Sequence[tuple[int, list[int]]]) -> list[Tensor]:
        rows = parts[0][1]
        taken.append(rows)
        loss = next_token(lm, method, batch_of_ids([LONG] * len(rows), [SHORT] * len(rows)))
        loss.backward()
        return [loss.detach()]

    checkpoints = None if folder is None else Checkpoints(folder, {"settings": {}})
    learner = Learner(
        named_parameters(lm, method),
        [len(LONG)],
        lambda: DevScore((0.0,), "score", 0.0),
        Optimization(STEPS, 1e-2, 1, eval_every=STEPS),
        checkpoints=checkpoints,
        start=None if checkpoints is None else together([checkpoints])[0],
    )
    should_stop = lambda: stop_after is not None and len(taken) >= stop_after  # noqa: E731
    return fit_together([learner], backward, should_stop=should_stop)[0]


def _table(method: SoftPrompt) -> Tensor:
    return next(method.parameters()).detach()


@torch.no_grad()
def reloaded_p_tuning() -> Row:
    """Reload a prompt that a network generates, to train it further."""

    def peft() -> float:
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        model, again = in_peft("p-tuning"), in_peft("p-tuning")
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            set_peft_model_state_dict(again, load_file(f"{folder}/adapter_model.safetensors"))
        return difference(again(**row(LONG)).logits, model(**row(LONG)).logits)

    def ours() -> float:
        lm = here()
        method, options = prompt(lm, "p-tuning"), {"length": LENGTH, "placement": "before"}
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "prompt"
            saved = foreign.save(
                out, lm, "p-tuning", options, method.state_dict(), ("default",), "a benchmark"
            )
            again = saved.method(lm, trainable=True)
        batch, ids = batch_of_ids([LONG], [SHORT]), torch.tensor([0])
        return difference(lm.logits(batch, again(ids)), lm.logits(batch, method(ids)))

    return compare("reloaded p-tuning", "logits after reloading against before", peft=peft, ours=ours)


def checkpointed_prefix() -> Row:
    """Recompute layers in the backward pass to save memory."""

    def peft() -> float:
        gradients = []
        for checkpointed in (False, True):
            model = in_peft("prefix-tuning").train()
            if checkpointed:
                model.get_base_model().gradient_checkpointing_enable()
            model(**row(LONG), labels=row(LONG)["input_ids"]).loss.backward()
            gradients.append(model.prompt_encoder["default"].embedding.weight.grad)
        return difference(gradients[1], gradients[0])

    def ours() -> float:
        gradients = []
        for checkpointed in (False, True):
            lm = here()
            lm.set_gradient_checkpointing(checkpointed)
            method = prompt(lm, "prefix-tuning")
            next_token(lm, method, batch_of_ids([LONG], [SHORT])).backward()
            gradients.append(torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None]))
        return difference(gradients[1], gradients[0])

    measured = "gradient of the vectors with checkpointing against without"
    return compare("gradient checkpointing, prefix", measured, peft=peft, ours=ours)


def _bert() -> BertForTokenClassification:
    shape: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "num_labels": 4,
    }
    torch.manual_seed(0)
    config = BertConfig(vocab_size=VOCAB, hidden_size=HIDDEN, initializer_range=0.2, **shape)
    return BertForTokenClassification(config).eval()


def _loss_by_hand(model, vectors: Tensor, at: int) -> Tensor:
    """Compute the loss on TAGS with `vectors` [P, H] inserted among the embeddings ahead of token `at`."""
    words = model.get_input_embeddings()(torch.tensor([LONG]))
    embeddings = torch.cat([words[:, :at], vectors[None], words[:, at:]], dim=1)
    labels = torch.tensor([[*TAGS[:at], *[IGNORED] * len(vectors), *TAGS[at:]]])
    return model(inputs_embeds=embeddings, labels=labels).loss


@torch.no_grad()
def tags_with_labels() -> Row:
    """Tag every word with an encoder, and compute the loss that training needs."""

    def peft() -> float:
        model = in_peft("prompt-tuning", _bert(), "TOKEN_CLS")
        loss = model(**row(LONG), labels=torch.tensor([TAGS])).loss
        return difference(loss, _loss_by_hand(model.get_base_model(), model.get_prompt(1)[0], 0))

    def ours() -> float:
        model = _bert()
        lm = EncoderLM(model, None, "tiny-bert", Head("tokens", 4), parameter_names(model))
        method = prompt(lm, "prompt-tuning")
        loss = next_token(lm, method, batch_of_ids([LONG], [TAGS], places=[range(len(LONG))]))
        return difference(loss, _loss_by_hand(model, _table(method)[0], 1))  # behind [CLS]

    measured = "loss against the vectors put in by hand"
    return compare("token classification, soft prompt", measured, peft=peft, ours=ours)
