"""Rows are encoded: the border of input and target, end tokens, candidates, chat, and lengths."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from softprompt.data.capacity import Room
from softprompt.data.encode import Encoder
from softprompt.data.labels import distinct_labels
from softprompt.data.sources import Row
from softprompt.data.task import Limits, Task
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(*, chat: str | None = CHAT, bos: bool = False, eos: bool = False, **special: Any):
    """One token a byte (byte-level, no merges), so that every length can be counted by hand."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    if bos or eos:
        single = ("<s> " if bos else "") + "$A" + (" <|im_end|>" if eos else "")
        tokens = [("<s>", raw.token_to_id("<s>")), ("<|im_end|>", raw.token_to_id("<|im_end|>"))]
        raw.post_processor = processors.TemplateProcessing(single=single, special_tokens=tokens)
    names = {"bos_token": "<s>", "eos_token": "<|im_end|>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=chat, **names)


def sentencepiece_like():
    """Words with a space of their own put before the text, as Llama 2's tokenizer does."""
    words = ["▁", "▁good", "▁bad", "good", "bad", "<0x0A>", "a", "</s>"]
    raw = Tokenizer(models.Unigram([(word, -1.0) for word in words] + [("<unk>", -9.0)], unk_id=len(words)))
    raw.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"), normalizers.Replace("\n", "<0x0A>")]
    )
    raw.decoder = decoders.Sequence([decoders.Replace("<0x0A>", "\n"), decoders.Replace("▁", " ")])
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")


TOKENIZER = byte_tokenizer()
END = TOKENIZER.eos_token_id


def text(ids) -> str:
    return str(TOKENIZER.decode(list(ids)))


def fails(call) -> str:
    with pytest.raises(SoftPromptError) as caught:
        call()
    return str(caught.value)


def row(input: str = "Hi", target: str = "Yo", where: str = "train.jsonl:4", **more) -> Row:
    return Row({"input": input, "target": target, **more}, where)


def test_encode_plain_border_space_and_end():
    encoder = Encoder(TOKENIZER, Template())
    example = encoder.encode(row())
    assert (text(example.input_ids), text(example.target_ids)) == ("Hi", " Yo<|im_end|>")
    assert (example.prompt, example.candidates, example.truncated) == (0, None, 0)
    assert text(encoder.encode(row("Hi\n")).target_ids) == "Yo<|im_end|>"
    assert text(encoder.encode(row(target="\nYo")).target_ids) == "\nYo<|im_end|>"
    assert encoder.encode(row(), with_target=False).target_ids == ()
    assert encoder.decode([*example.target_ids, *example.input_ids]) == "Yo"


def test_encode_special_tokens_of_the_tokenizer():
    template = Template()
    begun = Encoder(byte_tokenizer(bos=True, eos=True), template).encode(row())
    assert text(begun.input_ids) == "<s>Hi"  # its own begin token; the end token that it appends is dropped
    assert text(begun.target_ids) == " Yo<|im_end|>"
    assert text(Encoder(TOKENIZER, template).encode(row("")).input_ids) == "<s>"
    no_bos = Encoder(byte_tokenizer(bos_token=None), template).encode(row(""))
    assert text(no_bos.input_ids) == "<|im_end|>"
    assert text(Encoder(byte_tokenizer(bos=True), template).encode(row("")).input_ids) == "<s>"


def test_encode_no_end_token_is_refused():
    assert "no end token" in fails(lambda: Encoder(byte_tokenizer(eos_token=None), Template()))


def test_encode_sentencepiece_border():
    tokenizer = sentencepiece_like()
    encoder = Encoder(tokenizer, Template(), Task("classification", labels=["good", "bad"]))
    assert [tokenizer.convert_ids_to_tokens(list(ids)) for ids in encoder.label_ids or ()] == [
        ["▁good"],
        ["▁bad"],
    ]
    after_break = Encoder(
        tokenizer, Template("{{ input }}\n"), Task("classification", labels=["good", "bad"])
    )
    assert tokenizer.convert_ids_to_tokens(list((after_break.label_ids or ((),))[0])) == ["good"]


def test_encode_chat():
    encoder = Encoder(TOKENIZER, Template(chat=True, system="Be brief."))
    example = encoder.encode(row())
    turn = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert text(example.input_ids) == turn
    assert text(example.target_ids) == "Yo<|im_end|>"  # never a space ahead


def test_encode_chat_refusals():
    assert "no chat template" in fails(lambda: Encoder(byte_tokenizer(chat=None), Template(chat=True)))
    assert "only in chat mode" in fails(lambda: Encoder(TOKENIZER, Template(system="x")))
    strict = byte_tokenizer(chat="{{ raise_exception('no system role') }}")
    message = fails(lambda: Encoder(strict, Template(chat=True, system="x")).encode(row()))
    assert "train.jsonl:4: the model's chat template failed: no system role" in message
    assert "put the system text into template.input" in message


def test_encode_labels_shared_by_all_rows():
    encoder = Encoder(TOKENIZER, Template(), Task("classification", labels=["pos", "neg"]))
    first, second = encoder.encode_rows([row(target="neg"), row("Hi ", target="pos")])
    assert [text(ids) for ids in encoder.label_ids or ()] == [" pos", " neg"]  # no end token needed
    assert first.candidates is second.candidates is encoder.label_ids
    assert first.candidates is not None and first.target_ids == first.candidates[1]
    message = fails(lambda: encoder.encode(row(target="nge")))
    assert "train.jsonl:4: target 'nge' is not one of the 2 labels; did you mean 'neg'?" in message


def test_encode_labels_that_begin_one_another_are_closed():
    encoder = Encoder(TOKENIZER, Template(), Task("classification", labels=["no", "no idea"]))
    assert [text(ids) for ids in encoder.label_ids or ()] == [" no<|im_end|>", " no idea<|im_end|>"]


def test_encode_labels_learned_from_training_rows():
    encoder = Encoder(TOKENIZER, Template(), Task("classification"))
    assert "labels are not known yet" in fails(lambda: encoder.encode(row()))
    encoder.encode_rows([row(target="b"), row(target="a"), row(target="b")])
    assert encoder.labels == ("a", "b")
    assert "not one of the 2 labels" in fails(lambda: encoder.encode_rows([row(target="c")]))
    many = [row(target=str(i)) for i in range(201)]
    assert "201 distinct targets" in fails(lambda: distinct_labels(many, Template()))
    assert "at least two labels" in fails(lambda: distinct_labels([row()], Template()))
    assert "2 of 3 rows" in fails(
        lambda: distinct_labels([row(), row(target=""), row(target="")], Template())
    )


def test_encode_choices_of_each_row():
    template = Template("{{ input }}", "{{ target }}", choices_field="choices")
    encoder = Encoder(TOKENIZER, template, Task("choice"))
    example = encoder.encode(row(target="red", choices=["red", "blue"]))
    assert [text(ids) for ids in example.candidates or ()] == [" red", " blue"]
    assert text(example.target_ids) == " red"
    closed = encoder.encode(row("Hi\n", target="re", choices=["red", "re"]))
    assert [text(ids) for ids in closed.candidates or ()] == ["red<|im_end|>", "re<|im_end|>"]
    assert "needs at least two different choices" in fails(
        lambda: encoder.encode(row(target="red", choices=["red", " red"]))
    )
    assert "task.choices=FIELD" in fails(lambda: Encoder(TOKENIZER, Template(), Task("choice")))


def test_encode_prompt_names():
    encoder = Encoder(TOKENIZER, Template(prompt_field="style"), Task(prompts=["joke", "fact"]))
    assert encoder.encode(row(style="fact")).prompt == 1
    assert encoder.encode("Hi", with_target=False, prompt="fact").prompt == 1
    message = fails(lambda: encoder.encode(row(style="fcat")))
    assert "train.jsonl:4: unknown prompt 'fcat'; did you mean 'fact'?" in message
    assert "the text: no prompt is named" in fails(lambda: encoder.encode("Hi", with_target=False))


def test_encode_too_long_is_refused_with_a_number_that_works():
    encoder = Encoder(TOKENIZER, Template(), limits=Limits(room=Room(20, soft=4, length=4)))
    assert encoder.encode(row("x" * 12)).truncated == 0  # 12 + 4 of target + 4 reserved
    message = fails(lambda: encoder.encode(row("x" * 13)))
    assert "train.jsonl:4: too long for the model: its context is 20 tokens" in message
    assert "13 of input + 4 of soft tokens + 4 of target" in message
    assert "data.max_input_tokens=12" in message
    cut = Encoder(TOKENIZER, Template(), limits=Limits(max_input_tokens=12, room=Room(20, soft=4))).encode(
        row("abc" + "x" * 12)
    )
    assert (len(cut.input_ids), cut.truncated) == (12, 3) and text(cut.input_ids) == "x" * 12
    roomy = Encoder(TOKENIZER, Template(), limits=Limits(max_input_tokens=100, room=Room(20))).encode(
        row("y" + "x" * 16)
    )
    assert (text(roomy.input_ids), roomy.truncated) == ("x" * 16, 1)  # cutting is allowed: cut to what fits


def test_encode_cut_keeps_the_begin_token():
    encoder = Encoder(byte_tokenizer(bos=True), Template(), limits=Limits(max_input_tokens=4))
    example = encoder.encode(row("abcdef"))
    assert (text(example.input_ids), example.truncated) == ("<s>def", 3)


def test_encode_cut_target_has_no_end():
    example = Encoder(TOKENIZER, Template(), limits=Limits(max_target_tokens=3)).encode(row(target="abcdef"))
    assert (text(example.target_ids), example.truncated) == (" ab", 5)


@pytest.mark.parametrize("words", ["abcdefghij", "ab€€€€"])
def test_encode_cut_chat_keeps_the_turns(words):
    whole = Encoder(TOKENIZER, Template(chat=True)).encode(row(words))
    limit = len(whole.input_ids) - 4
    example = Encoder(TOKENIZER, Template(chat=True), limits=Limits(max_input_tokens=limit)).encode(
        row(words)
    )
    assert len(example.input_ids) <= limit
    assert example.truncated == len(whole.input_ids) - len(example.input_ids)
    shown = text(example.input_ids)
    assert shown.startswith("<|im_start|>user\n") and shown.endswith("<|im_end|>\n<|im_start|>assistant\n")
    kept = shown.removeprefix("<|im_start|>user\n").removesuffix("<|im_end|>\n<|im_start|>assistant\n")
    assert kept and words.endswith(kept) and "\ufffd" not in kept
    tiny = Encoder(TOKENIZER, Template(chat=True), limits=Limits(max_input_tokens=5))
    assert "5 tokens leave no room for the input" in fails(lambda: tiny.encode(row(words)))


def test_encode_rows_reports_the_first_few():
    encoder = Encoder(TOKENIZER, Template())
    rows = [row(), *(row(target="", where=f"train.jsonl:{n}") for n in range(2, 10))]
    message = fails(lambda: encoder.encode_rows(rows))
    assert "8 of 9 rows cannot be used" in message and "… and 3 more" in message
    assert "train.jsonl:2: the target is empty" in message and "train.jsonl:6" in message
    assert "train.jsonl:7" not in message
    assert "cannot be used" not in fails(lambda: encoder.encode_rows(rows[:2]))


def test_an_input_is_tokenized_once_unless_it_is_cut_or_ends_with_an_end_token():
    counted: list[str] = []

    class Counting:
        def __init__(self, tokenizer) -> None:
            self._tokenizer = tokenizer

        def __getattr__(self, name):
            return getattr(self._tokenizer, name)

        def __len__(self) -> int:
            return len(self._tokenizer)

        def __call__(self, text, **options):
            counted.append(text)
            return self._tokenizer(text, **options)

    def times(tokenizer, **limits) -> int:
        encoder = Encoder(Counting(tokenizer), Template(), limits=Limits(**limits))
        counted.clear()
        encoder.encode(row("abcdef"), with_target=False)
        return counted.count("abcdef")

    assert times(byte_tokenizer(bos=True)) == 1
    assert times(byte_tokenizer(bos=True), max_input_tokens=4) == 2
    assert times(byte_tokenizer(bos=True, eos=True)) == 2
