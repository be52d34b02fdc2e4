"""The library calls nothing deprecated: a release within the allowed versions could remove it.

Python's warnings are errors here. transformers and related libraries log theirs once in a process, so the
logs are checked too.
"""

from __future__ import annotations

import logging

import pytest
from transformers import DynamicCache
from transformers.utils import logging as theirs

import softprompt
from softprompt.cli import main

pytestmark = [
    pytest.mark.whole,
    pytest.mark.filterwarnings("error::DeprecationWarning"),
    pytest.mark.filterwarnings("error::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("error::FutureWarning"),
]
LIBRARIES = ("transformers", "peft", "accelerate", "huggingface_hub", "torch.utils.checkpoint")
ROWS = [{"input": word, "target": ("good", "bad")[i % 2]} for i, word in enumerate("a b c d e f".split() * 3)]


@pytest.fixture(autouse=True)
def logged(monkeypatch):
    """Collect what the libraries log about deprecation; nothing may be there at the end."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "deprecat" in record.getMessage():
                found.append(record.getMessage())

    for once in ("warning_once", "info_once"):  # not only for the first test that calls it
        cached = getattr(logging.Logger, once, None)
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()
    handler, before = Keep(), theirs.get_verbosity()
    theirs.set_verbosity_warning()  # another test may have run a benchmark, which turns warnings off
    for name in LIBRARIES:
        logging.getLogger(name).addHandler(handler)
    yield found
    for name in LIBRARIES:
        logging.getLogger(name).removeHandler(handler)
    theirs.set_verbosity(before)
    assert not found


def test_the_check_sees_what_is_logged(logged):
    theirs.get_logger("transformers.some").warning_once("`this` is deprecated")
    assert logged == ["`this` is deprecated"]
    logged.clear()


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
def test_tuning_and_answering(new_lm, tmp_path, family, method):
    lm = new_lm(family)
    settings = {"steps": 1, "batch_size": 4, "gradient_checkpointing": True}
    tuned = softprompt.tune(lm, method, ROWS, output=tmp_path / "p", options={"length": 3}, **settings)
    tuned.generate("a", max_new_tokens=2)
    tuned.generate("a", max_new_tokens=2, do_sample=True, num_beams=2)
    softprompt.open_prompt(tmp_path / "p", lm).evaluate(ROWS[:4])


def test_a_cache_of_several_turns(llama, rows_to_batch):
    cache = DynamicCache()
    first = llama.generate(
        rows_to_batch([[5, 6, 7]]), past_key_values=cache, max_new_tokens=2, do_sample=False
    )
    ids = [5, 6, 7, *first[0].tolist(), 9]
    llama.generate(rows_to_batch([ids]), cache=cache, max_new_tokens=2, do_sample=False)


def test_commands_lora_and_the_interchange_with_peft(tmp_path, model_folder):
    pytest.importorskip("peft")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"input": "{r["input"]}", "target": "{r["target"]}"}}\n' for r in ROWS))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {model_folder}\ndata: rows.jsonl\noutput: out\n"
        "method: {name: prefix-tuning, length: 3, placement: before}\n"
        "train: {steps: 1, batch_size: 4, dtype: float32}\n"
    )
    assert main(["tune", str(recipe), f"output={tmp_path / 'out'}"]) == 0
    assert main(["export", str(tmp_path / "out"), "--to", "peft", "--out", str(tmp_path / "peft")]) == 0
    assert main(["tune", str(recipe), "base=lora", f"output={tmp_path / 'lora'}"]) == 0


def test_a_cache_by_both_names_is_refused(llama, rows_to_batch):
    both = {"cache": DynamicCache(), "past_key_values": DynamicCache()}
    with pytest.raises(softprompt.SoftPromptError, match="both given"):
        llama.generate(rows_to_batch([[5, 6, 7]]), max_new_tokens=2, **both)
