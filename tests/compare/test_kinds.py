"""The measures on other kinds of model: with encoder and decoder, another family, a head of labels."""

from __future__ import annotations

import pytest

from softprompt import methods
from softprompt.compare.measures.adherence import adherence
from softprompt.compare.measures.constraints import Constraint
from softprompt.compare.measures.prompt_swap import swap
from softprompt.compare.measures.strength import dose
from softprompt.data.encode import Encoder
from softprompt.data.task import ModelSide, Task
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError
from softprompt.evaluation.evaluator import Evaluator
from softprompt.evaluation.leakage import leakage

pytestmark = pytest.mark.whole

NAMES = ("joke", "fact")
ROWS = [{"input": word, "target": "yes", "prompt": NAMES[i % 2]} for i, word in enumerate(["ab", "cde", "f"])]


def gain(judge, method, examples) -> float:
    """Nats a token that the method adds to the targets' log-probability, by two evaluations."""
    plain = methods.build("none", methods.base.Setting(judge.lm, NAMES))
    before, after = (judge.run(m, examples, text_rows=0).records for m in (plain, method))
    tokens = sum(record.tokens for record in before)
    return sum(a.nll - b.nll for a, b in zip(before, after, strict=True)) / tokens


@pytest.mark.parametrize("name", ["prompt-tuning", "prefix-tuning"])
@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_models_that_write(lms, setting, perturb, family, name):
    lm = lms(family)
    apart = lm.model.config.is_encoder_decoder
    encoder = Encoder(
        lm.tokenizer,
        Template(prompt_field="prompt"),
        Task(prompts=NAMES),
        ModelSide(kind="encoder-decoder" if apart else "decoder"),
    )
    judge, examples = Evaluator(lm, encoder, max_new_tokens=4), encoder.encode_rows(ROWS)
    method = perturb(methods.build(name, setting(lm), {"length": 3}))
    assert dose(judge, method, examples).effect[2] == pytest.approx(gain(judge, method, examples), abs=1e-5)
    swapped = swap(judge, method, examples, NAMES)
    assert sum(map(sum, swapped.matrix)) + sum(swapped.undecided) == 6
    assert leakage(lm, methods.build("none", setting(lm))).change.value == 0
    assert leakage(lm, method).change.value != 0
    assert adherence(judge, method, examples, Constraint.parse({"max_tokens": 4})).satisfied.value == 1


def test_a_head_of_labels(encoders, setting, perturb):
    lm, labels = encoders("bert", "sequence"), ["yes", "no", "so"]
    template = Template(prompt_field="prompt")
    encoder = Encoder(
        lm.tokenizer,
        template,
        Task("classification", labels=labels, prompts=NAMES),
        ModelSide(lm.answers, kind="encoder"),
    )
    judge, examples = Evaluator(lm, encoder), encoder.encode_rows(ROWS)
    method = perturb(methods.build("prompt-tuning", setting(lm), {"length": 3}))
    assert dose(judge, method, examples).effect[2] == pytest.approx(gain(judge, method, examples), abs=1e-5)
    assert swap(judge, method, examples, NAMES).rule == "likelihood"
    with pytest.raises(SoftPromptError, match="writes no text"):
        adherence(judge, method, examples, Constraint.parse({"max_words": 1}))
