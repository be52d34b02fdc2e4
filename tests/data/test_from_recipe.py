"""A recipe's encoder needs a tokenizer alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.conftest import tiny_tokenizer

from softprompt.config.load import recipe_from_dict
from softprompt.data.from_recipe import encoder_of, room_of, template_of


def test_an_encoder_is_built_without_a_model():
    recipe = recipe_from_dict(
        {
            "method": "prompt-tuning",
            "data": {"train": "rows.jsonl", "max_input_tokens": 4},
            "task": {"kind": "classification", "labels": ["b", "a"]},
            "template": {"input": "{{ text }}"},
        }
    )
    room = room_of(recipe, (8, 0, 8), context=64)
    assert (room.context, room.soft, room.new_tokens) == (64, 8, 0)  # a classifier writes nothing
    encoder = encoder_of(recipe, tiny_tokenizer(), template_of(recipe), ("p",), ["a", "b"], room=room)
    example = encoder.encode({"text": "abcdef"}, with_target=False)
    assert encoder.decode(example.input_ids) == "cdef" and example.truncated == 2
    assert encoder.labels == ("a", "b") and encoder.task.names_labels


@pytest.mark.process
def test_importing_it_loads_neither_torch_nor_transformers():
    code = "import sys, softprompt.data.from_recipe as f; print({'torch', 'transformers'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
