"""Encoder-decoder models from rows to an artifact, and what they read of a row."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import processors

import softprompt
from softprompt.cli import main
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import collate
from softprompt.lm import families
from softprompt.training.losses import next_token
from softprompt.training.prepare import prepare
from softprompt.training.tune import tune

ROWS = [{"input": f"row {i}", "target": ("good", "bad")[i % 2]} for i in range(12)]
END = 96  # of the tiny tokenizer


@pytest.fixture(scope="module", params=["t5", "bart"])
def folder(request, llama, tmp_path_factory):
    """A saved tiny model whose tokenizer closes a text with its end token, as T5's and BART's do."""
    path = tmp_path_factory.mktemp(request.param)
    model = families.tiny(request.param, eos_token_id=END)
    model.generation_config.decoder_start_token_id, model.generation_config.eos_token_id = 1, END
    model.save_pretrained(path)
    tokenizer = llama.tokenizer.__class__(
        tokenizer_object=llama.tokenizer.backend_tokenizer, eos_token="<end>", pad_token="<end>"
    )
    closed = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", END)])
    tokenizer.backend_tokenizer.post_processor = closed
    tokenizer.save_pretrained(path)
    llama.tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return path


def recipe(folder, output, **changes):
    return recipe_from_dict(
        {
            "model": str(folder),
            "data": {"train": "rows"},
            "task": changes.pop(
                "task", {"kind": "generation", "max_new_tokens": 6, "metrics": ["exact_match"]}
            ),
            "method": {"name": "prompt-tuning", "length": 3, "placement": "both"} | changes.pop("method", {}),
            "train": {"steps": 6, "batch_size": 4, "eval_every": 3, "dtype": "float32", "lr": 1e-2},
            "output": str(output),
        }
    )


def test_input_and_target_are_texts_of_their_own(folder, tmp_path):
    """The encoder's text is closed by the end token that its tokenizer adds; the target has no space."""
    prepared = prepare(recipe(folder, tmp_path), rows=ROWS[:8], dev_rows=ROWS[8:])
    tokenizer = prepared.lm.tokenizer
    for example, row in zip(prepared.train, ROWS, strict=False):
        assert tokenizer.decode(example.input_ids) == row["input"] + "<end>"
        assert tokenizer.decode(example.target_ids) == row["target"] + "<end>"


def test_loss_is_that_of_transformers(folder, tmp_path, close):
    """The plain model's loss by transformers' own `labels=`, row by row."""
    prepared = prepare(
        recipe(folder, tmp_path, method={"name": "prompt-tuning"}), rows=ROWS, dev_rows=ROWS[:2]
    )
    batch = collate(prepared.train)
    plain = softprompt.methods.build("none", softprompt.methods.Setting(prepared.lm))
    total, tokens = 0.0, 0
    for example in prepared.train:
        start = prepared.lm.model.config.decoder_start_token_id
        labels = list(example.target_ids)
        with torch.no_grad():
            logits = prepared.lm.model(
                input_ids=torch.tensor([example.input_ids]),
                decoder_input_ids=torch.tensor([[start, *labels[:-1]]]),
            ).logits[0]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="sum").item()
        tokens += len(labels)
    with torch.no_grad():
        close(next_token(prepared.lm, plain, batch), torch.tensor(total / tokens))


@pytest.mark.parametrize(
    "method",
    [
        {"placement": "both"},
        {"placement": "decoder"},
        {"name": "prefix-tuning", "placement": "before", "stacks": "cross"},
        {"name": "prefix-tuning", "placement": "after"},
    ],
    ids=lambda m: "-".join(m.values()),
)
def test_tuned_saved_and_opened_again(folder, tmp_path, method):
    out = tmp_path / "out"
    run = tune(prepare(recipe(folder, out, method=method), rows=ROWS[:8], dev_rows=ROWS[8:]), overwrite=True)
    assert run.outcome.step == 6
    opened = softprompt.open_prompt(str(out))
    answers = opened.generate([row["input"] for row in ROWS[:3]])
    assert len(answers) == 3 and answers == [opened.generate(row["input"]) for row in ROWS[:3]]


def test_labels_are_scored_by_what_the_decoder_gives_them(folder, tmp_path):
    task = {"kind": "classification", "labels": ["good", "bad"]}
    prepared = prepare(recipe(folder, tmp_path / "out", task=task), rows=ROWS[:8], dev_rows=ROWS[8:])
    tune(prepared, overwrite=True)
    opened = softprompt.open_prompt(str(tmp_path / "out"))
    example = opened.encoder.encode("row 1", with_target=False)
    scores = []
    for ids in example.candidates:
        one = collate([example]).with_targets([ids])
        with torch.no_grad():
            loss = next_token(opened.lm, opened.method, one)
        scores.append(-loss.item() * len(ids))
    assert opened.generate("row 1") == ("good", "bad")[scores.index(max(scores))]


@pytest.mark.slow
def test_commands(folder, tmp_path, capsys):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    page = tmp_path / "recipe.yaml"
    page.write_text(
        f"model: {folder}\ndata: {{train: train.jsonl}}\nmethod: {{name: prefix-tuning, length: 3}}\n"
        f"task: {{max_new_tokens: 5}}\n"
        f"train: {{steps: 4, batch_size: 4, dtype: float32}}\noutput: {tmp_path / 'out'}\n"
    )
    assert main(["check", str(page)]) == 0
    assert "encoder's output" in capsys.readouterr().out  # the plan says why nothing is kept
    for command in (
        ["tune", page],
        ["eval", tmp_path / "out", "--data", tmp_path / "train.jsonl"],
        ["generate", tmp_path / "out", "row 3"],
        ["inspect", tmp_path / "out"],
    ):
        assert main([str(part) for part in command]) == 0, capsys.readouterr().err
