"""Small tokenizers of the kinds that models have: byte-level, and SentencePiece's with bytes for the rest."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

WORDS = ("the", "Paris", "capital", "of", "France", "is", "one", "two", "and")
CHAT = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
CONTROLS = ("<|start|>", "<|end|>")


def _merges(word: str) -> list[tuple[str, str]]:
    return [(word[:n], word[n]) for n in range(1, len(word))]


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2's and Llama 3's: a character outside ASCII is several tokens."""
    marked = [f"Ġ{word}" for word in WORDS] + list(WORDS)
    merges = list(dict.fromkeys(pair for word in marked for pair in _merges(word)))
    pieces = dict.fromkeys([*bytes_to_unicode().values(), *(a + b for a, b in merges)])
    raw = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.ByteLevel(trim_offsets=True)
    return _finished(raw, bos=False)


def sentencepiece(metaspace: bool = False) -> PreTrainedTokenizerFast:
    """As Llama 2's and Mistral's: a text begins with a space of its own, which decoding takes away."""
    words = [f"▁{word}" for word in WORDS]
    merges = list(dict.fromkeys(pair for word in words for pair in _merges(word)))
    letters = "▁abcdefghijklmnopqrstuvwxyzPF<>|/.,!"
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *(a + b for a, b in merges)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    raw = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    spaces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    raw.decoder = decoders.Sequence(spaces)
    return _finished(raw, bos=True)


def _finished(raw: Tokenizer, bos: bool) -> PreTrainedTokenizerFast:
    raw.add_special_tokens([AddedToken(name, special=True) for name in ("<s>", "</s>", *CONTROLS)])
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            "<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    made.chat_template = CHAT
    return made


VOCABULARIES = {
    "byte-level": byte_level,
    "sentencepiece": sentencepiece,
    "metaspace": lambda: sentencepiece(metaspace=True),
}
