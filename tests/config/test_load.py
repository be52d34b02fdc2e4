"""Recipes: defaults, shorthands, overrides, and mistakes with their lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from softprompt.config.load import Recipe, load_recipe, recipe_from_dict
from softprompt.errors import SoftPromptError

TASK = {"kind": "classification", "labels": ["yes", "1.0"]}


@pytest.fixture
def recipe_file(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def mistakes(call) -> str:
    with pytest.raises(SoftPromptError) as caught:
        call()
    return str(caught.value)


def test_recipe_minimal_has_defaults(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file("data: rows.jsonl\n"))
    assert recipe.data.train == str(tmp_path / "rows.jsonl")
    assert (recipe.model.id, recipe.method.name, recipe.base.mode) == ("smollm2", "prompt-tuning", "frozen")
    assert (recipe.train.steps, recipe.train.lr, recipe.task.kind) == (200, None, "generation")


def test_recipe_yaml_shorthands_and_method_options(recipe_file):
    recipe = load_recipe(
        recipe_file("data: rows.jsonl\nmethod: prefix-tuning\nbase: lora\ntask: generation\ntrain:\n")
    )
    assert recipe.method.name == "prefix-tuning" and recipe.base.mode == "lora"
    recipe = load_recipe(recipe_file("data: {train: a.csv}\nmethod:\n  name: p-tuning\n  length: 8\n"))
    assert recipe.method.options() == {"length": 8}


def test_recipe_numbers_and_words_read_as_written(recipe_file):
    text = (
        "data: rows.jsonl\ntrain: {lr: 1e-2, clip: 2}\n"
        "task: {kind: classification, labels: [yes, no, 1.0, 010, true]}\n"
        "method: {name: x, init_text: on, size: 010, scale: 5E3, date: 2020-01-01}\n"
    )
    recipe = load_recipe(recipe_file(text))
    assert recipe.train.lr == pytest.approx(0.01)
    assert recipe.task.labels == ["yes", "no", "1.0", "010", "true"]
    assert recipe.method.options() == {
        "init_text": "on",
        "size": "010",
        "scale": 5000.0,
        "date": "2020-01-01",
    }


def test_recipe_all_mistakes_at_once_with_lines(recipe_file):
    text = (
        "modle: smollm2\ndata:\n  trian: rows.jsonl\ntrain:\n  steps: many\n  schedule: cosin\n  mode: lora\n"
    )
    message = mistakes(lambda: load_recipe(recipe_file(text), ["lr=fast"]))
    assert "recipe.yaml: 7 mistakes" in message
    assert ":1: unknown key 'modle'; did you mean 'model'?" in message
    assert ":3: unknown key 'trian' in data; did you mean 'train'?" in message
    assert ":2: data.train is missing" in message
    assert ":5: train.steps: 'many' is wrong" in message
    assert ":6: train.schedule: unknown value 'cosin'; did you mean 'cosine'?" in message
    assert ":7: unknown key 'mode' in train; did you mean 'base.mode'?" in message
    assert "'lr=fast': train.lr: 'fast' is wrong" in message
    assert message.index(":1:") < message.index(":3:") < message.index(":7:") < message.index("'lr=fast'")


def test_recipe_duplicate_key_names_both_lines(recipe_file):
    message = mistakes(lambda: load_recipe(recipe_file("data: a.jsonl\nmodel: x\nmodel: y\n")))
    assert "recipe.yaml:3: key 'model' is written twice, first at line 2" in message


def test_recipe_anchors_and_merges(recipe_file):
    text = "data: a.jsonl\nbase: &b\n  <<: {rank: 4, alpha: 2}\n  rank: 5\nmethod: {name: x, extra: *b}\n"
    recipe = load_recipe(recipe_file(text))
    assert (recipe.base.rank, recipe.base.alpha) == (5, 2)
    assert recipe.method.options()["extra"] == {"rank": 5, "alpha": 2}
    assert "alias that holds itself" in mistakes(lambda: load_recipe(recipe_file("data: &a [*a]\n")))


def test_recipe_broken_yaml_names_line(recipe_file):
    message = mistakes(lambda: load_recipe(recipe_file("data: a\ntemplate:\n  input: {{ text }}\n")))
    assert "recipe.yaml:3: not valid YAML" in message and "begins with '{{'" in message
    assert "recipe.yaml:2" in mistakes(lambda: load_recipe(recipe_file("data: a\n\tmodel: b\n")))
    assert "a mapping of keys, not a list" in mistakes(lambda: load_recipe(recipe_file("- a\n")))


def test_recipe_missing_file_names_nearest(recipe_file, tmp_path):
    recipe_file("data: a.jsonl\n")
    message = mistakes(lambda: load_recipe(tmp_path / "recpie.yaml"))
    assert "did you mean" in message and "recipe.yaml" in message


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.lr=1e-2", "train", "lr", 0.01),
        ("lr=1e-2", "train", "lr", 0.01),
        ("base.lr=3e-4", "base", "lr", 3e-4),
        ("steps=5", "train", "steps", 5),
        ("method=prefix-tuning", "method", "name", "prefix-tuning"),
        ("name=p-tuning", "method", "name", "p-tuning"),
        ("base=lora", "base", "mode", "lora"),
        ("rank=2", "base", "rank", 2),
        ("task={kind: classification, labels: [yes, no]}", "task", "labels", ["yes", "no"]),
        ("template.input={{ question }}", "template", "input", "{{ question }}"),
        ("template.input=Q: {{ question }}", "template", "input", "Q: {{ question }}"),
        ("patience=null", "train", "patience", None),
        ("metrics=[bleu, chrf]", "task", "metrics", ["bleu", "chrf"]),
    ],
)
def test_override_sets_what_it_names(recipe_file, override, section, key, value):
    recipe = load_recipe(recipe_file("data: a.jsonl\ntrain: {patience: 3}\n"), [override])
    assert getattr(getattr(recipe, section), key) == value


def test_override_of_what_belongs_to_a_kind(recipe_file):
    path = recipe_file("data: a.jsonl\ntask: classification\n")
    assert load_recipe(path, ["head=true"]).task.needs_head
    verbalizer = load_recipe(path, ["task.verbalizer={good: great, bad: 0}"]).task.verbalizer
    assert verbalizer == {"good": "great", "bad": "0"}
    for kind in ("token-classification", "regression"):
        assert load_recipe(path, [f"task={kind}"]).task.needs_head
    assert not load_recipe(path).task.needs_head


def test_override_top_level_and_last_wins(recipe_file):
    recipe = load_recipe(recipe_file("data: a.jsonl\n"), ["model=/m", "output=runs/x", "steps=1", "steps=2"])
    assert (recipe.model.id, recipe.output, recipe.train.steps) == ("/m", "runs/x", 2)


def test_override_data_is_relative_to_working_directory(recipe_file, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    path = recipe_file("data: {train: a.jsonl, dev: dev.jsonl, test: 'hf:x:test'}\n")
    recipe = load_recipe(path, ["data=b.jsonl"])
    assert recipe.data.train == str(elsewhere / "b.jsonl")
    assert recipe.data.dev == str(tmp_path / "dev.jsonl")
    assert recipe.data.test == "hf:x:test"
    assert load_recipe(path, ["train=c.jsonl"]).data.train == str(elsewhere / "c.jsonl")


def test_override_method_options(recipe_file):
    path = recipe_file("data: a.jsonl\n")
    recipe = load_recipe(path, ["method.odd=1", "length=8"], method_option_names={"length", "rank"})
    assert recipe.method.options() == {"odd": 1, "length": 8}
    message = mistakes(lambda: load_recipe(path, ["rank=8"], method_option_names={"rank"}))
    assert "'rank' may mean base.rank or method.rank" in message


def test_override_mistakes(recipe_file):
    path = recipe_file("data: a.jsonl\n")
    message = mistakes(
        lambda: load_recipe(
            path, ["lenght=8", "trian.lr=1", "steps", "train=3", "template=x"], method_option_names={"length"}
        )
    )
    assert "'lenght=8': unknown key 'lenght'; did you mean 'method.length'?" in message
    assert "unknown section 'trian'; did you mean 'train.lr'?" in message
    assert "'steps': an override is written key=value" in message
    assert "'template' is a section; write template.KEY=VALUE" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"task": {"kind": "choice"}}, "needs `choices`"),
        ({"task": {"labels": ["a", "b"]}}, "belongs to `kind: classification`"),
        ({"task": {"kind": "classification", "labels": ["a", "a"]}}, "'a' more than once"),
        (
            {"task": {"kind": "choice", "choices": "c", "head": True}},
            "`head` belongs to `kind: classification`",
        ),
        ({"task": {"kind": "regression", "verbalizer": {"a": "b"}}}, "`verbalizer` belongs to"),
        ({"task": {"kind": "classification", "head": True, "verbalizer": {"a": "b"}}}, "are no words"),
        ({"task": {"kind": "regression", "labels": ["a", "b"]}}, "belongs to `kind: classification`"),
        ({"template": {"system": "Be {kind}."}}, "only with `chat: true`"),
        ({"train": {"lr": -1}}, "train.lr: -1 is wrong"),
        ({"train": 3}, "train is a section, not a number (3)"),
        ({"model": True}, "put it in quotes"),
    ],
)
def test_recipe_values_that_make_no_sense(change, expected):
    assert expected in mistakes(lambda: recipe_from_dict({"data": "a.jsonl", **change}))


def test_recipe_round_trip_and_fingerprint():
    recipe = recipe_from_dict({"data": "a.jsonl", "method": {"name": "x", "length": 3}}, "/base")
    assert recipe.data.train == "/base/a.jsonl"
    assert recipe_from_dict(recipe.to_dict()) == recipe
    same = recipe_from_dict({**recipe.to_dict(), "output": "elsewhere"})
    other = recipe_from_dict(recipe.to_dict(), overrides=["seed=1"])
    assert recipe.fingerprint() == same.fingerprint() != other.fingerprint()
    assert len(recipe.fingerprint()) == 64


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.lr=1e-05", "train.lr", 1e-05),
        ("steps=7", "steps", 7),
        ("method=p-tuning", "method", "p-tuning"),
        ("length=4", "length", 4),
        ("base.targets=[q, v]", "base.targets", ["q", "v"]),
        ("task={kind: classification, labels: [yes, '1.0']}", "task", TASK),
        ("unseen=auto", "unseen", "auto"),
        ("data.dev=null", "data.dev", None),
        ("method.init_text='1e-3'", "method.init_text", "1e-3"),
    ],
)
def test_settings_as_data_do_what_overrides_do(override, key, value):
    tree = {"data": {"train": "a.jsonl", "dev": "b.jsonl"}, "method": {"name": "x", "length": 3}}
    recipe, before = recipe_from_dict(tree, "/base"), dict(tree)
    named = {"length"}
    read = recipe_from_dict(recipe.to_dict(), overrides=[override], method_option_names=named)
    assert recipe.with_settings({key: value}, method_option_names=named) == read != recipe
    assert recipe == recipe_from_dict(before, "/base")


@pytest.mark.parametrize(
    ("key", "value"), [("trian.lr", 1), ("lenght", 8), ("train.lr", -1), ("template", "x")]
)
def test_wrong_settings_have_the_errors_of_overrides(key, value):
    tree = {"data": "a.jsonl"}
    read = mistakes(lambda: recipe_from_dict(tree, overrides=[f"{key}={value}"]))
    assert mistakes(lambda: recipe_from_dict(tree).with_settings({key: value})) == read
    assert f"'{key}={value}'" in read


def test_recipe_is_frozen():
    recipe = recipe_from_dict({"data": "a.jsonl"})
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.steps = 3  # type: ignore[misc]
    assert isinstance(recipe, Recipe)


@pytest.mark.process
def test_config_and_sources_import_light():
    code = (
        "import sys, softprompt.config.load, softprompt.data.sources\n"
        "heavy = ('torch', 'transformers', 'pandas', 'datasets', 'numpy', 'pyarrow')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"train": {"devices": 0}},
            "recipe: train.devices: 0 is wrong: input should be greater than or equal to 1, or input",
        ),
        (
            {"task": {"kind": "classification", "verbalizer": {"a": None, "b": None}}},
            "recipe: 2 mistakes",
        ),
        (
            {"task": {"objective": "distil"}},
            "recipe: `objective: distil` needs the teacher's text",
        ),
    ],
)
def test_a_value_of_several_types_and_a_rule_of_the_recipe_are_one_message(section, message):
    with pytest.raises(SoftPromptError) as error:
        recipe_from_dict({"data": "rows.jsonl", **section})
    assert error.value.what.startswith(message)
