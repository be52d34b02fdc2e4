"""A small artifact that is made without training, and a hub to send it to."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stand_in_hub import hub as hub

import softprompt


def attached(model_folder: Path, *prompts: str, **options):
    """Attach prompts to the tiny model; every call draws the same vectors."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(model_folder)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    method = softprompt.PromptTuning(length=3, placement="before")
    return softprompt.attach(base, tokenizer, method, prompts=prompts or ("default",), **options)


@pytest.fixture(scope="session")
def artifact(model_folder, tmp_path_factory) -> Path:
    """The folder of one prompt; nobody may change it."""
    folder = tmp_path_factory.mktemp("attached") / "mood"
    attached(model_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def voices(model_folder, tmp_path_factory) -> Path:
    """The folder of a table of two prompts; nobody may change it."""
    folder = tmp_path_factory.mktemp("attached") / "voices"
    attached(model_folder, "joke", "fact").save_pretrained(folder)
    return folder
