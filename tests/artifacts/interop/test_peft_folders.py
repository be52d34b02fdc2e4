"""Folders as PEFT's versions, and people, leave them: imported as PEFT loads them, or refused as by PEFT.

Every row of the tables is tried on PEFT itself in the test. Where we refuse what it runs, `REFUSED` says so.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from softprompt.artifacts.interop import peft as interop
from softprompt.artifacts.interop.peft.config import NAME
from softprompt.artifacts.interop.peft.files import PICKLE, WEIGHTS
from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.lm import families
from softprompt.lm.causal import CausalLM

from ...conftest import tiny_model, tiny_tokenizer

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(
    "ignore:Unexpected keyword arguments:UserWarning", "ignore:Found missing:UserWarning"
)

LENGTH, ROW = 4, [5, 61, 7, 88, 20, 3, 44, 9, 71]
TEXT_TASK = {"task_type": "CAUSAL_LM", "num_virtual_tokens": LENGTH}
TOKENS = {"cpt_token_ids": [3, 5, 7, 9], "cpt_mask": [1] * LENGTH, "cpt_tokens_type_mask": [1, 2, 3, 4]}
CONFIGS = {
    "soft": lambda: peft.PromptTuningConfig(**TEXT_TASK),
    "encoder": lambda: peft.PromptEncoderConfig(**TEXT_TASK, encoder_hidden_size=8),
    "cpt": lambda: peft.CPTConfig(task_type="CAUSAL_LM", **TOKENS),
    "multitask": lambda: peft.MultitaskPromptTuningConfig(**TEXT_TASK, num_tasks=2, num_ranks=2),
    "prefix": lambda: peft.PrefixTuningConfig(**TEXT_TASK),
    "cartridge": lambda: peft.CartridgeConfig(**TEXT_TASK),
    "adaption": lambda: peft.AdaptionPromptConfig(
        task_type="CAUSAL_LM", adapter_len=LENGTH, adapter_layers=2
    ),
}
SOFT = ("soft", "encoder", "multitask")
EMBEDDING = "base_model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """`saved(kind)`: a folder that PEFT wrote, with the adapter's vectors moved from where they start."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            torch.manual_seed(1)
            model = peft.get_peft_model(tiny_model("llama"), CONFIGS[kind]())
            for name, parameter in model.named_parameters():
                if "prefix_task" in name:
                    parameter.data.mul_(40)
                if "delta_embedding" in name:
                    parameter.data.normal_()
                if name.endswith("adaption_gate"):
                    parameter.data.fill_(0.4)
            made[kind] = tmp_path_factory.mktemp(kind)
            model.save_pretrained(made[kind])
        return made[kind]

    return folder


@pytest.fixture
def changed(saved, tmp_path):
    """`changed(kind, settings, without, tensors)`: a copy with other settings, or with other tensors."""

    def make(kind, settings=None, without=(), tensors=None) -> Path:
        source, out = saved(kind), tmp_path / "theirs"
        out.mkdir()
        output = json.loads((source / NAME).read_text()) | (settings or {})
        (out / NAME).write_text(json.dumps({key: output[key] for key in output if key not in without}))
        found = load_file(source / WEIGHTS)
        found = found if tensors is None else tensors(found)
        save_file({name: tensor.contiguous().clone() for name, tensor in found.items()}, out / WEIGHTS)
        return out

    return make


def in_peft(folder: Path, kind: str) -> torch.Tensor | Exception:
    """Log-probabilities [len(ROW), V] of the row as PEFT computes them, or what it raises."""
    task = {"task_ids": torch.tensor([0])} if kind == "multitask" else {}
    try:
        model = peft.PeftModel.from_pretrained(tiny_model("llama"), str(folder)).eval()
        with torch.no_grad():
            return model(input_ids=torch.tensor([ROW]), **task).logits[0, -len(ROW) :].log_softmax(-1)
    except Exception as error:  # PEFT raises whatever its libraries do
        return error


def here(folder: Path, lm, out: Path) -> tuple[torch.Tensor | SoftPromptError, tuple[str, ...]]:
    """The same of an import, and its notes; or the refusal."""
    try:
        imported = interop.import_adapter(folder, lm, out)
    except SoftPromptError as error:
        return error, ()
    batch = batch_of_ids([ROW[:1]], [[*ROW[1:], 0]])
    logits = lm.logits(batch, imported.artifact.method(lm)(torch.tensor([0])))
    return logits[0, -len(ROW) :].log_softmax(-1), imported.notes


def settings(**changes):
    return {"settings": changes}


def without(*keys):
    return {"without": keys}


def tensors(change):
    return {"tensors": change}


def each(change):
    return tensors(lambda found: {name: change(tensor) for name, tensor in found.items()})


def plus(name, tensor):
    return tensors(lambda found: {**found, name: tensor()})


NEW = (
    "peft_version", "auto_mapping", "revision", "modules_to_save", "init_weights", "tokenizer_kwargs",
    "encoder_dropout", "encoder_num_layers", "encoder_reparameterization_type", "encoder_hidden_size",
)  # fmt: skip
FILLED = ("token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules", "inference_mode")
#: Folders that differ from what PEFT 0.21.2 saves: which kinds of adapter, and the change.
FOLDERS = {
    "as saved": (CONFIGS, {}),
    "keys of PEFT 0.3": (CONFIGS, without(*NEW)),
    "nothing filled in": (("soft", "encoder", "prefix", "cartridge", "multitask"), without(*NEW, *FILLED)),
    "keys of a later PEFT": (CONFIGS, settings(peft_version="9.9", later={"a": 1})),
    "left in training": (CONFIGS, settings(inference_mode=False)),
    "base unknown": (CONFIGS, settings(base_model_name_or_path=None, revision=None)),
    "base at a revision": (CONFIGS, settings(base_model_name_or_path="a/b", revision="main")),
    "bfloat16": (CONFIGS, each(torch.Tensor.bfloat16)),
    "float16": (CONFIGS, each(torch.Tensor.half)),
    "float64": (CONFIGS, each(torch.Tensor.double)),
    "float8": (CONFIGS, each(lambda t: t.to(torch.float8_e4m3fn))),
    "more vectors stated": (CONFIGS, settings(num_virtual_tokens=20, adapter_len=20)),
    "fewer vectors stated": (CONFIGS, settings(num_virtual_tokens=2, adapter_len=2)),
    "no length": (CONFIGS, settings(num_virtual_tokens=None, adapter_len=None)),
    "length in quotes": (CONFIGS, settings(num_virtual_tokens="4", adapter_len="4")),
    "length with a point": (SOFT, settings(num_virtual_tokens=4.0)),
    "fewer tokens of CPT": (("cpt",), settings(cpt_token_ids=[1], cpt_mask=[1], cpt_tokens_type_mask=[1])),
    "masks of other lengths": (("cpt",), settings(cpt_mask=[1])),
    "CPT for no task": (("cpt",), settings(task_type=None)),
    "two submodules of half": (CONFIGS, settings(num_transformer_submodules=2, num_virtual_tokens=2)),
    "two submodules stated": (CONFIGS, settings(num_transformer_submodules=2)),
    "no submodules": (CONFIGS, settings(num_transformer_submodules=0)),
    "submodules unsaid": (CONFIGS, settings(num_transformer_submodules=None)),
    "heads of a prompt": (("cpt", *SOFT), settings(num_attention_heads=7, num_layers="many")),
    "width of a prompt": (("cpt", *SOFT), settings(token_dim=64)),
    "width of a prefix": (("prefix", "cartridge"), settings(token_dim=64)),
    "layers of a prefix": (("prefix", "cartridge"), settings(num_layers=2)),
    "layers in words": (("prefix", "cartridge"), settings(num_layers="many")),
    "projected": (("prefix",), settings(prefix_projection=True, encoder_hidden_size=None)),
    "unknown encoder": (("encoder",), settings(encoder_reparameterization_type="GRU")),
    "frozen: null": (("cartridge",), settings(num_frozen_tokens=None)),
    "frozen: unsaid": (("cartridge",), without("num_frozen_tokens")),
    "frozen: all": (("cartridge",), settings(num_frozen_tokens=LENGTH)),
    "frozen: too many": (("cartridge",), settings(num_frozen_tokens=9)),
    "frozen: fewer than none": (("cartridge",), settings(num_frozen_tokens=-1)),
    "text without a tokenizer": (
        ("soft", "multitask"),
        settings(prompt_tuning_init="TEXT", prompt_tuning_init_text="a"),
    ),
    "text without a text": (("soft",), settings(prompt_tuning_init="TEXT", tokenizer_name_or_path="a")),
    "a tokenizer that is gone": (
        ("soft",),
        settings(prompt_tuning_init="TEXT", tokenizer_name_or_path="/gone", prompt_tuning_init_text="a"),
    ),
    "tokenizer options alone": (("soft",), settings(tokenizer_kwargs={"a": 1})),
    "a source that is gone": (
        ("multitask",),
        settings(prompt_tuning_init="ONLY_SOURCE_SHARED", prompt_tuning_init_state_dict_path="/gone.bin"),
    ),
    "more tasks stated": (("multitask",), settings(num_tasks=3)),
    "another rank stated": (("multitask",), settings(num_ranks=1)),
    "fewer layers stated": (("adaption",), settings(adapter_layers=1)),
    "more layers stated": (("adaption",), settings(adapter_layers=3)),
    "more layers than there are": (("adaption",), settings(adapter_layers=9)),
    "other modules": (("adaption",), settings(target_modules="mlp")),
    "modules unsaid": (("adaption",), settings(target_modules=None)),
    "task in small letters": (CONFIGS, settings(task_type="causal_lm")),
    "type in small letters": (("soft", "prefix"), settings(peft_type="prompt_tuning")),
    "no type": (("soft", "adaption"), settings(peft_type=None)),
    "a type without factors": (("soft",), settings(peft_type="VERA")),
    "a type of nobody's": (("soft",), settings(peft_type="BOTTLENECK")),
    "names of a checkpoint": (
        SOFT,
        tensors(lambda found: {"prompt_encoder.default.embedding.weight": found["prompt_embeddings"]}),
    ),
    "names of a checkpoint too": (SOFT, plus("prompt_encoder.default.old.weight", lambda: torch.ones(3))),
    "a tensor of nobody's": (CONFIGS, plus("other", lambda: torch.ones(3))),
    "nothing": (SOFT, tensors(lambda found: {"other": torch.ones(1)})),
    "the base's own embeddings": (
        CONFIGS,
        plus(EMBEDDING, lambda: tiny_model("llama").model.embed_tokens.weight.data),
    ),
    "more embeddings": (SOFT, plus(EMBEDDING, lambda: torch.zeros(103, 32))),
    "modules that are not there": (SOFT, settings(modules_to_save=["classifier", "score"])),
    "modules without weights": (("soft", "prefix"), settings(modules_to_save=["lm_head"])),
    "on its side": (("soft", "prefix"), each(torch.Tensor.t)),
    "one dimension more": (("soft", "prefix"), each(lambda t: t[None])),
    "another width": (("soft", "prefix"), each(lambda t: t[:, :16])),
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, (kinds, _) in FOLDERS.items() for kind in kinds]
)
def test_peft_and_we_agree(name, kind, changed, lms, tmp_path):
    lm, folder = lms("llama"), changed(kind, **FOLDERS[name][1])
    theirs, (ours, _) = in_peft(folder, kind), here(folder, lm, tmp_path / "ours")
    if isinstance(theirs, Exception):
        assert isinstance(ours, SoftPromptError), f"PEFT refuses it: {theirs}"
        assert ours.why and ours.fix and not (tmp_path / "ours").exists()
    else:
        assert not isinstance(ours, Exception), ours
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
        plain = lm.logits(batch_of_ids([ROW[:1]], [[*ROW[1:], 0]]))[0, -len(ROW) :].log_softmax(-1)
        assert (ours - plain).abs().max() > 1e-2


#: What PEFT runs and we refuse, with words of the reason: it would not be the prompt that was trained.
REFUSED = {
    "not finite": (CONFIGS, each(lambda t: t * float("nan")), "not finite"),
    "other embeddings": (
        (*SOFT, "cpt", "prefix"),
        plus(EMBEDDING, lambda: tiny_model("llama").model.embed_tokens.weight.data + 1),
        "weights of the model were trained too",
    ),
    "embeddings by another name": (
        ("soft",),
        plus("word_embeddings.weight", lambda: torch.ones(101, 32)),
        "weights of the model were trained too",
    ),
    "a trained head": (
        ("soft", "prefix"),
        plus("base_model.lm_head.weight", lambda: torch.ones(101, 32))
        | settings(modules_to_save=["lm_head"]),
        "weights of the model were trained too",
    ),
    "factors left out": (
        ("multitask",),
        tensors(lambda found: {"prompt_embeddings": found["prompt_embeddings"]}),
        "PEFT puts random numbers in its place",
    ),
    "heads of another model": (
        ("prefix", "cartridge"),
        settings(num_attention_heads=4, token_dim=16),
        "heads 4, the model 2",
    ),
    "no vectors": (
        ("soft",),
        settings(num_virtual_tokens=0) | each(lambda t: t[:0]),
        "a whole number, 1 or more",
    ),
    "for a class": (("soft", "prefix", "adaption"), settings(task_type="SEQ_CLS"), "a classification head"),
    "for labels of tokens": (("soft",), settings(task_type="TOKEN_CLS"), "a head that labels tokens"),
    "for hidden states": (("soft",), settings(task_type="FEATURE_EXTRACTION"), "the model's hidden states"),
    "for answers in a text": (("soft",), settings(task_type="QUESTION_ANS"), "marks the answer in a text"),
    "for two stacks": (("soft",), settings(task_type="SEQ_2_SEQ_LM"), "llama is no model for that"),
    "a LORA": (("soft",), settings(peft_type="LORA"), "type LORA is not a prompt"),
    "an IA3": (("soft",), settings(peft_type="IA3"), "type IA3 is not a prompt"),
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, (kinds, *_) in REFUSED.items() for kind in kinds]
)
def test_what_peft_runs_and_we_refuse(name, kind, changed, lms, tmp_path):
    _, change, words = REFUSED[name]
    folder = changed(kind, **change)
    assert isinstance(in_peft(folder, kind), torch.Tensor)
    ours, _ = here(folder, lms("llama"), tmp_path / "ours")
    assert isinstance(ours, SoftPromptError) and words in str(ours) and ours.fix
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("kind", ["soft", "encoder", "multitask", "prefix", "cartridge"])
def test_a_prompt_for_no_task_comes_with_a_note(kind, changed, lms, tmp_path):
    """PEFT's plain PeftModel ignores it; its model for the task does not."""
    folder = changed(kind, settings={"task_type": None})
    ours, notes = here(folder, lms("llama"), tmp_path / "ours")
    assert any("PeftModel ignores the prompt" in note and "PeftModelForCausalLM" in note for note in notes)
    plain = tiny_model("llama")(input_ids=torch.tensor([ROW])).logits[0].log_softmax(-1)
    torch.testing.assert_close(in_peft(folder, "soft"), plain)
    output = json.loads((folder / NAME).read_text()) | {"task_type": "CAUSAL_LM"}
    (folder / NAME).write_text(json.dumps(output))
    torch.testing.assert_close(ours, in_peft(folder, kind), atol=2e-5, rtol=0)


def test_notes_of_what_is_left_out(changed, lms, tmp_path):
    def notes(number, kind, **change):
        folder = changed(kind, **change)
        found = here(folder, lms("llama"), tmp_path / f"ours{number}")[1]
        folder.rename(tmp_path / f"theirs{number}")
        return found

    assert notes(0, "soft") == ()
    assert "hides the last 2 tokens" in notes(1, "soft", **FOLDERS["two submodules of half"][1])[0]
    assert "'other' is left out" in notes(2, "soft", **FOLDERS["a tensor of nobody's"][1])[0]
    assert "layers 1 are left out" in notes(3, "adaption", **FOLDERS["fewer layers stated"][1])[0]
    assert "token_dim: 64" in notes(4, "prefix", **FOLDERS["width of a prefix"][1])[0]
    assert notes(5, "soft", **FOLDERS["the base's own embeddings"][1]) == ()


@pytest.mark.parametrize("kind", CONFIGS)
def test_pickles_of_tensors_are_read_as_peft_reads_them(kind, saved, changed, lms, tmp_path):
    folder = changed(kind)
    torch.save({n: torch.nn.Parameter(t) for n, t in load_file(folder / WEIGHTS).items()}, folder / PICKLE)
    (folder / WEIGHTS).unlink()
    ours, _ = here(folder, lms("llama"), tmp_path / "ours")
    torch.testing.assert_close(ours, in_peft(folder, kind), atol=2e-5, rtol=0)


class Mark:
    """A pickle of it calls `open` when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_other_pickles_are_refused_unopened(changed, lms, tmp_path):
    folder = changed("soft")
    (folder / WEIGHTS).unlink()
    table = torch.ones(LENGTH, 32)

    def refusal(content) -> str:
        torch.save(content, folder / PICKLE)
        ours, _ = here(folder, lms("llama"), tmp_path / "ours")
        assert isinstance(ours, SoftPromptError)
        return str(ours)

    assert "could run code" in refusal({"prompt_embeddings": table, "x": Mark(tmp_path / "mark")})
    assert not (tmp_path / "mark").exists() and isinstance(in_peft(folder, "soft"), Exception)
    assert not (tmp_path / "mark").exists()
    assert "something else than the tensors" in refusal([table])
    assert "something else than the tensors" in refusal({"prompt_embeddings": table.to_sparse()})
    assert "something else than the tensors" in refusal({"prompt_embeddings": table[:1].expand(10**9, -1)})
    (folder / PICKLE).write_bytes(b"PK\3\4" + bytes(100))
    assert "is damaged" in str(here(folder, lms("llama"), tmp_path / "ours")[0])


@pytest.mark.parametrize("name", [NAME, WEIGHTS, PICKLE])
def test_pointers_of_git_lfs(name, changed, lms, tmp_path):
    folder = changed("soft")
    if name == PICKLE:
        (folder / WEIGHTS).unlink()
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    ours, _ = here(folder, lms("llama"), tmp_path / "ours")
    assert f"{name} is not there yet: it is a Git LFS pointer" in str(ours) and "git lfs pull" in ours.fix
    assert isinstance(in_peft(folder, "soft"), Exception)


def test_where_the_adapter_is_instead(saved, changed, lms, tmp_path):
    """Named adapters and checkpoints have folders of their own; the one that is named is imported."""
    model = peft.get_peft_model(tiny_model("llama"), CONFIGS["soft"](), adapter_name="joke")
    model.add_adapter("fact", CONFIGS["soft"]())
    model.save_pretrained(tmp_path / "many")

    def refusal(folder: Path) -> SoftPromptError:
        ours, _ = here(folder, lms("llama"), tmp_path / "ours")
        assert isinstance(ours, SoftPromptError) and f"no PEFT adapter at {folder}" in ours.what
        return ours

    assert isinstance(in_peft(tmp_path / "many", "soft"), Exception)
    output = refusal(tmp_path / "many")
    assert "fact, joke" in output.why and output.fix == f"give one of them: {tmp_path / 'many/joke'}"
    assert refusal(saved("soft") / WEIGHTS).fix.endswith(str(saved("soft")))
    assert "hf download" in refusal(Path("owner/name")).fix
    ours, _ = here(tmp_path / "many/joke", lms("llama"), tmp_path / "ours")
    torch.testing.assert_close(ours, in_peft(tmp_path / "many/joke", "soft"))
    assert "a tuned prompt already" in refusal(tmp_path / "ours").why
    (folder := changed("soft")).joinpath(NAME).unlink()
    assert f"copy {NAME}" in refusal(folder).fix


@pytest.mark.parametrize("content", [b"\xff", b"[1]", b"[" * 99999, b"\xef\xbb\xbf{}", b"{", b""])
def test_configs_that_are_no_settings(content, changed, lms, tmp_path):
    folder = changed("soft")
    (folder / NAME).write_bytes(content)
    assert f"{NAME} is damaged" in str(here(folder, lms("llama"), tmp_path / "ours")[0])
    assert isinstance(in_peft(folder, "soft"), Exception)


@pytest.mark.parametrize("kind", ["soft", "encoder", "prefix", "cartridge", "cpt", "multitask"])
def test_the_fix_for_a_checkpoint_works(kind, lms, tmp_path):
    """What the error says to do in Python makes a folder that is imported."""
    torch.manual_seed(2)
    trained = peft.get_peft_model(tiny_model("llama"), CONFIGS[kind]())
    state = {
        name: tensor.clone() for name, tensor in trained.state_dict().items() if "prompt_encoder" in name
    }
    trained.save_pretrained(tmp_path / "theirs")
    save_file(state, tmp_path / "theirs" / WEIGHTS)
    ours, _ = here(tmp_path / "theirs", lms("llama"), tmp_path / "ours")
    assert (
        "names of a training checkpoint" in str(ours) and "load_state_dict(TENSORS, strict=False)" in ours.fix
    )
    config = peft.PeftConfig.from_pretrained(tmp_path / "theirs")
    config.inference_mode = False
    model = peft.get_peft_model(tiny_model("llama"), config)
    model.load_state_dict(state, strict=False)
    model.save_pretrained(tmp_path / "again")
    ours, _ = here(tmp_path / "again", lms("llama"), tmp_path / "ours")
    task = {"task_ids": torch.tensor([0])} if kind == "multitask" else {}
    with torch.no_grad():
        wanted = trained.eval()(input_ids=torch.tensor([ROW]), **task).logits[0, -len(ROW) :]
    torch.testing.assert_close(ours, wanted.log_softmax(-1), atol=2e-5, rtol=0)


def test_the_base_at_a_revision_is_not_another_one(changed):
    folder = changed("soft", settings={"base_model_name_or_path": "owner/base", "revision": "abc"})
    with pytest.raises(SoftPromptError, match="revision 'abc' of owner/base") as error:
        interop.base_name(folder)
    assert "hf download owner/base --revision abc" in error.value.fix


BESIDE, STATES = "a second embedding of every token", "more of the input than keys and values"
NO_ATTENTION, ABSOLUTE = (
    "calls transformers' attention interface",
    "adds a learned vector for each position",
)
#: Families whose prompts are refused, and why; PEFT runs some of them, otherwise than we do.
FAMILIES = {
    "soft": {"gemma3n_text": BESIDE, "gemma4_text": BESIDE},
    "prefix": {
        "falcon_h1": STATES, "jamba": STATES, "bamba": STATES, "granitemoehybrid": STATES,
        "qwen3_next": STATES,
        "mamba": NO_ATTENTION, "mamba2": NO_ATTENTION, "bloom": NO_ATTENTION, "falcon_mamba": NO_ATTENTION,
        "mpt": NO_ATTENTION, "gpt2": ABSOLUTE, "gpt_neo": ABSOLUTE, "opt": ABSOLUTE,
        "gemma4_text": "one size for all",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ["soft", "prefix"])
@pytest.mark.parametrize("family", sorted(families.DECODERS))
def test_families(kind, family, tmp_path):
    """Equal to PEFT, but for what is seen through a sliding window; or refused with the reason."""
    torch.manual_seed(1)
    try:
        peft.get_peft_model(families.tiny(family), CONFIGS[kind]()).save_pretrained(tmp_path / "theirs")
        model = peft.PeftModel.from_pretrained(families.tiny(family), str(tmp_path / "theirs")).eval()
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([ROW])).logits[0, -len(ROW) :].log_softmax(-1)
    except Exception as error:  # PEFT raises whatever its libraries do
        theirs = error
    lm = CausalLM(families.tiny(family), tiny_tokenizer(), family)
    if not (tmp_path / "theirs").exists():
        pytest.skip("PEFT makes no adapter of this kind for it")
    ours, notes = here(tmp_path / "theirs", lm, tmp_path / "ours")
    if (reason := FAMILIES[kind].get(family)) or isinstance(theirs, Exception):
        assert isinstance(ours, SoftPromptError) and (reason or "") in ours.why and ours.fix
    else:
        assert not isinstance(ours, Exception), ours
        equal = torch.allclose(ours, theirs, atol=5e-5, rtol=0)
        assert equal or any("sliding window" in note for note in notes)
