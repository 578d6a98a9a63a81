"""Splits that keep groups together, and changed copies that stay with their original."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.data.images import ArrayImages
from edgeopt.data.prepare import prepare
from edgeopt.data.splits import SPLITS, Drawn, draw
from edgeopt.errors import DataError
from edgeopt.options import DatasetOptions, SplitShares
from edgeopt.progress import Silent
from edgeopt.types import RawDataset

OPTIONS = DatasetOptions(image_size=8)


def images(labels: list[int], seed: int = 0) -> ArrayImages:
    random = np.random.default_rng(seed)
    return ArrayImages(random.integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8), np.array(labels))


def speakers(count: int, classes: int = 3, takes: int = 2, names: str = "speaker") -> RawDataset:
    """Every speaker says every word `takes` times."""
    who = [f"{names}-{number}" for number in range(count) for _ in range(classes * takes)]
    labels = [label for _ in range(count) for label in range(classes) for _ in range(takes)]
    return RawDataset(tuple("abcdefgh"[:classes]), {"train": images(labels)}, {"train": who})


def groups_of(raw: RawDataset, drawn: Drawn) -> dict[str, set[str]]:
    return {name: {raw.groups["train"][index] for index in drawn.splits[name].indices} for name in SPLITS}


def message(raw: RawDataset, options: DatasetOptions = OPTIONS) -> str:
    with pytest.raises(DataError) as caught:
        draw(raw, options)
    return str(caught.value)


@given(
    who=st.lists(st.integers(0, 11), min_size=60, max_size=200),
    classes=st.integers(2, 3),
    validation=st.floats(0.05, 0.3),
    test=st.floats(0.05, 0.3),
    seed=st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_no_group_is_on_two_sides(who: list[int], classes: int, validation: float, test: float, seed: int) -> None:
    """Whatever the sizes of the groups: whole groups, every image once, every class in every split."""
    labels = np.random.default_rng(0).integers(0, classes, len(who)).tolist()
    raw = RawDataset(
        tuple("abc"[:classes]), {"train": images(labels)}, {"train": [f"speaker-{number}" for number in who]}
    )
    options = DatasetOptions(shares=SplitShares(validation=validation, test=test, seed=seed))
    held = np.zeros((12, classes), dtype=bool)
    held[who, labels] = True
    if (held.sum(axis=0) < 3).any():
        assert "too few groups" in message(raw, options)
        return
    try:
        drawn = draw(raw, options)
    except DataError as error:
        assert "can be spared" in str(error)  # groups with few words of each class, all needed
        assert not held.all(axis=1).sum() >= 3
        return
    indices = [index for name in SPLITS for index in drawn.splits[name].indices.tolist()]
    assert sorted(indices) == list(range(len(who)))
    inside = groups_of(raw, drawn)
    assert not inside["test"] & inside["validation"]
    assert not (inside["train"] | inside["calibration"]) & (inside["test"] | inside["validation"])
    for name in ("train", "validation", "test"):
        assert (drawn.splits[name].per_class(classes) > 0).all(), name


def test_shares_are_met_as_well_as_whole_groups_can() -> None:
    drawn = draw(speakers(20), OPTIONS)  # 6 images each, 120 in all, 18 wanted
    assert len(drawn.splits["test"]) == len(drawn.splits["validation"]) == 18
    assert len(draw(speakers(6), OPTIONS).splits["test"]) == 6  # 5.4 wanted
    assert draw(speakers(20), OPTIONS).splits["test"].indices.tolist() == drawn.splits["test"].indices.tolist()
    other = DatasetOptions(shares=SplitShares(seed=1))
    assert draw(speakers(20), other).splits["test"].indices.tolist() != drawn.splits["test"].indices.tolist()


def test_a_class_less_moves_no_speaker() -> None:
    raw = speakers(12)
    every, two = draw(raw, OPTIONS), draw(raw, DatasetOptions(classes=("c", "a")))
    for name in ("validation", "test"):
        assert groups_of(raw, every)[name] == groups_of(raw, two)[name]
    assert two.splits["test"].per_class(2).tolist() == [4, 4]


def test_given_splits_stay_and_a_shared_speaker_is_told() -> None:
    raw = speakers(8)
    test = images([0, 1, 2, 0], 1)
    who = {**raw.groups, "test": ["speaker-0", "other", "other", "speaker-1"]}
    drawn = draw(RawDataset(raw.classes, {**raw.splits, "test": test}, who), OPTIONS)
    assert len(drawn.splits["test"]) == 4
    inside = {raw.groups["train"][index] for index in drawn.splits["validation"].indices}
    shared = {"speaker-0", "speaker-1"} - inside
    assert any(f"{len(shared)} groups of the test split" in each for each in drawn.warnings)


def test_too_few_speakers_are_explained() -> None:
    said = message(speakers(2))
    assert "class 'a' (2), 'b' (2), 'c' (2)" in said
    assert "each class needs 3" in said


def test_groups_that_need_each_other_are_explained() -> None:
    """Each class has three speakers, but not one for each split without taking a second of another class."""
    said = {0: "ab", 1: "bc", 2: "ca", 3: "abc"}
    labels = ["abc".index(word) for words in said.values() for word in words]
    who = [str(speaker) for speaker, words in said.items() for _ in words]
    raw = RawDataset(tuple("abc"), {"train": images(labels)}, {"train": who})
    assert "can be spared for the" in message(raw)


def test_a_wrong_number_of_groups_is_a_plugins_mistake() -> None:
    raw = speakers(4)
    assert "24 images, and groups name 23" in message(
        RawDataset(raw.classes, raw.splits, {"train": raw.groups["train"][:-1]})
    )


def test_copies_follow_their_original() -> None:
    raw = speakers(12, takes=1)
    count = len(raw.splits["train"])
    labels = raw.splits["train"].labels.tolist()
    changed = RawDataset(
        raw.classes,
        {"train": images(labels * 3)},
        {"train": [*raw.groups["train"]] * 3},
        {"train": np.array([-1] * count + [*range(count)] * 2)},
    )
    plain, drawn = draw(raw, OPTIONS), draw(changed, OPTIONS)
    for name in ("calibration", "validation", "test"):
        assert drawn.splits[name].indices.tolist() == plain.splits[name].indices.tolist()
    originals = plain.splits["train"].indices
    expected = sorted(index + shift for index in originals for shift in (0, count, 2 * count))
    assert sorted(drawn.splits["train"].indices) == expected
    np.testing.assert_array_equal(
        drawn.splits["train"].labels, changed.splits["train"].labels[drawn.splits["train"].indices]
    )


def test_copies_work_without_groups_and_with_fewer_classes() -> None:
    labels = [0, 1, 2] * 20
    raw = RawDataset(tuple("abc"), {"train": images(labels * 2)}, copies={"train": np.array([-1] * 60 + [*range(60)])})
    drawn = draw(raw, DatasetOptions(classes=("c", "b"), limit=20))
    train = drawn.splits["train"]
    assert len(train) == 2 * (train.indices < 60).sum()
    assert set((train.indices[train.indices >= 60] - 60).tolist()) == set(train.indices[train.indices < 60].tolist())
    assert all((drawn.splits[name].indices < 60).all() for name in ("calibration", "validation", "test"))
    np.testing.assert_array_equal(
        train.labels, [["", "b", "c"].index("abc"[labels[i % 60]]) % 2 for i in train.indices]
    )


def test_the_report_counts_the_groups(tmp_path: Path) -> None:
    facts = prepare(speakers(20), OPTIONS, tmp_path, Silent())
    assert facts.groups == {"train": 14, "calibration": facts.groups["calibration"], "validation": 3, "test": 3}
    assert prepare(RawDataset(tuple("ab"), {"train": images([0, 1] * 20)}), OPTIONS, tmp_path, Silent()).groups == {}
