"""Heads of labels, tags and numbers, and masked label words: losses, training, artifacts, and refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import f1_score

import softprompt
from softprompt import Head, methods
from softprompt.cache import InputCache
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import batch_of_ids, collate
from softprompt.errors import SoftPromptError
from softprompt.evaluation.row_answers import answer
from softprompt.lm.causal import CausalLM
from softprompt.lm.heads import parameter_names
from softprompt.lm.loading import fingerprint, load
from softprompt.training.caches import open_caches
from softprompt.training.losses import squared_errors, token_losses
from softprompt.training.prepare import prepare
from softprompt.training.step import StepPart, TrainStep
from softprompt.training.trained import named_parameters
from softprompt.training.tune import tune

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss"]
ROWS = [{"input": f"{w} {i}", "target": ("good", "bad", "odd")[i % 3]} for i, w in enumerate(WORDS * 2)]
NUMBERS = [{**row, "target": i / 4 - 1} for i, row in enumerate(ROWS)]
TAGGED = [
    {"words": [w, "is", str(i), "?!"], "tags": ["B-X", "O", "B-N", "O"]} for i, w in enumerate(WORDS * 2)
]
TASKS = {
    "labels": ({"kind": "classification", "head": True}, ROWS),
    "number": ({"kind": "regression"}, NUMBERS),
    "tags": ({"kind": "token-classification"}, TAGGED),
    "masks": ({"kind": "classification", "verbalizer": {"good": "g", "bad": "b", "odd": "o"}}, ROWS),
}
TEMPLATES = {"masks": {"input": "{{ input }}:{{ mask }}!"}}


def recipe(folder, name: str, output="out", method="prefix-tuning", task=None, template=None, **train):
    return recipe_from_dict(
        {
            "model": str(folder),
            "data": {"train": "rows"},
            "task": TASKS[name][0] | (task or {}),
            "template": template or TEMPLATES.get(name, {}),
            "method": {"name": method, **({} if method == "none" else {"length": 3})},
            "train": {"steps": 6, "batch_size": 4, "eval_every": 3, "dtype": "float32", **train},
            "output": str(output),
        }
    )


@pytest.fixture
def prepared(bert_folder, tmp_path):
    """`prepared(name, …)`: a fresh start of one of `TASKS` on the tiny BERT."""

    def make(name: str, rows=None, folder=None, **changes):
        rows = rows or TASKS[name][1]
        made = recipe(folder or bert_folder, name, tmp_path / "out", **changes)
        return prepare(made, rows=rows[:12], dev_rows=rows[12:])

    return make


# --- losses, by transformers' own models on rows of tokens ---


def own_loss(prepared) -> float:
    """The loss that transformers computes of each row alone, averaged; the plain model."""
    lm, losses, counts = prepared.lm, [], []
    for example in prepared.train:
        ids = torch.tensor([example.input_ids])
        if prepared.encoder.kind == "regression":
            labels = torch.tensor([example.value])
        elif lm.head is not None and lm.head.over == "sequence":
            labels = torch.tensor(example.target_ids)
        else:
            labels = torch.full_like(ids, -100)  # ignored, but for words or masks
            labels[0, list(example.places)] = torch.tensor(example.target_ids)
        with torch.no_grad():
            losses.append(lm.model(input_ids=ids, labels=labels).loss.item())
        counts.append(len(example.target_ids))
    return sum(a * n for a, n in zip(losses, counts, strict=True)) / sum(counts)


@pytest.mark.parametrize("name", TASKS)
def test_loss_is_that_of_transformers(prepared, name):
    start = prepared(name, method="none")
    batch = collate(start.train)
    objective = squared_errors if name == "number" else token_losses
    ours = objective(start.lm, start.method, batch).mean().item()
    assert ours == pytest.approx(own_loss(start), rel=1e-5) and ours > 1e-3


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
def test_gradient_reaches_all_that_is_trained(prepared, name, method):
    start = prepared(name, method=method)
    assert start.plan.mode == "full" and start.lm.is_frozen
    parameters = named_parameters(start.lm, start.method)
    heads = {key for key in parameters if key.startswith("base.")}
    expected = set() if name == "masks" else {"base.classifier.weight", "base.classifier.bias"}
    # a checkpoint for masked words has no pooler: it is drawn, and so trained with the head
    pooler = {f"base.bert.pooler.dense.{part}" for part in ("weight", "bias")}
    assert heads == expected | (pooler if name in ("labels", "number") else set())
    TrainStep(start.lm, [StepPart.of(start)], InputCache()).backward([(0, list(range(12)))])
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in parameters.values())
    others = [p for key, p in start.lm.model.named_parameters() if f"base.{key}" not in parameters]
    assert others and not any(p.requires_grad or p.grad is not None for p in others)


# --- training and artifacts ---


@pytest.mark.parametrize("name", TASKS)
def test_trained_saved_and_opened_again(prepared, bert_folder, tmp_path, name):
    start = prepared(name, steps=12, lr=1e-2)
    before = {key: t.clone() for key, t in start.lm.model.state_dict().items()}
    run = tune(start)
    head = {key: before[key] for key in start.lm.head_names}
    after = start.lm.model.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items() if key not in head)
    assert bool(head) == (name != "masks")
    assert all(not torch.equal(after[key], tensor) for key, tensor in head.items())
    files = run.artifact.manifest["files"]
    assert ("base.safetensors" in files) == bool(head)
    if head:
        saved = load_file(tmp_path / "out" / "base.safetensors")
        assert set(saved) == set(head) and all(torch.equal(saved[key], after[key]) for key in head)
        numbers = (
            sum(t.numel() for t in head.values()) + 2 * 3 * len(start.lm.spec.layers) * 32
        )  # keys, values
        assert run.artifact.manifest["trained_parameters"] == numbers
    again = softprompt.open_prompt(tmp_path / "out")
    batch = collate(start.dev)
    ids = torch.zeros(batch.size, dtype=torch.long)
    ours = start.lm.logits(batch, start.method(ids))
    assert torch.allclose(ours, again.lm.logits(batch, again.method(ids)), atol=1e-5)
    rows = TASKS[name][1][12:]
    found = again.evaluate(rows)
    assert found.to_json()["metrics"] == pytest.approx(run.dev.to_json()["metrics"], abs=1e-5)
    inputs = [row["words"] for row in rows] if name == "tags" else [row["input"] for row in rows]
    texts = [" ".join(words) for words in inputs] if name == "tags" else inputs
    assert again.generate(texts) == [record.prediction for record in found.records]
    plain = softprompt.open_prompt(tmp_path / "out", plain=True)
    message = plain.evaluate(rows)
    assert message.to_json()["metrics"] == pytest.approx(run.plain.to_json()["metrics"], abs=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_training_lowers_the_loss(prepared, name):
    rows = TASKS[name][1][:12]
    task = {"metrics": ["perplexity"]}  # the state that is best in it is kept
    start = prepared(name, [*rows, *rows], method="prompt-tuning", task=task, steps=40, lr=3e-2)
    rows = list(range(12))
    steps = TrainStep(start.lm, [StepPart.of(start)], InputCache())
    (before,) = steps.backward([(0, rows)])
    tune(start)
    assert steps.backward([(0, rows)])[0] < 0.92 * before


def test_a_killed_run_goes_on_to_the_same_head(prepared, tmp_path):
    from softprompt.training.tune import Hooks, Interrupted

    run = tune(prepared("labels"))
    whole = (run.artifact.path / "base.safetensors").read_bytes()
    steps = []
    with pytest.raises(Interrupted):
        stopping = Hooks(on_event=lambda event: steps.append(1), should_stop=lambda: len(steps) == 4)
        tune(prepared("labels"), hooks=stopping, overwrite=True)
    resumed = tune(prepared("labels"))
    assert resumed.outcome.step == 6
    assert (resumed.artifact.path / "base.safetensors").read_bytes() == whole


# --- decoder-only models ---


@pytest.fixture
def llama_head(new_lm):
    """A tiny Llama with a head of three labels, and its own transformers model."""
    from transformers import LlamaForSequenceClassification

    plain = new_lm("llama")
    torch.manual_seed(3)
    model = LlamaForSequenceClassification(plain.model.config.__class__(**_with_labels(plain.model.config)))
    return CausalLM(model.eval(), plain.tokenizer, "tiny", Head("sequence", 3), parameter_names(model))


def _with_labels(config) -> dict:
    return {**config.to_dict(), "num_labels": 3}


def test_a_decoder_reads_its_label_off_the_last_token(llama_head, close):
    rows = [[5, 6, 7, 8, 9], [20], [31, 32, 33]]
    logits = llama_head.logits(batch_of_ids(rows, [[0], [1], [2]]))
    for i, ids in enumerate(rows):
        with torch.no_grad():
            close(logits[i], llama_head.model(input_ids=torch.tensor([ids])).logits)


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
def test_a_head_keeps_the_inputs_constants(llama_head, model_folder, setting, perturb, close, method):
    """It follows everything, so keys and values of the input are still computed once."""
    batch = batch_of_ids([[5, 6, 7, 8, 9], [20], [31, 32, 33]], [[0], [1], [2]], [0, 1, 1])
    made = perturb(methods.build(method, setting(llama_head), {"length": 3, "placement": "after"}))
    injection = made(batch.prompt_ids)
    full = llama_head.logits(batch, injection)
    close(llama_head.logits(batch, injection, llama_head.prefill(batch, injection)), full)
    assert (full - llama_head.logits(batch)).abs().max() > 1e-3
    start = prepare(recipe(model_folder, "labels", method=method), rows=ROWS[:12], dev_rows=ROWS[12:])
    assert start.plan.mode == "cached-ram" and start.lm.head_names == {"score.weight"}
    rows = list(range(12))
    (cache,), _ = open_caches(start, [start.train])
    (cached,) = TrainStep(start.lm, [StepPart.of(start)], cache).backward([(0, rows)])
    full = token_losses(start.lm, start.method, collate(start.train)).mean()
    assert cached.item() == pytest.approx(full.item())


def test_a_decoder_with_a_head_is_tuned(model_folder, tmp_path):
    rows = [{k: v for k, v in row.items()} for row in ROWS]
    task = {"kind": "classification", "head": True}
    tuned = softprompt.tune(
        str(model_folder),
        "prompt-tuning",
        rows,
        task=task,
        output=tmp_path / "out",
        options={"length": 3},
        steps=4,
    )
    again = softprompt.open_prompt(tmp_path / "out")
    assert again.generate("a cake") == tuned.generate("a cake") in ("good", "bad", "odd")


# --- loading ---


def test_a_head_is_drawn_from_its_seed_or_taken_from_the_checkpoint(bert_folder, tmp_path):
    def head(folder, size=3, seed=0) -> dict[str, torch.Tensor]:
        lm = load(str(folder), dtype="float32", head=Head("sequence", size, seed))
        state = lm.model.state_dict()
        return {name: state[name] for name in lm.head_names}

    first, same, other = head(bert_folder), head(bert_folder), head(bert_folder, seed=1)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    lm = load(str(bert_folder), dtype="float32", head=Head("sequence", 3, 1))
    lm.model.save_pretrained(tmp_path)
    assert lm.tokenizer is not None
    lm.tokenizer.save_pretrained(tmp_path)
    kept = head(tmp_path)
    assert torch.equal(kept["classifier.weight"], other["classifier.weight"])
    assert "bert.pooler.dense.weight" not in kept  # the checkpoint has one now, so it is part of the base
    assert head(tmp_path, size=5)["classifier.weight"].shape == (5, 32)
    with pytest.raises(SoftPromptError, match="lacks") as caught:
        load(str(tmp_path), dtype="float32")  # it has no masked-word head
    assert "task.head=true" in caught.value.fix


def test_a_fingerprint_is_the_base_alone(bert_folder):
    prints = [
        fingerprint(load(str(bert_folder), dtype="float32", head=Head("sequence", 3, s))) for s in (0, 1)
    ]
    assert prints[0] == prints[1]


def test_damaged_base_weights_are_not_drawn(bert_folder, tmp_path):
    import shutil

    from safetensors.torch import save_file

    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if "layer.1.attention.self.query.weight" in key)
    for damaged in ({k: t for k, t in weights.items() if k != name}, weights | {name: weights[name][:4]}):
        save_file(
            {k: t.contiguous() for k, t in damaged.items()}, folder / "model.safetensors", {"format": "pt"}
        )
        with pytest.raises(SoftPromptError, match="lacks 1"):
            load(str(folder), dtype="float32", head=Head("sequence", 3))


# --- masked words, and words that are tagged ---


@pytest.mark.parametrize("masks", [1, 2])
def test_label_words_are_scored_at_the_masks(prepared, masks):
    words = {"good": "gx", "bad": "by", "odd": "oz"}
    words = {label: word[:masks] for label, word in words.items()}
    template = {"input": "It is{{ mask }}" + "{{ mask }}" * (masks - 1) + " {{ input }}"}
    start = prepared("masks", task={"verbalizer": words}, template=template, method="none")
    batch = collate(start.dev)
    message = answer(start.lm, start.encoder, batch, start.method(batch.prompt_ids), None, start.dev)
    tokenizer, labels = start.encoder.tokenizer, sorted(words)
    assert start.encoder.labels == tuple(labels)
    for example, one in zip(start.dev, message, strict=True):
        text = "[CLS]It is" + "[MASK]" * masks + " " + example.rendered.row["input"] + "[SEP]"
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        places = (ids[0] == tokenizer.mask_token_id).nonzero()[:, 0]
        assert len(places) == masks
        with torch.no_grad():
            logs = start.lm.model(input_ids=ids).logits[0, places].log_softmax(-1)
        assert one.scores is not None
        ours: dict[str, float] = dict(zip(labels, one.scores, strict=True))
        for label in labels:
            word = tokenizer(words[label], add_special_tokens=False)["input_ids"]
            naive = sum(logs[i, token].item() for i, token in enumerate(word))
            assert ours[label] == pytest.approx(naive, abs=1e-4)
        assert one.text == max(labels, key=ours.__getitem__)
        assert one.nll == pytest.approx(-ours[example.rendered.target])


def test_tags_are_read_at_the_first_token_of_each_word(prepared):
    start = prepared("tags")
    tokenizer = start.lm.tokenizer
    for example in start.train:
        row = example.rendered.row
        assert [tokenizer.decode([example.input_ids[i]]) for i in example.places] == [
            w[0] for w in row["words"]
        ]
        assert [start.encoder.labels[i] for i in example.target_ids] == row["tags"]
    assert start.encoder.labels == ("B-N", "B-X", "O")


def test_tag_metrics_are_scikit_learns(prepared):
    start = prepared("tags", method="none")
    rows = [{"words": ["a", "b", "c"], "tags": ["O", "B-X", "B-N"]}, {"words": ["d"], "tags": ["B-X"]}]
    from softprompt.evaluation.evaluator import evaluator_of

    evaluation = evaluator_of(start.recipe, start.lm, start.encoder).run(
        start.method, start.encoder.encode_rows(rows)
    )
    guesses = [tag for record in evaluation.records for tag in record.prediction.split()]
    true = [tag for row in rows for tag in row["tags"]]
    assert len(guesses) == 4
    right = sum(a == b for a, b in zip(guesses, true, strict=True))
    assert evaluation.metrics["tag_accuracy"].value == right / 4
    macro = f1_score(true, guesses, average="macro", zero_division=0)  # type: ignore[arg-type]
    assert evaluation.metrics["tag_macro_f1"].value == pytest.approx(macro)
    assert [r.tokens for r in evaluation.records] == [3, 1]


# --- refusals ---


REFUSED = {
    "no mask": ("masks", {"template": {"input": "{{ input }}"}}, None, "no mask in the input"),
    "two masks": ("masks", {"template": {"input": "{{ mask }}{{ mask }} {{ input }}"}}, None, "2 masks in"),
    "word lengths": (
        "masks",
        {"task": {"verbalizer": {"good": "g", "bad": "bad", "odd": "o"}}},
        None,
        "'bad' 3",
    ),
    "no such label": ("masks", {"task": {"verbalizer": {"good": "g", "bad": "b"}}}, None, "does not name"),
    "text": ("masks", {"task": {"kind": "generation", "verbalizer": None}}, None, "writes no text"),
    "not a number": ("number", {}, {"input": "a", "target": "warm"}, "'warm' is not a number"),
    "unlike lengths": ("tags", {}, {"words": ["a", "b"], "tags": ["O"]}, "2 words ('words') and 1 tags"),
    "no tags": ("tags", {}, {"words": ["a"]}, "no field 'tags'"),
    "unknown tag": ("tags", {"task": {"labels": ["O", "B-X"]}}, None, "tag 'B-N' is not one of the 2 labels"),
    "two words in one": (
        "tags",
        {},
        {"words": ["a b"], "tags": ["O"]},
        "'a b' in field 'words' is not one word",
    ),
    "no words": ("tags", {}, {"words": [], "tags": []}, "holds no word"),
    "not a list": ("tags", {}, {"words": "a b", "tags": ["O", "O"]}, "not a list of texts"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(prepared, case):
    name, changes, row, words = REFUSED[case]
    rows = TASKS[name][1]
    if row is not None:
        rows = [*rows[:3], row, *rows[3:]]
    with pytest.raises(SoftPromptError) as caught:
        prepared(name, rows=rows, **changes)
    assert words in str(caught.value) and caught.value.fix
    if row is not None:
        assert "row 4" in caught.value.what


def test_a_row_too_long_to_tag_is_refused(prepared):
    rows = [*TAGGED, {"words": ["w" * 300], "tags": ["O"]}]
    with pytest.raises(SoftPromptError, match="too long for the model"):
        prepared("tags", rows=rows[::-1])


def test_models_that_do_not_fit_the_task(model_folder, bert_folder):
    made = recipe(model_folder, "tags")
    with pytest.raises(SoftPromptError, match="cannot tag words"):
        prepare(made, rows=TAGGED[:12], dev_rows=TAGGED[12:])
    masked = load(str(bert_folder), dtype="float32")
    made = recipe(bert_folder, "labels")
    with pytest.raises(SoftPromptError, match="without the head") as caught:
        prepare(made, lm=masked, rows=ROWS[:12], dev_rows=ROWS[12:])
    assert 'Head("sequence", 3)' in caught.value.fix
    headed = load(str(bert_folder), dtype="float32", head=Head("sequence", 3))
    assert prepare(made, lm=headed, rows=ROWS[:12], dev_rows=ROWS[12:]).lm is headed
    with pytest.raises(SoftPromptError, match="does not read"):
        prepare(recipe(bert_folder, "masks"), lm=headed, rows=ROWS[:12], dev_rows=ROWS[12:])
    half = load(str(bert_folder), dtype="bfloat16", head=Head("sequence", 3))
    with pytest.raises(SoftPromptError, match="a head needs float32"):
        prepare(made, lm=half, rows=ROWS[:12], dev_rows=ROWS[12:])


def test_a_mask_is_a_field_like_any_other_on_a_decoder(model_folder):
    made = recipe(model_folder, "masks", task={"verbalizer": None})
    with pytest.raises(SoftPromptError, match="no field 'mask'"):
        prepare(made, rows=ROWS[:12], dev_rows=ROWS[12:])


# --- the command line ---


@pytest.mark.parametrize("name", TASKS)
def test_commands(bert_folder, tmp_path, capsys, name):
    from softprompt.cli import main

    def run(*arguments) -> dict:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    task, rows = TASKS[name]
    for part, chosen in (("train", rows[:12]), ("dev", rows[12:])):
        text = "".join(json.dumps(row) + "\n" for row in chosen)
        (tmp_path / f"{part}.jsonl").write_text(text, encoding="utf-8")
    content = {
        "model": str(bert_folder),
        "data": {"train": "train.jsonl", "dev": "dev.jsonl"},
        "task": task,
        "template": TEMPLATES.get(name, {}),
        "method": {"name": "prompt-tuning", "length": 2, "placement": "before"},
        "train": {"steps": 4, "batch_size": 4},
        "output": str(tmp_path / "out"),
    }
    file = Path(tmp_path / "recipe.yaml")
    file.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    checked = run("check", file)
    pieces = checked["examples"][0]["pieces"]
    assert [p["part"] for p in pieces] == ["input", "soft", "input", "target"]
    assert pieces[0]["tokens"] == ["[CLS]"] and pieces[2]["tokens"][-1] == "[SEP]"
    row = rows[int(checked["examples"][0]["row"].split(":")[1]) - 1]
    words = task.get("verbalizer", {})
    learned = row.get("tags") or [words.get(row["target"], str(row["target"]))]
    assert pieces[-1]["tokens"] == learned
    tuned = run("tune", file)
    assert tuned["trained_parameters"] == checked["price"]["trained_parameters"]
    scored = run("eval", tmp_path / "out", "--data", tmp_path / "dev.jsonl")
    assert scored["metrics"] == pytest.approx(tuned["metrics"], abs=1e-5)
    assert all(math.isfinite(value) for value in scored["metrics"].values())
    (message,) = run("generate", tmp_path / "out", "sun is shining")["outputs"]
    if name == "tags":
        assert len(message.split()) == 3 and set(message.split()) <= {"B-X", "B-N", "O"}
    elif name == "number":
        assert math.isfinite(float(message))
    else:
        assert message in ("good", "bad", "odd")
    assert run("inspect", tmp_path / "out")["prompts"]
    assert main(["eval", str(tmp_path / "out"), "--data", str(tmp_path / "dev.jsonl"), "--shots", "2"]) == 1
    assert "no demonstrations" in capsys.readouterr().err
