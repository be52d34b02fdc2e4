"""Several texts have figures for each way to answer, over all texts and for each, also by free answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..data.example import Example
from ..evaluation.evaluator import evaluator_of
from ..evaluation.records import Record
from ..methods.materialised import Materialised, materialise
from ..training import together
from ..training.run import Run
from ..training.teachers import taught_by_prompt
from . import intervals
from .answers import Answer
from .measure import MEASURES, SHOWN, TESTED
from .together import Attached, Share
from .ways import NONE, TEXT, VECTORS, with_text

Table = dict[str, dict[str, Any]]  # see `measure.Figures`


@dataclass(frozen=True)
class SeveralFigures:
    """Hold the figures of the requests that were kept apart, against their own texts' teachers.

    A row is answered with its own text, with its own text's prompt, with that prompt among others, and with
    neither.
    """

    texts: dict[str, Share]  # of its effect that each text's prompt keeps alone
    at_once: dict[int, Share]  # by how many prompts are attached
    ways: Table  # of all texts together
    by_text: dict[str, Table]
    tests: list[dict[str, Any]]  # of the vectors against the other ways but the text
    samples: list[dict[str, str]]  # a request of each of some texts

    def to_json(self) -> dict[str, Any]:
        """Return all figures as plain values."""
        return {**asdict(self), "at_once": {str(k): share for k, share in self.at_once.items()}}


def several_figures(
    runs: Sequence[Run], attached: Attached, texts: Mapping[str, str], counts: Sequence[int]
) -> SeveralFigures:
    """Score all ways to answer, with as many prompts attached as `counts` has, one among them."""
    with_texts = _with_texts(runs, attached, texts)
    records: dict[str, Sequence[Record]] = {TEXT: attached.plain(with_texts).records}
    for k in counts:
        records[_way(k)] = attached.scores(k, text_rows=None).records
    none = records[NONE] = attached.plain(attached.examples).records
    rows = {
        name: [i for i, example in enumerate(attached.examples) if example.prompt == number]
        for number, name in enumerate(attached.names)
    }
    compared = {name: [of_way] for name, of_way in records.items() if name != TEXT}
    return SeveralFigures(
        texts={
            name: intervals.share_kept([_only(records[VECTORS], of)], _only(none, of))
            for name, of in rows.items()
        },
        at_once={k: intervals.share_kept([records[_way(k)]], none) for k in counts},
        ways=intervals.table({name: [of_way] for name, of_way in records.items()}, MEASURES),
        by_text={
            name: intervals.table({way: [_only(records[way], of)] for way in (TEXT, VECTORS, NONE)}, MEASURES)
            for name, of in rows.items()
        },
        tests=intervals.tests(compared, VECTORS, TESTED),
        samples=[_sample(attached, records, of[0]) for of in list(rows.values())[:SHOWN]],
    )


def _way(k: int) -> str:
    return VECTORS if k == 1 else f"{k} prompts attached"


def _only(records: Sequence[Record], rows: Sequence[int]) -> list[Record]:
    return [records[i] for i in rows]


def _sample(attached: Attached, records: Mapping[str, Sequence[Record]], row: int) -> dict[str, str]:
    example = attached.examples[row]
    request = f"{example.rendered.row['request']} ({attached.names[example.prompt]})"
    return {"request": request, **{way: records[way][row].prediction for way in (TEXT, VECTORS, NONE)}}


def attached_of(
    runs: Sequence[Run], names: tuple[str, ...], rows: Mapping[str, Sequence[Answer]]
) -> Attached:
    """Return the prompts of the runs as one table, with the rows to measure on."""
    first = runs[0].prepared
    numbers = {name: i for i, name in enumerate(first.prompts if len(runs) == 1 else names)}
    examples = []
    for i, run in enumerate(runs):
        prepared = run.prepared
        of_run = rows[names[i]] if len(runs) > 1 else [row for part in rows.values() for row in part]
        encoded = prepared.encoder.encode_rows(of_run)
        (encoded,), _ = taught_by_prompt(prepared.recipe, prepared.lm, prepared.prompts, [encoded])
        examples += [replace(e, prompt=i) for e in encoded] if len(runs) > 1 else encoded
    table = first.method
    if len(runs) > 1:
        with torch.no_grad():
            fixed = [materialise(run.prepared.method) for run in runs]
        table = Materialised([part.prompts[0] for part in fixed if part is not None])
    return Attached(
        first.lm,
        table,
        tuple(numbers),
        examples,
        replace(evaluator_of(first.recipe, first.lm, first.encoder), metrics=MEASURES),
        together.has_sink(first.recipe),
        first.recipe.train.seed,
    )


def _with_texts(runs: Sequence[Run], attached: Attached, texts: Mapping[str, str]) -> list[Example]:
    """Return the rows that are measured on with their own text ahead."""
    result = list(attached.examples)
    for number, name in enumerate(attached.names):
        prepared = runs[number].prepared if len(runs) > 1 else runs[0].prepared
        rows = [i for i, example in enumerate(result) if example.prompt == number]
        shown = with_text(prepared, texts[name], [result[i] for i in rows])
        for i, example in zip(rows, shown, strict=True):
            result[i] = example
    return result
