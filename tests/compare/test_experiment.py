"""A whole comparison on the tiny Llama: which trials run, how often, in which order, and what is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from softprompt.cache import KeyValues
from softprompt.compare.experiment import Hooks, compare
from softprompt.compare.phases import measure
from softprompt.compare.phases import score as scoring
from softprompt.compare.phases import train as fitting
from softprompt.compare.records.store import Folder
from softprompt.compare.report.read import comparison
from softprompt.compare.running import worker
from softprompt.compare.running.executors import Local, Lost, Serial
from softprompt.config.load import recipe_from_dict
from softprompt.errors import SoftPromptError

pytestmark = pytest.mark.whole

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss", "ox", "tree"]
METHODS = ["prompt-tuning/after", "prefix-tuning/before", "lora", "zero-shot", "few-shot"]


def write_rows(path: Path, count: int, **more: str) -> str:
    rows = [
        {"input": f"{WORDS[i % 10]} {i}", "target": ("good", "bad")[i % 2], "kind": "abc"[i % 3], **more}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def recipe(tmp_path, model_folder):
    """`recipe(compare, **sections)`: a small contest over thirty rows."""

    def make(compare=None, **sections):
        compare = {
            "methods": ["prompt-tuning/after", "zero-shot"],
            "rates": [1e-2, 3e-2],
            "base_rates": [1e-3, 1e-2],
            "seeds": 2,
            "shots": 2,
            "control": False,
            "serving": False,
            "prune": False,
            **(compare or {}),
        }
        whole = {
            "model": str(model_folder),
            "data": {"train": write_rows(tmp_path / "rows.jsonl", 40)},
            "task": {"kind": "classification", "labels": ["good", "bad"]},
            "method": {"name": "prompt-tuning", "length": 3},
            "train": {"steps": 4, "batch_size": 4, "eval_every": 2, "dtype": "float32"},
            "output": str(tmp_path / "out"),
            "compare": compare,
        }
        return recipe_from_dict({**whole, **sections})

    return make


class Counting:
    """Serial that remembers its jobs, and ends like a killed process after so many of them."""

    workers = 1

    def __init__(self, most: int | None = None) -> None:
        self.jobs: list = []
        self._most = most

    def run(self, work, jobs):
        yield from Serial().run(self._count(work), jobs)

    def _count(self, work):
        def counted(job):
            if self._most is not None and len(self.jobs) >= self._most:
                raise KeyboardInterrupt
            self.jobs.append(job)
            return work(job)

        return counted

    def close(self) -> None:
        pass

    @property
    def trials(self) -> list:
        return [trial for job in self.jobs if isinstance(job, worker.Job) for trial in job.trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model_folder):
    """Five candidates, unseen rows, curves and control, run once for the tests of what is written."""
    folder = tmp_path_factory.mktemp("whole")
    runner, seen = Counting(), []
    made = recipe_from_dict(
        {
            "model": str(model_folder),
            "data": {"train": write_rows(folder / "rows.jsonl", 60), "prompt_field": "kind"},
            "task": {"kind": "classification"},
            "train": {"steps": 6, "batch_size": 4, "eval_every": 2, "dtype": "float32"},
            "output": str(folder / "out"),
            "compare": {
                "methods": METHODS,
                "rates": [1e-2, 3e-2, 1e-1],
                "base_rates": [1e-3, 1e-2, 1e-1],
                "lengths": [2],
                "seeds": 2,
                "shots": 2,
                "unseen": {"clusters": 4, "share": 0.3},
                "curve": [8, 16, 1000],
                "control_rows": 6,
                "constraint": {"labels": True},
                "goal": 0.1,
            },
        }
    )
    done = compare(made, on=runner, hooks=Hooks(on_record=lambda record, was: seen.append(record)))
    return done, runner, seen


def test_it_ends_with_files_that_the_report_reads(whole):
    done, _, _ = whole
    found = comparison(done.folder)
    assert [one.name for one in found.study.contestants] == METHODS
    assert [one.name for one in found.references] == ["zero-shot", "few-shot"]
    assert done.failed == 0, [t.error for t in found.trials if t.error]
    assert done.page is not None and done.page.stat().st_size > 10_000
    assert (done.folder / "report.md").exists()
    assert found.study.unseen is not None and found.study.unseen["how"] == "clusters"
    assert set(found.study.rows) == {"train", "dev", "test", "unseen"}
    assert found.study.labels == ["bad", "good"] and sorted(found.study.prompts or []) == ["a", "b", "c"]


def test_every_contestant_is_scored_on_every_split_with_every_seed(whole):
    found = comparison(whole[0].folder)
    seeds = {(s.contestant, s.split): set() for s in found.scores}
    for score in found.scores:
        seeds[score.contestant, score.split].add(score.seed)
    for name in METHODS:
        for split in ("test", "unseen"):
            # over all seeds, and each; a reference has one evaluation
            assert seeds[name, split] == ({None} if "shot" in name else {None, 0, 1})
    rows = found.study.rows
    counted = Counter((e.contestant, e.split, e.seed) for e in found.examples)
    assert all(count == rows[split] for (_, split, _), count in counted.items())


def test_scores_are_those_of_the_rows(whole):
    found = comparison(whole[0].folder)
    for score in found.scores:
        if score.seed is None and "shot" not in score.contestant:
            continue
        rows = [
            e.score
            for e in found.examples
            if (e.contestant, e.split, e.seed) == (score.contestant, score.split, score.seed)
        ]
        assert score.metrics["accuracy"]["value"] == pytest.approx(sum(rows) / len(rows))
        right = [
            e.label == e.target
            for e in found.examples
            if (e.contestant, e.split, e.seed) == (score.contestant, score.split, score.seed)
        ]
        assert right == [bool(row) for row in rows]


def test_every_pair_is_tested_on_both_splits(whole):
    found = comparison(whole[0].folder)
    pairs = Counter((t.split, frozenset((t.a, t.b))) for t in found.tests)
    assert len(pairs) == 2 * 10 and set(pairs.values()) == {1}
    means = {(s.contestant, s.split): s.metrics["accuracy"]["value"] for s in found.scores if s.seed is None}
    for test in found.tests:
        expected = means[test.a, test.split] - means[test.b, test.split]
        assert test.difference == pytest.approx(expected, abs=1e-9)


def test_every_method_has_the_same_budget(whole):
    found = comparison(whole[0].folder)
    tried = Counter(t.contestant for t in found.trials if t.phase == "search")
    assert tried == {"prompt-tuning/after": 4, "prefix-tuning/before": 4, "lora": 4}
    assert found.study.budget["search_trials"] == 4
    steps = {t.steps for t in found.trials if t.phase in ("search", "final") and t.status == "done"}
    assert steps == {6}
    finals = Counter(t.contestant for t in found.trials if t.phase == "final")
    assert set(finals.values()) == {2}


def test_finals_have_the_best_settings_of_the_search(whole):
    _, _, seen = whole
    for name in METHODS[:3]:
        tried = [r for r in seen if r["contestant"] == name and r["phase"] == "search"]
        kept = [r for r in tried if r["status"] == "done"]
        best = max(kept, key=lambda r: tuple(r["dev_key"]))
        finals = [r for r in seen if r["contestant"] == name and r["phase"] == "final"]
        assert all(r["settings"] == best["settings"] for r in finals)
        again = next(r for r in finals if r["seed"] == best["seed"])
        assert again["dev"] == pytest.approx(best["dev"])


def test_no_test_row_is_read_before_all_settings_are_chosen(whole):
    _, runner, _ = whole
    phases = [trial.phase for trial in runner.trials]
    first = phases.index("score")
    assert {"search", "final", "curve", "reference"}.isdisjoint(phases[first:])
    assert all(t.about.get("split") != "test" for t in runner.trials[:first])


def test_costs_are_measured(whole):
    found = comparison(whole[0].folder)
    finals = {t.contestant: t.cost for t in found.trials if t.phase == "final"}
    for cost in finals.values():
        for key in ("train_seconds", "flops", "peak_memory_bytes", "trained_parameters", "artifact_bytes"):
            assert cost[key] and cost[key] > 0, key
    # a prompt after the input needs the input computed once
    assert finals["prompt-tuning/after"]["cache_bytes"] and finals["lora"]["cache_bytes"] == 0
    length = next(
        t.settings.get("length", 16)
        for t in found.trials
        if t.contestant == METHODS[0] and t.phase == "final"
    )
    assert finals["prompt-tuning/after"]["added_tokens"] == length
    assert finals["prefix-tuning/before"]["added_tokens"] == 0


def test_control_serving_and_curves_are_written(whole):
    found = comparison(whole[0].folder)
    measured = {(c.contestant, c.measure) for c in found.controls}
    for name in METHODS[:3]:
        assert {(name, m) for m in ("dose", "leakage", "adherence")} - measured <= {(name, "dose")}
    assert ("prompt-tuning/after", "swap") in measured and ("prompt-tuning/after", "dose") in measured
    assert {s.contestant for s in found.servings} == set(METHODS[:3])
    sizes = {c.rows for c in found.curves}
    assert {8, 16} < sizes and 1000 not in sizes and found.study.rows["train"] in sizes
    assert {c.seed for c in found.curves} == {0, 1}


def test_no_text_of_a_row_is_in_the_results(whole):
    done, _, _ = whole
    results = (done.folder / "results.jsonl").read_text(encoding="utf-8")
    texts = comparison(done.folder).rows.values()
    inputs = [row.input for row in texts if len(row.input) > 4]
    assert inputs and not any(text in results for text in inputs)


def test_the_same_again_runs_nothing(whole):
    done, _, _ = whole
    before = (done.folder / "results.jsonl").read_text(encoding="utf-8")
    study = json.loads((done.folder / "study.json").read_text(encoding="utf-8"))
    runner = Counting()
    again = compare(recipe_from_dict(study["recipe"]), on=runner)
    assert not runner.trials and again.ran == 0 and again.trials == done.trials
    after = (done.folder / "results.jsonl").read_text(encoding="utf-8")
    assert before.split("\n")[1:] == after.split("\n")[1:]  # the first line counts seconds


def seconds_of(made) -> float:
    return json.loads((Path(f"{made.output}-compare") / "study.json").read_text())["seconds"]


@pytest.mark.parametrize("jobs", [1, 2, 3, 5, 6])
def test_killed_anywhere_it_continues_and_runs_nothing_twice(recipe, jobs):
    made = recipe({"methods": ["prompt-tuning/after", "lora", "zero-shot"]})
    killed, second = Counting(jobs), Counting()
    with pytest.raises(KeyboardInterrupt):
        compare(made, on=killed, report=False)
    before = seconds_of(made)
    done = compare(made, on=second, report=False)
    # the killed call had taken time: its first job splits the rows
    assert before < seconds_of(made) and (before > 0) == (jobs > 1)
    ids = [trial.id for trial in (*killed.trials, *second.trials)]
    assert len(ids) == len(set(ids)) == done.trials
    assert done.ran == len(second.trials)


def test_killed_in_training_it_resumes_from_its_checkpoint(recipe, monkeypatch):
    made = recipe({"methods": ["prompt-tuning/after"], "rates": [1e-2], "seeds": 1})
    whole = compare(made, made.output + "-whole", on=Serial(), report=False)
    event, steps = fitting._Watch.event, []

    def watched(self, messages):
        steps.append(messages.step)
        event(self, messages)
        if len(steps) == 7:  # of the final: step 3, one after its first evaluation
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting._Watch, "event", watched)
    with pytest.raises(KeyboardInterrupt):
        compare(made, on=Serial(), report=False)
    done = compare(made, on=Serial(), report=False)
    assert steps == [1, 2, 3, 4, 1, 2, 3, 3, 4]
    ends = []
    for folder in (whole.folder, done.folder):
        found = comparison(folder)
        ends.append([(e.row, e.score, pytest.approx(e.nll, abs=1e-5)) for e in found.examples])
    assert ends[0] == ends[1]


def test_what_a_kill_left_of_the_search_journal_is_no_hindrance(recipe):
    made = recipe({"seeds": 1})
    folder = compare(made, on=Serial(), report=False).folder
    journal = folder / "search.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])  # killed inside a write, which Optuna's lock surrounds
    (folder / "search.journal.lock").symlink_to(journal)
    assert compare(made, on=Serial(), report=False).ran == 0
    assert sorted(p.name for p in folder.glob("search.journal*")) == ["search.journal"]
    assert journal.read_bytes().count(b"\n") == whole.count(b"\n")


def test_one_that_fails_stops_no_other_and_is_shown(recipe):
    made = recipe(
        {
            "methods": {
                "prompt-tuning/after": {},
                "too far": {"method": "p-tuning", "rates": [9.0, 8.0], "encoder": "nonsense"},
            }
        }
    )
    with pytest.raises(SoftPromptError):  # a mistake in the recipe is reported before anything runs
        compare(made, on=Serial())
    made = recipe(
        {
            "methods": {
                "prompt-tuning/after": {},
                "no adapter": {"method": "lora", "base.targets": ["no_such_layer"]},
                "zero-shot": {},
            }
        }
    )
    done = compare(made, on=Serial())
    found = comparison(done.folder)
    failed = [t for t in found.trials if t.status == "failed"]
    assert {t.contestant for t in failed} == {"no adapter"} and len(failed) == 2 == done.failed
    assert all(t.error and "LoRA" in t.error["what"] for t in failed)
    assert {s.contestant for s in found.scores} == {"prompt-tuning/after", "zero-shot"}
    assert "LoRA found nothing to adapt" in done.page.read_text(encoding="utf-8")


def test_an_error_of_ours_is_tried_again_a_mistake_is_not(recipe, monkeypatch):
    made = recipe({"seeds": 1})

    def broken(trial, folder):
        raise ZeroDivisionError("nobody's fault")

    monkeypatch.setattr(scoring, "score_final", broken)
    done = compare(made, on=Serial(), report=False)
    assert done.failed == 1
    record = next(
        r for p in (done.folder / "trials").glob("*.json") if (r := json.loads(p.read_text()))["error"]
    )
    assert "ZeroDivisionError: nobody's fault" in record["error"]["what"]
    monkeypatch.undo()
    again = compare(made, on=Serial(), report=False)
    assert again.failed == 0 and again.ran == 1


def test_where_several_fail_together_each_is_tried_alone(recipe, monkeypatch):
    made, tune, sizes = recipe({"seeds": 1}), fitting.tune_many, []

    def fragile(prepared, **options):
        sizes.append(len(prepared))
        if len(prepared) > 1:
            raise MemoryError
        return tune(prepared, **options)

    monkeypatch.setattr(fitting, "tune_many", fragile)
    done = compare(made, on=Serial(), report=False)
    assert done.failed == 0 and sizes == [2, 1, 1, 1]


def test_test_rows_are_read_by_nobody_but_the_scores(recipe, monkeypatch):
    read, seen = scoring.read_rows, []

    def spy(source, **options):
        seen.append(Path(source).stem)
        return read(source, **options)

    monkeypatch.setattr(scoring, "read_rows", spy)
    monkeypatch.setattr(measure, "read_rows", spy)
    done = compare(recipe(), on=Serial(), report=False)
    assert seen.count("test") == 3  # the reference, and each of two finals: once
    assert seen.index("test") > seen.index("dev")
    compare(recipe(), on=Serial(), report=False)
    assert seen.count("test") == 3 and done.trials == 1 + 2 + 2 + 3


def test_trials_that_are_behind_are_pruned(recipe):
    made = recipe(
        {"rates": [1e-2, 3e-2, 1e-1, 1e-9], "seeds": 1, "prune": True},
        train={"steps": 12, "batch_size": 8, "eval_every": 2, "dtype": "float32"},
        task={"kind": "generation", "metrics": ["perplexity"]},
    )
    found = comparison(compare(made, on=Serial(), report=False).folder)
    search = [t for t in found.trials if t.phase == "search"]
    pruned = [t for t in search if t.status == "pruned"]
    assert pruned and all(t.steps and 6 <= t.steps < 12 for t in pruned)
    assert any(t.settings["lr"] == 1e-9 for t in pruned)
    best = max((t for t in search if t.status == "done"), key=lambda t: -t.dev["perplexity"])
    final = next(t for t in found.trials if t.phase == "final")
    assert final.settings == best.settings and final.status == "done"


def test_a_folder_of_a_tuned_prompt_is_refused(recipe, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "softprompt.json").write_text("{}")
    with pytest.raises(SoftPromptError, match="holds a tuned prompt"):
        compare(recipe(), tmp_path / "taken", on=Serial())


@pytest.mark.process
def test_two_processes_and_one_that_dies(recipe):
    made = recipe({"seeds": 1, "methods": ["prompt-tuning/after", "zero-shot"]})
    runner = Local(workers=2, threads=1)
    try:
        done = compare(made, on=runner, report=False)
        assert done.failed == 0 and done.trials == 1 + 2 + 1 + 2
        results = dict(runner.run(_leave, [3, 0, 4]))
        assert results[0] == 3 and results[2] == 4 and isinstance(results[1], Lost)
    finally:
        runner.close()
    found = comparison(done.folder)
    alone = comparison(compare(made, made.output + "-serial", on=Serial(), report=False).folder)
    assert [t.id for t in found.trials] == [t.id for t in alone.trials]
    scores = [[(s.contestant, s.metrics["accuracy"]["value"]) for s in f.scores] for f in (found, alone)]
    assert scores[0] == scores[1]


def _leave(job: int) -> int:
    if job == 0:
        import os

        os._exit(9)
    return job


def test_a_trial_whose_process_died_is_shown_and_tried_again(recipe):
    made = recipe({"seeds": 1})

    class Dying(Counting):
        def _count(self, work):
            def counted(job):
                if isinstance(job, worker.Job) and job.trials[0].phase == "final":
                    raise Lost("the process that ran it ended without a word")
                return work(job)

            return counted

    done = compare(made, on=Dying())
    found = comparison(done.folder)
    assert [(t.phase, t.status) for t in found.trials if t.phase == "final"] == [("final", "failed")]
    again = compare(made, on=Serial())
    assert again.failed == 0 and comparison(again.folder).scores


def test_a_moved_folder_keeps_its_trials(recipe, tmp_path):
    done = compare(recipe(), on=Serial(), report=False)
    moved = tmp_path / "elsewhere"
    done.folder.rename(moved)
    again = compare(recipe(), moved, on=Serial(), report=False)
    assert again.ran == 0 and again.trials == done.trials
    assert Folder(moved).rows("train").exists()


def test_findings_name_the_command_of_their_own_method(whole):
    found = comparison(whole[0].folder)
    assert found.findings
    names = {f.contestant for f in found.findings if f.contestant}
    assert names <= set(METHODS[:3])
    for finding in found.findings:
        if finding.contestant == "lora" and "--over " in (finding.command or ""):
            assert "method=none base=lora --over base.lr=" in (finding.command or "")
        if finding.contestant == "prefix-tuning/before" and "--over " in (finding.command or ""):
            assert "method=prefix-tuning method.placement=before --over train.lr=" in (finding.command or "")


def test_inputs_on_disk_are_computed_once_for_all_finals(recipe, tmp_path, monkeypatch):
    """The scores are those without a cache, and what one final read the next one finds."""
    computed = []
    plain = KeyValues.compute

    def compute(self, rows):
        computed.extend(row.input_ids for row in rows)
        return plain(self, rows)

    monkeypatch.setattr(KeyValues, "compute", compute)
    scores = {}
    for cache in ("off", "disk"):
        train = {"steps": 4, "batch_size": 4, "eval_every": 2, "dtype": "float32", "cache": cache}
        train["cache_folder"] = str(tmp_path / "kv")
        computed.clear()
        done = compare(recipe(train=train), tmp_path / cache, on=Serial(), report=False)
        scores[cache] = {
            (s.contestant, s.split, s.seed): s.metrics["accuracy"]["value"]
            for s in comparison(done.folder).scores
        }
    assert scores["disk"] == scores["off"] and len(scores["off"]) > 2
    counts = comparison(tmp_path / "disk").study.rows
    # of the training rows, those that a step reads
    assert counts["dev"] + counts["test"] < len(computed) <= sum(counts[s] for s in ("train", "dev", "test"))
    assert len(set(computed)) == len(computed)


@pytest.mark.parametrize(("number", "prune"), [(2, False), (3, True)])
def test_killed_between_records_of_trials_that_ran_side_by_side(recipe, monkeypatch, prune, number):
    """Trials without a record keep the results that they had beside the others, and leave no folder."""
    ask = {"methods": ["prompt-tuning/after"], "rates": [1e-1, 1e-3, 1e-2], "seeds": 1, "prune": prune}
    made = recipe(ask)
    whole = compare(made, made.output + "-whole", on=Serial(), report=False)
    real, written = Folder.write, []

    def write(self, record):
        written.append(record)
        if len(written) == number:
            raise KeyboardInterrupt
        real(self, record)

    monkeypatch.setattr(Folder, "write", write)
    with pytest.raises(KeyboardInterrupt):
        compare(made, on=Serial(), report=False)
    monkeypatch.undo()
    event, steps = fitting._Watch.event, []

    def watched(self, messages):
        steps.append(messages.step)
        event(self, messages)

    monkeypatch.setattr(fitting._Watch, "event", watched)
    done = compare(made, on=Serial(), report=False)
    assert steps == [1, 2, 3, 4]  # of the final alone
    ends = []
    for folder in (whole.folder, done.folder):
        finals = [path.name for path in folder.glob("trials/*") if path.is_dir()]
        assert len(finals) == 1 and Folder(folder).read(finals[0])["phase"] == "final"
        found = [json.loads(file.read_text()) for file in sorted(folder.glob("trials/*.json"))]
        for record in found:  # the seconds of a training are not the same twice
            for point in record.get("history", []):
                point["seconds"] = None
        kept = ("id", "status", "dev", "dev_key", "best_step", "steps", "history")
        ends.append([[record.get(key) for key in kept] for record in found])
    assert ends[0] == ends[1]


def test_a_damaged_record_is_a_trial_that_is_run_again(recipe):
    made = recipe({"rates": [1e-2], "seeds": 1})
    done = compare(made, on=Serial(), report=False)
    lines = (done.folder / "results.jsonl").read_text().splitlines()
    files = sorted(done.folder.glob("trials/*.json"))
    whole = [file.read_text() for file in files]
    assert len(files) > 4
    for number, (file, text) in enumerate(zip(files, whole, strict=True)):
        record = json.loads(text)
        wrong = ["[]", "3", text[: len(text) // 2], json.dumps({**record, "status": 3})]
        file.write_text(wrong[number % 4])
    (done.folder / "study.json").write_text("[]")  # what was asked is written anew
    again = compare(made, on=Serial(), report=False)
    assert again.ran == len(files) == again.trials
    kept = ("id", "phase", "status", "dev", "best_step", "steps")
    of = [
        [{k: e.get(k) for k in kept} for e in map(json.loads, text) if e["kind"] == "trial"]
        for text in (lines, (again.folder / "results.jsonl").read_text().splitlines())
    ]
    assert of[0] == of[1]


def test_records_of_an_earlier_version_without_a_hash_are_read(whole, tmp_path):
    folder = Folder(tmp_path)
    phases = set()
    for file in sorted(whole[0].folder.glob("trials/*.json")):
        record = json.loads(file.read_text())
        assert record.pop("digest")
        folder.record(record["id"]).parent.mkdir(exist_ok=True)
        folder.record(record["id"]).write_text(json.dumps(record))
        assert folder.read(record["id"]) == record
        phases.add(record["phase"])
    assert phases >= {"reference", "search", "final", "curve", "score", "measure"}


def test_each_damage_of_a_record_is_seen(tmp_path):
    folder = Folder(tmp_path)
    head = {
        "id": "a",
        "contestant": "x",
        "phase": "search",
        "settings": {},
        "seed": 0,
        "rows": None,
        "about": {},
    }
    ends = {
        "dev": {"accuracy": 0.5},
        "dev_key": [0.5, -1.0],
        "best_step": 2,
        "steps": 4,
        "history": [],
        "cost": {},
    }
    record = {**head, "status": "done", "error": None, **ends}
    folder.write(record)
    text = folder.record("a").read_text()
    kept = folder.read("a")
    assert kept is not None and kept["dev"] == {"accuracy": 0.5}
    folder.record("a").write_text(text.replace("0.5", "0.6"))  # other numbers than were written
    assert folder.read("a") is None
    folder.record("b").write_text(text)  # another trial's
    assert folder.read("b") is None
    for bad in (
        "",
        "null",
        "[]",
        "3",
        '"a"',
        "{}",
        "[" * 100_000,
        text[:-9],
        '{"digest": 3}',
        text[:40] + "\0",
    ):
        folder.record("a").write_text(bad)
        assert folder.read("a") is None, bad[:20]
    folder.record("a").write_text(json.dumps(record))  # of an earlier version, without a hash
    assert folder.read("a") == record
    for name in record:
        folder.record("a").write_text(json.dumps({**record, name: [[3]]}))
        assert folder.read("a") is None, name
        folder.record("a").write_text(
            json.dumps({key: value for key, value in record.items() if key != name})
        )
        assert folder.read("a") is None, name


def test_a_search_alone_shows_no_test_row_and_a_whole_comparison_continues_it(recipe, tmp_path):
    planned = []
    hooks = Hooks(on_plan=lambda counts: planned.append(sum(counts.values())))
    short = compare(recipe(), tmp_path / "c", on=Serial(), hooks=hooks, search_only=True)
    phases = {trial.phase for trial in comparison(short.folder).trials}
    assert phases == {"reference", "search"} and short.ran == short.trials == planned[0] == 3
    assert not comparison(short.folder).scores and short.page is not None
    assert "dev scores of the search" in short.page.read_text(encoding="utf-8")
    whole = compare(recipe(), tmp_path / "c", on=Serial())
    assert whole.ran == whole.trials - short.trials > 0 and comparison(whole.folder).scores
