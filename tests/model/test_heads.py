"""A prompt that is attached to a model with a head is opened with the head, and gives its answers."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import tiny_model, tiny_tokenizer

import softprompt
from softprompt import SoftPromptError
from softprompt.data.collate import batch_of_ids
from softprompt.lm import families
from softprompt.lm.apply import injection_for
from softprompt.model import SoftPromptModel, attach

LABELS = {0: "bad", 1: "good", 2: "meh"}


def with_head(folder, head, *, family="bert", frozen=False, **more):
    """A model whose head is drawn, or (`frozen`) comes with the checkpoint; both are read from disk."""
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    kind = {"sequence": AutoModelForSequenceClassification, "tokens": AutoModelForTokenClassification}[head]
    families.tiny(family, 0).save_pretrained(folder)
    base = kind.from_pretrained(folder, **(more or {"id2label": LABELS, "label2id": {}}))
    if frozen:
        base.save_pretrained(folder)
        base = kind.from_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    if family == "llama":
        base.config.pad_token_id = 0
    return base


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("family", "head"), [("llama", "sequence"), ("bert", "sequence"), ("bert", "tokens")]
)
def test_open_prompt_takes_a_prompt_with_its_head(family, head, frozen, tmp_path, close):
    base = with_head(tmp_path / "base", head, family=family, frozen=frozen)
    config = softprompt.PromptTuning(length=3, placement="before")
    model = attach(base, tiny_tokenizer(), config, template={"input": "{{ text }}"})
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    ids = tiny_tokenizer()("ab ba", return_tensors="pt").input_ids
    expected = model(input_ids=ids).logits
    model.save_pretrained(tmp_path / "out")
    tuned = softprompt.open_prompt(tmp_path / "out")  # the base is loaded by its name
    assert tuned.recipe.task.labels == tuned.artifact.manifest["labels"] == list(LABELS.values())
    batch = batch_of_ids(
        ids.tolist(),
        [[0] * (ids.shape[1] if head == "tokens" else 1)],
        places=[list(range(ids.shape[1]))] if head == "tokens" else None,
    )
    close(tuned.lm.logits(batch, injection_for(tuned.lm, tuned.method, batch)), expected.reshape(1, -1, 3))
    if head == "sequence":
        assert tuned.generate("ab ba") == LABELS[int(expected.argmax())]
        assert tuned.evaluate([{"text": "ab ba", "target": "good"}]).n == 1


def test_a_head_that_is_left_for_its_size_is_trained(tmp_path):
    from transformers import AutoModelForSequenceClassification

    with_head(tmp_path, "sequence", frozen=True)
    base = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True
    )
    model = attach(base, tiny_tokenizer(), softprompt.PromptTuning(length=3))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == ["classifier.weight", "classifier.bias", "soft_prompt.table"]


def test_a_head_of_several_labels_a_row_is_for_python_alone(tmp_path):
    base = with_head(tmp_path / "base", "sequence", num_labels=3, problem_type="multi_label_classification")
    attach(base, tiny_tokenizer(), softprompt.PromptTuning(length=3)).save_pretrained(tmp_path / "out")
    with pytest.raises(SoftPromptError, match="a head that no task reads") as error:
        softprompt.open_prompt(tmp_path / "out")
    assert "SoftPromptModel.from_pretrained" in error.value.fix


def test_a_model_that_was_never_saved_is_the_same_base_after_it_is(tmp_path):
    base = tiny_model("llama")
    attach(base, tiny_tokenizer(), softprompt.PromptTuning(length=3)).save_pretrained(tmp_path / "out")
    base.detach().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    assert softprompt.open_prompt(tmp_path / "out", model=str(tmp_path / "base"))
    other = type(base)(type(base.config)(**base.config.to_dict() | {"rms_norm_eps": 1e-3}))
    other.load_state_dict(base.state_dict())
    with pytest.raises(SoftPromptError, match="another base model") as error:
        SoftPromptModel.from_pretrained(other, tmp_path / "out", tiny_tokenizer())
    assert "its configuration differ" in error.value.why


def test_a_model_without_an_output_takes_no_prompt():
    from transformers import LlamaForQuestionAnswering

    base = tiny_model("llama")
    for model in (base.model, LlamaForQuestionAnswering(base.config)):
        with pytest.raises(SoftPromptError, match=f"a {type(model).__name__} takes no prompt") as error:
            attach(model, tiny_tokenizer(), softprompt.PromptTuning(length=3))
        assert "AutoModelForCausalLM" in error.value.fix


def test_a_run_that_trains_nothing_and_an_object_for_several_runs_leave_no_folder(tmp_path):
    lm = softprompt.load(tiny_model("llama"), tiny_tokenizer())
    rows = [{"input": f"row {number}", "target": "ab"[number % 2]} for number in range(8)]
    with pytest.raises(SoftPromptError, match="'none' has nothing to train"):
        softprompt.tune(lm, "none", rows, output=tmp_path / "none", steps=2)
    with pytest.raises(SoftPromptError, match="cannot follow several runs"):
        softprompt.search(
            lm, "prompt-tuning", rows, {"lr": [0.1, 0.2]}, output=tmp_path / "search", track=object(), steps=2
        )
    same = [{"input": text, "target": target} for text, target in ("xa", "xa", "yb", "yb")]
    with pytest.raises(SoftPromptError, match="dev set") as error:
        softprompt.tune(lm, "prompt-tuning", same, output=tmp_path / "same", task="classification")
    assert "('a', 'b')" in error.value.why and not list(tmp_path.iterdir())
