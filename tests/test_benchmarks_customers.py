"""The short form of benchmarks.customers runs every stage; a wrong result makes it fail, a slow one never."""

from __future__ import annotations

import json

import pytest
from benchmarks import customers
from benchmarks.many_customers import cut, stages
from benchmarks.many_customers.setup import Setup, interval
from tests.printed import printed

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def short():
    """Return the exit code and the result of each stage."""
    code, out = printed(customers.main, "--short")
    return code, {result["stage"]: result for result in map(json.loads, out.splitlines())}


def test_every_stage_has_its_result(short):
    code, results = short
    assert code == 0 and list(results) == list(customers.STAGES)
    assert results["train"]["prompts"] == results["list"]["listed"] == 4
    assert results["serve"]["wrong"] == 0 and results["serve"]["other_than_plain"] > 0
    assert results["add"]["served"] and not results["add"]["others_changed"]
    assert results["alone"]["within_noise"] == 1
    assert set(results["shared"]["gains"]) == {"prefix, nearest", "prefix, generated", "prompt, multitask"}
    for result in results.values():
        assert result["where"] and result["seconds"] >= 0


def test_wrong_results_are_faults():
    good = {"train": {"not_finished": 0}, "list": {"missing": 0}, "serve": {"wrong": 0}}
    good |= {"add": {"others_changed": False, "served": True}}
    assert customers.faults(good) == []
    for stage, wrong in (
        ("train", {"not_finished": 1}),
        ("list", {"missing": 2}),
        ("serve", {"wrong": 3}),
        ("add", {"others_changed": True, "served": True}),
        ("add", {"others_changed": False, "served": False}),
    ):
        assert len(customers.faults(good | {stage: wrong})) == 1


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return cut.tasks_in(customers.made_up(tmp_path_factory.mktemp("data"))[0])


def test_customers_are_cut_by_seed_and_number(tasks):
    many = [cut.customer(tasks, i) for i in range(40)]
    assert (
        many == [cut.customer(tasks, i) for i in range(40)] != [cut.customer(tasks, i, 1) for i in range(40)]
    )
    for each in many:
        rows = each["train"] + each["dev"]
        assert cut.FEWEST <= len(rows) <= cut.MOST
        assert {row["target"] for row in each["train"]} == set(rows[0]["choices"])
        assert all(row["target"] in row["choices"] for part in each.values() for row in part)
        inputs = [{row["input"] for row in each[split]} for split in ("train", "dev", "test")]
        assert not inputs[0] & inputs[1] and not (inputs[0] | inputs[1]) & inputs[2]
    assert {len(cut.customer(tasks, i, rows=16)["train"]) for i in range(9)} == {12}


def test_a_finished_stage_is_not_run_again(tmp_path):
    setup = Setup(tmp_path, tmp_path / "out")
    assert setup.kept("cut", lambda: {"x": 1})["x"] == 1
    assert setup.kept("cut", lambda: pytest.fail("run again"))["x"] == 1
    assert Setup(tmp_path, tmp_path / "out", count=3).kept("cut", lambda: {"x": 2})["x"] == 2


def test_an_interval_holds_the_mean():
    found = interval([0.0, 1.0] * 50)
    assert found["low"] < found["mean"] == 0.5 < found["high"]
    assert found["high"] - found["mean"] == pytest.approx(1.96 * 0.05, abs=0.02)


def test_no_sets_are_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="with labels"):
        stages.cut.tasks_in(tmp_path)
