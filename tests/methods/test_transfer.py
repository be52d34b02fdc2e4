"""Soft tokens carried to another base model: what each way promises, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import softprompt
from softprompt import methods
from softprompt.artifacts import artifact as artifacts
from softprompt.artifacts import warm_start
from softprompt.artifacts.manifest import text_of
from softprompt.artifacts.warm_start import other_base
from softprompt.config.load import recipe_from_dict
from softprompt.errors import SoftPromptError
from softprompt.lm.vocabulary import shared_tokens, token_ids
from softprompt.methods import init
from softprompt.methods.base import PrefixLayers
from softprompt.methods.transfer import NEIGHBOURS, OtherBase, SharedTokens, linear, nearest
from softprompt.training.prepare import prepare

WIDE = {"hidden_size": 48, "intermediate_size": 64}
ROWS = [{"input": word, "target": ("good", "bad")[i % 2]} for i, word in enumerate(["sun", "mud", "ox"] * 4)]


@pytest.fixture(scope="module")
def wide(new_lm):
    """A base of another size and other weights, with the same tokenizer."""
    return new_lm("llama", seed=7, **WIDE)


def tables(rows: int = 60, source: int = 12, target: int = 20, seed: int = 0) -> SharedTokens:
    generator = torch.Generator().manual_seed(seed)
    return SharedTokens(
        torch.randn(rows, source, generator=generator), torch.randn(rows, target, generator=generator)
    )


# --- the two ways, on tensors ---


def test_nearest_takes_tokens_to_tokens_whatever_their_length(close):
    shared = tables()
    carried, explained = nearest(torch.stack([shared.source[9], 2.5 * shared.source[41]]), shared)
    close(carried, torch.stack([shared.target[9], 2.5 * shared.target[41]]))
    assert explained == pytest.approx(1)


def test_nearest_keeps_the_combination_of_the_nearest_tokens(close):
    """Against the definition: the closest point in the span of the tokens with the largest cosine."""
    shared = tables(rows=200, source=40)
    vector = torch.randn(40, generator=torch.Generator().manual_seed(3))
    cosine = torch.nn.functional.cosine_similarity(shared.source, vector[None], dim=-1)
    tokens = cosine.argsort(descending=True)[:NEIGHBOURS]
    weights = torch.linalg.lstsq(shared.source[tokens].T.double(), vector[:, None].double()).solution[:, 0]
    carried, explained = nearest(vector[None], shared)
    close(carried[0], (weights @ shared.target[tokens].double()).float())
    message = weights @ shared.source[tokens].double()
    assert explained == pytest.approx((message.square().sum() / vector.square().sum()).item(), rel=1e-5)
    assert 0.1 < explained < 0.99


def test_nearest_with_two_tokens_alike_and_with_few(close):
    shared = tables(rows=5)
    twins = SharedTokens(
        torch.cat([shared.source, shared.source[:1]]), torch.cat([shared.target, shared.target[:1]])
    )
    carried, _ = nearest(shared.source[:1], twins)
    close(carried, shared.target[:1])


def test_linear_recovers_a_linear_relation(close):
    shared = tables()
    generator = torch.Generator().manual_seed(1)
    matrix, offset = torch.randn(12, 20, generator=generator), torch.randn(20, generator=generator)
    image = SharedTokens(shared.source, shared.source @ matrix + offset)
    vectors = 3 * torch.randn(4, 12, generator=generator)  # nowhere near a token
    carried, explained = linear(vectors, image)
    close(carried, vectors @ matrix + offset, 1e-4)
    assert explained == pytest.approx(1, abs=1e-6)


def test_linear_says_when_there_is_no_relation():
    """Its R² is measured on tokens that the map has not seen: on unrelated tables it is not above zero."""
    _, explained = linear(torch.zeros(1, 12), tables(rows=400))
    assert explained < 0.05


def test_linear_needs_more_tokens_than_numbers():
    with pytest.raises(SoftPromptError, match="needs more than 12 shared tokens"):
        linear(torch.zeros(1, 12), tables(rows=12))


# --- two models ---


def test_shared_tokens_are_the_same_text_in_both(llama, wide):
    shared = shared_tokens(llama, wide)
    ids = token_ids(llama)
    assert ids[" "] == llama.text_ids(" ")[0] and len(ids) == 97
    order = torch.tensor(list(ids.values()))
    assert torch.equal(shared.source, llama.embed(order)) and torch.equal(shared.target, wide.embed(order))


def test_tokens_meet_by_text_across_kinds_of_tokenizer(llama):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from softprompt.lm.causal import CausalLM

    pieces = {"<unk>": 0, "▁": 1, "b": 2, "a": 3, "▁a": 4, "ab": 5}
    raw = Tokenizer(models.BPE(vocab=pieces, merges=[("▁", "a"), ("a", "b")], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    other = CausalLM(llama.model, PreTrainedTokenizerFast(tokenizer_object=raw), "pieces")
    shared = shared_tokens(other, llama)
    theirs = llama.text_ids(" ") + llama.text_ids("b") + llama.text_ids("a")  # " a" and "ab" are not single
    assert torch.equal(shared.source, other.embed(torch.tensor([1, 2, 3])))
    assert torch.equal(shared.target, llama.embed(torch.tensor(theirs)))


def bridged(lm, other, stored, setting):
    """A setting of `lm` whose artifact holds `stored`, trained on `other`."""
    return setting(
        lm,
        read_prompt=lambda path, name: stored,
        other_base=lambda path: OtherBase("other", lambda: shared_tokens(other, lm)),
    )


@pytest.mark.parametrize("name", [n for n, m in methods.METHODS.items() if "transfer" in m.options()])
def test_a_prompt_started_from_text_becomes_the_text_in_the_other_model(llama, wide, setting, close, name):
    ids = torch.tensor(llama.text_ids("so, is it good"))
    text = {"after": llama.embed(ids)}
    given = bridged(wide, llama, text, setting)
    length = len(ids)
    table = init.soft_tokens(given, length, "artifact", None, "x", "nearest")
    close(table, wide.embed(ids).expand(2, -1, -1))
    # and through the method's own options
    options = {"init": "artifact", "artifact": "x", "length": length}
    shape = table[0].shape
    state = methods.build(name, given, options | {"transfer": "nearest"}).state_dict()
    start = next(t for t in state.values() if t.shape[-2:] == shape)
    close(start.reshape(-1, *shape)[0], wide.embed(ids))


def test_a_linear_image_of_the_embeddings_is_recovered(llama, new_lm, setting, close):
    """The target's embedding matrix is a linear image of the source's: so are the carried vectors."""
    target = new_lm("llama", seed=7, **WIDE)
    matrix = torch.randn(32, 48, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        target.model.get_input_embeddings().weight.copy_(llama.embed(torch.arange(101)) @ matrix)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(4))
    messages = []
    given = bridged(target, llama, {"before": vectors}, setting)
    given = setting(
        target, read_prompt=given.read_prompt, other_base=given.other_base, on_carried=messages.append
    )
    carried = init.soft_tokens(given, 3, "artifact", None, "x", "linear")
    close(carried[1], vectors @ matrix, 1e-4)
    (message,) = messages
    assert (message.source, message.tokens, message.transfer) == ("other", 97, "linear")
    assert message.explained == pytest.approx(1, abs=1e-5) and "R² on held-out" in str(message)


def test_another_base_is_never_copied(llama, wide, setting):
    for stored, make in (
        ({"after": torch.randn(2, 48)}, lambda given: init.soft_tokens(given, 2, "artifact", None, "x")),
        (
            {"keys": torch.randn(2, 48), "values": torch.randn(2, 48)},
            lambda given: init.prefix(
                given, PrefixLayers.choose(given.lm.spec, "all", "before"), 2, "artifact", None, "x"
            ),
        ),
    ):
        with pytest.raises(SoftPromptError, match="another base model") as error:
            make(bridged(wide, llama, stored, setting))
        assert "transfer=" in error.value.fix and "'other'" in error.value.why


def test_transfer_goes_with_artifact_only(llama, setting):
    with pytest.raises(SoftPromptError, match="cannot be combined with init=vocab"):
        init.soft_tokens(setting(llama), 2, "vocab", None, None, "nearest")


# --- saved prompts ---


@pytest.fixture(scope="module")
def source(tmp_path_factory, new_lm):
    """A saved base, and a prompt and a prefix tuned on it: (model folder, prompt folder, prefix folder)."""
    folder = tmp_path_factory.mktemp("source")
    lm = new_lm("llama", seed=3)
    lm.model.save_pretrained(folder / "model")
    lm.tokenizer.save_pretrained(folder / "model")
    lm = softprompt.load(str(folder / "model"), dtype="float32")
    for name in ("prompt-tuning", "prefix-tuning"):
        train = {"steps": 2, "batch_size": 4, "dtype": "float32"}
        softprompt.tune(lm, name, ROWS, output=folder / name, options={"length": 3}, **train)
    return folder / "model", folder / "prompt-tuning", folder / "prefix-tuning"


def prepared(lm, method: str, artifact, **options):
    recipe = {
        "model": lm.name,
        "data": {"train": "rows"},
        "method": {"name": method, "length": 3, "init": "artifact", "artifact": str(artifact), **options},
        "train": {"steps": 1, "dtype": "float32"},
    }
    return prepare(recipe_from_dict(recipe), lm=lm, rows=ROWS[:6], dev_rows=ROWS[6:])


def test_from_folder_to_folder(source, wide, tmp_path, close):
    folder, prompt, _ = source
    given = prepared(wide, "prompt-tuning", prompt, transfer="linear")
    base = softprompt.load(str(folder), dtype="float32")
    expected, explained = linear(
        warm_start.vectors(str(prompt), "default")["after"], shared_tokens(base, wide)
    )
    close(given.method.state_dict()["table"][0], expected)
    assert given.carried is not None and given.carried.explained == pytest.approx(explained)
    options = {"length": 3, "init": "artifact", "artifact": str(prompt), "transfer": "linear"}
    tuned = softprompt.tune(
        wide, "prompt-tuning", ROWS, output=tmp_path / "out", options=options, steps=1, dtype="float32"
    )
    manifest = json.loads((tmp_path / "out" / artifacts.MANIFEST).read_text())
    assert manifest["carried"]["source"] == str(folder) and manifest["carried"]["tokens"] == 97
    trainable = tuned.artifact.method(wide, trainable=True)  # rebuilt without the source
    close(trainable.state_dict()["table"], tuned.method.state_dict()["table"])


@pytest.mark.parametrize("transfer", [{}, {"transfer": "nearest"}, {"transfer": "linear"}])
def test_the_same_base_is_copied_to_the_bit(source, transfer):
    folder, prompt, prefix = source
    lm = softprompt.load(str(folder), dtype="float32")
    given = prepared(lm, "prompt-tuning", prompt, **transfer)
    assert torch.equal(
        given.method.state_dict()["table"][0], warm_start.vectors(str(prompt), "default")["after"]
    )
    assert given.carried is None
    kv = prepared(lm, "prefix-tuning", prefix).method.state_dict()
    assert torch.equal(kv["keys"][0], warm_start.vectors(str(prefix), "default")["keys"])


def test_equal_sizes_do_not_make_an_equal_base(source, llama):
    """`llama` has the sizes of the source, and other weights."""
    _, prompt, prefix = source
    with pytest.raises(SoftPromptError, match="trained on another base model"):
        prepared(llama, "prompt-tuning", prompt)
    with pytest.raises(SoftPromptError, match=r"prefix .* another base model"):
        prepared(llama, "prefix-tuning", prefix)
    assert prepared(llama, "prompt-tuning", prompt, transfer="nearest").carried is not None


def test_a_source_that_is_gone_or_changed(source, wide, tmp_path, new_lm):
    folder, prompt, _ = source
    copy = tmp_path / "prompt"
    shutil.copytree(prompt, copy)
    manifest = json.loads((copy / artifacts.MANIFEST).read_text())

    def rename(name: str) -> None:
        manifest["base"]["name"] = name
        (copy / artifacts.MANIFEST).write_text(text_of(manifest))

    rename(str(tmp_path / "gone" / "model"))
    with pytest.raises(SoftPromptError, match=r"base model of .* cannot be read") as error:
        prepared(wide, "prompt-tuning", copy, transfer="nearest")
    assert "bring" in error.value.fix
    changed = new_lm("llama", seed=4)
    changed.model.save_pretrained(tmp_path / "changed")
    changed.tokenizer.save_pretrained(tmp_path / "changed")
    rename(str(tmp_path / "changed"))
    with pytest.raises(SoftPromptError, match="is not the base model") as error:
        prepared(wide, "prompt-tuning", copy, transfer="linear")
    assert "weights" in error.value.why
    assert (
        other_base(softprompt.load(str(folder), dtype="float32"))(str(copy)) is None
    )  # its name is not asked
