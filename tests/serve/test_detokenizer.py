"""Text as it comes: whole characters, and nothing of a stop string, wherever tokens end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from softprompt.serve.detokenizer import Detokenizer, Stops

TEXTS = ("plain", "naïve café", "日本語のテキスト", "🙂👍🏽 family 👩‍👩‍👧", "tab\tand\nlines", " ")


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    """A token for each byte: a character is up to four of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<end>"])
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>")


def pieces(tokenizer, ids) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.add(i) for i in ids), detokenizer.rest()]


@pytest.mark.parametrize("text", TEXTS)
def test_characters_come_whole(bytewise, text):
    made = pieces(bytewise, bytewise(text)["input_ids"])
    assert "".join(made) == text
    assert len(made) == len(text.encode()) + 1
    assert [piece for piece in made if piece] == list(text)


@given(ids=st.lists(st.integers(0, 255), max_size=30))
def test_whatever_bytes_come_all_are_told(bytewise, ids):
    made = pieces(bytewise, ids)
    assert "".join(made) == bytewise.decode(ids, clean_up_tokenization_spaces=False)


def test_special_tokens_are_no_text(bytewise):
    ids = [*bytewise("a")["input_ids"], bytewise.eos_token_id, *bytewise("b")["input_ids"]]
    assert pieces(bytewise, ids) == ["a", "", "b", ""]


cut = st.lists(st.text("ab\n", max_size=3), max_size=12)


@given(parts=cut, stops=st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_a_stop_string_ends_the_text_wherever_it_is_cut(parts, stops):
    whole = "".join(parts)
    searched, shown, stopped = Stops(stops), "", False
    for i, part in enumerate(parts):
        text, stopped = searched.add(part)
        shown += text
        so_far = "".join(parts[: i + 1])
        assert stopped == any(stop in so_far for stop in stops)
        if stopped:
            whole = so_far
            break
        # held back is at most what may become a stop string
        held = so_far[len(shown) :]
        assert not held or any(stop.startswith(held) for stop in stops)
    else:
        shown += searched.rest()
    at = min((found for stop in stops if (found := whole.find(stop)) >= 0), default=len(whole))
    assert shown == whole[:at]
