"""A document becomes vectors: whole or in chunks, with requests of its own or the model's own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch

import softprompt
from softprompt._system.display import Display
from softprompt.artifacts.hub.public import public
from softprompt.config.load import recipe_from_dict
from softprompt.data.collate import collate
from softprompt.data.row import Row
from softprompt.distillation import answers, self_study
from softprompt.distillation.beginnings import Beginnings
from softprompt.distillation.kept_rows import KeptRows
from softprompt.distillation.parts import part_of
from softprompt.distillation.recipe import recipe_of
from softprompt.distillation.requests import read_requests
from softprompt.errors import SoftPromptError
from softprompt.lm.causal import CausalLM
from softprompt.lm.families import tiny
from softprompt.lm.generation import answering, tokens_of
from softprompt.testing.material import tiny_tokenizer
from softprompt.training.teacher_encoder import TeacherEncoder

SECTIONS = [f"{word} is the word of part {i}, and nothing else is known of it" for i, word in enumerate(
    ("sun", "mud", "cake", "rain", "song", "ache", "gift", "loss")
)]  # fmt: skip
DOCUMENT = "\n\n".join(SECTIONS)  # some 500 tokens of the tiny tokenizer, whose models have 256 positions
SHORT = "\n\n".join(SECTIONS[:2])
REQUESTS = [f"what of {text.split()[0]}" + "!" * i for i in range(3) for text in SECTIONS]
SETTINGS = {"steps": 4, "batch_size": 4, "lr": 0.05, "dtype": "float32", "max_new_tokens": 6}


@pytest.fixture
def lm(model_folder):
    return softprompt.load(str(model_folder), dtype="float32")


def teacher_of(lm, text, **settings):
    tree = {"teacher": {"context": text, "role": "document", **settings}, "task": {"max_new_tokens": 6}}
    recipe = recipe_from_dict(recipe_of(tree, text, chat=False))
    return recipe, TeacherEncoder(recipe, lm, ("default",))


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """The teacher's answers are there: a random model ends its answers too rarely for a small test."""
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(answers, "_identity", lambda recipe, lm: "same")
    folder = tmp_path / "out-distill"
    folder.mkdir()
    facts = {"complete": True, "limit": 6, "teacher": "same"}
    rows = [
        {"request": text, "answer": text[::-1], "chunk": i % 8 // 3, **facts}
        for i, text in enumerate(REQUESTS)
    ]
    (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_document_that_fits_is_shown_whole_and_another_in_chunks(lm):
    _, whole = teacher_of(lm, SHORT)
    assert whole.is_whole and list(whole.encode({"request": "why"}).input_ids) == lm.text_ids(
        f"{SHORT}\n\nwhy"
    )
    _, cut = teacher_of(lm, DOCUMENT)
    assert not cut.is_whole and "".join(cut.chunks) == DOCUMENT and len(cut.chunks) > 2
    about = next(i for i, chunk in enumerate(cut.chunks) if "rain" in chunk)
    for row in ({"request": "what is rain"}, {"request": "hm", "chunk": about}):
        text = cut.chunks[about].rstrip("\n") + f"\n\n{row['request']}"
        assert list(cut.encode(row).input_ids) == lm.text_ids(text)
    with pytest.raises(SoftPromptError, match="too long for the model") as error:
        cut.encode({"request": "why " * 99, "chunk": 0})
    assert "leave this request out" in error.value.fix


def test_a_system_prompt_that_is_too_long_is_an_error_with_its_tokens(lm):
    recipe = recipe_from_dict(recipe_of({}, DOCUMENT, chat=False))
    with pytest.raises(SoftPromptError, match=rf"it has {len(lm.text_ids(DOCUMENT))} tokens.* reads 256"):
        TeacherEncoder(recipe, lm, ("default",))


def test_distil_in_chunks_and_measure_on_rows_of_its_own(lm, answered):
    measured = [{"question": text, "answer": "7 parts"} for text in REQUESTS[:5]]
    output = answered / "out"
    result = softprompt.distill(
        lm, DOCUMENT, REQUESTS, role="document", measure=measured, vectors=3, output=output, **SETTINGS
    )
    ways = result.comparison.ways
    assert ways["vectors"]["n"] == 5 and "text as keys and values" not in ways
    assert ways["text"]["metrics"]["kl"] == pytest.approx(0, abs=1e-5)
    prepared = result.run.prepared
    trained = {e.rendered.row["request"] for e in [*prepared.train, *prepared.dev]}
    assert trained == set(REQUESTS[5:])
    for example in prepared.train[:3]:  # against the model on the chunk, the request and the answer
        row = example.rendered.row
        _, teacher = teacher_of(lm, DOCUMENT)
        ids = lm.text_ids(teacher.chunks[row["chunk"]].rstrip("\n") + f"\n\n{row['request']}")
        with torch.no_grad():
            logits = lm.model(torch.tensor([[*ids, *example.target_ids]])).logits[0, len(ids) - 1 : -1]
        values, _ = logits.log_softmax(-1).topk(20)
        torch.testing.assert_close(example.teacher[1], values, atol=1e-4, rtol=1e-4)
    # the text is not passed on with the prompt, and an earlier version's is removed before an upload
    manifest = (output / "softprompt.json").read_text()
    assert SECTIONS[0] not in manifest
    old = json.loads(manifest)
    old["recipe"]["teacher"] |= {"context": DOCUMENT, "sha256": None}
    assert SECTIONS[0] not in json.dumps(public(old, "a/b")[0])
    kept = json.loads(manifest)["recipe"]["teacher"]["sha256"]
    assert kept == hashlib.sha256(DOCUMENT.encode()).hexdigest()
    assert public(old, "a/b")[0]["recipe"]["teacher"]["sha256"] == kept
    assert softprompt.open_prompt(output, lm).generate("sun") == result.tuned.generate("sun")
    again = softprompt.distill(
        lm, DOCUMENT, REQUESTS, role="document", measure=measured, vectors=3, output=output, **SETTINGS
    )
    assert again.run.was_finished


def test_a_model_that_takes_no_prefix_gets_soft_tokens(lm, answered):
    lm.spec = replace(lm.spec, limits={**lm.spec.limits, "prefix": "its attention is its own"})
    output = answered / "out"
    result = softprompt.distill(lm, SHORT, REQUESTS, role="document", vectors=3, output=output, **SETTINGS)
    assert result.run.artifact.manifest["method"] == "prompt-tuning"
    settings = SETTINGS | {"method": "prefix-tuning", "overwrite": True}
    with pytest.raises(SoftPromptError, match="cannot take a prefix"):
        softprompt.distill(lm, SHORT, REQUESTS, role="document", output=output, **settings)


@pytest.mark.parametrize("family", ["llama", "mistral"])  # mistral's window is shorter than the text
def test_texts_behind_a_common_beginning_are_those_of_whole_inputs(family):
    lm = CausalLM(tiny(family, 0), tiny_tokenizer(), family)
    _, teacher = teacher_of(lm, SHORT[:60])
    examples = [teacher.encode({"request": text}) for text in ("sun", "who is it", "mud?", "a") * 3]
    writer = Beginnings(lm)
    for rows, outputs in writer.texts(examples, 5):
        for i, ids in zip(rows, outputs, strict=True):
            alone = lm.generate(collate([examples[i]], targets=False), None, **answering(lm, 5))
            assert ids[: len(tokens_of(alone)[0])] == tokens_of(alone)[0].tolist()
    assert (writer._exact > 0) == (family == "llama")


def test_each_chunk_is_asked_in_turn_in_all_kinds(lm):
    _, teacher = teacher_of(lm, DOCUMENT)
    number = len(teacher.chunks)
    assert [self_study.prompts(teacher, 40, i)[0] for i in range(2 * number)] == 2 * list(range(number))
    pairs = {pair for i in range(0, 4 * number, number) for pair in self_study.prompts(teacher, 40, i)[1]}
    assert {kind for kind, _ in pairs} == {"question", "summarization", "structuring", "use case", "creative"}


def test_self_study_resumes_keeps_what_was_changed_and_belongs_to_a_text(lm, tmp_path, monkeypatch):
    monkeypatch.setattr(type(lm), "ends", property(lambda self: frozenset(range(101))))
    monkeypatch.setattr(self_study, "_cleaned", lambda text: f"what is {text} to us")
    monkeypatch.setattr(self_study, "MOST_TOKENS", 3)
    recipe, teacher = teacher_of(lm, DOCUMENT, chunk_tokens=90)
    monkeypatch.setattr(teacher, "decode", lambda ids: str(ids))
    whole = self_study.self_study(recipe, lm, teacher, 24, tmp_path / "whole.jsonl")
    assert len(whole) == 24 and {row["chunk"] for row in whole} == set(range(len(teacher.chunks)))
    written, write = tmp_path / "killed.jsonl", KeptRows.write
    calls = iter(range(3))

    def killed(kept, rows):
        write(kept, rows)
        next(calls)

    monkeypatch.setattr(KeptRows, "write", killed)
    with pytest.raises(StopIteration):
        self_study.self_study(recipe, lm, teacher, 24, written)
    monkeypatch.setattr(KeptRows, "write", write)
    assert 0 < len(written.read_text().splitlines()) < 24
    assert self_study.self_study(recipe, lm, teacher, 24, written) == whole
    lines = written.read_text().splitlines()
    written.write_text("\n".join([*lines[2:], '{"request": "one of my own"}']) + "\n")
    kept = self_study.self_study(recipe, lm, teacher, 24, written)
    assert [row["request"] for row in kept] == [*(row["request"] for row in whole[2:]), "one of my own"]
    other, its_teacher = teacher_of(lm, DOCUMENT[:300], chunk_tokens=90)
    monkeypatch.setattr(its_teacher, "decode", lambda ids: str(ids))
    rows = self_study.self_study(other, lm, its_teacher, 16, written)
    texts = {row["text"] for row in rows}
    assert len(texts) == 1 and whole[0]["text"] not in texts
    assert "one of my own" not in {row["request"] for row in rows}  # it is about the first text
    # those of the first text were set aside, as they were changed, and are taken up again without a model
    monkeypatch.setattr(lm, "generate", lambda *a, **o: pytest.fail("written again"))
    back = self_study.self_study(recipe, lm, teacher, 24, written)
    assert sorted(map(str, back)) == sorted(map(str, kept))
    assert self_study.left_to_write(its_teacher, 16, written) == 0


def test_parts(lm):
    _, teacher = teacher_of(lm, "| a | b |\n|---|---|\n| c | d |")
    rows = [
        ({"answer": "in 1999"}, "tables and numbers"),
        ({"answer": "blue", "reference": "4"}, "tables and numbers"),
    ]
    rows += [({"answer": "1. blue\n2. red"}, "prose"), ({"answer": "c", "chunk": 0}, "tables and numbers")]
    rows += [({"answer": "7", "part": "mine"}, "mine"), ({"answer": "blue"}, "prose")]
    for row, part in rows:
        assert part_of(teacher, {"request": "?", **row}) == part


def test_right_answers_are_references_and_answers_of_a_teacher_are_not():
    rows = [{"question": f"q{i}", "answers": ["a", "b"]} for i in range(8)]
    assert read_requests(rows, None)[0] == {"request": "q0", "reference": ["a", "b"]}
    rows = [{"request": f"q{i}", "answer": "a", "teacher": "x"} for i in range(8)]
    assert read_requests(rows, None)[0] == {"request": "q0"}
    assert isinstance(Row(rows[0]), dict)


def test_how_long_it_takes_is_said_before_the_work(lm, answered, capsys):
    with Display("lines"):
        softprompt.distill(
            lm,
            SHORT,
            REQUESTS,
            role="document",
            vectors=3,
            output=answered / "out",
            progress=True,
            **SETTINGS,
        )
    shown = capsys.readouterr().err
    assert "it takes about" in shown and "training" in shown
    assert shown.index("it takes about") < shown.index("the teacher answers")


@pytest.mark.parametrize(
    ("line", "words"),
    [('{"request": ""}', "no text in the field 'request'"), ("{not json", "self_study.jsonl")],
)
def test_a_kept_file_that_cannot_be_read(line, words, tmp_path):
    file = tmp_path / "self_study.jsonl"
    file.write_text(f'{{"request": "a"}}\n{line}\n')
    with pytest.raises(SoftPromptError, match=words):
        KeptRows(file, "text", "x").read()
