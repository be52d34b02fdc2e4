"""Places of masks and words, under the kinds of tokenizers that encoders have."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from softprompt.data.answer_positions import mask_lead, word_places
from softprompt.data.encode import Encoder
from softprompt.data.task import Limits, ModelSide, Task
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError

WORDS = ["play", "ing", "we", "are", "good", "bad", "it", "is", ".", "!"]


def word_piece():
    """Build a tokenizer of BERT's kind: a word is cut into a beginning and ##parts."""
    vocab = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]", *WORDS, *(f"##{word}" for word in WORDS)]
    raw = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocab)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _closed(raw, "[CLS]", "[SEP]", "[MASK]")


def byte_level(trim_offsets: bool):
    """Build a tokenizer of RoBERTa's kind: a token begins with the space before it."""
    vocab = ["<s>", "</s>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = []
    for text in ("Ġwe", "we", "Ġgood", "Ġplay", "Ġis", "Ġare"):
        for end in range(1, len(text)):
            if (pair := (text[:end], text[end])) not in merges:
                merges.append(pair)
                vocab.append(text[: end + 1])
    vocab = list(dict.fromkeys(vocab))
    raw = Tokenizer(models.BPE({token: i for i, token in enumerate(vocab)}, merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names: Any = (("</s>", raw.token_to_id("</s>")), ("<s>", raw.token_to_id("<s>")))
    raw.post_processor = processors.RobertaProcessing(
        *names, trim_offsets=trim_offsets, add_prefix_space=False
    )
    mask = AddedToken("<mask>", lstrip=True, special=True)
    raw.add_special_tokens(["<s>", "</s>", mask])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", mask_token=mask)


def metaspace():
    """Build a tokenizer of DeBERTa's and XLM-R's kind: a word's token begins with ▁."""
    vocab = ["<unk>", "<s>", "</s>", "<mask>", "▁", *WORDS, *(f"▁{word}" for word in WORDS)]
    raw = Tokenizer(models.Unigram([(token, -1.0 - len(token) / 100) for token in vocab], unk_id=0))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    return _closed(raw, "<s>", "</s>", "<mask>")


def _closed(raw: Tokenizer, begin: str, end: str, mask: str):
    raw.add_special_tokens([begin, end, mask])
    raw.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(begin, raw.token_to_id(begin)), (end, raw.token_to_id(end))],
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, cls_token=begin, sep_token=end, mask_token=mask)


KINDS = {
    "word piece": word_piece,
    "byte level": lambda: byte_level(True),
    "byte level, spaces in offsets": lambda: byte_level(False),
    "metaspace": metaspace,
}
FIRST = {"word piece": ["we", "are", "play", "good"], "metaspace": ["▁we", "▁are", "▁play", "▁good"]}


@pytest.mark.parametrize("kind", KINDS)
def test_first_token_of_each_word(kind):
    tokenizer = KINDS[kind]()
    words = ["we", "are", "playing", "good!"]
    ids = tokenizer(" ".join(words))["input_ids"]
    places = word_places(tokenizer, words, "row 1")
    tokens = tokenizer.convert_ids_to_tokens([ids[place] for place in places])
    assert tokens == FIRST.get(kind, ["we", "Ġare", "Ġplay", "Ġgood"])
    assert len(set(places)) == 4 and places == tuple(sorted(places))


def test_a_word_without_a_token_is_refused():
    from tokenizers import normalizers

    tokenizer = word_piece()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    with pytest.raises(SoftPromptError, match="word 2") as caught:
        word_places(tokenizer, ["we", "\u200b", "are"], "row 3")
    assert "row 3" in caught.value.what and caught.value.fix


def masked(tokenizer, template: str, labels: list[str], **limits) -> Encoder:
    task, model = Task("classification", labels=labels), ModelSide("mask", kind="encoder")
    return Encoder(tokenizer, Template(template, mask=tokenizer.mask_token), task, model, Limits(**limits))


@pytest.mark.parametrize(
    ("template", "lead"),
    [
        ("{{ input }} It is {{ mask }}.", " "),
        ("{{ input }}{{ mask }}", ""),
        ("{{mask}} {{ input }}", ""),
        ("It is <mask>.", " "),
        ("(<mask>", ""),
    ],
)
def test_a_label_word_begins_with_the_space_before_its_mask(template, lead):
    assert mask_lead(template, "<mask>") == lead


@pytest.mark.parametrize("kind", KINDS)
def test_label_words_are_those_of_a_text(kind):
    """The word at the mask is the one that the tokenizer makes of it in the same place; rows stay closed."""
    tokenizer = KINDS[kind]()
    encoder = masked(tokenizer, "{{ input }} is {{ mask }}", labels=["good", "is"])
    example = encoder.encode({"input": "it", "target": "good"})
    text = tokenizer("it is good")["input_ids"]
    (place,) = example.places
    assert example.input_ids[0] == text[0] and example.input_ids[-1] == text[-1]  # <s> … </s>, [CLS] … [SEP]
    assert example.input_ids[place] == tokenizer.mask_token_id
    assert (example.target_ids, place) == ((text[-2],), len(example.input_ids) - 2)


def test_a_cut_row_keeps_its_ends_and_must_keep_its_mask():
    tokenizer = word_piece()
    kept = masked(tokenizer, "{{ input }} {{ mask }}", labels=["good", "bad"], max_input_tokens=5)
    row = {"input": "we are good it is", "target": "bad"}
    example = kept.encode(row)
    shown = tokenizer.convert_ids_to_tokens(list(example.input_ids))
    assert shown == ["[CLS]", "it", "is", "[MASK]", "[SEP]"] and example.places == (3,)
    assert example.truncated == 3
    lost = masked(tokenizer, "{{ mask }} {{ input }}", labels=["good", "bad"], max_input_tokens=5)
    with pytest.raises(SoftPromptError, match="no mask"):
        lost.encode(row)
