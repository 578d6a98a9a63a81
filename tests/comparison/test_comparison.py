"""Runs that are compared: what is the same data, what is lost and gained, what is a regression, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.test_startup import HEAVY, imported_by
from comparison.made import MAP, RECIPE, answers, graded, latency, make_run, row, scored
from hypothesis import given, settings
from hypothesis import strategies as st
from report.sample import make_report

import edgeopt
from edgeopt.comparison.compare import compare_runs
from edgeopt.comparison.gate import read_limits
from edgeopt.comparison.page import render_page
from edgeopt.comparison.recipes import recipe_differences
from edgeopt.comparison.runs import read_runs
from edgeopt.comparison.schema import Change, FileChange, Limits, RunComparison
from edgeopt.errors import UserError
from edgeopt.json_values import from_values
from edgeopt.report.kept_answers import KeptAnswers
from edgeopt.tasks.statistics import mcnemar
from edgeopt.types import Role

ONNX = "onnx/optimized/model.onnx"
CLASSES = tuple("0123456789")


def compared(*folders: Path, **options: Any) -> RunComparison:
    return compare_runs(read_runs(folders), **options)


def only_file(comparison: RunComparison) -> FileChange:
    ((file,),) = (change.files for change in comparison.changes)
    return file


def problems_of(*folders: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_runs(folders)
    return [f"{problem.message} | {problem.hint}" for problem in caught.value.problems]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of 100 images: one is wrong at 3 of them, the other at these 3 and at 10 more."""
    first = make_run(tmp_path / "a", answers({ONNX: [0, 1, 2]}))
    return first, make_run(tmp_path / "b", answers({ONNX: range(13)}))


# ---- image by image ------------------------------------------------------------------------------------------------


def test_images_are_counted_one_by_one(two: tuple[Path, Path]) -> None:
    found = only_file(compared(*two)).accuracy
    assert found is not None
    assert (found.paired.lost, found.paired.gained, found.paired.images) == (10, 0, 100)
    assert found.paired.p_value == pytest.approx(2 / 2**10)
    assert (found.before, found.after) == (0.97, 0.87)
    assert found.interval is not None and found.interval[0] < -0.1 < found.interval[1] < 0
    assert found.verdict is Change.WORSE
    assert [image.place for image in found.lost] == list(range(3, 13))
    assert (found.lost[0].label, found.lost[0].before, found.lost[0].after) == ("3", "3", "4")


@st.composite
def two_answers(draw: st.DrawFn) -> tuple[KeptAnswers, KeptAnswers]:
    count = draw(st.integers(1, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    classes = draw(st.integers(1, 5))
    labels = generator.integers(0, classes, count)
    names = tuple(map(str, range(classes)))
    images = generator.integers(0, draw(st.sampled_from([3, 2**63])), count).astype(np.uint64)  # with and without twins
    made = [
        KeptAnswers(
            names,
            images,
            labels,
            {ONNX: np.where(generator.random(count) < 0.7, labels, generator.integers(0, classes, count))},
        )
        for _ in range(2)
    ]
    return made[0], made[1]


@settings(max_examples=60)
@given(two_answers(), st.randoms(use_true_random=False))
def test_what_is_lost_does_not_depend_on_order_or_numbering(pair: tuple[KeptAnswers, KeptAnswers], random: Any) -> None:
    first, other = pair
    before, after = first.answers[ONNX], other.answers[ONNX]
    order = list(range(len(first.labels)))
    random.shuffle(order)
    numbering = list(range(len(first.classes)))
    random.shuffle(numbering)  # the other run calls class i numbering[i]
    names = tuple(first.classes[numbering.index(index)] for index in range(len(numbering)))
    renumbered = np.array(numbering, dtype=np.int64)
    moved = KeptAnswers(names, other.images[order], renumbered[other.labels[order]], {ONNX: renumbered[after[order]]})
    with tempfile.TemporaryDirectory() as folder:
        runs = [make_run(Path(folder) / name, kept) for name, kept in (("a", first), ("b", moved))]
        found = only_file(compared(*runs)).accuracy
    assert found is not None
    right_before, right_after = before == first.labels, after == first.labels
    assert found.before == right_before.mean() and found.after == right_after.mean()
    assert found.paired.gained - found.paired.lost == right_after.sum() - right_before.sum()
    if len(set(first.images.tolist())) == len(first.images):  # twins may be paired with one another
        assert found.paired.lost == (right_before & ~right_after).sum()
        assert found.other_answers == (before != after).sum()
    assert found.paired.p_value == mcnemar(found.paired.lost, found.paired.gained)
    assert sum(each.lost for each in found.classes) == found.paired.lost == len(found.lost)
    assert sum(each.images for each in found.classes) == len(first.labels)
    for each in found.classes:
        assert each.p_value >= mcnemar(each.lost, each.gained) - 1e-12
    assert (found.verdict is Change.SAME) == (not found.paired.lost + found.paired.gained)


def test_a_few_images_may_be_chance(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, answers({ONNX: wrong})) for name, wrong in (("a", [0]), ("b", [1, 2]))]
    comparison = compared(*runs)
    found = only_file(comparison).accuracy
    assert found is not None and found.verdict is Change.UNCLEAR
    assert any("2 images lost, 1 gained" in each and "may be chance" in each for each in comparison.changes[0].verdicts)


def test_classes_that_became_worse_are_named(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", answers({ONNX: []}, count=300)),
        make_run(tmp_path / "b", answers({ONNX: range(7, 300, 10)}, count=300)),
    ]
    told = compared(*runs).changes[0].verdicts
    assert any("worse, beyond chance, at 7 (recall 100.0 % to 0.0 %)" in each for each in told)


def test_runs_are_compared_from_python(two: tuple[Path, Path]) -> None:
    found = edgeopt.compare([str(two[0]), two[1]], limits=edgeopt.Limits(accuracy=0.5))
    assert isinstance(found, edgeopt.RunComparison) and found.limits and not found.missed


# ---- the same data, or no verdict -----------------------------------------------------------------------------------


def reason(tmp_path: Path, first: KeptAnswers | None, other: KeptAnswers | None, **report: Any) -> str:
    comparison = compared(make_run(tmp_path / "a", first), make_run(tmp_path / "b", other, **report))
    file = only_file(comparison)
    assert file.accuracy is None and file.no_accuracy
    assert file.size is not None, "size is compared all the same"
    assert comparison.changes[0].verdicts[0] == f"No verdict on the accuracy: {file.no_accuracy}."
    return file.no_accuracy


def test_other_splits(tmp_path: Path) -> None:
    told = reason(tmp_path, answers({ONNX: []}), answers({ONNX: []}, count=80, start=50))
    assert told.startswith("the test splits differ (100 in a, 80 in b, 50 in both; fingerprints 5f2b1c5f and ")


def test_other_images(tmp_path: Path) -> None:
    assert reason(tmp_path, answers({ONNX: []}), answers({ONNX: []}, start=1000)).startswith("the test images differ")


def test_other_data_sets(tmp_path: Path) -> None:
    dataset = replace(make_report().dataset, name="faces", fingerprint="0123456789")
    told = reason(tmp_path, answers({ONNX: []}), answers({ONNX: []}, start=1000), dataset=dataset)
    assert told.startswith("the data sets differ: digits and faces") and "01234567)" in told


def test_other_classes(tmp_path: Path) -> None:
    fewer = answers({ONNX: []}, classes=(*CLASSES[:-1], "ten"))
    assert reason(tmp_path, answers({ONNX: []}), fewer) == "the classes differ: 9 only in a; ten only in b"


def test_other_labels(tmp_path: Path) -> None:
    first = answers({ONNX: []})
    labels = first.labels.copy()
    labels[:2] = 9
    other = KeptAnswers(first.classes, first.images, labels, first.answers)
    assert "2 images of them have another class in b" in reason(tmp_path, first, other)


def test_a_run_of_before_keeps_no_answers(tmp_path: Path) -> None:
    told = reason(tmp_path, None, answers({ONNX: []}))
    assert told.startswith("a keeps no answers per image") and "run its recipe again" in told


# ---- size and latency ----------------------------------------------------------------------------------------------


def timed(tmp_path: Path, before: Any, after: Any, **report: Any) -> FileChange:
    kept = answers({ONNX: []})
    first = make_run(tmp_path / "a", kept, rows=[replace(row(), latency_ms=before)])
    return only_file(compared(first, make_run(tmp_path / "b", kept, rows=[replace(row(), latency_ms=after)], **report)))


def test_latencies_of_different_machines_are_shown_and_not_compared(tmp_path: Path) -> None:
    machine = replace(make_report().environment, processor="another", cores=8)
    found = timed(tmp_path, latency(2.0), latency(4.0), environment=machine).latency
    assert found is not None and found.ratio is None and found.verdict is None
    assert (
        found.why_not
        == "measured on different machines (processor a processor with 2 cores and another; cores 2 and 8)"
    )
    assert (found.before.p50, found.after.p50) == (2.0, 4.0)


@pytest.mark.parametrize("how", [{"threads": 2}, {"batch_size": 8}])
def test_latencies_that_were_measured_otherwise_are_not_compared(tmp_path: Path, how: dict[str, int]) -> None:
    found = timed(tmp_path, latency(2.0), latency(4.0, **how)).latency
    assert found is not None and found.ratio is None and found.why_not and "measured differently" in found.why_not


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (latency(2.6), Change.WORSE),
        (latency(1.5), Change.BETTER),
        (latency(2.05), Change.UNCLEAR),
        (latency(2.6, spread=0.9), Change.UNCLEAR),
        (latency(2.6, turns=2), Change.UNCLEAR),
    ],
)
def test_latencies_of_different_times_are_apart_where_no_turns_overlap(
    tmp_path: Path, after: Any, verdict: Change
) -> None:
    found = timed(tmp_path, latency(2.0), after).latency
    assert found is not None and found.ratio == pytest.approx(after.p50 / 2.0)
    assert found.verdict is verdict and not found.together


def test_a_kernel_that_counts_other_memory_is_the_same_machine(tmp_path: Path) -> None:
    machine = replace(make_report().environment, memory_bytes=23_900_000_000, platform="Linux 6.2")
    found = timed(tmp_path, latency(2.0), latency(2.0), environment=machine).latency
    assert found is not None and found.why_not is None


# ---- partners ------------------------------------------------------------------------------------------------------


def test_files_without_a_partner_are_named(tmp_path: Path) -> None:
    failed = replace(row("tflite"), error="Segfault\nmore", latency_ms=None)
    kept = answers({ONNX: [], "onnx/baseline/model.onnx": [], "tflite/optimized/model.tflite": []})
    first = make_run(tmp_path / "a", kept, rows=[row(), row("tflite"), row("onnx", Role.BASELINE)])
    other = make_run(tmp_path / "b", kept, rows=[row(), failed, row("executorch")])
    (change,) = compared(first, other, limits=Limits()).changes
    assert [file.file_before for file in change.files] == [ONNX]
    told = {(each.run, each.file): each.reason for each in change.unpaired}
    assert told == {
        ("a", "tflite/optimized/model.tflite"): "it failed in b",
        ("b", "tflite/optimized/model.tflite"): "it failed: Segfault",
        ("a", "onnx/baseline/model.onnx"): "b has no file onnx, baseline",
        ("b", "executorch/optimized/model.executorch"): "a has no file executorch, optimized",
    }
    missing = {gate.file for gate in change.gates if gate.name == "file" and gate.passed is False}
    assert missing == {"tflite/optimized/model.tflite", "onnx/baseline/model.onnx"}


# ---- the gate ------------------------------------------------------------------------------------------------------


def missed(comparison: RunComparison) -> list[str]:
    return [gate.name for _, gate in comparison.missed]


def test_an_accuracy_that_is_lower_beyond_chance_is_a_regression(two: tuple[Path, Path]) -> None:
    comparison = compared(*two, limits=Limits())
    assert missed(comparison) == ["accuracy"]
    assert [gate.name for gate in comparison.changes[0].gates] == ["accuracy", "bytes", "latency"]
    smaller = replace(row(), size_bytes=900_000)
    first, other = (
        make_run(two[0].parent / "more" / name, answers({ONNX: []}), rows=[each])
        for name, each in (("a", smaller), ("b", row()))
    )
    assert compared(first, other, limits=Limits()).changes[0].gates[0].name == "bytes", "what is missed comes first"
    assert not missed(compared(*two, limits=read_limits(["accuracy=0.1"]))), "as much as is allowed"
    assert missed(compared(*two, limits=read_limits(["accuracy=0.09"]))) == ["accuracy"]
    assert not missed(compared(*reversed(two), limits=Limits())), "better is no regression"


def test_chance_is_no_regression(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, answers({ONNX: wrong})) for name, wrong in (("a", []), ("b", [1, 2, 3]))]
    assert not missed(compared(*runs, limits=Limits()))


def test_what_cannot_be_judged_is_missed_unless_it_is_the_latency_and_nobody_asked(tmp_path: Path) -> None:
    machine = replace(make_report().environment, processor="another")
    runs = [
        make_run(tmp_path / "a", answers({ONNX: []})),
        make_run(tmp_path / "b", answers({ONNX: []}, start=1), environment=machine),
    ]
    comparison = compared(*runs, limits=Limits())
    assert missed(comparison) == ["accuracy"]
    assert [gate.passed for gate in comparison.changes[0].gates if gate.name == "latency"] == [None]
    assert missed(compared(*runs, limits=read_limits(["latency=2"]))) == ["accuracy", "latency"]


def test_a_file_that_no_run_could_open_has_no_accuracy_to_lose(tmp_path: Path) -> None:
    rows = [replace(row(), test_accuracy=None, scores=(), latency_ms=None, not_run="no GPU is here")]
    runs = [make_run(tmp_path / name, answers({}), rows=rows) for name in "ab"]
    comparison = compared(*runs, limits=Limits())
    assert not comparison.missed
    assert only_file(comparison).no_accuracy == "it was not opened in a: no GPU is here"


@pytest.mark.parametrize(
    ("ratio", "limits", "expected"), [(1.02, "", ["bytes"]), (1.02, "bytes=1.05", []), (1.0, "", [])]
)
def test_bytes(tmp_path: Path, ratio: float, limits: str, expected: list[str]) -> None:
    kept = answers({ONNX: []})
    runs = [
        make_run(tmp_path / name, kept, rows=[row(size_bytes=size) if size else row()])
        for name, size in (("a", 1_000_000), ("b", round(1_000_000 * ratio)))
    ]
    assert missed(compared(*runs, limits=read_limits([limits]))) == expected


@pytest.mark.parametrize(
    ("after", "limits", "expected"),
    [
        (latency(2.6), "", ["latency"]),
        (latency(2.6), "latency=1.4", []),
        (latency(2.6, spread=0.9), "", []),
        (latency(2.02), "latency=1.001", []),
    ],
)
def test_latency_is_a_regression_where_it_is_no_noise(
    tmp_path: Path, after: Any, limits: str, expected: list[str]
) -> None:
    kept = answers({ONNX: []})
    runs = [
        make_run(tmp_path / name, kept, rows=[replace(row(), latency_ms=each)])
        for name, each in (("a", latency(2.0)), ("b", after))
    ]
    assert missed(compared(*runs, limits=read_limits([limits]))) == expected


def test_limits_are_read_and_all_mistakes_told() -> None:
    assert read_limits(["bytes=1.05, latency=1.1", "accuracy=0.01"]) == Limits(
        accuracy=0.01, bytes=1.05, latency=1.1, asked=("bytes", "latency", "accuracy")
    )
    with pytest.raises(UserError) as caught:
        read_limits(["byte=1", "bytes=much", "latency=0", "accuracy=2", "latency=nan,latency=1.1,latency=1.2"])
    told = [problem.message for problem in caught.value.problems]
    assert [re.split(": ", each)[0] for each in told] == [
        "--allow byte=1",
        "--allow bytes=much",
        "--allow latency=0",
        "--allow accuracy=2",
        "--allow latency=nan",
        "--allow latency=1.2",
    ]
    assert "'bytes'" in (caught.value.problems[0].hint or "")


# ---- recipes -------------------------------------------------------------------------------------------------------


def recipes(tmp_path: Path, other: dict[str, Any], **report: Any) -> list[tuple[Any, ...]]:
    kept = answers({ONNX: []})
    runs = read_runs([make_run(tmp_path / "a", kept, **report), make_run(tmp_path / "b", kept, recipe=other, **report)])
    return [(each.key, each.before, each.after) for each in recipe_differences(*runs)]


def test_values_are_compared_by_dotted_key(tmp_path: Path) -> None:
    passes = [RECIPE["passes"][0] | {"epochs": 9}, RECIPE["passes"][1] | {"quantizer": {"use": "x86", "linear": False}}]
    assert recipes(tmp_path, RECIPE | {"seed": 18, "name": "other", "passes": passes}) == [
        ("passes.0.epochs", 8, 9),
        ("passes.1.quantizer.use", "xnnpack", "x86"),
        ("seed", 17, 18),
    ]


def test_a_pass_in_between_moves_nothing(tmp_path: Path) -> None:
    train, ptq = RECIPE["passes"]
    passes = [train, {"use": "prune-structured", "budget": 0.5}, ptq | {"weight_bits": 4}]
    exports = [{"use": "tflite", "name": "tflite"}]
    assert recipes(tmp_path, RECIPE | {"passes": passes, "exports": exports}) == [
        ("exports.0.use", "onnx", "tflite"),
        ("passes.1.use", None, "prune-structured"),
        ("passes.2.weight_bits", 8, 4),
    ]


def test_a_difference_has_its_line_where_the_text_still_says_so(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(
        'seed = 18\n[[passes]]\nuse = "train"\n[[passes]]\nuse = "ptq"\nweight_bits = 4\nquantizer = "x86"\n'
    )
    ptq = RECIPE["passes"][1] | {"weight_bits": 4, "quantizer": {"use": "x86"}}
    other = RECIPE | {"seed": 19, "passes": [RECIPE["passes"][0], ptq]}
    kept = answers({ONNX: []})
    first = _with_recipe(make_run(tmp_path / "a", kept), None)
    second = _with_recipe(make_run(tmp_path / "b", kept, recipe=other), str(file))
    runs = read_runs([first, second])
    found = {each.key: (each.before_at, each.after_at) for each in recipe_differences(*runs)}
    assert found == {
        "passes.1.quantizer.use": (None, f"{file}:7"),
        "passes.1.weight_bits": (None, f"{file}:6"),
        "seed": (None, None),  # the text says 18: it was changed since, or --set said it
    }


def _with_recipe(folder: Path, file: str | None) -> Path:
    report = json.loads((folder / "report.json").read_text())
    report["recipe"]["file"] = file
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_versions_that_differ_are_named(tmp_path: Path) -> None:
    kept = answers({ONNX: []})
    runs = [
        make_run(tmp_path / "a", kept),
        make_run(tmp_path / "b", kept, versions={"onnxruntime": "1.32.0"}, edgeopt="0.2.0"),
    ]
    (change,) = compared(*runs).changes
    assert [(each.key, each.before, each.after) for each in change.versions] == [
        ("versions.onnxruntime", "1.31.1", "1.32.0"),
        ("edgeopt.version", "0.1.0", "0.2.0"),
    ]


# ---- what is no run ------------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    kept = answers({ONNX: []})
    good = make_run(tmp_path / "runs" / "good", kept)
    begun = make_run(tmp_path / "runs" / "begun", kept, ended=False)
    newer = make_run(tmp_path / "newer", kept)
    text = (newer / "report.json").read_text()
    (newer / "report.json").write_text(text.replace('"schema": 1', '"schema": 7'))
    damaged = make_run(tmp_path / "damaged", kept)
    (damaged / "lock.toml").write_text("recipe = [")
    (damaged / "answers.npz").write_bytes(b"PK")
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tmp_path / "file"
    file.write_text("")
    told = problems_of(
        good, good / "report.json", begun, newer, damaged, empty, file, tmp_path / "gone", tmp_path / "runs"
    )
    expected = [
        r"good is named twice",
        r"begun: its run has not ended.*give the same `edgeopt run` again",
        r"not a report of schema 1: it says schema = 7.*version of edgeopt that wrote it",
        r"this is not a lock",
        r"answers\.npz is damaged.*run its recipe again",
        r"empty: this is not a run.*name the folder of a finished run",
        r"file: is a file, not the folder of a run",
        r"gone: there is no such folder",
        r"runs: this is not a run.*it holds runs: name one of begun, good",
    ]
    assert len(told) == len(expected)
    for pattern, text in zip(expected, told, strict=True):
        assert re.search(pattern, text), (pattern, text)


def test_a_run_alone_and_a_link_to_it(tmp_path: Path) -> None:
    good = make_run(tmp_path / "good", answers({ONNX: []}))
    assert problems_of(good) == ["there is nothing to compare with | name two runs or more, the first the older one"]
    (tmp_path / "link").symlink_to(good)
    (told,) = problems_of(good, tmp_path / "link")
    assert "is the same run as" in told


def test_a_run_without_its_lock(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, answers({ONNX: []})) for name in "ab"]
    (runs[0] / "lock.toml").unlink()
    (told,) = problems_of(*runs)
    assert "the run's lock is missing" in told


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    kept = answers({ONNX: []})
    runs = [make_run(tmp_path / name / "flowers", kept) for name in ("old", "new")]
    assert [run.title for run in compared(*runs).runs] == ["old/flowers", "new/flowers"]


def test_comparing_imports_no_framework_and_no_plots(two: tuple[Path, Path]) -> None:
    assert not imported_by("compare", *map(str, two)) & (HEAVY - {"numpy"})


# ---- JSON and the page ---------------------------------------------------------------------------------------------


def test_the_json_is_the_comparison(two: tuple[Path, Path]) -> None:
    comparison = compared(*two, limits=Limits())
    values = json.loads(comparison.to_json())
    assert values["schema"] == 1
    assert from_values(RunComparison, values) == comparison


def test_every_field_of_the_json_is_documented() -> None:
    import dataclasses

    from edgeopt.comparison import schema

    text = (Path(__file__).parents[2] / "docs" / "compare.md").read_text()
    kinds = [
        each for each in vars(schema).values() if dataclasses.is_dataclass(each) and each.__module__ == schema.__name__
    ]
    for kind in kinds:
        section = text.partition(f"### {kind.__name__}\n")[2].partition("\n### ")[0]
        assert section, kind.__name__
        documented = re.findall(r"^\| `(\w+)` \|", section, flags=re.M)
        assert documented == [field.name for field in dataclasses.fields(kind)], kind.__name__


class _Page(HTMLParser):
    """The tags and the addresses of a page, and the tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_loads_nothing_and_is_whole(tmp_path: Path) -> None:
    names = [f"flowers/<b>/{index}.png" for index in range(100)]
    first = make_run(tmp_path / "a", answers({ONNX: [0]}, names=names))
    other = make_run(tmp_path / "<i>b", answers({ONNX: range(40, 80)}, names=names), recipe=RECIPE | {"seed": 18})
    third = make_run(tmp_path / "c", answers({ONNX: []}, start=5), rows=[row(), row("tflite")])
    runs = read_runs([first, other, third])
    text = render_page(compare_runs(runs, limits=Limits()), runs)
    page = _Page()
    page.feed(text)
    assert not page.open
    assert {address.partition("-")[0] for address in page.addresses} <= {"#gates"}
    assert "<i>b" not in text and "flowers/<b>" not in text, "names are escaped"
    assert "&lt;b&gt;/40.png" in text
    assert "right before, wrong now; 24 of 40" in text and "wrong before, right now" in text
    assert "the test splits differ" in text and "seed" in text
    assert "@media (prefers-color-scheme: dark)" in text
    assert text == render_page(compare_runs(runs, limits=Limits()), runs)


# ---- tasks whose answers are graded --------------------------------------------------------------------------------

TWO_RANDOM = np.random.default_rng(0).uniform(0.4, 0.8, 100)


def two_graded(tmp_path: Path, drop: float, *, one: float = 0.61, other: float = 0.55) -> list[Path]:
    """Two detectors on 100 images, half of them with dogs alone, which the second answers worse by so much."""
    has = [[place % 2 == 0, place % 2 == 1] for place in range(100)]
    after = TWO_RANDOM - drop * np.array([place % 2 for place in range(100)])
    kept = [graded({ONNX: each.tolist()}, has=has) for each in (TWO_RANDOM, after)]
    return [
        make_run(tmp_path / name, each, rows=[scored(row(), value)])
        for name, each, value in zip("ab", kept, (one, other), strict=True)
    ]


def test_graded_images_are_compared_one_by_one(tmp_path: Path) -> None:
    runs = read_runs(two_graded(tmp_path, 0.2))
    comparison = compare_runs(runs, limits=read_limits(["map=0.05"], MAP))
    found = only_file(comparison).accuracy
    assert found is not None
    assert (found.before, found.after, found.kind) == (0.61, 0.55, MAP)
    assert (found.paired.lost, found.paired.gained, found.paired.graded) == (50, 0, True)
    assert found.grades == pytest.approx((TWO_RANDOM.mean(), TWO_RANDOM.mean() - 0.1), abs=1e-6)
    assert found.interval is not None and found.interval[0] < -0.1 < found.interval[1] < 0
    assert found.verdict is Change.WORSE
    assert [(each.name, each.images, each.lost) for each in found.classes] == [("cat", 50, 0), ("dog", 50, 50)]
    assert found.classes[1].after == pytest.approx(found.classes[1].before - 0.2, abs=1e-6)
    assert (found.lost[0].label, found.other_answers > 40) == ("dog", True)
    told = " ".join(comparison.changes[0].verdicts)
    assert "test mAP went from 61.0 % to 55.0 % (−6.0 points): 50 images answered worse, 0 better" in told
    assert "this is a loss, not chance" in told
    assert "worse, beyond chance, at dog (mean grade" in told
    ((_, gate),) = comparison.missed
    assert (gate.name, gate.limit, gate.passed) == ("map", 0.05, False)
    assert gate.figure == pytest.approx(0.06)
    page = render_page(comparison, runs)
    assert "MAP" in page and "Mean grade before" in page and "Worse than before; 24 of 50" in page
    assert "recall" not in page.casefold()
    assert not compare_runs(runs, limits=read_limits(["map=0.07"], MAP)).missed, "as much as is allowed"


def test_grades_that_hardly_move_may_be_chance(tmp_path: Path) -> None:
    runs = two_graded(tmp_path, 0.0)
    moved = graded({ONNX: (TWO_RANDOM + np.random.default_rng(1).normal(0, 0.1, 100)).tolist()})
    moved.write(runs[1] / "answers.npz")
    found = only_file(compared(*runs)).accuracy
    assert found is not None and found.verdict is Change.UNCLEAR
    assert found.paired.lost + found.paired.gained == 100


def test_grades_of_nought_and_one_are_lost_and_gained(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / name, graded({ONNX: [1.0] * (90 - bad) + [0.0] * bad}), rows=[scored(row(), 0.5)])
        for name, bad in (("a", 0), ("b", 12))
    ]
    found = only_file(compared(*runs)).accuracy
    assert found is not None
    assert (found.paired.lost, found.paired.graded, found.grades, found.verdict) == (12, False, None, Change.WORSE)


def test_runs_of_different_tasks_have_no_verdict(tmp_path: Path) -> None:
    runs = [two_graded(tmp_path, 0.0)[0], make_run(tmp_path / "c", answers({ONNX: []}))]
    comparison = compared(*runs)
    assert only_file(comparison).accuracy is None
    assert "the tasks differ: a is scored by mAP and c is scored by accuracy" in " ".join(
        comparison.changes[0].verdicts
    )


def test_a_drop_is_allowed_by_the_name_of_the_score(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from edgeopt.cli import app

    folders = [str(folder) for folder in two_graded(tmp_path, 0.2)]
    result = CliRunner().invoke(app, ["compare", *folders, "--gate", "--allow", "accuracy=0.1"])
    assert result.exit_code == 2
    assert "there is no limit 'accuracy'" in result.stderr and "map" in result.stderr
    result = CliRunner().invoke(app, ["compare", *folders, "--gate", "--allow", "map=0.05"])
    assert result.exit_code == 3
    assert "test mAP is 6.00 points lower, beyond chance (5.00 points allowed)" in " ".join(result.stderr.split())


def test_a_run_that_was_moved_away_from_its_store_has_no_images(two: tuple[Path, Path], tmp_path: Path) -> None:
    moved = shutil.copytree(two[0], tmp_path / "elsewhere" / "a")
    runs = read_runs([moved, two[1]])
    text = render_page(compare_runs(runs), runs)
    assert "<img" not in text and "test image 3" in text
