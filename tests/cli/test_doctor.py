"""`softprompt doctor` reports what is there; `softprompt cache` says where, lists, and clears."""

from __future__ import annotations

import importlib.metadata

import pytest
import torch

import softprompt
from softprompt._system import installation
from softprompt.cli import cache as cache_command
from softprompt.cli import doctor as doctor_command
from softprompt.cli import self_test as tests_of_doctor

MODEL, KEYS = "smollm2-135m-instruct-1", f"kv/{'a' * 32}"


def test_a_good_installation(run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    output = run("doctor", "--json")
    data = output.json
    assert output.code == 0 and data["problems"] == [] and data["softprompt"] == softprompt.__version__
    assert data["packages"]["torch"]["installed"] == importlib.metadata.version("torch")
    assert data["running"]["threads"]["number"] == torch.get_num_threads()
    assert (
        data["running"]["precision"]["dtype"] in ("bfloat16", "float32")
        and data["running"]["precision"]["why"]
    )
    assert len(data["self_test"]) == 7 and all(check["passed"] for check in data["self_test"])
    assert data["environment"]["HF_TOKEN"] == "(set)" and "hf_secret" not in output.out + output.err
    assert "dev rows" not in output.err  # the self-test is silent


def test_the_block_of_a_bug_report(run):
    output = run("doctor", "--no-test")
    before, block, after = output.out.split("```")
    assert "bug report" in before and "no self-test was run" in after
    titles = [line.split("  ")[0] for line in block.strip().splitlines() if not line.startswith(" ")]
    assert set(titles) >= {"softprompt", "python", "packages", "extras", "precision", "threads", "cache"}
    assert max(map(len, block.splitlines())) <= 120


def test_missing_and_old_packages(run, monkeypatch):
    requires = ["torch>=99", "numpy", "no-such-package>=2; extra == 'lora'", "numpy>=1; extra == 'gguf'"]
    monkeypatch.setattr(installation, "_metadata_requires", lambda: requires)
    output = run("doctor", "--no-test", "--json")
    assert output.code == 1
    assert output.json["problems"] == [f"torch {importlib.metadata.version('torch')} is not >=99"]
    assert output.json["extras"]["gguf"] == {
        "installed": True,
        "missing": [],
        "command": "pip install 'softprompt[gguf]'",
    }
    assert output.json["extras"]["lora"]["missing"] == ["no-such-package is not installed"]
    shown = run("doctor", "--no-test").out
    assert "pip install 'softprompt[lora]'  no-such-package is not installed" in shown
    assert "Problems:" in shown and "pip install 'softprompt[gguf]'" not in shown


def test_every_extra_of_the_project_is_listed():
    names = importlib.metadata.metadata("softprompt").get_all("Provides-Extra") or []
    listed = {extra.name for extra in installation.extras()}
    assert listed | set(installation.TESTS) | {"trl"} >= set(names)  # trl has no packages on Python 3.10
    assert {need.name for need in installation.dependencies()} >= {"torch", "transformers", "typer"}


def test_a_check_that_raises_fails_the_test(run, monkeypatch):
    def broken(folder):
        yield "first", True, ""
        raise OSError("libgomp is missing")

    monkeypatch.setattr(tests_of_doctor, "_checks", broken)
    output = run("doctor", "--json")
    assert output.code == 1 and [check["passed"] for check in output.json["self_test"]] == [True, False]
    assert output.json["problems"] == ["self-test, the next check: OSError: libgomp is missing"]


def test_a_broken_torch_is_reported(run, monkeypatch):
    def broken():
        raise ImportError("undefined symbol")

    monkeypatch.setattr(doctor_command, "_threads", broken)
    output = run("doctor", "--json")
    assert output.code == 1 and output.json["self_test"] is None
    assert output.json["problems"] == ["torch cannot be used: ImportError: undefined symbol"]
    assert "undefined symbol" in run("doctor").out


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    for name in (MODEL, KEYS, "of-somebody-else"):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name / "file").write_bytes(b"x" * 1000)
    return tmp_path / "cache"


def test_where_the_tool_writes(run, folder):
    places = {place["what"]: place for place in run("cache", "--json").json["places"]}
    models, inputs = places["converted base models"], places["keys and values of inputs"]
    assert (models["path"], models["bytes"], models["by"]) == (str(folder), 1000, "$SOFTPROMPT_CACHE")
    assert (inputs["path"], inputs["bytes"]) == (str(folder / "kv"), 1000)
    assert "output in the recipe" in run("cache", "where").out


def test_list_and_clear(run, folder):
    listed = run("cache", "list", "--json").json
    assert {entry["name"] for entry in listed["entries"]} == {MODEL, KEYS} and listed["bytes"] == 2000
    assert "just now" in run("cache", "list").out
    refused = run("cache", "clear", "kv")
    assert refused.code == 1 and "add --yes" in refused.err and (folder / KEYS).exists()
    assert run("cache", "clear", "kv", "--yes", "--json").json == {
        "cleared": [KEYS],
        "kept": [],
        "bytes": 1000,
    }
    assert (folder / f"{MODEL}/file").exists() and not (folder / KEYS).exists()
    assert run("cache", "clear", "smollm2-135m-instruct-l", "--yes").err.startswith(
        "error: unknown cache entry 'smollm2-135m-instruct-l'; did"
    )
    assert run("cache", "clear", "--yes").code == 0 and "nothing is cached" in run("cache", "list").out
    assert run("cache", "list", "kv").code == 2 and run("cache", "emptied").code == 2


def test_an_entry_in_use_is_kept_and_said(run, folder):
    with open(folder / f"{MODEL}/file", "rb"):
        output = run("cache", "clear", "--yes", "--json")
    assert output.code == 1 and output.json["cleared"] == [KEYS]
    assert output.json["kept"][0]["name"] == MODEL and "has it open" in output.json["kept"][0]["why"]
    assert (folder / f"{MODEL}/file").exists()


@pytest.mark.parametrize(("answer", "left"), [("y\n", False), ("n\n", True)])
def test_it_asks_in_a_terminal(run, folder, monkeypatch, answer, left):
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(cache_command.sys, "stdin", Terminal(answer))
    output = run("cache", "clear", "kv")
    assert output.code == int(left) and (folder / KEYS).exists() == left
