"""Shared builders: tiny random models and a tokenizer made in code, so that no fast test downloads anything.

Weights are drawn larger than a real model's start (0.2 instead of 0.02): at 0.02 a random model hardly
reads its input, and every equality would hold for the wrong reason.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tests.shapes  # noqa: F401
import torch
from tests.browser import NAMES
from tests.speed import MARKERS, mark_slow
from tokenizers import AddedToken, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from softprompt._system import quiet
from softprompt.data.collate import Batch, batch_of_ids
from softprompt.lm import families
from softprompt.lm.base import LanguageModel
from softprompt.lm.causal import CausalLM
from softprompt.lm.encoder import EncoderLM
from softprompt.lm.features import size
from softprompt.lm.heads import Head, parameter_names
from softprompt.lm.seq2seq import Seq2SeqLM
from softprompt.methods.base import Setting, SoftPrompt
from softprompt.testing.material import tiny_tokenizer

VOCAB, HIDDEN, LAYERS, CONTEXT = 101, 32, 3, 256
SIZES = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": 48}
GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
FAMILIES = ("llama", "gpt2", "qwen3")
CLS, SEP, MASK, PAD = 97, 98, 99, 100  # of `encoder_tokenizer`
HEADS = {
    None: None,
    "sequence": Head("sequence", 3),
    "tokens": Head("tokens", 4),
    "number": Head("sequence", 1),
}


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    quiet.verbose = lambda: True  # in here what libraries warn of is to be seen, and may be an error
    torch.set_num_threads(1)  # the models are tiny, and tests run beside each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_slow(items)


def tiny_model(family: str, seed: int = 0, **changes: Any):
    """Build a random model: llama (grouped heads), qwen3 (heads wider than hidden / heads) or GPT-2."""
    common = {"initializer_range": 0.2, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    torch.manual_seed(seed)
    if family == "gpt2":
        shape = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": CONTEXT}
        model = GPT2LMHeadModel(GPT2Config(**({"vocab_size": VOCAB} | shape | common | changes)))
    elif family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**(SIZES | GROUPED | {"head_dim": 16} | common | changes)))
    else:
        model = LlamaForCausalLM(LlamaConfig(**(SIZES | GROUPED | common | changes)))
    return roughen(model)


def roughen(model):
    """Norms of 1 and biases of 0 would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def encoder_tokenizer() -> PreTrainedTokenizerFast:
    """Build `tiny_tokenizer` with the special tokens of an encoder around each text: [CLS] … [SEP]."""
    raw = tiny_tokenizer().backend_tokenizer
    mask = AddedToken("[MASK]", lstrip=True, special=True)
    raw.add_special_tokens(["[CLS]", "[SEP]", mask, "[PAD]"])
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": mask, "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **names)


@pytest.fixture(scope="session")
def new_encoder() -> Callable[..., EncoderLM]:
    """Build `new_encoder(family, head, seed=0, **config)`; head is None or a key of `HEADS`."""

    def make(family: str = "bert", head: str | None = None, seed: int = 0, **changes: Any) -> EncoderLM:
        model = families.tiny(family, seed, HEADS[head], **changes)
        names = parameter_names(model) if head else ()
        return EncoderLM(model, encoder_tokenizer(), f"tiny-{family}", HEADS[head], names)

    return make


@pytest.fixture(scope="session")
def encoders(new_encoder) -> Callable[..., EncoderLM]:
    """Share one model for all tests with `encoders(family, head=None)`; no test may change it."""
    made: dict[tuple[str, str | None], EncoderLM] = {}

    def get(family: str, head: str | None = None) -> EncoderLM:
        if (family, head) not in made:
            made[family, head] = new_encoder(family, head)
        return made[family, head]

    return get


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory) -> Path:
    """A saved tiny BERT for masked words, as `softprompt.load(path)` takes it."""
    folder = tmp_path_factory.mktemp("bert")
    families.tiny("bert").save_pretrained(folder)
    encoder_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def new_lm() -> Callable[..., LanguageModel]:
    """Build a model with `new_lm(family, seed=0, **config)`; the caller may change it."""

    def make(family: str = "llama", seed: int = 0, **changes: Any) -> LanguageModel:
        if family in FAMILIES:
            return CausalLM(tiny_model(family, seed, **changes), tiny_tokenizer(), f"tiny-{family}")
        wrapper = Seq2SeqLM if family in families.ENCODER_DECODERS else CausalLM
        return wrapper(families.tiny(family, seed, **changes), tiny_tokenizer(), f"tiny-{family}")

    return make


@pytest.fixture(scope="session")
def lms(new_lm) -> Callable[[str], LanguageModel]:
    """Share one model of a family for all tests with `lms(family)`; no test may change it."""
    made: dict[str, LanguageModel] = {}

    def get(family: str) -> LanguageModel:
        return made.setdefault(family, made.get(family) or new_lm(family))

    return get


@pytest.fixture(scope="session")
def llama(lms) -> CausalLM:
    return lms("llama")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A saved tiny Llama with its tokenizer, as `softprompt.load(path)` takes it."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory) -> str:
    """A saved tiny BERT with its tokenizer: the separate encoder of a generated prompt."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(1)
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=VOCAB, **shape, initializer_range=0.2)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def setting() -> Callable[..., Setting]:
    """Build a `Setting` of two prompts, two labels and four training rows with `setting(lm, **changes)`."""

    def make(lm: CausalLM, **changes: Any) -> Setting:
        rows = tuple(tuple(range(start, start + 9)) for start in (3, 20, 41, 66))
        defaults: dict[str, Any] = {
            "prompts": ("joke", "fact"),
            "labels": ("good", "bad"),
            "examples": rows,
            "examples_by_prompt": {0: rows[:2], 1: rows[2:]},
            "feature_size": lambda reads: size(lm, reads),
        }
        return Setting(lm, **(defaults | changes))

    return make


@pytest.fixture(scope="session")
def perturb() -> Callable[..., SoftPrompt]:
    """Random values added to every parameter: gates and last layers that start at zero do something."""

    def change(method: SoftPrompt, size: float = 0.3, seed: int = 0) -> SoftPrompt:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
        return method

    return change


@pytest.fixture(scope="session")
def rows_to_batch() -> Callable[..., Batch]:
    """Build a batch of `(inputs, targets, prompts)`; its rows have texts too, for methods with an encoder."""

    def make(
        inputs: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]] | None = None,
        prompts: Sequence[int] | None = None,
    ) -> Batch:
        texts = tuple(" ".join(f"w{i}" for i in row) for row in inputs)
        return replace(batch_of_ids(inputs, targets, prompts), texts=texts)

    return make


@pytest.fixture(scope="session")
def close() -> Callable[..., None]:
    """Check with `close(a, b, limit)` that no number differs by more than `limit` · max(1, b's size)."""

    def check(a: torch.Tensor, b: torch.Tensor, limit: float = 1e-5) -> None:
        assert a.shape == b.shape
        allowed = limit * max(1.0, b.abs().max().item() if b.numel() else 0.0)
        worst = (a - b).abs().max().item() if b.numel() else 0.0
        assert worst <= allowed, f"differs by {worst:.2e}, allowed {allowed:.2e}"

    return check


@pytest.fixture(scope="module")  # while it is there this thread has a running event loop, for all tests
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="NO BROWSER TESTS: pip install playwright")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        reason = "NO BROWSER TESTS: no page was looked at. apt-get install chromium"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()
