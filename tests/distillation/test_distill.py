"""A text becomes vectors, from Python and from the command line, on a tiny model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import softprompt
from softprompt._system import notes
from softprompt.cli import main
from softprompt.config.load import recipe_from_dict
from softprompt.distillation import answers, effect, pace, self_study, wordings
from softprompt.distillation import run as module
from softprompt.distillation.answers import usable
from softprompt.distillation.measure import share_kept
from softprompt.distillation.recipe import recipe_of
from softprompt.distillation.requests import read_requests, split, without_measured
from softprompt.distillation.start import with_start
from softprompt.errors import SoftPromptError
from softprompt.evaluation.records import Evaluation, Record
from softprompt.training.teacher import taught
from softprompt.training.teacher_encoder import TeacherEncoder

TEXT = "say it backwards, please, and loud"
WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss", "tree", "fog"]
REQUESTS = [f"{word} {i}" for i, word in enumerate(WORDS * 2)]
SETTINGS = {"steps": 12, "batch_size": 4, "lr": 0.05, "dtype": "float32", "max_new_tokens": 6}


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """The teacher's answers are there: a random model ends its answers too rarely for a small test."""
    folder = tmp_path / "out-distill"
    folder.mkdir()
    rows = [
        {"request": text, "answer": text[::-1], "complete": True, "limit": 6, "teacher": "same"}
        for text in REQUESTS
    ]
    rows[3]["complete"] = False
    monkeypatch.setattr(answers, "_identity", lambda recipe, lm: "same")
    (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def result(model_folder, answered, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(answered / "cache"))
    lm = softprompt.load(str(model_folder), dtype="float32")
    return softprompt.distill(lm, TEXT, REQUESTS, vectors=4, output=answered / "out", **SETTINGS)


def test_distill(result, answered):
    ways = {name: way["metrics"] for name, way in result.comparison.ways.items()}
    assert ways["text"]["kl"] == pytest.approx(0, abs=1e-5) and ways["text"]["agreement"] == 1
    # the keys and values of the whole text, put in where the vectors are, are the text itself
    assert ways["text as keys and values"]["kl"] == pytest.approx(0, abs=1e-5)
    assert ways["no text"]["kl"] > 0.01
    # a notebook shows the figures, and escapes what models and people wrote
    shown = replace(
        result.comparison, samples=[{"request": "<b>", "text": "&", "vectors": "", "no text": ""}]
    )
    page = replace(result, comparison=shown)._repr_html_()
    assert f"{ways['vectors']['chrf']:.1f}" in page and "&lt;b&gt;" in page and "<b>" not in page
    share, low, high = result.share
    assert share == pytest.approx(1 - ways["vectors"]["kl"] / ways["no text"]["kl"])
    assert low <= share <= high
    assert result.comparison.text_tokens == len(TEXT) + 2 and result.comparison.soft_tokens == 4
    assert result.comparison.answered == (19, 20)  # one was cut
    saved = json.loads((answered / "out-distill" / "distill.json").read_text())
    assert saved == json.loads(json.dumps(result.report()))
    # the saved prompt is one like any other
    again = softprompt.open_prompt(answered / "out", result.tuned.lm)
    assert again.generate("sun 1") == result.tuned.generate("sun 1")


@pytest.fixture
def only_answers(monkeypatch):
    """Nothing is trained: a distillation stops when its answers are written and split."""

    def stop(*args, **options):
        raise SoftPromptError("the answers are written")

    monkeypatch.setattr(module, "train_seeds", stop)


def test_a_cut_answer_teaches_no_end(result):
    """Of a cut answer, the distributions of its own tokens are learned, and nothing behind the last one."""
    prepared = result.run.prepared
    answer = {"request": "sun", "answer": "nus", "teacher": "a name"}
    rows = [{**answer, "complete": complete} for complete in (True, False)]
    rows.append({"request": "sun", "answer": "nus", "complete": False})  # the user's own
    encoded = prepared.encoder.encode_rows(rows)
    ((whole, cut, own),), _ = taught(prepared.recipe, prepared.lm, prepared.prompts, [encoded])
    assert whole.target_ids[-1] in prepared.lm.ends and cut.target_ids == whole.target_ids[:-1]
    assert own.target_ids == whole.target_ids
    # what is trained on and what `eval` scores are the same tokens
    assert [e.target_ids for e in encoded] == [e.target_ids for e in (whole, cut, own)]
    scored = [result.tuned.evaluate([row]).records[0].tokens for row in rows]
    assert scored == [len(e.target_ids) for e in (whole, cut, own)]
    for mine, same in zip(cut.teacher, whole.teacher, strict=True):
        torch.testing.assert_close(mine, same[:-1], check_dtype=False)


@pytest.mark.usefixtures("only_answers")
def test_the_teachers_answers_are_kept(model_folder, tmp_path, monkeypatch, caplog):
    """Answers of a first call are not computed again; an answer that does not end is not complete."""
    lm = softprompt.load(str(model_folder), dtype="float32")
    notes._shown.clear()
    with pytest.raises(SoftPromptError, match="the answers are written"):
        softprompt.distill(lm, TEXT, REQUESTS, output=tmp_path / "out", **SETTINGS)
    assert "none of the teacher's 20 answers ends within 6 tokens" in caplog.text
    rows = [json.loads(line) for line in (tmp_path / "out-distill/requests.jsonl").read_text().splitlines()]
    by_request = {row["request"]: row for row in rows}
    assert set(by_request) == set(REQUESTS) and not any(row["complete"] for row in rows)
    tokens = lm.text_ids(f"{TEXT}\n\nsun 0")
    for _ in range(6):  # greedy, one token after the other
        tokens.append(int(lm.model(torch.tensor([tokens])).logits[0, -1].argmax()))
    assert by_request["sun 0"]["answer"] == lm.tokenizer.decode(tokens[-6:])
    monkeypatch.setattr(lm, "generate", lambda *a, **o: pytest.fail("answered again"))
    with pytest.raises(SoftPromptError, match="the answers are written"):
        softprompt.distill(lm, TEXT, REQUESTS, output=tmp_path / "out", **SETTINGS)


@pytest.mark.usefixtures("only_answers")
def test_answers_of_another_text_are_set_aside(model_folder, tmp_path):
    """Another text's answers are not used. Those of the first text come back as a person changed them."""
    lm = softprompt.load(str(model_folder), dtype="float32")
    written, file = [], tmp_path / "out-distill/requests.jsonl"
    for text in (TEXT, TEXT + "!", TEXT):
        with pytest.raises(SoftPromptError, match="the answers are written"):
            softprompt.distill(lm, text, REQUESTS, output=tmp_path / "out", **SETTINGS)
        rows = {row["request"]: row for row in map(json.loads, file.read_text().splitlines())}
        if not written:
            rows["sun 0"]["answer"] = "by hand"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
        written.append(rows)
    assert written[0] == written[2] and len(written[1]) == len(REQUESTS)
    assert {row["teacher"] for row in written[0].values()}.isdisjoint(
        r["teacher"] for r in written[1].values()
    )


def test_the_model_writes_requests_itself(model_folder, tmp_path, monkeypatch):
    """Texts are drawn; a second call takes those that are there. Requests of one wording stay together."""
    lm = softprompt.load(str(model_folder), dtype="float32")
    texts = iter(f"what is {word} number {i}" for i in range(40) for word in WORDS)
    monkeypatch.setattr(self_study, "_cleaned", lambda text: next(texts))
    monkeypatch.setattr(type(lm), "ends", property(lambda self: frozenset(range(101))))
    recipe = recipe_from_dict(
        {
            "data": "x",
            "template": {"input": "{{ request }}"},
            "task": {"objective": "distil"},
            "teacher": {"context": TEXT},
        }
    )
    encoder = TeacherEncoder(recipe, lm, ("default",))
    file = tmp_path / "self_study.jsonl"
    written = self_study.self_study(recipe, lm, encoder, 40, file)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert written == rows and len(rows) == 40
    assert {row["kind"] for row in rows} == set(wordings.SYSTEM)
    monkeypatch.setattr(lm, "generate", lambda *a, **o: pytest.fail("written again"))
    assert self_study.self_study(recipe, lm, encoder, 40, file) == written
    # what a person adds is used beside as many as are asked for
    mine = {"request": "what do I ask?"}
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, mine]))
    mine["text"] = rows[0]["text"]  # it belongs to the text from then on
    assert self_study.self_study(recipe, lm, encoder, 40, file) == [*rows, mine]
    assert self_study.self_study(recipe, lm, encoder, 30, file) == [*rows[:30], mine]
    file.write_text(file.read_text() + json.dumps({"request": "and mine", "wording": "b"}) + "\n")
    assert self_study.self_study(recipe, lm, encoder, 30, file)[-1]["request"] == "and mine"


def test_a_model_that_cannot_imagine_requests(model_folder, tmp_path, monkeypatch):
    lm = softprompt.load(str(model_folder), dtype="float32")
    monkeypatch.setattr(self_study, "_cleaned", lambda text: "the same")
    with pytest.raises(SoftPromptError, match="wrote only"):
        softprompt.distill(lm, TEXT, count=8, output=tmp_path / "out", **SETTINGS)


@pytest.mark.usefixtures("only_answers")
def test_a_longer_limit_answers_what_was_cut_again(model_folder, tmp_path):
    lm = softprompt.load(str(model_folder), dtype="float32")
    file = tmp_path / "out-distill" / "requests.jsonl"
    for most in (6, 9):
        with pytest.raises(SoftPromptError, match="the answers are written"):
            softprompt.distill(
                lm, TEXT, REQUESTS, output=tmp_path / "out", **SETTINGS | {"max_new_tokens": most}
            )
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert {row["limit"] for row in rows if not row["complete"]} == {most}


def test_command(model_folder, answered, capsys, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(answered / "cache"))
    (answered / "system.txt").write_text(TEXT)
    (answered / "rows.jsonl").write_text("".join(json.dumps({"request": text}) + "\n" for text in REQUESTS))
    settings = ["steps=3", "batch_size=4", "dtype=float32", "max_new_tokens=6", f"model={model_folder}"]
    settings.append(f"output={answered / 'out'}")
    given = ["--system", str(answered / "system.txt"), "--requests", str(answered / "rows.jsonl")]
    assert main(["distill", *given, "--vectors", "3", *settings]) == 0
    shown = capsys.readouterr().out
    assert "of the text's effect" in shown and "no text" in shown and "softprompt generate" in shown
    manifest = json.loads((answered / "out" / "softprompt.json").read_text())
    recorded = recipe_from_dict(manifest["recipe"]).teacher  # the file, and what was in it
    assert recorded.sha256 == hashlib.sha256(TEXT.encode()).hexdigest()
    assert recorded.file == str(answered / "system.txt") and recorded.context is None
    saved = json.loads((answered / "out-distill" / "distill.json").read_text())
    assert main(["distill", *given, "--vectors", "3", *settings, "--json"]) == 0  # finished: shown again
    again = json.loads(capsys.readouterr().out)
    assert again["vectors"] == 3 and again["seconds"] == saved["seconds"]
    (answered / "system.txt").write_text(TEXT + "!")
    assert main(["distill", *given, "--vectors", "3", *settings]) == 1
    assert "the teacher's text" in capsys.readouterr().err


def test_share_kept_by_hand():
    def scored(values):
        records = [Record("", "", (), 0, 0.0, 1, divergence=value, agreed=0.0) for value in values]
        return Evaluation({}, records)

    none = np.random.default_rng(0).uniform(1, 2, 200)
    share, low, high = share_kept(scored(none / 4), scored(none))
    assert share == pytest.approx(0.75) and low == pytest.approx(0.75) and high == pytest.approx(0.75)
    share, low, high = share_kept(scored(none * np.random.default_rng(1).uniform(0, 1, 200)), scored(none))
    assert low < share < high and high - low < 0.2


def test_requests_are_distinct_and_split():
    rows = read_requests([*REQUESTS, *REQUESTS], None)
    assert [row["request"] for row in rows] == REQUESTS
    assert rows == read_requests([{"question": text} for text in REQUESTS], None)
    train, dev, test = split(rows, seed=0)
    texts = [row["request"] for part in (train, dev, test) for row in part]
    assert sorted(texts) == sorted(REQUESTS) and (len(dev), len(test)) == (3, 3)
    assert split(rows, 1) != split(rows, 0)
    train, dev = split(rows, 0, measured=False)
    assert (len(train), len(dev)) == (17, 3)


def test_requests_of_one_wording_and_chunk_are_on_one_side():
    rows = [
        {"request": text, "wording": f"ask {i // 4 % 2}", "chunk": i // 8} for i, text in enumerate(REQUESTS)
    ]
    sides = [{(row["wording"], row["chunk"]) for row in part} for part in split(rows, 0)]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sum(map(len, sides)) == 5


@pytest.mark.parametrize(
    ("rows", "field", "words"),
    [
        (REQUESTS[:3], None, "3 requests are too few"),
        ([{"a": "b"}] * 20, None, "no field that holds a request"),
        ([{"request": text} for text in REQUESTS] + [{"request": " "}], None, "holds no request"),
        ([{"request": text} for text in REQUESTS], "ask", "no field 'ask'"),
    ],
)
def test_requests_that_cannot_be_used(rows, field, words):
    with pytest.raises(SoftPromptError, match=words):
        read_requests(rows, field)


def test_requests_that_are_all_measured_on():
    rows = [{"request": word} for word in WORDS]
    assert without_measured(rows, rows[:2]) == rows[2:]
    with pytest.raises(SoftPromptError, match="3 requests are left to train on"):
        without_measured(rows, rows[3:])


def test_empty_answers():
    with pytest.raises(SoftPromptError, match="all of the teacher's answers are empty"):
        usable([{"request": "a", "answer": " ", "complete": True}], 6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no text was given"),
        (["system.txt"], "--system system.txt"),
        (["recipe.yaml", "--system", "system.txt"], "a recipe and --system were given"),
    ],
)
def test_commands_that_lack_something(arguments, words, capsys):
    assert main(["distill", *arguments]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("requests", "options", "words"),
    [
        (REQUESTS, {"count": 20}, "requests were given"),
        (None, {"field": "x"}, "--field x has no effect"),
        (REQUESTS, {"base": "lora"}, "cannot be measured here"),
    ],
)
def test_options_that_would_be_ignored_or_measured_wrongly(tmp_path, model_folder, requests, options, words):
    lm = softprompt.load(str(model_folder), dtype="float32")
    for text in (TEXT, {"a": TEXT, "b": "BE SHORT"}):
        with pytest.raises(SoftPromptError, match=words):
            softprompt.distill(lm, text, requests, output=tmp_path / "out", **options, **SETTINGS)
    assert not (tmp_path / "out-distill").exists()


def test_what_a_run_will_take_counts_all_of_it(model_folder, answered, monkeypatch, capsys):
    """Every seed's training, every number of vectors and the general text are in what is announced."""
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(answered / "cache"))
    monkeypatch.setattr(pace, "_pace", lambda lm, examples: (0.0, 1.0))
    timed = SimpleNamespace(step_seconds=7.0, evaluation_seconds=0.0, evaluations=5, batch_tokens=190)
    monkeypatch.setattr(pace, "_training", lambda *given: (timed, 4))
    lm = softprompt.load(str(model_folder), dtype="float32")
    settings = {"teacher": {"context": TEXT}, "train": {"steps": 40, "keep": 0.05}, "method": {"length": 4}}
    recipe = recipe_from_dict(recipe_of(settings, TEXT, chat=False))
    teacher = TeacherEncoder(recipe, lm, ("default",))
    numbers = {"wanted": 20, "writes": 0, "answers": 0}
    one, three, several = (
        pace.expected(recipe, lm, teacher, REQUESTS, **numbers, **more).parts
        for more in ({}, {"seeds": 3}, {"lengths": [1, 4, 16], "limit": 500.0})
    )
    # 5 % of the tokens that are read are general text
    assert one["training"] == pytest.approx(40 * 7 / 0.95) and several["training"] == 500
    assert three["training"] == pytest.approx(3 * one["training"])
    assert one["measuring"] == 6 * 128 + 4  # five ways and the vectors answer, and a summary is written
    assert three["measuring"] == 8 * 128 + 4
    assert one["general text"] == 3 * 128  # seconds of 40 texts: three batches of at most 128 tokens
    assert (
        pace.expected(recipe.with_settings({"train.keep": 0}), lm, teacher, REQUESTS, **numbers).parts[
            "general text"
        ]
        == 0
    )
    # a matched start reads its rows behind the text and behind the vectors, once for each seed
    timed.evaluation_seconds = pace.STAND_INS * 0.5
    matched = recipe.with_settings({"method.init": "matched"})
    starts = [
        pace.expected(r, lm, teacher, REQUESTS, seeds=3, **numbers).parts["the start"]
        for r in (recipe, matched)
    ]
    assert starts == [0, pytest.approx(3 * 2 * 0.5 * 14)]  # 14 of 20 rows are trained on


def test_a_text_that_changes_nothing(model_folder, answered, monkeypatch):
    """Without an effect there is nothing to distil."""
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(answered / "cache"))
    lm = softprompt.load(str(model_folder), dtype="float32")
    monkeypatch.setattr(effect, "LEAST_EFFECT", 1e9)
    with pytest.raises(SoftPromptError, match="nothing to distil"):
        softprompt.distill(lm, TEXT, REQUESTS, output=answered / "out", **SETTINGS)
    assert not (answered / "out" / "softprompt.json").exists()


def test_tune_in_python_takes_a_teacher(model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    lm = softprompt.load(str(model_folder), dtype="float32")
    rows = [{"input": word, "target": word[::-1]} for word in WORDS]
    options = {
        "output": tmp_path / "out",
        "steps": 2,
        "batch_size": 4,
        "length": 2,
        "teacher": {"context": TEXT},
    }
    with pytest.raises(SoftPromptError, match="`teacher` has an effect only with"):
        softprompt.tune(lm, "prompt-tuning", rows, **options)
    tuned = softprompt.tune(lm, "prompt-tuning", rows, task={"objective": "distil"}, **options)
    teacher = tuned.artifact.manifest["recipe"]["teacher"]
    assert teacher["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest() and teacher["context"] is None


def test_vectors_start_as_the_match_of_the_text(result, lms):
    """The text is matched where nothing else is named, the model takes it and the text is long enough."""
    recipe, lm = result.run.prepared.recipe, result.tuned.lm
    assert recipe.method.options()["init"] == "matched"

    def chosen(lm, text=TEXT, **options):
        method = {"name": "prefix-tuning", "placement": "before", "length": 4, **options}
        tree = recipe_of({"method": method, "task": {"max_new_tokens": 6}}, text, chat=False)
        tree["method"] = method
        names = softprompt.methods.option_names()
        recipe = recipe_from_dict(tree, method_option_names=names)
        start = with_start(recipe, lm, [TeacherEncoder(recipe, lm, ("default",))])
        return start.method.options().get("init")

    assert chosen(lm) == "matched"
    assert chosen(lm, init="context") == "context"
    assert chosen(lm, placement="after") is None
    assert chosen(lm, text="shor", length=64) is None
    spaced = "short" + 12 * "\n"  # the template drops these newlines
    assert chosen(lm, text=spaced) == "matched" and chosen(lm, text=spaced, length="auto") is None
    assert chosen(lm, text=spaced, length=len(lm.text_ids(spaced))) is None
    assert chosen(lm, name="prompt-tuning") is None
    assert chosen(lms("gemma2")) is None  # its attention logits are capped


@pytest.mark.usefixtures("only_answers")
def test_answers_of_another_precision_are_not_used(model_folder, tmp_path, monkeypatch):
    """The weights decide the teacher's tokens; its fingerprint is that of the checkpoint."""
    computed = []
    for settings in (
        {"dtype": "float32"},
        {"dtype": "float32", "weights": "int8"},
        {"dtype": "bfloat16"},
        {"dtype": "float32"},
    ):
        lm = softprompt.load(str(model_folder), **settings)
        with monkeypatch.context() as patched:
            write, count = answers.Beginnings.texts, []

            def counted(self, *arguments, write=write, count=count):
                count.append(arguments)
                return write(self, *arguments)

            patched.setattr(answers.Beginnings, "texts", counted)
            with pytest.raises(SoftPromptError, match="the answers are written"):
                softprompt.distill(lm, TEXT, REQUESTS, output=tmp_path / "out", **SETTINGS)
        computed.append(sum(len(examples) for examples, _ in count))
    assert computed == [20, 20, 20, 0]


def test_a_summary_of_another_precision_is_not_used(model_folder, tmp_path, monkeypatch):
    from softprompt.distillation import summary

    recipe = recipe_from_dict({"data": {"train": "rows"}, "template": {"chat": False}})
    written = iter("abc")
    monkeypatch.setattr(summary, "_written", lambda *a: next(written))
    ways = ({"dtype": "float32"}, {"dtype": "float32"}, {"weights": "int8"}, {"dtype": "bfloat16"})
    texts = [
        summary.summary(recipe, softprompt.load(str(model_folder), **way), TEXT, 4, tmp_path) for way in ways
    ]
    assert texts == ["a", "a", "b", "c"]
