"""T5 through PEFT and back: logits of both libraries, and what PEFT's encoder-decoders cannot hold."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from softprompt.artifacts.interop import peft as interop
from softprompt.artifacts.interop.peft import files, writing
from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.lm.families import tiny

peft = pytest.importorskip("peft")

ROWS, TARGETS = [[5, 61, 7, 88, 20, 3, 44], [12, 90, 33, 4]], [[11, 12, 9], [4, 70]]  # both are padded
LENGTH, PAD, IGNORED = 4, 0, -100
TASK = "SEQ_2_SEQ_LM"


@pytest.fixture
def ours():
    """`ours(lm, artifact, index)`: logits [len(target), V] of each row, one batch."""

    def run(lm, artifact, index=0):
        batch = batch_of_ids(ROWS, TARGETS)
        injection = None if artifact is None else artifact.method(lm)(torch.full((len(ROWS),), index))
        logits = lm.logits(batch, injection)
        return [logits[i, -len(target) :] for i, target in enumerate(TARGETS)]

    return run


@pytest.fixture
def theirs():
    """`theirs(model)`: the same of a PEFT model, padded on the right."""

    def right(rows, filler):
        width = max(map(len, rows))
        return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])

    def run(model, **options):
        ids = right(ROWS, PAD)
        mask, labels = (ids != PAD).long(), right(TARGETS, IGNORED)
        with torch.no_grad():
            logits = model.eval()(input_ids=ids, attention_mask=mask, labels=labels, **options).logits
        ahead = logits.shape[1] - labels.shape[1]  # a multitask prompt in the decoder has logits too
        return [logits[i, ahead : ahead + len(target)] for i, target in enumerate(TARGETS)]

    return run


@pytest.fixture
def saved(tmp_path):
    """`saved(config)`: a PEFT model of random vectors on the family, and its folder."""

    def make(config, family="t5", change=lambda model: None, **sizes):
        torch.manual_seed(3)
        model = peft.get_peft_model(tiny(family, **sizes), copy.deepcopy(config)).eval()
        change(model)
        model.save_pretrained(tmp_path / "theirs")
        return model, tmp_path / "theirs"

    return make


def generated(lm, injection, **options):
    how = {"max_new_tokens": 5, "do_sample": False, **options}
    return lm.generate(batch_of_ids(ROWS[:1]), injection, **how)[0].tolist()


def generated_there(model, **options):
    ids = torch.tensor(ROWS[:1])
    made = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, **options
    )
    return made[0, 1:].tolist()


# --- to PEFT ---

OUT = [
    ("prompt-tuning", {}, False, "PROMPT_TUNING"),
    ("p-tuning", {}, True, "PROMPT_TUNING"),
    ("multitask-prompt-tuning", {"rank": 2}, False, "MULTITASK_PROMPT_TUNING"),
    ("prefix-tuning", {"stacks": "decoder"}, False, "PREFIX_TUNING"),
    ("prefix-tuning", {"stacks": "decoder", "freeze_first": True}, False, "CARTRIDGE"),
    ("prefix-tuning", {"stacks": "decoder", "reparameterize": True, "middle": 8}, True, "PREFIX_TUNING"),
]


@pytest.mark.parametrize("family", ["t5", "mt5"])
@pytest.mark.parametrize(("method", "options", "materialise", "kind"), OUT)
def test_export(
    family, method, options, materialise, kind, lms, artifact_of, ours, theirs, in_peft, same, tmp_path
):
    lm = lms(family)
    artifact = artifact_of(lm, method, ("joke", "fact"), length=LENGTH, placement="before", **options)
    adapter = interop.export(artifact, lm, tmp_path / "a", prompt="fact", materialise=materialise)
    assert adapter.kind == kind and adapter.config["task_type"] == TASK
    model = in_peft(tiny(family), tmp_path / "a")
    tasks = {"task_ids": torch.zeros(len(ROWS)).long()} if kind.startswith("MULTI") else {}
    same(ours(lm, artifact, 1), theirs(model, **tasks), ours(lm, None))
    one = {name: ids[:1] for name, ids in tasks.items()}
    assert generated(lm, artifact.method(lm)(torch.tensor([1]))) == generated_there(model, **one)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_prefix_of_any_depth_there_and_back(
    layers, new_lm, artifact_of, ours, theirs, in_peft, same, tmp_path, close
):
    """PEFT reads entry 2l mod N: as many entries are written as no layer shares one."""
    sizes = {"num_layers": 2, "num_decoder_layers": layers}
    lm = new_lm("t5", **sizes)
    artifact = artifact_of(lm, "prefix-tuning", length=LENGTH, placement="before", stacks="decoder")
    interop.export(artifact, lm, tmp_path / "a")
    model = in_peft(tiny("t5", **sizes), tmp_path / "a")
    same(ours(lm, artifact), theirs(model), ours(lm, None))
    again = interop.import_adapter(tmp_path / "a", lm, tmp_path / "again").artifact
    for name, tensor in load_file(artifact.path / "state.safetensors").items():
        close(load_file(again.path / "state.safetensors")[name], tensor)


@pytest.mark.parametrize(
    ("method", "options", "why"),
    [
        ("prefix-tuning", {"stacks": "all"}, "stacks=decoder"),
        ("prefix-tuning", {"stacks": "encoder"}, "0 of 2 layers"),
        ("prefix-tuning", {"stacks": "cross"}, "0 of 2 layers"),
        ("prompt-tuning", {"placement": "both"}, "soft tokens to the decoder"),
        ("prompt-tuning", {"placement": "decoder"}, "soft tokens to the decoder"),
        ("prompt-tuning", {"placement": "after"}, "after the input"),
        ("multitask-prompt-tuning", {"placement": "both"}, "soft tokens to the decoder"),
    ],
)
def test_what_peft_does_not_do_is_refused(method, options, why, lms, artifact_of, tmp_path):
    artifact = artifact_of(lms("t5"), method, **({"length": LENGTH, "placement": "before"} | options))
    with pytest.raises(SoftPromptError) as error:
        interop.export(artifact, lms("t5"), tmp_path / "adapter")
    assert why in str(error.value) and not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("method", ["prompt-tuning", "multitask-prompt-tuning", "prefix-tuning"])
def test_pegasus_is_refused(method, lms, artifact_of, tmp_path):
    options = {"stacks": "decoder"} if method == "prefix-tuning" else {}
    artifact = artifact_of(lms("pegasus"), method, length=LENGTH, placement="before", **options)
    with pytest.raises(SoftPromptError, match="cannot be converted between"):
        interop.export(artifact, lms("pegasus"), tmp_path / "adapter")


def test_why_scaled_embeddings_are_refused(lms, artifact_of, ours, theirs, in_peft, monkeypatch, tmp_path):
    """Written all the same, PEFT's answers are those to tokens that the model does not scale."""
    lm = lms("pegasus")
    artifact = artifact_of(lm, "prompt-tuning", length=LENGTH, placement="before")
    monkeypatch.setattr(writing, "check_embeddings", lambda lm: None)
    interop.export(artifact, lm, tmp_path / "a")
    for a, b in zip(ours(lm, artifact), theirs(in_peft(tiny("pegasus"), tmp_path / "a")), strict=True):
        assert (a - b).abs().max() > 1e-2


# --- from PEFT ---


def config(kind, **options):
    return getattr(peft, kind)(task_type=TASK, num_virtual_tokens=LENGTH, **options)


@pytest.mark.parametrize("submodules", [None, 1])
@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PromptEncoderConfig"])
def test_import_of_soft_prompts(kind, submodules, saved, lms, ours, theirs, same, tmp_path):
    extra = {"encoder_hidden_size": 8} if kind == "PromptEncoderConfig" else {}
    model, folder = saved(config(kind, num_transformer_submodules=submodules, **extra))
    stored = load_file(folder / files.WEIGHTS)["prompt_embeddings"]
    assert len(stored) == LENGTH * (submodules or 2)
    lm, expected, written = lms("t5"), theirs(model), generated_there(model)
    imported = interop.import_adapter(folder, lm, tmp_path / "ours")
    options = imported.artifact.manifest["options"]
    assert (options["length"], options["placement"]) == (LENGTH, "before")
    assert any("never reads" in note for note in imported.notes) == (submodules is None)
    same(ours(lm, imported.artifact), expected, ours(lm, None))
    assert generated(lm, imported.artifact.method(lm)(torch.tensor([0]))) == written


def grow(model):  # PEFT draws the factors at 0.02, and their product vanishes
    with torch.no_grad():
        model.prompt_encoder["default"].prefix_task_cols.mul_(40)
        model.prompt_encoder["default"].prefix_task_rows.mul_(40)


@pytest.mark.parametrize("submodules", [1, 2])
def test_import_of_multitask_prompts(submodules, saved, lms, ours, theirs, same, tmp_path):
    multitask = config(
        "MultitaskPromptTuningConfig", num_tasks=2, num_ranks=2, num_transformer_submodules=submodules
    )
    model, folder = saved(multitask, change=grow)
    lm = lms("t5")
    imported = interop.import_adapter(folder, lm, tmp_path / "ours")
    assert imported.artifact.manifest["options"]["placement"] == ("both" if submodules == 2 else "before")
    for task in range(2):
        expected = theirs(model, task_ids=torch.full((len(ROWS),), task))
        same(ours(lm, imported.artifact, task), expected, ours(lm, None))
        # its generate gives the decoder nothing
        injection = imported.artifact.method(lm)(torch.tensor([task]))
        without = injection.__class__(before=injection.before)
        made = generated_there(model, task_ids=torch.tensor([task]))
        assert made == generated(lm, without)
    assert bool(imported.notes) == (submodules == 2)


@pytest.mark.parametrize("layers", [2, 3, 4])
@pytest.mark.parametrize("projected", [False, True])
def test_import_of_prefixes(layers, projected, saved, new_lm, ours, theirs, same, tmp_path):
    """Of an even number of layers PEFT reads every second entry, twice."""
    extra = {"prefix_projection": True, "encoder_hidden_size": 8} if projected else {}
    model, folder = saved(config("PrefixTuningConfig", **extra), num_layers=layers)
    lm, expected, written = new_lm("t5", num_layers=layers), theirs(model), generated_there(model)
    imported = interop.import_adapter(folder, lm, tmp_path / "ours")
    same(ours(lm, imported.artifact), expected, ours(lm, None))
    method = imported.artifact.method(lm)
    assert generated(lm, method(torch.tensor([0]))) == written
    values = [kv.value for kv in method(torch.tensor([0])).kv_before.layers if kv is not None]
    assert torch.equal(values[0], values[layers // 2]) == (layers % 2 == 0)


def test_bart_and_mismatched_tasks(saved, lms, ours, theirs, same, tmp_path):
    """A soft prompt in the encoder is the same everywhere; prefixes and scaled embeddings are not."""
    model, folder = saved(config("PromptTuningConfig"), "bart")
    imported = interop.import_adapter(folder, lms("bart"), tmp_path / "bart")
    same(ours(lms("bart"), imported.artifact), theirs(model), ours(lms("bart"), None))
    output = json.loads((folder / files.CONFIG).read_text())

    def refusal(lm, **changes):
        (folder / files.CONFIG).write_text(json.dumps(output | changes))
        with pytest.raises(SoftPromptError) as error:
            interop.import_adapter(folder, lm, tmp_path / "ours")
        return str(error.value)

    assert "scales its embeddings" in refusal(lms("pegasus"))
    assert "for CAUSAL_LM cannot" in refusal(lms("t5"), task_type="CAUSAL_LM")
    assert "for SEQ_2_SEQ_LM cannot" in refusal(lms("llama"))
    assert "says 4 × 3 (num_transformer_submodules)" in refusal(lms("t5"), num_transformer_submodules=3)
    assert "adds a learned vector" in refusal(lms("bart"), peft_type="PREFIX_TUNING")
    prefix = {"peft_type": "PREFIX_TUNING", "num_layers": 2}
    one_cache = "self-attention and cross-attention one cache"
    assert one_cache in refusal(lms("t5"), **prefix, num_transformer_submodules=1)
    assert one_cache in refusal(lms("t5"), **prefix, num_transformer_submodules=None, task_type=None)
    assert "cannot run it with num_transformer_submodules=3" in refusal(
        lms("t5"), **prefix, num_transformer_submodules=3
    )
    assert "1 entries for 2 layers" in refusal(lms("t5"), **prefix | {"num_layers": 1})


def test_a_prompt_for_no_task_has_its_vectors_on_one_side(saved, lms, ours, theirs, same, tmp_path):
    """Of an adapter without task_type and num_transformer_submodules PEFT takes all vectors."""
    options = {"num_transformer_submodules": 1}
    model, folder = saved(config("PromptTuningConfig", **options), "t5")
    output = json.loads((folder / files.CONFIG).read_text())
    output |= {"task_type": None, "num_transformer_submodules": None}
    (folder / files.CONFIG).write_text(json.dumps(output))
    imported = interop.import_adapter(folder, lms("t5"), tmp_path / "ours")
    assert "PeftModelForSeq2SeqLM" in imported.notes[0]
    assert imported.artifact.manifest["options"]["length"] == LENGTH
    same(ours(lms("t5"), imported.artifact), theirs(model), ours(lms("t5"), None))
