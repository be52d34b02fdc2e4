"""A reranker is a regression whose rows share queries: its ranks, its split and its answers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

import softprompt
from softprompt._system import notes
from softprompt.compare.held_out import all_splits
from softprompt.compare.records.store import Folder
from softprompt.compare.splits import lay
from softprompt.config.load import recipe_from_dict
from softprompt.config.sections.task import DataConfig
from softprompt.data.recipe_rows import read_split
from softprompt.data.split import shared_queries
from softprompt.errors import SoftPromptError
from softprompt.lm.from_recipe import load_base
from softprompt.training.prepare import prepare

pytestmark = pytest.mark.whole

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss", "tea", "ink"]
#: Five documents of each query; two of them fit, of the last query none.
ROWS = [
    {"query": query, "document": f"{WORDS[(i + j) % 10]} {j}", "fits": int(j in (0, 3) and query != "ink")}
    for i, query in enumerate(WORDS)
    for j in range(5)
]
TEMPLATE = {"input": "{{ query }} [SEP] {{ document }}", "target": "{{ fits }}"}
TASK = {"kind": "regression", "query": "query"}


def recipe_of(folder, output, **task):
    return recipe_from_dict(
        {
            "model": str(folder),
            "data": {"train": "rows", "dev_fraction": 0.3},
            "template": TEMPLATE,
            "task": TASK | task,
            "method": {"name": "prompt-tuning", "length": 2},
            "train": {"steps": 2, "batch_size": 4, "dtype": "float32"},
            "output": str(output),
        }
    )


@pytest.fixture(scope="module")
def tuned(bert_folder, tmp_path_factory):
    return softprompt.tune(
        str(bert_folder), "prompt-tuning", ROWS, dev=ROWS, template=TEMPLATE, task=TASK, length=2,
        steps=4, batch_size=4, lr=0.1, dtype="float32", output=tmp_path_factory.mktemp("reranker"),
    )  # fmt: skip


def test_metrics_are_those_of_each_querys_numbers(tuned):
    numbers = np.array([float(text) for text in tuned.generate(ROWS)])
    assert len(set(numbers)) == len(ROWS)
    expected = {"ndcg_at_10": [], "mrr": [], "recall_at_1": []}
    for query in WORDS[:-1]:
        mine = [i for i, row in enumerate(ROWS) if row["query"] == query]
        fits = np.array([ROWS[i]["fits"] for i in mine])
        order = fits[np.argsort(-numbers[mine])]
        expected["ndcg_at_10"].append(ndcg_score(fits[None], numbers[mine][None], k=10))
        expected["mrr"].append(1 / (1 + list(order).index(1)))
        expected["recall_at_1"].append(order[0] / fits.sum())
    metrics = tuned.evaluate(ROWS).metrics
    assert list(metrics) == ["ndcg_at_10", "mrr", "recall_at_1", "mse"]
    for name, values in expected.items():
        assert metrics[name].value == pytest.approx(np.mean(values)), name
        assert metrics[name].low <= metrics[name].value <= metrics[name].high
    assert metrics["mse"].value == pytest.approx(
        np.mean([(n - r["fits"]) ** 2 for n, r in zip(numbers, ROWS, strict=True)])
    )


def test_intervals_are_over_queries(tuned):
    """Each document of a query repeats the query's value, which says nothing more about other queries."""
    scored = tuned.evaluate(ROWS)
    values = [1 / min(record.ranks) for record in scored.records[::5] if record.ranks]
    draws = np.random.default_rng(1).choice(values, (4000, len(values))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    assert scored.metrics["mrr"].low == pytest.approx(low, abs=0.05)
    assert scored.metrics["mrr"].high == pytest.approx(high, abs=0.05)


def test_documents_with_one_number_get_the_last_ranks(tuned):
    same = [{"query": "a", "document": "b", "fits": fits} for fits in (1, 0, 0)]
    assert tuned.evaluate(same).metrics["mrr"].value == pytest.approx(1 / 3)


def test_queries_of_several_files_are_reported():
    parts = {"training": ROWS[:20], "dev": ROWS[15:30], "test": ROWS[40:]}
    (text,) = shared_queries(parts, lambda row: row["query"])
    assert text.startswith("1 of 3 queries of the dev rows are also queries of the training rows")
    assert not shared_queries(parts, None)


def test_a_run_and_a_comparison_note_queries_of_several_files(bert_folder, tmp_path, caplog):
    notes._shown.clear()
    read_split(recipe_of(bert_folder, tmp_path), ROWS[:20], ROWS[15:30])
    assert "1 of 3 queries of the dev rows are also queries of the training rows" in caplog.text
    files = {}
    for name, rows in {"train": ROWS[:20], "dev": ROWS[20:35], "test": ROWS[30:]}.items():
        files[name] = str(tmp_path / f"{name}.jsonl")
        Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of(bert_folder, tmp_path).model_copy(update={"data": DataConfig(**files)})
    splits = lay(recipe, load_base(recipe), Folder(tmp_path / "comparison"))
    shared = [text for text in splits.remarks if "queries" in text]
    assert [text[: text.index(",")] for text in shared] == [
        "1 of 4 queries of the test rows are also queries of the dev rows"
    ]


def test_a_query_is_on_one_side_of_a_split(bert_folder, tmp_path):
    train, dev = read_split(recipe_of(bert_folder, tmp_path), ROWS)
    assert {row["query"] for row in dev} and not {r["query"] for r in train} & {r["query"] for r in dev}
    assert len(train) + len(dev) == len(ROWS)


def test_a_limit_takes_whole_queries(bert_folder, tmp_path):
    """A query without some of its documents would be ranked among fewer."""
    recipe = recipe_of(bert_folder, tmp_path)
    data = {"data.limit": 33, "data.dev_limit": 7, "data.dev_fraction": 0.4}
    for rows in (*read_split(recipe.with_settings(data), ROWS), all_splits_of(recipe, tmp_path)["test"]):
        counts = Counter(row["query"] for row in rows)
        assert rows and set(counts.values()) == {5}


def all_splits_of(recipe, folder):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    settings = {
        "data.train": str(file),
        "data.limit": 33,
        "compare.test_limit": 8,
        "compare.test_fraction": 0.3,
    }
    return all_splits(recipe.with_settings(settings), lambda texts: None)[0]


def test_documents_are_ranked_by_the_numbers_of_their_rows(tuned):
    documents = [row["document"] for row in ROWS[:5]]
    ranked = softprompt.open_prompt(tuned.artifact.path).rank("sun", iter(documents))
    numbers = [float(text) for text in tuned.generate(ROWS[:5])]
    assert ranked == sorted(enumerate(numbers), key=lambda pair: pair[1], reverse=True)
    assert tuned.rank("sun", []) == []
    with pytest.raises(SoftPromptError, match="documents are one text"):
        tuned.rank("sun", "mud")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**row, "fits": 0} for row in ROWS], "no document fits any of the 10 queries"),
        ([{key: row[key] for key in ("document", "fits")} | {"text": "a"} for row in ROWS], "'query'"),
    ],
)
def test_rows_that_cannot_be_ranked_are_refused(tuned, rows, message):
    with pytest.raises(SoftPromptError, match=message):
        tuned.evaluate(rows)


def test_a_task_without_queries_has_no_ranks(bert_folder, tmp_path):
    with pytest.raises(SoftPromptError, match=r"with task\.query"):
        prepare(recipe_of(bert_folder, tmp_path, query=None, metrics=["mrr"]), rows=ROWS)
    with pytest.raises(SoftPromptError, match="`query` belongs to `kind: regression`"):
        recipe_of(bert_folder, tmp_path, kind="generation")
    assert "query" not in recipe_of(bert_folder, tmp_path, query=None).to_dict()["task"]
    assert recipe_from_dict(recipe_of(bert_folder, tmp_path).to_dict()).task.query == "query"


def test_another_prompt_ranks_nothing(bert_folder, tmp_path):
    plain = softprompt.tune(
        str(bert_folder), "prompt-tuning", ROWS, dev=ROWS, template=TEMPLATE, task="regression", length=2,
        steps=1, batch_size=4, dtype="float32", output=tmp_path,
    )  # fmt: skip
    with pytest.raises(SoftPromptError, match="ranks no documents") as caught:
        plain.rank("sun", ["a"])
    assert "task.query" in caught.value.fix
