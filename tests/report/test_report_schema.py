"""report.json: what is written is read back, and the documentation says what is in it."""

import dataclasses
import json
import re
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample import DIGITS, confusion_of, failed, four_rows, make_report

from edgeopt.errors import UserError
from edgeopt.preprocessing import Preprocessing
from edgeopt.report import schema
from edgeopt.report.confusion import OTHER, condense, worst_pairs
from edgeopt.report.samples import choose_samples
from edgeopt.report.schema import Report, class_scores
from edgeopt.types import Card

DOCS = Path(__file__).parents[2] / "docs" / "report.md"

finite = st.floats(allow_nan=False)  # infinities included: a file may answer with them
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


def strategy(annotation: object) -> st.SearchStrategy:
    """Values of a field's type; facts and the like hold any JSON."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is typing.Any:
        return json_values
    if annotation is float:
        return finite
    if annotation is int:
        return st.integers(-(2**53), 2**53)
    if annotation is str:
        return text
    if dataclasses.is_dataclass(annotation):
        return instances(annotation)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(strategy(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(strategy, arguments))
    if isinstance(origin, type) and issubclass(origin, typing.Mapping):
        return st.dictionaries(text, strategy(arguments[1]), max_size=3)
    if arguments and origin is not typing.Literal:
        return st.one_of(*map(strategy, arguments))
    return st.from_type(annotation)


def instances(kind: type) -> st.SearchStrategy:
    hints = typing.get_type_hints(kind)
    fields = {field.name: strategy(hints[field.name]) for field in dataclasses.fields(kind)}
    if kind is Report:
        fields["schema"] = st.just(schema.SCHEMA)
    return st.builds(kind, **fields)


@settings(max_examples=60, deadline=None)
@given(instances(Report))
def test_any_report_is_read_back_as_it_was(report: Report) -> None:
    written = report.to_json()
    again = Report.from_json(written)
    assert again == report
    assert again.to_json() == written


def test_the_sample_is_plain_json_with_the_documented_figures() -> None:
    values = json.loads(make_report().to_json())
    row = values["rows"][1]
    assert values["schema"] == 1
    assert row["role"] == "optimized"
    assert row["latency_ms"]["p50"] == 1.93
    assert row["accuracy_interval"][0] < row["test_accuracy"] < row["accuracy_interval"][1]
    assert sum(map(sum, row["confusion"])) == 270


def test_a_confusion_matrix_has_one_line_a_class() -> None:
    lines = make_report().to_json().splitlines()
    assert sum(bool(re.fullmatch(r"\s+\[\d+(, \d+){9}\],?", line)) for line in lines) == 4 * len(DIGITS)


def test_brackets_in_texts_stay_as_they_are() -> None:
    report = dataclasses.replace(make_report(), verdicts=("[\n  1,\n  2\n]", "[ 1 ]", 'a "quoted" [\n0\n]'))
    assert Report.from_json(report.to_json()).verdicts == report.verdicts


def test_failed_rows_have_no_figures() -> None:
    row = json.loads(make_report((failed(four_rows()[1]),)).to_json())["rows"][0]
    assert row["error"]
    assert all(row[name] is None for name in ("test_accuracy", "agreement", "size_bytes", "latency_ms", "confusion"))


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("not json", "not a report"),
        ("[]", "schema"),
        ('{"schema": 2}', "schema = 2"),
        ('{"schema": 1}', "edgeopt"),
        ('{"schema": 1, "edgeopt": 3}', "not a report: edgeopt"),
    ],
)
def test_what_is_no_report_is_a_mistake_not_a_traceback(written: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        Report.from_json(written)
    assert caught.value.problems[0].hint


def test_unknown_fields_are_ignored() -> None:
    report = make_report()
    values = json.loads(report.to_json())
    values["of_a_later_version"] = 1
    values["rows"][0]["of_a_later_version"] = {}
    assert Report.from_json(json.dumps(values)) == report


# ---- documentation -------------------------------------------------------------------------------------------------


def documented() -> dict[str, set[str]]:
    """Fields of each `###` section of docs/report.md."""
    sections = re.split(r"^### (\w+)$", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        name: set(re.findall(r"^\| `(\w+)` \|", body, flags=re.MULTILINE))
        for name, body in zip(sections[1::2], sections[2::2], strict=True)
    }


def shapes(kind: type, found: dict[str, set[str]]) -> dict[str, set[str]]:
    """Fields of a dataclass and of all dataclasses within it."""
    if kind.__name__ in found:
        return found
    found[kind.__name__] = {field.name for field in dataclasses.fields(kind)}
    pending = list(typing.get_type_hints(kind).values())
    while pending:
        annotation = pending.pop()
        pending += typing.get_args(annotation)
        if dataclasses.is_dataclass(annotation):
            shapes(annotation, found)
    return found


def test_every_field_is_documented_and_every_documented_field_exists() -> None:
    expected: dict[str, set[str]] = {}
    for kind in (Report, Card, Preprocessing):
        shapes(kind, expected)
    assert documented() == expected


# ---- classes and samples -------------------------------------------------------------------------------------------


def test_class_scores() -> None:
    scores = class_scores(("cat", "dog", "owl", "fox"), ((8, 2, 0, 0), (1, 9, 0, 0), (0, 0, 0, 0), (3, 0, 0, 0)))
    cat, _, owl, fox = scores
    assert (cat.precision, cat.recall, cat.support) == (8 / 12, 0.8, 10)
    assert (owl.precision, owl.recall, owl.support) == (None, None, 0)
    assert (fox.precision, fox.recall, fox.support) == (None, 0.0, 3)


def test_few_classes_are_all_shown() -> None:
    confusion = confusion_of(DIGITS, wrong=5)
    shown = condense(confusion, DIGITS, limit=20)
    assert (shown.names, shown.columns, shown.counts, shown.hidden) == (DIGITS, DIGITS, confusion, 0)


def test_of_many_classes_the_most_mistaken_are_shown_and_no_image_is_lost() -> None:
    classes = tuple(f"class {index}" for index in range(120))
    matrix = [[10 if true == predicted else 0 for predicted in range(120)] for true in range(120)]
    matrix[7][90] = 6
    matrix[30][31] = 4
    shown = condense(matrix, classes, limit=4)
    assert shown.names == ("class 7", "class 30", "class 31", "class 90")
    assert shown.columns[-1] == OTHER
    assert [sum(row) for row in shown.counts] == [16, 14, 10, 10]
    assert shown.hidden == 116
    assert shown.share(0, 3) == 6 / 16
    first, second = worst_pairs(matrix, classes)
    assert (first.true, first.predicted, first.count, first.support) == ("class 7", "class 90", 6, 16)
    assert second.count == 4


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=60), st.integers(1, 24))
def test_samples_are_distinct_wrong_first_and_as_many_as_there_are(pairs: list[tuple[int, int]], limit: int) -> None:
    labels, predicted = [label for label, _ in pairs], [answer for _, answer in pairs]
    chosen = choose_samples(labels, predicted, limit)
    wrong = [labels[index] != predicted[index] for index in chosen]
    assert len(set(chosen)) == len(chosen) == min(limit, len(pairs))
    assert wrong == sorted(wrong, reverse=True)
    if any(label != answer for label, answer in pairs):
        assert wrong[0]


def test_samples_leave_room_for_right_answers_and_visit_every_class() -> None:
    labels = [index % 10 for index in range(200)]
    predicted = [(label + 1) % 10 if index < 100 else label for index, label in enumerate(labels)]
    chosen = choose_samples(labels, predicted, 24)
    assert sum(index < 100 for index in chosen) == 16
    assert {labels[index] for index in chosen[:10]} == set(range(10))
