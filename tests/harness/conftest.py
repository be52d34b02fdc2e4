"""Prompts on a tiny base model, and tasks of lm-evaluation-harness whose rows are in files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason='NO HARNESS TESTS: pip install "softprompt[harness]"')
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import yaml

import softprompt

LABELS = ("good", "bad")
ROWS = [
    {"text": f"{word} film", "label": LABELS[i % 2]}
    for i, word in enumerate("a fine dull long new old".split())
]
MEAN = {"aggregation": "mean", "higher_is_better": True}
TASKS: dict[str, dict[str, Any]] = {
    "films": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": list(LABELS),
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc", **MEAN}],
    },
    "answers": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{label}}",
        "generation_kwargs": {"until": ["\n", "e"], "max_gen_toks": 8, "do_sample": False},
        "metric_list": [{"metric": "exact_match", **MEAN}],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}],
    },
}


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory) -> Path:
    """The rows, as the harness and `softprompt eval` read them."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory, rows_file) -> Path:
    """A folder of task files: nothing in it needs a network."""
    folder = tmp_path_factory.mktemp("tasks")
    data = {"data_files": {"test": str(rows_file)}, "cache_dir": str(tmp_path_factory.mktemp("cache"))}
    for name, task in TASKS.items():
        task = {"task": name, "dataset_path": "json", "dataset_kwargs": data, "test_split": "test", **task}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return folder


def tuned_on(model_folder: Path, output: Path, method: Any, kind: str = "classification") -> Path:
    """Tune a prompt for a few steps at a large rate, so that its vectors count."""
    rows = [{"text": row["text"], "label": row["label"]} for row in ROWS]
    template = {"input": "{{ text }}", "target": "{{ label }}"}
    task = {"kind": kind} | ({"labels": list(LABELS)} if kind == "classification" else {"max_new_tokens": 8})
    # the artifact names this precision: bfloat16, which some processors get, rounds where rows score the same
    lm = softprompt.load(str(model_folder), dtype="float32")
    softprompt.tune(lm, method, rows, output=output, template=template, task=task, steps=3, lr=0.3)
    return output


@pytest.fixture(scope="session")
def classifier(model_folder, tmp_path_factory) -> Path:
    """A prompt whose vectors are placed after the input, tuned to choose a label."""
    method = softprompt.PromptTuning(length=3, placement="after")
    return tuned_on(model_folder, tmp_path_factory.mktemp("classifier") / "run", method)


@pytest.fixture(scope="session")
def writer(model_folder, tmp_path_factory) -> Path:
    """A prompt whose vectors are placed before the input, tuned to write the label."""
    method = softprompt.PromptTuning(length=3, placement="before")
    return tuned_on(model_folder, tmp_path_factory.mktemp("writer") / "run", method, "generation")
