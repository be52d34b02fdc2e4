"""Labels have several spellings; rare ones stay in the training rows, and missing ones are refused."""

from __future__ import annotations

import unicodedata

import pytest
from tests.conftest import tiny_tokenizer

from softprompt.config.load import recipe_from_dict
from softprompt.data.encode import Encoder
from softprompt.data.labels import distinct_labels, kinds
from softprompt.data.row_notes import remarks
from softprompt.data.spelling import distinct, meant, refuse_twins
from softprompt.data.split import limit_rows, split_rows
from softprompt.data.task import ModelSide, Task
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError
from softprompt.evaluation.metric_intervals import compute
from softprompt.training.prepare import prepare
from softprompt.training.tune import tune

LABELS = Template(target="{{ label }}")
NFD = unicodedata.normalize("NFD", "café")


def rows(*labels: str, **more) -> list[dict]:
    return [{"input": f"text {i}", "label": label, **more} for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    "other", ["good ", " good", "good\n", "good\u00a0", "\u200bgood", "good\ufeff", "\u3000good\t"]
)
def test_spellings_of_a_label_are_one(other):
    found = rows("good", other, "bad", "good")
    assert distinct_labels(found, LABELS) == ["bad", "good"]
    encoder = Encoder(tiny_tokenizer(), LABELS, Task("classification"))
    examples = encoder.encode_rows(found)
    assert encoder.labels == ("bad", "good")
    assert [e.rendered.target for e in examples] == ["good", "good", "bad", "good"]
    assert examples[0].target_ids == examples[1].target_ids
    assert examples[1].rendered.references == ("good",)
    (output,) = remarks(encoder, examples)
    assert (output.kind, output.count) == ("respelled", 1) and ascii(other) in output.text
    # what is measured is what was trained
    references = [e.rendered.references for e in examples]
    assert compute(["macro_f1"], ["good"] * 4, references)["macro_f1"].value < 0.5


def test_unicode_forms_are_one_and_case_and_joiners_count():
    assert distinct([NFD, "café", "Café"]) == ["café", "Café"]
    assert distinct([NFD, NFD]) == [NFD]  # nothing is changed where nothing differs
    assert len(distinct(["👩\u200d🔬", "👩🔬"])) == 2
    assert meant(NFD + " ", ["the", "café"]) == "café" and meant("x", ["café"]) is None
    assert meant("a ", ["a ", "a"]) == "a " and meant("a  ", ["a ", "a"]) is None
    encoder = Encoder(tiny_tokenizer(), LABELS, Task("classification"))
    examples = encoder.encode_rows(rows("Good", "good", "bad"))
    assert [remark.kind for remark in remarks(encoder, examples)] == ["case"]
    with pytest.raises(SoftPromptError, match="look the same"):
        refuse_twins(["good", "good\u00a0"], "task.labels")


def test_tags_choices_and_prompts_in_another_spelling():
    tagged = Template(words_field="words", tags_field="tags")
    encoder = Encoder(
        tiny_tokenizer(), tagged, Task("token-classification", labels=["A", "café"]), ModelSide("head")
    )
    row = {"words": ["x", "y"], "tags": [NFD, "A"]}
    assert encoder.encode(row).target_ids == (1, 0) and encoder.encode(row).rendered.tags == ("café", "A")
    choice = Encoder(tiny_tokenizer(), Template(choices_field="of"), Task("choice"))
    made = choice.encode({"input": "q", "target": "yes ", "of": ["yes", "no"]})
    assert made.rendered.target == "yes" and made.candidates.index(made.target_ids) == 0
    with pytest.raises(SoftPromptError, match="two different choices"):
        choice.encode({"input": "q", "target": "yes", "of": ["yes", "yes "]})
    named = Encoder(tiny_tokenizer(), Template(prompt_field="p"), Task(prompts=("joke", "fact")))
    example = named.encode({"input": "q", "target": "a", "p": "fact\u00a0"})
    assert example.prompt == 1
    assert [remark.kind for remark in remarks(named, [example])] == ["respelled"]


def test_rare_labels_tags_and_prompts_stay_in_the_training_rows():
    common = rows(*["good", "bad"] * 20)
    rare = [{"input": f"odd {i}", "label": label} for i, label in enumerate(("refund", "lost", "late"))]
    of = kinds(LABELS, labelled=True, prompt_field=None)
    for seed in range(12):
        train, dev = split_rows(common + rare, 0.25, seed, kinds=of)
        assert {row["label"] for row in train} == {"good", "bad", "refund", "lost", "late"}
        assert 8 <= len(dev) <= 11
        plain = split_rows(common, 0.25, seed)
        assert split_rows(common, 0.25, seed, kinds=of) == plain  # where none is rare nothing changes
    tagged = [{"words": ["a", "b"], "tags": ["O", "O"], "i": i} for i in range(9)]
    tagged.append({"words": ["a", "b"], "tags": ["O", "ORG"], "i": 9})
    of = kinds(Template(words_field="words", tags_field="tags"), labelled=True, prompt_field=None)
    assert all(tagged[-1] in split_rows(tagged, 0.5, seed, kinds=of)[0] for seed in range(12))
    asked = [{"input": str(i), "p": "joke" if i else "fact"} for i in range(9)]
    of = kinds(Template(), labelled=False, prompt_field="p")
    assert all(asked[0] in split_rows(asked, 0.5, seed, kinds=of)[0] for seed in range(12))
    with pytest.raises(SoftPromptError, match="only row of a label"):
        split_rows(rows("a", "b", "c"), 0.3, 0, kinds=kinds(LABELS, labelled=True, prompt_field=None))


def test_a_limit_keeps_every_label():
    found = rows(*["good", "bad"] * 50, "refund", "lost")
    of = kinds(LABELS, labelled=True, prompt_field=None)
    for seed in range(8):
        kept = limit_rows(found, 10, seed, kinds=of)
        assert len(kept) == 10 and {row["label"] for row in kept} == {"good", "bad", "refund", "lost"}
        first = limit_rows(found, 10, seed)  # a rare row takes the place of the last that can be spared
        assert [row for row in kept[:8] if row in first] == kept[:8] or kept == first
    assert len(limit_rows(found, 3, 0, kinds=of)) == 3  # too few for all of them


def test_a_dev_file_with_a_new_label_says_so_and_the_fix_works(model_folder, tmp_path):
    def recipe(**task):
        return recipe_from_dict(
            {
                "model": str(model_folder),
                "data": {"train": "rows"},
                "template": {"target": "{{ label }}"},
                "task": {"kind": "classification", **task},
                "method": {"name": "prompt-tuning", "length": 2},
                "train": {"steps": 1, "dtype": "float32"},
                "output": str(tmp_path / "out"),
            }
        )

    given = {"rows": rows("good", "bad"), "dev_rows": rows("bad", "refund")}
    with pytest.raises(SoftPromptError) as caught:
        prepare(recipe(), **given)
    assert "no training row has the target 'refund'" in caught.value.why
    assert "name all labels in task.labels" in caught.value.fix
    assert prepare(recipe(labels=["good", "bad", "refund"]), **given).encoder.labels[2] == "refund"
    with pytest.raises(SoftPromptError, match="look the same"):
        prepare(recipe(labels=["good", "good ", "bad"]), **given)
    given = {"rows": rows("good", "bad", "good ", "bad"), "dev_rows": rows("good")}
    run = tune(prepare(recipe(), **given))
    assert run.artifact.manifest["labels"] == ["bad", "good"]
    assert [remark["kind"] for remark in run.artifact.manifest["data"]["remarks"]] == ["respelled"]
