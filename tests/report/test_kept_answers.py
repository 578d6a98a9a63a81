"""answers.npz: what is written is read back, the same answers give the same bytes, and damage is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.errors import UserError
from edgeopt.report.kept_answers import RIGHT_OR_NOT, Graded, KeptAnswers

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def kept(draw: st.DrawFn) -> KeptAnswers:
    classes = draw(st.sampled_from([1, 2, 10, 256, 257, 1000]))
    count = draw(st.integers(0, 20))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    files = draw(st.lists(text, max_size=3, unique=True))
    return KeptAnswers(
        tuple(map(str, range(classes))),
        generator.integers(0, 2**64, count, dtype=np.uint64),
        generator.integers(0, classes, count),
        {file: generator.integers(0, classes, count) for file in files},
        tuple(draw(st.lists(text, min_size=count, max_size=count))) if draw(st.booleans()) else (),
    )


@given(kept())
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, given: KeptAnswers) -> None:
    path = tmp_path_factory.mktemp("kept") / "answers.npz"
    given.write(path)
    read = KeptAnswers.read(path)
    assert (read.classes, read.names, list(read.answers)) == (given.classes, given.names, list(given.answers))
    assert np.array_equal(read.images, given.images) and np.array_equal(read.labels, given.labels)
    assert all(np.array_equal(read.answers[file], given.answers[file]) for file in given.answers)
    before = path.read_bytes()
    read.write(path)
    assert path.read_bytes() == before


def test_grades_are_kept_beside_right_and_wrong(tmp_path: Path) -> None:
    grades = {"a": np.array([0.5, 1.0], np.float32), "b": np.array([0.0, 0.25], np.float32)}
    told = {"a": ("1 cat", "nothing"), "b": ("2 cat", "1 dog")}
    has = np.array([[True, False], [False, False]])
    right = {"a": np.array([0, 1]), "b": np.array([0, 0])}
    images, labels = np.arange(2, dtype=np.uint64), np.ones(2, np.int64)
    kept = KeptAnswers(RIGHT_OR_NOT, images, labels, right, (), Graded(("cat", "dog"), has, grades, told))
    kept.write(tmp_path / "answers.npz")
    read = KeptAnswers.read(tmp_path / "answers.npz").graded
    assert read is not None
    assert (read.classes, read.told) == (("cat", "dog"), told)
    assert np.array_equal(read.has, has)
    assert all(np.array_equal(read.grades[file], grades[file]) for file in grades)
    nothing = KeptAnswers(RIGHT_OR_NOT, images, labels, {}, (), Graded((), has[:, :0], {}, {}))
    nothing.write(tmp_path / "answers.npz")
    assert KeptAnswers.read(tmp_path / "answers.npz").graded is not None
    short = replace(kept, graded=replace(kept.graded, has=has[:1]))  # type: ignore[type-var]
    short.write(tmp_path / "answers.npz")
    with pytest.raises(UserError, match="do not fit"):
        KeptAnswers.read(tmp_path / "answers.npz")


def some(count: int = 2000, classes: int = 10) -> KeptAnswers:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, count)
    images = generator.integers(0, 2**64, count, dtype=np.uint64)
    return KeptAnswers(tuple(map(str, range(classes))), images, labels, {"a": labels, "b": labels})


def test_they_are_small(tmp_path: Path) -> None:
    some().write(tmp_path / "answers.npz")
    assert (tmp_path / "answers.npz").stat().st_size < 2000 * 11  # 8 bytes an image, and half a byte an answer


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_is_told(tmp_path: Path, share: float) -> None:
    path = tmp_path / "answers.npz"
    some().write(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"answers\.npz is damaged"):
        KeptAnswers.read(path)


def test_no_part_of_it_runs_code(tmp_path: Path) -> None:
    path = tmp_path / "answers.npz"
    np.savez(path, said=np.array([object()], dtype=object))
    with pytest.raises(UserError, match="damaged"):
        KeptAnswers.read(path)


def test_parts_that_do_not_fit_are_told(tmp_path: Path) -> None:
    given = some()
    KeptAnswers(given.classes, given.images[:-1], given.labels, given.answers).write(tmp_path / "answers.npz")
    with pytest.raises(UserError, match="do not fit"):
        KeptAnswers.read(tmp_path / "answers.npz")
    KeptAnswers(given.classes[:9], given.images, given.labels, given.answers).write(tmp_path / "answers.npz")
    with pytest.raises(UserError, match="do not fit"):
        KeptAnswers.read(tmp_path / "answers.npz")
