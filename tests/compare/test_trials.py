"""Names of trials, candidates, the search and the splits: nothing here trains."""

from __future__ import annotations

import json

import pytest

from softprompt.compare import experiment
from softprompt.compare.candidates import DEFAULT, candidates_of
from softprompt.compare.held_out import all_splits, mean_embeddings
from softprompt.compare.phases.pruning import Pruner, curve_of
from softprompt.compare.records.store import Folder
from softprompt.compare.search import Search, finer, trials_of
from softprompt.compare.splits import Splits, by_turns, lay
from softprompt.compare.trials import Trials
from softprompt.config.load import load_recipe, recipe_from_dict
from softprompt.errors import SoftPromptError


@pytest.fixture
def recipe(tmp_path):
    def make(compare=None, rows=None, **sections):
        rows = rows or [
            {"input": f"row {i}", "target": "ab"[i % 2], "domain": "xyz"[i % 3]} for i in range(60)
        ]
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        whole = {"data": {"train": str(path)}, "task": {"kind": "classification"}, "compare": compare or {}}
        return recipe_from_dict({**whole, **sections})

    return make


def ground(**changes):
    facts = {
        "model": "m",
        "base": {"weights": "w", "config": "c", "tokenizer": "t"},
        "dtype": "float32",
        "labels": ["a", "b"],
        "prompts": ["default"],
        "metrics": ["accuracy"],
        "hashes": {"train": "1", "dev": "2", "test": "3"},
        "counts": {"train": 40, "dev": 10, "test": 10},
    }
    return Splits(**{**facts, **changes})


def no_vectors(texts):
    raise AssertionError("embeddings were not asked for")


# --- names ---


def id_of(recipe, folder="runs/x", phase="search", settings=None, seed=0, rows=None, on=None):
    one = candidates_of(recipe)[0]
    made = Trials(Folder(folder), on or ground())
    return made.training(one, phase, settings or {"train.lr": 1e-2}, seed, rows).id


def test_a_trial_is_named_by_what_decides_it(recipe):
    ask = {"methods": ["prefix-tuning/after"]}
    first = id_of(recipe(ask))
    assert first == id_of(recipe(ask)) and len(first) == 16
    others = {
        "rate": id_of(recipe(ask), settings={"train.lr": 3e-2}),
        "seed": id_of(recipe(ask), seed=1),
        "phase": id_of(recipe(ask), phase="final"),
        "rows": id_of(recipe(ask), rows=16),
        "method": id_of(recipe({"methods": ["prefix-tuning/before"]})),
        "steps": id_of(recipe(ask, train={"steps": 7})),
        "template": id_of(recipe(ask, template={"input": "Say {{ input }}"})),
        "data": id_of(recipe(ask), on=ground(hashes={"train": "9", "dev": "2", "test": "3"})),
        "base": id_of(recipe(ask), on=ground(base={"weights": "v", "config": "c", "tokenizer": "t"})),
        "dtype": id_of(recipe(ask), on=ground(dtype="bfloat16")),
    }
    assert len({first, *others.values()}) == 1 + len(others)


def test_places_and_company_do_not_name_it(recipe):
    first = id_of(recipe({"methods": ["lora"]}), settings={"base.lr": 1e-3})
    again = recipe(
        {"methods": ["lora", "zero-shot"], "seeds": 5, "workers": 3, "rates": [1.0], "curve": [16]},
        train={"threads": 2},
        output="elsewhere",
    )
    assert id_of(again, "runs/y", settings={"base.lr": 1e-3}) == first
    on = ground(hashes={"train": "1", "dev": "2", "test": "other rows"})
    assert id_of(again, settings={"base.lr": 1e-3}, on=on) == first  # it never saw them


def test_the_compare_section_changes_no_run(recipe):
    plain, asked = recipe(), recipe({"methods": ["lora"], "seeds": 7})
    assert plain.fingerprint() == asked.fingerprint()
    assert "compare" not in plain.to_dict() and "compare" in asked.to_dict()
    assert recipe_from_dict(asked.to_dict()) == asked


# --- candidates ---


def test_the_usual_ones(recipe):
    found = candidates_of(recipe())
    assert [one.name for one in found] == list(DEFAULT)
    assert [one.name for one in found if one.is_reference] == ["zero-shot", "few-shot"]
    assert {one.name for one in found if one.trains_base} == {"lora"}
    by = {one.name: one.recipe for one in found}
    assert by["prefix-tuning/before"].method.options() == {"placement": "before"}
    assert by["lora"].method.name == "none" and by["lora"].base.mode == "lora"
    assert by["zero-shot"].base.mode == "frozen"


def test_options_of_the_recipe_hold_where_they_mean_something(recipe):
    made = recipe(
        {"methods": ["prompt-tuning/before", "prefix-tuning/after", "lora"]},
        method={"name": "prompt-tuning", "length": 5, "init": "labels", "placement": "after"},
    )
    prompt, prefix, lora = (one.recipe.method.options() for one in candidates_of(made))
    assert prompt == {"length": 5, "init": "labels", "placement": "before"}
    assert prefix == {"length": 5, "placement": "after"} and lora == {}


def test_a_name_of_ones_own(recipe):
    ask = {
        "methods": {
            "four": {"method": "prefix-tuning/after", "length": 4, "rates": [0.5]},
            "few-shot": {"shots": 9},
        }
    }
    four, few = candidates_of(recipe(ask))
    assert four.recipe.method.name == "prefix-tuning" and four.rates == (0.5,)
    assert four.recipe.method.options() == {"placement": "after", "length": 4}
    assert few.options == {"shots": 9} and few.is_reference


@pytest.mark.parametrize("name", ["prefx-tuning/after", "prefix-tuning/behind", "none", "mine"])
def test_an_unknown_one_is_refused(recipe, name):
    with pytest.raises(SoftPromptError, match="unknown contestant"):
        candidates_of(recipe({"methods": [name]}))


# --- the search ---


def test_each_stage_starts_from_the_best_so_far(recipe, tmp_path):
    made = recipe(
        {"methods": ["prefix-tuning/after"], "rates": [1e-3, 1e-2], "lengths": [4, 8], "inits": ["vocab"]}
    )
    (one,) = candidates_of(made)
    search = Search(one, made.compare, tmp_path / "search.journal", maximise=True)
    scores = {1e-3: 0.5, 1e-2: 0.7}
    for settings in search.stage("rate"):
        search.tell(settings, ended(settings, scores[settings["train.lr"]]))
    lengths = search.stage("length")
    assert lengths == [{"train.lr": 1e-2, "method.length": n} for n in (4, 8)]
    search.tell(lengths[0], ended(lengths[0], 0.6))
    search.tell(lengths[1], ended(lengths[1], 0.9, "pruned"))  # never the best while another ended
    assert search.best() == {"train.lr": 1e-2}
    assert search.stage("init") == [{"train.lr": 1e-2, "method.init": "vocab"}]
    assert trials_of(one, made.compare) == 5


def test_a_method_without_the_option_gets_more_rates(recipe, tmp_path):
    made = recipe(
        {"methods": {"all of it": {"method": "full"}}, "base_rates": [1e-5, 1e-4, 1e-3], "lengths": [4, 8]}
    )
    (one,) = candidates_of(made)
    search = Search(one, made.compare, tmp_path / "search.journal", maximise=True)
    for settings in search.stage("rate"):
        search.tell(settings, ended(settings, 1 - abs(settings["base.lr"] - 1e-4)))
    more = search.stage("length")
    assert len(more) == 2 and all(set(s) == {"base.lr"} for s in more)
    assert {s["base.lr"] for s in more} == {3.2e-5, 3.2e-4}


def test_rates_beyond_the_edge():
    assert finer([1e-3, 1e-2, 1e-1], 1e-1, 1) == [0.32]
    assert finer([1e-3, 1e-2], 1e-3, 2) == [3.2e-3, 3.2e-4]


def test_the_study_is_optunas_and_holds_each_trial_once(recipe, tmp_path):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    made = recipe({"methods": ["prefix-tuning/after"], "rates": [1e-3, 1e-2]})
    (one,) = candidates_of(made)
    journal = tmp_path / "search.journal"
    for _ in range(2):
        search = Search(one, made.compare, journal, maximise=True)
        for settings in search.stage("rate"):
            search.tell(settings, ended(settings, settings["train.lr"]))
    study = optuna.load_study(
        study_name="prefix-tuning/after", storage=JournalStorage(JournalFileBackend(str(journal)))
    )
    assert [t.params for t in study.trials] == [{"train.lr": 1e-3}, {"train.lr": 1e-2}]
    assert study.best_params == {"train.lr": 1e-2} and study.trials[0].intermediate_values == {2: 1e-3}


def ended(settings, score, status="done"):
    return {
        "id": json.dumps(settings, sort_keys=True),
        "status": status,
        "dev": {"accuracy": score},
        "dev_key": [score, -1.0],
        "history": [{"step": 2, "accuracy": score}],
    }


# --- pruning ---


def test_who_is_below_the_median_at_half_time_ends():
    pruner = Pruner(steps=10)
    for learner, score in enumerate((0.5, 0.6, 0.7, 0.4)):
        pruner.note(learner, 2, score)
    assert not any(pruner.is_behind(i) for i in range(4))  # too early
    for learner, score in enumerate((0.5, 0.6, 0.7, 0.4)):
        pruner.note(learner, 6, score)
    assert [pruner.is_behind(i) for i in range(4)] == [True, False, False, True]


def test_the_best_so_far_counts_and_the_end_is_no_time_to_prune():
    pruner = Pruner(steps=4, rivals=[{2: 0.6, 4: 0.6}, {2: 0.7, 4: 0.7}])
    pruner.note(0, 1, 0.8)
    pruner.note(0, 2, 0.1)
    assert not pruner.is_behind(0)
    pruner = Pruner(steps=4, rivals=[{2: 0.6, 4: 0.6}, {2: 0.7, 4: 0.7}])
    pruner.note(0, 4, 0.1)
    assert not pruner.is_behind(0)


def test_a_record_becomes_a_curve():
    record = {"history": [{"step": 2, "mse": 3.0}, {"step": 4, "mse": 5.0}, {"step": 6, "mse": 1.0}]}
    assert curve_of(record, "mse", higher_is_better=False) == {2: -3.0, 4: -3.0, 6: -1.0}


# --- rows ---


def inputs(parts):
    return {split: {row["input"] for row in rows} for split, rows in parts.items()}


def test_rows_are_split_once_for_all(recipe):
    made = recipe(data={"train": recipe().data.train, "limit": 40})
    parts, about = all_splits(made, no_vectors)
    assert about["how"] is None and set(parts) == {"train", "dev", "test"}
    found = inputs(parts)
    assert not found["train"] & (found["dev"] | found["test"]) and not found["dev"] & found["test"]
    assert len(found["test"]) == 12 and len(found["train"]) + len(found["dev"]) == 40
    assert all_splits(made, no_vectors)[0] == parts


def test_the_first_rows_show_every_prompt_and_label(recipe):
    rows = [{"input": f"{i}", "target": "a" if i % 10 else "b", "who": "xy"[i % 7 == 0]} for i in range(70)]
    made = recipe(data={"train": recipe().data.train, "prompt_field": "who"})
    ordered = by_turns(rows, made, lambda row: row["target"])
    assert sorted(map(str, ordered)) == sorted(map(str, rows)) and ordered == by_turns(
        rows, made, lambda row: row["target"]
    )
    assert {(row["who"], row["target"]) for row in ordered[:4]} == {(w, t) for w in "xy" for t in "ab"}
    other = recipe(data={"train": made.data.train, "prompt_field": "who"}, train={"seed": 1})
    assert by_turns(rows, other, lambda row: row["target"]) != ordered


def test_a_field_is_held_out_of_every_split(recipe):
    parts, about = all_splits(recipe({"unseen": {"field": "domain", "values": ["z"]}}), no_vectors)
    assert about == {"how": "field", "detail": "domain: z"}
    assert {row["domain"] for row in parts["unseen"]} == {"z"} and len(parts["unseen"]) == 20
    assert all(row["domain"] != "z" for split in ("train", "dev", "test") for row in parts[split])


def test_values_are_drawn_where_none_is_named(recipe):
    parts, _ = all_splits(recipe({"unseen": {"field": "domain"}}), no_vectors)
    held = {row["domain"] for row in parts["unseen"]}
    assert len(held) == 1
    assert all(row["domain"] not in held for split in ("train", "dev", "test") for row in parts[split])


def test_a_file_of_unseen_rows(recipe, tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text("".join(f'{{"input": "other {i}", "target": "a"}}\n' for i in range(5)), encoding="utf-8")
    made = recipe({"unseen": str(path)})
    parts, about = all_splits(made, no_vectors)
    assert about["how"] == "file" and len(parts["unseen"]) == 5
    assert {len(parts[s]) for s in ("train", "dev", "test")} == {43, 5, 12}


def test_clusters_are_held_out_whole(recipe):
    import numpy as np

    rows = [{"input": f"{'apple' if i % 4 else 'zebra'} {i}", "target": "ab"[i % 2]} for i in range(60)]

    def vectors(texts):
        return np.array([[float("apple" in text), float("zebra" in text)] for text in texts])

    parts, about = all_splits(recipe({"unseen": {"clusters": 2}}, rows), vectors)
    assert about["how"] == "clusters" and "1 of 2 clusters" in about["detail"]
    assert len(parts["unseen"]) == 15 and all("zebra" in row["input"] for row in parts["unseen"])
    assert all("apple" in row["input"] for split in ("train", "dev", "test") for row in parts[split])


def test_a_label_that_only_unseen_rows_have_is_reported(recipe, llama, tmp_path):
    rows = [
        {"input": f"row {i}", "target": "c" if i % 3 == 2 and i % 2 else "ab"[i % 2], "domain": "xyz"[i % 3]}
        for i in range(60)
    ]
    made = recipe({"unseen": {"field": "domain", "values": ["z"]}}, rows)
    found = lay(made, llama, Folder(tmp_path / "out"))
    assert found.labels == ["a", "b", "c"]
    assert [text for text in found.remarks if "no training row has 'c'," in text]
    found = lay(recipe({"unseen": {"field": "domain", "values": ["x"]}}, rows), llama, Folder(tmp_path / "b"))
    assert not [text for text in found.remarks if "no training row" in text]


def test_mean_embeddings_are_means_of_rows_of_the_table(llama):
    import numpy as np

    found = mean_embeddings(llama, ["ab", "ba", "c"])
    table = llama.model.get_input_embeddings().weight.detach()
    expected = table[llama.text_ids("ab")].mean(0).numpy()
    np.testing.assert_allclose(found[0], expected / np.linalg.norm(expected), rtol=1e-5)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    assert abs(found[0] @ found[2]) < 0.999


@pytest.mark.parametrize(
    ("unseen", "message"),
    [
        ({"field": "colour"}, "no row has the field 'colour'"),
        ({"field": "domain", "values": ["q"]}, "no row has domain = q"),
        ({"clusters": 99}, "cannot make 99 clusters"),
    ],
)
def test_rows_that_cannot_be_held_out_are_an_error(recipe, unseen, message):
    with pytest.raises(SoftPromptError, match=message):
        all_splits(recipe({"unseen": unseen}), no_vectors)


def test_the_recipe_says_what_is_unseen(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("data: rows.jsonl\ncompare: {unseen: other.jsonl}\n", encoding="utf-8")
    assert load_recipe(path).compare.unseen.file == str(tmp_path / "other.jsonl")
    assert load_recipe(path, ["compare.unseen=auto"]).compare.unseen.clusters == 8
    assert load_recipe(path, ["unseen={field: domain}"]).compare.unseen.field == "domain"
    with pytest.raises(SoftPromptError, match="one of file, field and clusters"):
        load_recipe(path, ["compare.unseen={field: domain, clusters: 3}"])


# --- the form of the weights ---


@pytest.mark.parametrize(
    ("weights", "method", "text"),
    [
        ("int8", "lora", "`train.weights: int8` needs `base.mode: frozen`, but mode is lora"),
        ("int8", "full", "`train.weights: int8` needs `base.mode: frozen`, but mode is full"),
        ("bfloat16", "full", "`train.weights: bfloat16` cannot be combined with the base's weights to train"),
    ],
)
def test_weights_that_a_contestant_cannot_train_are_refused_at_once(recipe, weights, method, text):
    with pytest.raises(SoftPromptError, match=text):
        candidates_of(recipe({"methods": [method, "prompt-tuning/after"]}, train={"weights": weights}))
    changed = {"methods": {method: {"train.weights": "float32"}, "prompt-tuning/after": {}}}
    kept = candidates_of(recipe(changed, train={"weights": weights}))
    assert [candidate.recipe.train.weights for candidate in kept] == ["float32", weights]


def test_a_head_is_not_trained_in_bfloat16(recipe):
    with pytest.raises(SoftPromptError, match="a head to train"):
        recipe(task={"kind": "classification", "head": True}, train={"weights": "bfloat16"})


def test_the_default_contestants_train_no_int8_weights(recipe):
    names = [candidate.name for candidate in candidates_of(recipe(train={"weights": "int8"}))]
    assert "lora" not in names and "prompt-tuning/after" in names
    assert "lora" in [candidate.name for candidate in candidates_of(recipe())]


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_a_trial_with_plain_weights_can_be_read_by_a_worker(recipe, tmp_path, weights):
    """Another contestant's weights, or an earlier study, may have another precision than these."""
    other = {"float32": "bfloat16", "bfloat16": "float32"}[weights]
    contestant = candidates_of(recipe({"methods": ["prompt-tuning/after"]}, train={"weights": weights}))[0]
    trial = Trials(Folder(tmp_path), ground(dtype=other)).training(contestant, "final", {}, 0)
    assert recipe_from_dict(trial.recipe).train.precision == weights


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_a_study_is_surveyed_with_the_weights_of_its_recipe(recipe, tmp_path, weights):
    """`dtype` of the earlier `study.json` counts only where the recipe leaves the precision open."""
    (tmp_path / "study.json").write_text('{"dtype": "bfloat16"}')
    asked = []

    class Reading:
        def run(self, work, jobs):
            asked.extend(recipe_from_dict(job.recipe) for job in jobs)
            return [(None, RuntimeError("read"))]

    with pytest.raises(RuntimeError, match="read"):
        experiment._survey(recipe(train={"weights": weights}), Folder(tmp_path), Reading())
    assert asked[0].train.precision == {"float32": "float32", "int8": "bfloat16"}[weights]
