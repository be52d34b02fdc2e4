"""A compiled prompt is what a KV cache holds: filled naively, it answers as the artifact, or is refused."""

from __future__ import annotations

import json
import shutil
from urllib.parse import quote

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DynamicCache

from softprompt import methods
from softprompt.artifacts.compose import CONCATENATE, compose, open_source
from softprompt.artifacts.interop.kv_cache import batch
from softprompt.artifacts.interop.kv_cache.checks import check_model
from softprompt.artifacts.interop.kv_cache.compile import compile_artifact
from softprompt.artifacts.interop.kv_cache.folder import Entry, Folder
from softprompt.artifacts.interop.kv_cache.kv import CompiledKV, compile_injection
from softprompt.artifacts.interop.kv_cache.verify import verify
from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection
from softprompt.lm import families
from softprompt.methods.base import Setting
from softprompt.methods.materialised import Materialised
from softprompt.serve.registry import Registry

from .conftest import ROWS

LENGTH = 5
SOFT = ("prompt-tuning", "p-tuning", "residual-prompt-tuning", "multitask-prompt-tuning")


def from_cache(model, tensors: dict, row: list[int]) -> torch.Tensor:
    """Logits [len(row), V] of transformers itself, with the tensors as the cache of what came before."""
    cache = DynamicCache()
    for layer in range(len(tensors) // 2):
        key, value = tensors[f"k.{layer}"], tensors[f"v.{layer}"]
        cache.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None], layer)
    start = tensors["k.0"].shape[0]
    positions = torch.arange(start, start + len(row))[None]
    with torch.no_grad():
        out = model(input_ids=torch.tensor([row]), past_key_values=cache, position_ids=positions)
    return out.logits[0]


def check(lm, artifact, prompt, index, our_logits, close, tmp_path):
    """Written, read back, filled in: the live prompt's log-probabilities to 1e-4, not the plain model's."""
    source = batch.Source(artifact, prompt, "some/name")
    (entry,) = batch.compile_all([source], lm, tmp_path / "out")
    assert not isinstance(entry, SoftPromptError), entry
    folder = Folder(tmp_path / "out")
    assert folder.entry("some/name") == entry and list(folder.names()) == ["some/name"]
    tensors = folder.load(entry)
    heads, size = lm.spec.layers[0].kv_heads, lm.spec.layers[0].head_dim
    assert {tuple(tensor.shape) for tensor in tensors.values()} == {(entry.length, heads, size)}
    plain = our_logits(lm, None)
    for row, live, without in zip(ROWS, our_logits(lm, artifact, index), plain, strict=True):
        ours = from_cache(lm.model, tensors, row).log_softmax(-1)
        close(ours, live.log_softmax(-1), 1e-4)
        assert (ours - without.log_softmax(-1)).abs().max() > 1e-2
    return entry


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("method", SOFT)
def test_soft_prompts(family, method, lms, artifact_of, our_logits, close, tmp_path):
    lm = lms(family)
    artifact = artifact_of(lm, method, ("joke", "fact"), length=LENGTH, placement="before")
    assert check(lm, artifact, "fact", 1, our_logits, close, tmp_path).length == LENGTH


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize(
    "options", [{}, {"values_only": True}, {"freeze_first": True}, {"reparameterize": True}]
)
def test_prefixes(family, options, lms, artifact_of, our_logits, close, tmp_path):
    lm = lms(family)
    artifact = artifact_of(
        lm, "prefix-tuning", ("joke", "fact"), length=LENGTH, placement="before", **options
    )
    assert check(lm, artifact, "fact", 1, our_logits, close, tmp_path).length == LENGTH


def test_a_prefix_and_a_soft_prompt_become_one(llama, artifact_of, our_logits, close, tmp_path):
    parts = [
        artifact_of(llama, "prefix-tuning", length=3, placement="before"),
        artifact_of(llama, "prompt-tuning", length=4, placement="before"),
    ]
    opened = [open_source(str(part.path)) for part in parts]
    both = compose(CONCATENATE, opened, tmp_path / "both", llama)
    assert check(llama, both, None, 0, our_logits, close, tmp_path).length == 7


@pytest.mark.parametrize("placement", ["before", "after", "both"])
@pytest.mark.parametrize("method", sorted(methods.METHODS))
def test_every_method_is_exact_or_refused(method, placement, lms, setting, perturb, rows_to_batch, close):
    lm = lms("llama")
    known = methods.find(method).options()
    options = {"placement": placement} if "placement" in known else {}
    try:
        built = perturb(methods.build(method, setting(lm), options))
    except SoftPromptError:
        return  # no such placement
    if built.reads is not None:
        return  # see test_refusals: only an artifact knows
    injection = built(torch.tensor([1]))
    standing = set(injection.channels())
    if standing and standing <= {"before", "kv_before"}:
        assert verify(lm, injection, compile_injection(lm, injection)) < 1e-4
        return
    with pytest.raises(SoftPromptError) as refused:
        compile_injection(lm, injection)
    assert refused.value.why and refused.value.fix


def test_refusals(lms, artifact_of, setting):
    llama, gpt2, t5 = lms("llama"), lms("gpt2"), lms("t5")
    generated = artifact_of(llama, "generated-prompt")
    with pytest.raises(SoftPromptError, match="generates its prompts from the input"):
        compile_artifact(generated, llama)
    absolute = artifact_of(gpt2, "prefix-tuning", length=3, placement="before")
    with pytest.raises(SoftPromptError, match="adds a vector of its own for each position"):
        compile_artifact(absolute, gpt2)
    encdec = artifact_of(t5, "prompt-tuning", length=3, placement="before")
    with pytest.raises(SoftPromptError, match="takes no compiled prompts"):
        compile_artifact(encdec, t5)
    after = artifact_of(llama, "p-tuning", length=3, placement="after")
    with pytest.raises(SoftPromptError, match="soft tokens after the input"):
        compile_artifact(after, llama)


def test_windows(lms, artifact_of):
    mistral = lms("mistral")  # its window is shorter than its context
    prefix = artifact_of(mistral, "prefix-tuning", length=3, placement="before")
    with pytest.raises(SoftPromptError, match="sliding window"):
        compile_artifact(prefix, mistral)
    soft = artifact_of(mistral, "prompt-tuning", length=3, placement="before")
    assert compile_artifact(soft, mistral).length == 3


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
@pytest.mark.parametrize("family", sorted(families.DECODERS))
def test_every_family_is_exact_or_refused(family, method, lms, perturb):
    lm = lms(family)
    try:
        built = methods.build(
            method, Setting(lm, ("a",)), {"length": 3, "placement": "before", "init": "vocab"}
        )
        check_model(lm)
        injection = perturb(built)(torch.tensor([0]))
        compiled = compile_injection(lm, injection)
    except SoftPromptError as refused:
        assert refused.why and refused.fix
        assert family not in ("llama", "qwen3") and (family != "gpt2" or method == "prefix-tuning")
        return
    assert verify(lm, injection, compiled) < 1e-4


def test_what_is_not_finite_is_refused(llama, artifact_of):
    artifact = artifact_of(llama, "prompt-tuning", length=3, placement="before")
    static = artifact.method(llama)
    assert isinstance(static, Materialised)
    spoiled = static.prompts[0].map_rows(lambda t: t.clone())
    assert spoiled.before is not None
    spoiled.before.vectors[0, 0, 0] = float("nan")
    with pytest.raises(SoftPromptError, match="not finite"):
        compile_injection(llama, spoiled)
    with pytest.raises(SoftPromptError, match="nothing to compile"):
        compile_injection(llama, Injection())


def test_a_wrong_compilation_would_be_noticed(llama, artifact_of):
    injection = artifact_of(llama, "prefix-tuning", length=3, placement="before").method(llama)(
        torch.tensor([0])
    )
    good = compile_injection(llama, injection)
    turned = CompiledKV(tuple(key.flip(0) for key in good.keys), good.values)
    assert verify(llama, injection, good) < 1e-4
    with pytest.raises(SoftPromptError, match="does not answer as the tuned one"):
        verify(llama, injection, turned)


class TestFolder:
    """Names and contents on disk."""

    @pytest.fixture
    def compiled(self, llama, artifact_of, tmp_path):
        artifact = artifact_of(llama, "prompt-tuning", ("joke", "fact"), length=3, placement="before")
        found = batch.sources([artifact.path])
        entries = list(batch.compile_all(found, llama, tmp_path / "out"))
        return Folder(tmp_path / "out"), entries, artifact

    def test_names_mean_content(self, compiled, llama):
        folder, entries, artifact = compiled
        names = {f"{artifact.path.name}:joke", f"{artifact.path.name}:fact"}
        assert set(folder.names()) == names and len({entry.sha256 for entry in entries}) == 2
        assert folder.base().layers == ((2, 8),) * 3
        for entry in entries:
            assert entry.bytes == folder.content(entry.sha256).stat().st_size
            assert entry.recipe["template"]["input"] == "{{ input }}"

    def test_the_same_content_has_the_same_name_on_disk(self, compiled, llama):
        folder, entries, artifact = compiled
        again = list(batch.compile_all(batch.sources([artifact.path]), llama, folder.path))
        assert again == entries
        assert len(list((folder.path / "kv").rglob("*.safetensors"))) == 2

    def test_damage_is_noticed(self, compiled):
        folder, (entry, _), _ = compiled
        file = folder.content(entry.sha256)
        tensors = load_file(file)
        tensors["k.0"][0, 0, 0] += 1
        save_file(tensors, file)
        with pytest.raises(SoftPromptError, match="damaged or missing"):
            folder.load(entry)
        file.unlink()
        with pytest.raises(SoftPromptError, match="damaged or missing"):
            folder.load(entry)

    def test_another_base_does_not_mix(self, compiled, new_lm, artifact_of):
        folder, _, _ = compiled
        other = new_lm("llama", seed=5)
        artifact = artifact_of(other, "p-tuning", length=3, placement="before")
        (refused,) = batch.compile_all(batch.sources([artifact.path]), other, folder.path)
        assert isinstance(refused, SoftPromptError) and "weights differ" in (refused.why or "")

    @pytest.mark.parametrize("name", ["", "..", "../x", "/etc/x", "a/../b", "a//b", ".hidden", "a\\b", "no"])
    def test_no_name_leads_outside(self, compiled, name):
        folder, _, _ = compiled
        with pytest.raises(SoftPromptError):
            folder.entry(name)

    def test_damaged_and_newer_records(self, compiled):
        folder, (entry, _), _ = compiled
        (file,) = (folder.path / "prompts").glob("*joke.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
        with pytest.raises(SoftPromptError, match="format 99"):
            folder.entry(entry.name)
        file.write_text("{")
        with pytest.raises(SoftPromptError, match="is damaged"):
            folder.entry(entry.name)

    def test_a_tree_is_named_by_its_paths(self, llama, artifact_of, tmp_path):
        artifact = artifact_of(llama, "prompt-tuning", length=3, placement="before")
        tree = tmp_path / "tree"
        for team in ("a", "b"):
            shutil.copytree(artifact.path, tree / team / "style")
        assert [source.name for source in batch.sources([tree])] == ["a/style", "b/style"]
        with pytest.raises(SoftPromptError, match="two prompts would be called 'style'"):
            batch.sources([tree / "a/style", tree / "b/style"])
        (tmp_path / "empty").mkdir()
        with pytest.raises(SoftPromptError, match="no tuned prompt in"):
            batch.sources([tmp_path / "empty"])

    def test_prompts_of_any_names_are_compiled_and_found(self, llama, artifact_of, tmp_path):
        names = (
            "a/b",
            "a-b",
            "../x",
            "x/../y",
            ".hid/x",
            "a//b",
            "tail/",
            "/head",
            "A",
            "a",
            "a:b",
            "文" * 90,
        )
        artifact = artifact_of(llama, "prompt-tuning", names, length=1, placement="before")
        tree = tmp_path / "tree"
        shutil.copytree(artifact.path, tree / "many")
        out = tmp_path / "out"
        made = list(batch.compile_all(batch.sources([tree]), llama, out))
        folder, wanted = Folder(out), [f"many:{name}" for name in names]
        assert [entry.name for entry in made] == wanted and sorted(folder.names()) == sorted(wanted)
        assert [folder.entry(name) for name in wanted] == made and all(map(folder.holds, wanted))
        assert sorted(folder.prompts_of("many")) == sorted(names) and not list(folder.prompts_of("man"))
        inside = {file.parent for file in out.rglob("*many*.json")}
        assert inside == {out / "prompts"} and len(list(out.rglob("*.json"))) == len(names) + 1

    def test_records_that_were_written_before_are_found_and_replaced(self, compiled):
        """A prompt's slash made a folder, and any length was written out."""
        folder = compiled[0]
        for name in ("many:a/b", "many:" + "x" * 150):
            older = folder.path / "prompts" / f"{quote(name)}.json"
            older.parent.mkdir(exist_ok=True)
            output = json.loads(folder.name_file(compiled[1][0].name).read_text())
            older.write_text(json.dumps({**output, "name": name}))
            assert folder.entry(name).name == name and name in list(folder.names())
            assert name.removeprefix("many:") in list(folder.prompts_of("many"))
            tensors = {"k.0": torch.zeros(1, 2, 8)}
            folder.add(tensors, lambda sha256, size, name=name: Entry(name, sha256, 1, size, "float32"))
            assert not older.exists() and list(folder.names()).count(name) == 1

    def test_a_record_of_another_name_is_neither_read_nor_written_over(self, compiled):
        """As on a file system where Joke and joke are one file."""
        folder, (entry, _), _ = compiled
        file = folder.name_file(entry.name)
        file.write_text(json.dumps({**json.loads(file.read_text()), "name": entry.name.upper()}))
        with pytest.raises(SoftPromptError, match="have one file"):
            folder.entry(entry.name)
        with pytest.raises(SoftPromptError, match="have one file"):
            folder.check_name(entry.name)

    def test_accents_are_found_however_they_are_written(self, compiled):
        folder, (entry, _), _ = compiled
        output = json.loads(folder.name_file(entry.name).read_text())
        for written, asked in (("th\u00e9", "the\u0301"), ("late\u0301", "lat\u00e9")):
            folder.name_file(written).write_text(json.dumps({**output, "name": written}))
            assert folder.holds(asked) and folder.entry(asked).name == written

    def test_a_folder_is_compiled_as_it_is_served(self, llama, artifact_of, tmp_path):
        artifact = artifact_of(llama, "prompt-tuning", length=1, placement="before")
        tree = tmp_path / "tree"
        for name in ("v1", "v1/checkpoint/copy", ".git/x", "team/v2", "v:3", "bad", "seen/trials/0f3a"):
            shutil.copytree(artifact.path, tree / name, dirs_exist_ok=True)
        (tree / "seen/trials/0f3a.json").write_text("{}")
        (tree / "latest").symlink_to("v1")
        (tree / "away").symlink_to(artifact.path)
        (tree / "bad/softprompt.json").write_text("{")
        broken: list = []
        found = batch.sources([tree], broken)
        assert [source.name for source in found] == ["latest", "team/v2", "v1"]
        assert [name for name, _ in broken] == ["bad", "v:3"]
        assert "damaged" in broken[0][1].what and "a colon in a name" in broken[1][1].why
        results = list(batch.compile_all(found, llama, tmp_path / "out"))
        assert [entry.name for entry in results] == ["latest", "team/v2", "v1"]
        served = [name for entry in Registry(tree, llama).names() if entry.served for name in entry.models]
        assert served == sorted(Folder(tmp_path / "out").names())
        assert [source.name for source in batch.sources([tree / "latest"])] == ["latest"]
        assert [source.name for source in batch.sources([tree / "seen/trials"])] == ["0f3a"]

    def test_soft_tokens_after_the_input(self, llama, artifact_of, our_logits, close, tmp_path):
        artifact = artifact_of(llama, "prompt-tuning", length=3, placement="after")
        (entry,) = batch.compile_all(batch.sources([artifact.path]), llama, tmp_path / "out")
        folder = Folder(tmp_path / "out")
        assert (entry.kind, entry.length) == ("after", 3)
        row = ROWS[0]
        with torch.no_grad():  # [input | soft tokens], as an engine that takes embeddings is given them
            given = torch.cat([folder.embeddings(row), folder.load(entry)["after"]])
            ours = llama.model(inputs_embeds=given[None]).logits[0, -1]
            live = llama.logits(batch_of_ids([row], [[0]]), artifact.method(llama)(torch.tensor([0])))[0, -1]
        close(ours, live, 1e-5)
