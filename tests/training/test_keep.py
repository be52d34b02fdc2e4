"""`train.keep`: rows of general text beside a run's own rows, for every method and kind of task."""

from __future__ import annotations

import json

import pytest
import torch

import softprompt
from softprompt import methods
from softprompt.cache.folders import CacheFolder
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.evaluation.leakage import leakage
from softprompt.lm import families
from softprompt.lm.seq2seq import Seq2SeqLM
from softprompt.testing.material import tiny_tokenizer
from softprompt.training import general_text
from softprompt.training.caches import open_caches
from softprompt.training.leakage import leakage_of
from softprompt.training.prepare import prepare
from softprompt.training.step import StepPart, TrainStep
from softprompt.training.tune import Hooks, Interrupted, tune, tune_many

WORDS = ["sun", "mud", "cake", "rain", "song", "ache"]
ROWS = [
    {"input": f"{word} {i}", "target": word[::-1], "name": "ab"[i % 2]} for i, word in enumerate(WORDS * 2)
]
TEXT = "A fox ran over the hill and sat down near the old mill. It saw two ducks on the pond."


@pytest.fixture(scope="module")
def lm(model_folder):
    return softprompt.load(str(model_folder), dtype="float32")


@pytest.fixture
def prepared(lm, tmp_path):
    """`prepared(method=…, keep=…)`: a fresh start of the same small run on two prompts and general text."""
    file = tmp_path / "general.txt"
    file.write_text(TEXT * 6)

    def make(method="prefix-tuning", *, output="out", model=lm, options=None, task=None, rows=ROWS, **train):
        recipe = recipe_from_dict(
            {
                "model": "in memory",
                "data": {"train": "rows", "prompt_field": "name"},
                "task": task or {},
                "method": {"name": method, **({"length": 3} if options is None else options)},
                "train": {
                    **{"steps": 5, "batch_size": 4, "eval_every": 2, "dtype": "float32", "lr": 0.05},
                    **{"keep": 0.3, "keep_text": str(file), "cache_folder": str(tmp_path / "cache")},
                    **train,
                },
                "output": str(tmp_path / output),
            }
        )
        return prepare(recipe, lm=model, rows=rows[:8], dev_rows=rows[8:])

    return make


def by_hand(run, step):
    """Return the loss of a step, row by row and token by token, and the numbers of tokens of both kinds."""
    lm, method, losses, kept = run.lm, run.method, [], []
    for number in step:
        is_general = number < 0
        e = run.keep.examples[-1 - number] if is_general else run.train[number]
        batch = batch_of_ids([e.input_ids], [e.target_ids])
        mine = lm.logits(batch, method(torch.tensor([e.prompt])))[0].softmax(-1)
        if not is_general:
            losses += [-mine[i, token].log() for i, token in enumerate(e.target_ids)]
            continue
        with torch.no_grad():
            plain = lm.model(torch.tensor([[*e.input_ids, *e.target_ids]])).logits[0, len(e.input_ids) - 1 :]
        for p, q in zip(plain[:-1].softmax(-1), mine, strict=True):
            best = p.topk(20).indices
            divergence = (p[best] * (p[best] / q[best]).log()).sum()
            p_rest, q_rest = 1 - p[best].sum(), 1 - q[best].sum()
            kept.append(divergence + p_rest * (p_rest / q_rest).log())
    share = min(0.5, len(kept) / (len(kept) + len(losses)))
    loss = (1 - share) * torch.stack(losses).mean() + share * torch.stack(kept).mean()
    return loss, len(losses), len(kept)


@pytest.mark.parametrize(("placement", "rows"), [("before", [0, 2]), ("after", range(8))])
def test_the_loss_of_a_mixed_step(prepared, perturb, tmp_path, placement, rows):
    """The loss and the gradient of a step against those by hand, with much general text and with little."""
    if placement == "after":
        (tmp_path / "general.txt").write_text(TEXT[:27])
    run = prepared(options={"length": 3, "placement": placement}, keep=0.6 if placement == "before" else 0.3)
    perturb(run.method)
    rows = run.step_rows(3, rows)
    assert {e.prompt for e in run.keep.examples} == {0, 1}
    caches, run = open_caches(run, [run.train])
    (loss,) = TrainStep(run.lm, [StepPart.of(run)], caches[0]).backward([(0, rows)])
    trained = [p for p in run.method.parameters() if p.grad is not None]
    found = [p.grad.clone() for p in trained]
    expected, tokens, general = by_hand(run, rows)
    assert (general < tokens) == (placement == "after")
    torch.testing.assert_close(loss, expected.detach(), atol=1e-5, rtol=1e-4)
    gradients = torch.autograd.grad(expected, trained)
    for a, b in zip(found, gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_the_share_of_tokens(prepared):
    """A step has as many tokens of general text as make the share, to one row; over all steps it is right."""
    run = prepared(keep=0.8)
    tokens = sum(len(e.input_ids) + len(e.target_ids) for e in run.train)
    for step in range(4):
        rows = run.step_rows(step, range(8))
        general = [
            len(e.input_ids) + len(e.target_ids) for e in (run.keep.examples[-1 - i] for i in rows[8:])
        ]
        assert rows[:8] == list(range(8)) and len(set(rows)) == len(rows)
        assert abs(sum(general) - 4 * tokens) <= 64
        assert rows == run.step_rows(step, range(8))
    assert run.step_rows(0, range(8)) != run.step_rows(1, range(8))
    for share in (0.05, 0.4):  # a part of a row at each step, and some rows
        run, sums = prepared(keep=share), [0, 0]
        for step in range(1000):
            for i in run.step_rows(step, range(8)):
                e = run.keep.examples[-1 - i] if i < 0 else run.train[i]
                sums[i < 0] += len(e.input_ids) + len(e.target_ids)
        assert sums[1] / sum(sums) == pytest.approx(share, rel=0.15)
    assert prepared(keep=0).step_rows(0, range(8)) == list(range(8))


def test_without_an_effect_there_is_no_loss_on_general_text(prepared):
    """LLaMA-Adapter starts with gates at zero: the model is the plain one, and nothing draws it anywhere."""
    run = prepared("llama-adapter", keep=0.5)
    caches, run = open_caches(run, [run.train])
    step, part = TrainStep(run.lm, [StepPart.of(run)], caches[0]), StepPart.of(run)
    general = [i for i in run.step_rows(0, [0]) if part.is_general(i)]
    (loss,) = step.backward([(0, general)])
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert all(p.grad is None or p.grad.abs().max() < 1e-4 for p in run.method.parameters())


@pytest.mark.parametrize("name", sorted(name for name in methods.METHODS if name != "none"))
def test_every_method_is_kept_near_the_plain_model(prepared, lm, encoder_folder, name):
    """Trained on general text almost alone, a method is nearer to the plain model than without it."""
    options = {"length": 3} if "length" in methods.METHODS[name].options() else {}
    ends = []
    for keep in (0.0, 0.97):
        run = prepared(name, options=options, keep=keep, steps=12, output=f"{name}-{keep}")
        text = prepared(name, options=options, keep=0.5).keep
        tune(run)
        ends.append(distance(run, text.examples))
    assert ends[1] < ends[0]


def distance(run, examples):
    """The mean divergence on rows of general text, over the whole vocabulary."""
    from dataclasses import replace

    from softprompt.data.collate import collate
    from softprompt.lm.apply import injection_for

    total = 0.0
    for e in examples[:4]:
        batch = collate([replace(e, prompt=e.prompt % run.method.num_prompts)])
        with torch.no_grad():
            p = run.lm.logits(batch).log_softmax(-1)
            q = run.lm.logits(batch, injection_for(run.lm, run.method, batch)).log_softmax(-1)
        total += float((p.exp() * (p - q)).sum(-1).mean())
    return total


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
def test_resume_is_exact(prepared, tmp_path, method):
    tune(prepared(method, output="whole"))
    with pytest.raises(Interrupted):
        tune(prepared(method, output="cut"), hooks=Hooks(should_stop=iter([False, False, True]).__next__))
    tune(prepared(method, output="cut"))
    whole, cut = ((tmp_path / name / "prompt.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
    with pytest.raises(SoftPromptError, match="another"):
        tune(prepared(method, output="cut", keep=0.2))
    (tmp_path / "general.txt").write_text(TEXT[::-1] * 6)
    with pytest.raises(SoftPromptError):
        tune(prepared(method, output="cut"))


def test_side_by_side(prepared, tmp_path):
    """Runs that share a pass end as each does alone."""
    runs = [prepared(output=f"both-{keep}", keep=keep) for keep in (0.3, 0.7)]
    runs.append(prepared(output="both-0", keep=0.0))
    tune_many(runs)
    for keep, together in zip((0.3, 0.7, 0.0), runs, strict=True):
        alone = prepared(output=f"alone-{keep}", keep=keep)
        tune(alone)
        for a, b in zip(together.method.parameters(), alone.method.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_label_words(prepared):
    """Classification by label words: general text is compared by tokens all the same."""
    rows = [{"input": word, "target": "ab"[i % 2], "name": "x"} for i, word in enumerate(WORDS * 2)]
    task = {"kind": "classification", "labels": ["a", "b"]}
    run = tune(prepared(task=task, rows=rows, keep=0.9)).prepared
    rows = run.step_rows(0, [0, 1])
    expected, tokens, general = by_hand(run, rows)
    assert tokens == 4 and general >= 8 and torch.isfinite(expected)


def test_an_encoder_decoder(prepared):
    """The encoder reads the first part of a text, and the decoder's tokens are the others."""
    model = Seq2SeqLM(families.tiny("t5"), tiny_tokenizer(), "tiny-t5")
    run = prepared(model=model)
    e = run.keep.examples[0]
    batch = batch_of_ids([e.input_ids], [e.target_ids])
    with torch.no_grad():
        expected = model.logits(batch)[0].log_softmax(-1).topk(20)
    torch.testing.assert_close(e.teacher[1], expected.values, atol=1e-5, rtol=1e-5)
    tune(run)


def test_the_plain_model_writes_once(lm, tmp_path, monkeypatch):
    place = CacheFolder(tmp_path)
    texts = general_text.written_texts(lm, 3, place)
    assert len(texts) == general_text.AT_ONCE and len(set(texts)) == len(texts)
    assert all(map(str.startswith, texts, general_text.OPENINGS))
    (file,) = tmp_path.rglob(general_text.FILE)
    assert [json.loads(line)["text"] for line in file.read_text().splitlines()] == texts
    state = torch.get_rng_state()
    more = general_text.written_texts(lm, 17, place)
    assert more[:16] == texts and len(more) == 32 and torch.equal(state, torch.get_rng_state())
    monkeypatch.setattr(type(lm), "generate", lambda *args, **kwargs: pytest.fail("written again"))
    assert general_text.written_texts(lm, 3, place) == texts


def test_what_cannot_be_kept_is_one_error(prepared, encoders, tmp_path):
    labels = {"kind": "classification", "labels": ["a", "b", "c"], "head": True}
    rows = [{"input": word, "target": "abc"[i % 3], "name": "x"} for i, word in enumerate(WORDS * 2)]
    with pytest.raises(SoftPromptError, match="keep needs a model that predicts text"):
        prepared("prompt-tuning", task=labels, rows=rows, model=encoders("bert", "sequence"))
    with pytest.raises(SoftPromptError, match="gives no row"):
        (tmp_path / "short.txt").write_text("short")
        prepared(keep_text=str(tmp_path / "short.txt"))
    (tmp_path / "rows.jsonl").write_text('{"words": "a"}\n')
    with pytest.raises(SoftPromptError, match="no text in the field 'text'"):
        prepared(keep_text=str(tmp_path / "rows.jsonl"))
    for wrong in ({"keep": 1.0}, {"keep": -0.1}):
        with pytest.raises(SoftPromptError, match="keep"):
            prepared(**wrong)


def test_a_file_of_text_is_kept_by_the_default_share(prepared):
    assert prepared(keep=None).keep.share == 0.02
    assert prepared(keep=None, keep_text=None).keep is None


def test_unrelated_text_before_and_after(prepared, lm):
    """The manifest's figures against the measure itself, at the start and at the end."""
    start = leakage(lm, prepared().method).change.value
    run = tune(prepared())
    facts = leakage_of(run)
    assert facts["before"]["value"] == pytest.approx(start, abs=1e-5)
    end = leakage(lm, run.prepared.method)
    assert facts["after"]["value"] == pytest.approx(end.change.value, abs=1e-5)
    assert facts["plain"] == pytest.approx(end.plain) and facts["prompts"] == 2
    other = tune(prepared(keep=0, output="other"))
    assert "leakage" not in other.artifact.manifest["training"]
    assert leakage_of(other)["before"] is None
