"""`softprompt compare` of a file of rows that has no recipe."""

from __future__ import annotations

import csv
import json
import webbrowser

import pytest

from softprompt.compare import experiment
from softprompt.compare.running.executors import Serial
from softprompt.config.load import load_recipe

from .conftest import QUICKEST, write_rows

pytestmark = pytest.mark.whole

QUICK = [*QUICKEST, "dtype=float32"]


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.setattr(experiment, "executor", lambda kind, workers, threads: Serial())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tickets(tmp_path):
    with open(tmp_path / "tickets.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["no", "Message text", "Kind"])
        writer.writerows([i, f"it is {i}", ("late", "lost")[i % 2]] for i in range(40))
    return "tickets.csv"


def test_from_rows_to_a_report_that_opens(run, tickets, model_folder, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda page: opened.append(page) or True)
    output = run("compare", tickets, f"model={model_folder}", *QUICK, "--open")
    assert output.code == 0, output.err
    page = tmp_path / "runs/tickets-compare/report.html"
    assert page.exists() and opened == [page.as_uri()] and "runs/tickets-compare/report.html" in output.out
    # what was inferred, what it takes, how to take less, and where to change it
    for messages in (
        "classification of 2 labels",
        '{{ row["Message text"] }}⏎Kind:',
        "it will take about",
        "--within 10m",
        "runs/tickets-compare/tickets.yaml",
    ):
        assert messages in output.err
    assert load_recipe("runs/tickets-compare/tickets.yaml").task.labels == ["late", "lost"]
    again = run("compare", tickets, f"model={model_folder}", *QUICK, "--json")
    assert again.json["ran"] == 0 and "continuing with runs/tickets-compare/tickets.yaml" in again.err
    by_recipe = run("compare", "runs/tickets-compare/tickets.yaml", f"model={model_folder}", *QUICK, "--json")
    assert by_recipe.json["ran"] == 0


def test_no_browser_is_said(run, tickets, model_folder, monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda page: False)
    output = run("compare", tickets, f"model={model_folder}", *QUICK, "--open", "--output", "there", "--json")
    assert output.code == 0 and "no browser was found" in output.err
    assert output.json["recipe"] == "there/tickets.yaml" and output.json["estimated_seconds"] > 0


def test_rows_that_do_not_tell(run, tmp_path, tickets):
    write_rows(tmp_path / "odd.jsonl", [{"a": "x", "b": "y", "c": "z"}] * 30)
    output = run("compare", "odd.jsonl")
    assert output.code == 1 and "a, b, c" in output.err
    assert "template.input='{{ a }}' template.target='{{ b }}'" in output.err
    assert run("compare", "none.jsonl").code == 1
    assert "10 parsecs: not understood" in run("compare", tickets, "--within", "10 parsecs").err


def test_fields_can_be_named(run, tmp_path, model_folder):
    rows = [{"a": f"x {i}", "b": "y", "c": "zw"[i % 2]} for i in range(40)]
    write_rows(tmp_path / "odd.jsonl", rows)
    named = ("template.input={{ a }}", "template.target={{ c }}", f"model={model_folder}")
    output = run("compare", "odd.jsonl", *named, *QUICK, "--json")
    assert output.code == 0, output.err
    read = load_recipe(output.json["recipe"])
    assert (read.template.input, read.template.target) == ("{{ a }}", "{{ c }}")
    assert json.loads((tmp_path / "runs/odd-compare/study.json").read_text())["name"] == "odd"


def test_within_holds_for_a_recipe_too(run, recipe, tmp_path):
    output = run("compare", recipe, *QUICK, "--within", "0.01s", "--json")
    assert output.code == 0, output.err
    assert output.json["within_seconds"] == 0.01 and output.json["ran"] == 0 and output.json["left_out"]
    more = run("compare", recipe, *QUICK, "--json")  # no limit: what was left out is run
    assert more.json["ran"] == more.json["trials"] > 0 and not more.json["left_out"]


def test_too_short_a_time_for_rows_is_an_error(run, tickets, model_folder, tmp_path):
    output = run("compare", tickets, f"model={model_folder}", "--within", "1s")
    assert output.code == 1 and "too short" in output.err and "--within 1m" in output.err
    assert not (tmp_path / "runs/tickets-compare/study.json").exists()
