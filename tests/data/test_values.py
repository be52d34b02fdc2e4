"""Values of other libraries in rows: what they become, what is missing, and what is refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib

import numpy as np
import pyarrow
import pyarrow.dataset
import pytest
import torch

from softprompt.data.sources import Row, fingerprint, read_rows
from softprompt.data.template import Template
from softprompt.data.template_checks import check_rows
from softprompt.errors import SoftPromptError

pd = pytest.importorskip("pandas")


class Colour(str, enum.Enum):
    red = "rouge"


MISSING = [float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"), torch.tensor(float("nan"))]
AS_TEXT = [
    (torch.tensor(1), "1"),
    (np.array(5), "5"),
    (np.int64(3), "3"),
    (np.float32(0.1), "0.1"),
    (np.str_("hi"), "hi"),
    (np.bool_(True), "True"),
    (torch.tensor(1.5, dtype=torch.bfloat16, requires_grad=True), "1.5"),
    (decimal.Decimal("12.50"), "12.50"),
    (Colour.red, "rouge"),
    (pathlib.PurePosixPath("a/b"), "a/b"),
    (datetime.date(2024, 1, 31), "2024-01-31"),
    (pd.Timestamp("2024-01-31 10:00"), "2024-01-31 10:00:00"),
    (np.datetime64("2024-01-31T10:00:00.000000000"), "2024-01-31 10:00:00"),
]
REFUSED = [b"caf\xc3\xa9", {1, 2}, object(), float("inf"), np.float32("-inf"), 1j, 10**5000, lambda: 1]


def fails(call) -> str:
    with pytest.raises(SoftPromptError) as caught:
        call()
    return str(caught.value)


def renders(value, **fields):
    """The value read as each thing that a row gives: input, target, prompt's name."""
    row = Row({"x": "q", "v": value}, "r:1")
    return (
        lambda: Template("{{ v }}", "{{ x }}").render(row).input,
        lambda: Template("{{ x }}", "{{ v }}").render(row).target,
        lambda: Template("{{ x }}", "{{ x }}", prompt_field="v").render(row).prompt,
    )


@pytest.mark.parametrize("value", MISSING, ids=repr)
def test_missing_values_are_missing_everywhere(value):
    for call in renders(value):
        assert "r:1: field 'v'" in fails(call)
    lists = {"x": "q", "v": ["a", value]}
    for keyword in ({"choices_field": "v"}, {"references_field": "v"}):
        assert "not a list of texts" in fails(
            lambda k=keyword: Template("{{ x }}", "{{ x }}", **k).render(lists)
        )
    words = Template(words_field="v", tags_field="v")
    assert "not a list of texts" in fails(lambda: words.render(lists))


@pytest.mark.parametrize(("value", "text"), AS_TEXT, ids=repr)
def test_values_of_other_libraries_are_what_they_stand_for(value, text):
    assert [call() for call in renders(value)] == [text] * 3


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_has_no_text_is_refused_where_it_is_read_and_nowhere_else(value):
    for call in renders(value):
        message = fails(call)
        assert "field 'v' holds" in message and "fix:" in message
    assert "holds" in fails(
        lambda: Template("{{ x }}{% if v %}{% endif %}").render_input({"x": "q", "v": value})
    )
    unread = [{"x": "q", "v": value}, {"x": "r", "v": value}]
    assert Template("{{ x }}").render_input(read_rows(unread)[0]) == "q"
    assert fingerprint(read_rows(unread)) == fingerprint(read_rows(unread))
    assert "holds" in fails(
        lambda: Template("{{ x }}", "{{ x }}", choices_field="v").render({"x": "q", "v": [value, "a"]})
    )


def test_lists_are_lists_whatever_they_are_given_as():
    for value in (
        np.array(["yes", "no"]),
        pd.Series(["yes", "no"]),
        ("yes", "no"),
        collections.deque(["yes", "no"]),
    ):
        template = Template("{{ x }}", "yes", choices_field="v")
        assert template.render({"x": "q", "v": value}).choices == ("yes", "no")
    assert Row({"v": torch.tensor([[1, 2], [3, 4]])})["v"] == [[1, 2], [3, 4]]
    assert Row({"v": np.array(["2024-01-31", "NaT"], "datetime64[D]")})["v"] == ["2024-01-31", None]


def test_a_frame_with_blanks():
    frame = pd.DataFrame({"text": ["a", None, "c"], "label": [1, None, 2], "real": [0.5, None, 2.0]})
    rows = read_rows(frame)
    assert [row["label"] for row in rows] == [1, None, 2] and all(
        type(rows[i]["label"]) is int for i in (0, 2)
    )
    assert rows[1]["text"] is None and [row["real"] for row in rows] == [0.5, None, 2.0]
    assert Template("{{ text }}", "{{ label }}").render(rows[0]).target == "1"
    frame["label"] = frame["label"].astype("Int64").astype("category")
    assert [row["label"] for row in read_rows(frame)] == [1, None, 2]
    assert "field names are text" in fails(lambda: read_rows(pd.DataFrame([["a", "b"]])))
    twice = pd.DataFrame([["a", "b"]], columns=["t", "t"])
    assert "'t' is there twice" in fails(lambda: read_rows(twice))


def test_json_lines_with_nan(tmp_path):
    (tmp_path / "r.jsonl").write_text(
        '{"t": "a", "l": "x"}\n{"t": NaN, "l": NaN}\n{"t": Infinity, "l": "x"}\n'
    )
    rows = read_rows(tmp_path / "r.jsonl")
    assert rows[1] == {"t": None, "l": None}
    assert "r.jsonl:3: field 't' holds an infinite number" in fails(
        lambda: Template("{{ t }}", "{{ l }}").render(rows[2])
    )


def test_datasets_in_every_format():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["negative", "positive"]),
            "words": datasets.Sequence(datasets.Value("string")),
        }
    )
    content = {"text": ["a", "b"], "label": [0, 1], "words": [["x"], ["y", "z"]]}
    source = datasets.Dataset.from_dict(content, features=features)
    template = Template("{{ text }}", "{{ label }}")
    for kind in (None, "torch", "numpy", "pandas", "arrow"):
        rows = read_rows(source.with_format(kind))
        assert [template.render(row).target for row in rows] == ["0", "1"]
        assert rows[1]["words"] == ["y", "z"]
    assert [row["label"] for row in read_rows(source.to_iterable_dataset().with_format("torch"))] == [0, 1]
    assert [row["text"] for row in read_rows(source[:2])] == ["a", "b"]  # a slice is columns
    output: list[str] = []
    check_rows(template, read_rows(source), output.append)
    assert any("['negative', 'positive'][label]" in text for text in output)
    named = Template("{{ text }}", "{{ ['negative', 'positive'][label] }}")
    assert [named.render(row).target for row in read_rows(source)] == ["negative", "positive"]


def test_batches_are_refused():
    from torch.utils.data import DataLoader, Dataset

    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]

    class Mapped(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return rows[index]

    assert read_rows(Mapped()) == rows
    assert "loader.dataset" in fails(lambda: read_rows(DataLoader(Mapped(), batch_size=2)))
    batches = read_rows([{"text": ["a", "b"], "label": torch.tensor([0, 1])}])
    message = fails(lambda: Template("{{ text }}", "{{ label }}").render(batches[0]))
    assert "template.target writes a list" in message and "batch" in message


def test_columns_and_tables():
    pa = pytest.importorskip("pyarrow")
    columns = {"text": ["a", "b"], "label": torch.tensor([0, 1])}
    assert read_rows(columns) == [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    assert read_rows(pa.table({"t": ["a"]})) == [{"t": "a"}]
    assert "unequal length" in fails(lambda: read_rows({"text": ["a"], "label": [0, 1]}))
    assert read_rows({"train": [{"a": 1}], "validation": [{"a": 2}]}, split="dev") == [{"a": 2}]


def test_a_target_that_is_an_object_is_refused_and_an_input_is_noted():
    squad = Row({"q": "Where?", "answers": {"text": ["Paris"], "answer_start": [3]}}, "s:1")
    message = fails(lambda: Template("{{ q }}", "{{ answers }}").render(squad))
    assert "writes an object" in message and "{{ answers.text[0] }}" in message
    assert Template("{{ q }}", "{{ answers.text[0] }}").render(squad).target == "Paris"
    output: list[str] = []
    check_rows(Template("{{ answers }}", "{{ q }}"), [squad], output.append)
    assert "field 'answers' is an object (s:1) and template.input writes it whole" in output[0]


@pytest.mark.parametrize("facts", [{"name": "mug", "price": 5, "values": "x"}, ["mug", 5, "x"]])
def test_the_template_that_a_note_offers_writes_the_values(facts):
    row, output = Row({"facts": facts, "listing": "A mug."}, "s:1"), []
    check_rows(Template("{{ facts }}", "{{ listing }}"), [row], output.append)
    offered = output[0].partition("join it: ")[2]
    messages = []
    check_rows(Template(offered, "{{ listing }}"), [row], messages.append)
    assert Template(offered, "{{ listing }}").render(row).input == "mug, 5, x"
    assert not any("as Python shows it" in line for line in messages)


def test_depth_is_limited():
    value: list = []
    for _ in range(1000):
        value = [value]
    assert "more than 64 deep" in fails(lambda: Row({"v": value}, "r:1"))


@dataclasses.dataclass
class Pair:
    text: str


Named = collections.namedtuple("Named", "text")


@pytest.mark.parametrize(
    ("row", "fix"),
    [
        (Pair("a"), "dataclasses.asdict(row)"),
        (Named("a"), "row._asdict()"),
        (pd.Series({"text": "a"}), "row.to_dict()"),
        ({None: ["c"], "text": "a"}, "more cells than the header names"),
        ({1: "a"}, "rename"),
    ],
)
def test_what_is_no_row_is_told_how_to_become_one(row, fix):
    assert fix in fails(lambda: read_rows([row]))


def test_tables_that_are_gathered_first():
    table = pyarrow.table({"text": ["a", "b"]})
    for source in (table.to_reader(), pyarrow.dataset.dataset(table)):
        assert read_rows(source) == [{"text": "a"}, {"text": "b"}]
    assert "cannot read rows from type" in fails(lambda: read_rows(dict))  # type: ignore[arg-type]

    class Frame:  # the part of polars' frames that is read, as polars need not be installed
        def collect_schema(self):
            return None

        def to_dicts(self):
            return [{"text": "a"}]

    class Lazy:
        def collect_schema(self):
            return None

        def collect(self):
            return Frame()

    assert read_rows(Frame()) == read_rows(Lazy()) == [{"text": "a"}]  # type: ignore[arg-type]
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"n": [1, None], "c": polars.Series(["x", "y"], dtype=polars.Categorical)})
    for source in (frame, frame.lazy()):
        assert read_rows(source) == [{"n": 1, "c": "x"}, {"n": None, "c": "y"}]


def test_keys_of_mappings():
    row = read_rows([{"text": "a", "m": {1: "x", None: "y", "z": 3}, "t": {("a", "b"): 1}}])[0]
    assert Template("{{ m[1] }}", "{{ text }}").render(row).input == "x"
    assert "keys are no text" in fails(lambda: Template("{{ t }}", "{{ text }}").render(row))
    assert fingerprint([row]) != fingerprint([Row({"text": "a", "m": {}, "t": {}})])
    assert "field names are text" in fails(
        lambda: Template("{{ a }}", "{{ a }}").render_input({"a": 1, ("b",): 2})
    )  # type: ignore[dict-item]
