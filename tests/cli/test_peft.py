"""`export` and `import`: to PEFT's folder and back, through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors.torch import load_file

PAGE = (Path(__file__).parents[2] / "docs/peft.md").read_text(encoding="utf-8")


def test_there_and_back(run, styles, tmp_path):
    adapter, again = tmp_path / "adapter", tmp_path / "again"
    words = ["export", styles, "--to", "peft", "--prompt", "fact", "--out", adapter, "--json"]
    found = run(*words).json
    assert found["peft_type"] == "PREFIX_TUNING" and found["prompts"] == ["fact"] and found["notes"] == []
    assert found["tensors"] == {"prompt_embeddings": [3, 96]} and found["out"] == str(adapter)
    # the base model is the one that the adapter names
    found = run("import", adapter, "--from", "peft", "--out", again, "--prompt", "fact", "--json").json
    assert found["method"] == "prefix-tuning" and found["options"]["placement"] == "before"
    assert found["prompts"] == ["fact"] and found["peft_type"] == "PREFIX_TUNING"
    before, after = (load_file(path / "prompt.safetensors") for path in (styles, again))
    names = [name for name in before if name.startswith("fact/")]
    assert len(names) == 6 and all((before[n] - after[n]).abs().max() < 1e-5 for n in names)
    assert run("generate", again, "sun").code == 0
    output = run("inspect", again)
    assert output.code == 0 and "how far it moved is not known" in output.out


def test_defaults_for_out(run, styles, monkeypatch, tmp_path):
    output = run("export", styles, "--to", "peft", "--prompt", "joke")
    assert output.code == 0 and output.out.startswith(f"{styles}-peft: PREFIX_TUNING of prefix-tuning")
    monkeypatch.chdir(tmp_path)
    output = run("import", f"{styles}-peft", "--from", "peft")
    assert output.code == 0 and output.out.startswith(
        "runs/out-peft: prefix-tuning (default), from PREFIX_TUNING"
    )
    assert (tmp_path / "runs/out-peft/softprompt.json").exists()
    output = run("import", f"{styles}-peft", "--from", "peft")
    assert output.code == 1 and "already holds a tuned prompt" in output.err


def test_refusals(run, tuned, styles, tmp_path):
    output = run("export", tuned, "--to", "peft", "--out", tmp_path / "no")
    assert output.code == 1 and "cannot place vectors after the input" in output.err
    assert "loading" not in output.err  # the artifact alone tells it
    error = run("export", styles, "--to", "peft", "--out", tmp_path / "no", "--json").json["error"]
    assert "2 prompts" in error["what"] and "--prompt joke" in error["fix"]
    output = run("export", styles, "--to", "peft", "--prompt", "jok", "--out", tmp_path / "no")
    assert output.code == 1 and "did you mean 'joke'?" in output.err
    output = run("import", tmp_path, "--from", "peft")
    assert output.code == 1 and "no PEFT adapter" in output.err
    assert not (tmp_path / "no").exists()
    assert run("export", styles).code == 2 and run("import", styles, "--from", "else").code == 2


def test_the_page_names_what_is_read_and_its_commands_parse(run):
    from softprompt.artifacts.interop.peft.reading import READERS

    assert all(f"`{kind}`" in PAGE for kind in READERS)
    commands = re.findall(r"^softprompt (export|import) (.*)$", PAGE, re.M)
    assert len(commands) == 3
    for name, rest in commands:
        options = set(re.findall(r"--[a-z]+", rest))
        output = run(name, "--help")
        assert output.code == 0 and all(option in output.out for option in options)


def test_the_written_config_is_plain_json(run, styles, tmp_path):
    run("export", styles, "--to", "peft", "--prompt", "joke", "--out", tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["num_virtual_tokens"] == 3 and config["inference_mode"] is True
    assert Path(config["base_model_name_or_path"]).is_dir()


def test_nothing_is_imported_from_llama_cpp(run, tmp_path):
    output = run("import", tmp_path, "--from", "llama.cpp")
    assert (
        output.code == 1
        and "nothing is imported from llama.cpp" in output.err
        and "loading" not in output.err
    )


def test_what_the_folder_tells_is_told_before_a_model_is_loaded(run, styles, tmp_path):
    adapter = tmp_path / "adapter"
    run("export", styles, "--to", "peft", "--prompt", "joke", "--out", adapter)
    output = run("import", tmp_path, "--from", "peft", "--model", "nobody/nothing")
    assert output.code == 1 and f"give one of them: {adapter}" in " ".join(output.err.split())
    output = run("import", tmp_path / "gone", "--from", "peft")
    assert output.code == 1 and "there is no such folder" in output.err
    config = json.loads((adapter / "adapter_config.json").read_text())
    for change, words in (
        ({"peft_type": "LORA"}, "merge_and_unload"),
        ({"task_type": "TALK"}, "task_type: 'TALK'"),
        ({"base_model_name_or_path": "./gone"}, "add --model with the folder or the hub id"),
        ({"base_model_name_or_path": "a/b", "revision": "c"}, "hf download a/b --revision c"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps(config | change))
        output = run("import", adapter, "--from", "peft", "--out", tmp_path / "out")
        assert output.code == 1 and words in " ".join(output.err.split()) and "loading" not in output.err
    (adapter / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    error = run("import", adapter, "--from", "peft", "--json").json["error"]
    assert error["fix"] == f"git lfs pull (in {adapter})"
