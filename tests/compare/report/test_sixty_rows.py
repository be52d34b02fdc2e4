"""Sixty rows, of which twenty are test rows, and two seeds: too few to tell, and the page says so.

The method that is cheaper scored 45 %, the other 67.5 %; no test shows a difference.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from softprompt.compare import report
from softprompt.compare.measures.quality import CandidateRows, decisive
from softprompt.compare.report.read import comparison
from softprompt.compare.report.verdict import verdict

TEST_ROWS = 20


def answered(right: np.ndarray) -> list[list[dict]]:
    """Answers of each seed to the test rows, from right or wrong `[S, N]`."""
    return [
        [
            {"prediction": "yes" if hit else "no", "references": ["yes"], "nll": 1.0, "tokens": 1}
            for hit in seed
        ]
        for seed in right
    ]


def two_seeds(*counts: int) -> np.ndarray:
    """Right or wrong `[S, N]`, of which so many are right with each seed."""
    rng = np.random.default_rng(sum(counts))
    return np.stack([rng.permutation(np.arange(TEST_ROWS) < count) for count in counts])


@pytest.fixture
def sixty(tmp_path):
    """A folder as a comparison of sixty rows leaves it: 67.5 % in 80 s, 45 % in 12 s."""
    scored = {"slow": (two_seeds(14, 13), 80.0), "cheap": (two_seeds(10, 8), 12.0)}
    entries = [CandidateRows(name, answered(right)) for name, (right, _) in scored.items()]
    tests, standings = decisive(entries, "accuracy", 2.0, "test")
    contestants = [{"name": name, "method": "prompt-tuning"} for name in scored]
    study = {"kind": "study", "metric": "accuracy", "seeds": [0, 1], "margin": 2.0}
    lines = [study | {"contestants": contestants}]
    for name, (right, seconds) in scored.items():
        lines.append(
            {"kind": "trial", "id": name, "contestant": name, "phase": "final", "status": "done"}
            | {"cost": {"train_seconds": seconds}}
        )
        for seed in (0, 1):
            value = {"accuracy": {"value": right[seed].mean(), "n": TEST_ROWS}}
            lines.append(
                {"kind": "score", "contestant": name, "split": "test", "seed": seed, "metrics": value}
            )
    lines += [{"kind": "test", **test} for test in tests]
    lines += [{"kind": "standing", **asdict(standing)} for standing in standings]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_the_cheaper_is_not_named_where_no_difference_was_shown(sixty):
    result = verdict(comparison(sixty))
    assert result is not None and not any(test.significant for test in comparison(sixty).tests)
    assert {name: score.value for name, score in result.scores.items()} == {"slow": 0.675, "cheap": 0.45}
    assert result.chosen == "slow" and result.decision.undecided == ["cheap"]
    assert 0.7 < result.decision.standings["slow"].best < 1


def test_report_md_says_that_the_rows_do_not_tell(sixty):
    report.write(sixty)
    text = (sixty / "report.md").read_text().replace("\u00a0", " ")
    assert "**These rows do not tell which method is best: slow is the likeliest (" in text
    assert "If you must choose now, take slow: it scored 67.5 % in accuracy on 20 test rows" in text
    assert "The expected loss of this choice against the best is" in text
    assert "Take cheap" not in text and "take the cheaper" not in text


def test_a_wider_margin_makes_them_equal(sixty):
    """A margin beyond the interval is needed, not one beyond the difference of 22.5 points."""
    text = (sixty / "results.jsonl").read_text()
    for margin, chosen in ((30.0, "slow"), (99.0, "cheap")):
        (sixty / "results.jsonl").write_text(text.replace('"margin": 2.0', f'"margin": {margin}'))
        result = verdict(comparison(sixty))
        assert result is not None and result.chosen == chosen


def test_files_of_an_earlier_version_give_the_same_method(sixty):
    """They have no standings, no level and no margin: the intervals of pairs stand in."""
    lines = [json.loads(line) for line in (sixty / "results.jsonl").read_text().splitlines()]
    old = []
    for line in lines:
        if line["kind"] == "test":
            alone = {"low": line["alone_low"], "high": line["alone_high"]}
            added = ("level", "alone_low", "alone_high", "chance", "rows_to_tell", "shows_any")
            line = {key: value for key, value in line.items() if key not in added} | alone
        if line["kind"] != "standing":
            old.append({key: value for key, value in line.items() if key != "margin"})
    new = verdict(comparison(sixty))
    (sixty / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    result = verdict(comparison(sixty))
    assert result is not None and new is not None and result.is_approximate and result.chosen == "slow"
    before, after = (each.decision.standings["slow"].best for each in (result, new))
    assert before == pytest.approx(after, abs=0.05)
    report.write(sixty)
    assert "are approximate" in (sixty / "report.md").read_text()
