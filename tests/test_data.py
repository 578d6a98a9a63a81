"""Splits, pixels and the data that later processes read."""

import io
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pydantic import ValidationError

from edgeopt.data.cache import KnownImages, StreamedSplit, load_data, load_split, load_training
from edgeopt.data.images import ArrayImages, FileImages, open_image
from edgeopt.data.prepare import prepare, preprocessing_of
from edgeopt.data.splits import SPLITS, Drawing, apportion, draw, evenly, interleaved
from edgeopt.errors import DataError
from edgeopt.json_values import to_text
from edgeopt.options import Augmentation, DatasetOptions, SplitShares
from edgeopt.progress import Silent
from edgeopt.types import RawDataset, Split

OPTIONS = DatasetOptions(image_size=8)


def colours(labels: list[int], seed: int = 0, size: int = 8) -> ArrayImages:
    """One image of noise for each label: all different."""
    random = np.random.default_rng(seed)
    return ArrayImages(random.integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8), np.array(labels))


def dataset(*counts: int, names: str = "abcdefghij", **given_splits: list[int]) -> RawDataset:
    """`counts[i]` training images of class i, shuffled, and the given splits."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    splits = {"train": colours(labels.tolist())}
    splits |= {name: colours(labels, seed) for seed, (name, labels) in enumerate(given_splits.items(), start=1)}
    return RawDataset(tuple(names[: len(counts)]), splits)


def raw_of_test() -> RawDataset:
    """At module level, so that it can be pickled."""
    return dataset(20, 20)


class Counting:
    """A progress that adds up."""

    done = 0.0
    total = 0.0

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator["Counting"]:
        self.total += total
        yield self

    def advance(self, steps: float = 1) -> None:
        self.done += steps

    def say(self, text: str) -> None: ...


def message(action: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


# ---- drawing -------------------------------------------------------------------------------------------------------


@given(
    counts=arrays.arrays(np.int64, st.integers(2, 12), elements=st.integers(8, 300)),
    validation=st.floats(0.01, 0.3),
    test=st.floats(0.01, 0.3),
    calibration=st.floats(0.01, 0.9),
    limit=st.none() | st.integers(13, 400),
    seed=st.integers(0, 10),
)
@settings(max_examples=60, deadline=None)
def test_drawn_splits_are_disjoint_complete_and_hold_every_class(
    counts: np.ndarray, validation: float, test: float, calibration: float, limit: int | None, seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    raw = RawDataset(
        tuple("abcdefghijkl"[: len(counts)]), {"train": ArrayImages(np.zeros((len(labels), 1, 1)), labels)}
    )
    shares = SplitShares(validation=validation, test=test, calibration=calibration, seed=seed)
    drawn = draw(raw, DatasetOptions(shares=shares, limit=limit))
    indices = [index for name in SPLITS for index in drawn.splits[name].indices.tolist()]
    assert len(indices) == len(set(indices))
    if limit is None:
        assert sorted(indices) == list(range(len(labels)))
        for name, share in (("test", test), ("validation", validation)):
            assert len(drawn.splits[name]) == pytest.approx(share * len(labels), abs=len(counts) + 1)
    for name in ("train", "validation", "test"):
        assert (drawn.splits[name].per_class(len(counts)) > 0).all(), name
        assert limit is None or len(drawn.splits[name]) <= limit
    assert 1 <= len(drawn.splits["calibration"]) <= 512
    for drawing in drawn.splits.values():
        np.testing.assert_array_equal(drawing.labels, labels[drawing.indices])


@given(
    counts=arrays.arrays(np.int64, st.integers(1, 20), elements=st.integers(0, 1000)),
    share=st.floats(0, 1),
    total=st.integers(0, 3000),
)
@settings(max_examples=60, deadline=None)
def test_apportion_and_evenly_keep_their_sums_and_bounds(counts: np.ndarray, share: float, total: int) -> None:
    most = np.maximum(counts - 1, 0)
    least = np.minimum(most, 1)
    wanted = round(share * counts.sum())
    taken = apportion(counts, wanted, least, most)
    assert taken.sum() == np.clip(wanted, least.sum(), most.sum())
    assert (taken >= least).all() and (taken <= most).all()
    even = evenly(counts, total)
    assert even.sum() == min(total, counts.sum())
    assert (even <= counts).all()
    short = even[even < counts]
    assert short.size == 0 or even.max() - short.min() <= 1


def test_shares_are_stratified() -> None:
    drawn = draw(dataset(100, 200, 40), OPTIONS)
    assert drawn.splits["test"].per_class(3).tolist() == [15, 30, 6]
    assert drawn.splits["validation"].per_class(3).tolist() == [15, 30, 6]
    assert drawn.splits["calibration"].per_class(3).tolist() == [7, 14, 3]


def test_the_draw_repeats_and_its_seed_changes_it() -> None:
    raw = dataset(30, 30)
    first, again = draw(raw, OPTIONS), draw(raw, OPTIONS)
    other = draw(raw, DatasetOptions(shares=SplitShares(seed=1)))
    assert first.splits["test"].indices.tolist() == again.splits["test"].indices.tolist()
    assert first.splits["test"].indices.tolist() != other.splits["test"].indices.tolist()


def test_a_limit_draws_a_subset_and_a_class_less_moves_no_image() -> None:
    raw = dataset(40, 40, 40)
    whole = draw(raw, OPTIONS).splits
    few = draw(raw, DatasetOptions(limit=9)).splits
    two = draw(raw, DatasetOptions(classes=("c", "a"))).splits
    assert few["test"].per_class(3).tolist() == [3, 3, 3]
    assert set(few["test"].indices) <= set(whole["test"].indices)
    for name in ("test", "validation"):
        assert set(two[name].indices) <= set(whole[name].indices)


def test_given_splits_are_kept_and_calibration_leaves_train() -> None:
    raw = dataset(50, 50, validation=[0, 1] * 10, test=[0, 1] * 7)
    drawn = draw(raw, OPTIONS).splits
    assert {name: (drawing.source, len(drawing)) for name, drawing in drawn.items()} == {
        "train": ("train", 90),
        "calibration": ("train", 10),
        "validation": ("validation", 20),
        "test": ("test", 14),
    }


@given(st.lists(st.integers(0, 60), min_size=2, max_size=8), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_any_beginning_of_a_split_is_spread_over_the_classes(counts: list[int], seed: int) -> None:
    """One image of each class comes first, and each class has its share of every beginning."""
    labels = np.repeat(np.arange(len(counts)), counts)
    drawing = Drawing("train", np.arange(len(labels)), labels)
    mixed = interleaved(drawing, len(counts), seed)
    assert sorted(mixed.indices) == list(range(len(labels)))
    np.testing.assert_array_equal(mixed.labels, labels[mixed.indices])
    present = [label for label, count in enumerate(counts) if count]
    assert sorted(mixed.labels[: len(present)]) == present
    for label in present:
        assert (np.diff(mixed.indices[mixed.labels == label]) > 0).all()  # each class in the order that it had
        share = counts[label] / len(labels)
        ahead = np.cumsum(mixed.labels == label) - share * np.arange(1, len(labels) + 1)
        assert ahead.max() <= 1 + 1e-9 and ahead.min() >= -len(present) * share - 1e-9


def test_every_split_begins_with_all_classes_given_ones_too() -> None:
    """A folder that is read class by class, with a test split of its own, calibration, copies and groups."""
    raw = dataset(200, 200, 200, test=[0] * 50 + [1] * 50 + [2] * 50)
    drawn = draw(raw, OPTIONS)
    for name in SPLITS:
        labels = drawn.splits[name].labels
        for size in (3, 8, 16, 32, len(labels) // 2):
            counts = np.bincount(labels[:size], minlength=3)
            assert counts.max() - counts.min() <= 1, name
        strided = np.bincount(labels[::3], minlength=3)  # no period that a stride could meet
        assert strided.max() < 0.7 * strided.sum()


@pytest.mark.parametrize("labels", [np.eye(2)[[0, 1] * 20], np.array([0.0, 1.0] * 20), np.array([{0}, {1}] * 20)])
def test_labels_that_are_not_one_number_an_image_are_refused(labels: np.ndarray) -> None:
    raw = RawDataset(("a", "b"), {"train": ArrayImages(np.zeros((40, 8, 8), dtype=np.uint8), labels)})
    assert "neither one-hot nor several labels" in message(lambda: draw(raw, OPTIONS))


def test_class_names_that_only_look_alike() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    images = ArrayImages(np.zeros((40, 8, 8), dtype=np.uint8), np.array([0, 1] * 20))
    twice = RawDataset((composed, decomposed), {"train": images})
    assert "two classes are called" in message(lambda: draw(twice, OPTIONS))
    raw = RawDataset((decomposed, "tea"), {"train": images})
    assert draw(raw, OPTIONS.model_copy(update={"classes": ("tea", composed)})).classes == ("tea", decomposed)


def test_class_names_that_are_not_utf8_are_refused() -> None:
    raw = RawDataset(
        ("caf\udce9", "tea"), {"train": ArrayImages(np.zeros((40, 8, 8), np.uint8), np.array([0, 1] * 20))}
    )
    assert "a class caf\\udce9, which is not UTF-8" in message(lambda: draw(raw, OPTIONS))


@pytest.mark.parametrize("option", ["mean", "std"])
def test_statistics_of_pixels_are_refused_with_what_to_write(option: str) -> None:
    with pytest.raises(ValidationError, match=r"divide by 255 and write \[0.485, 0.456, 0.406\]"):
        DatasetOptions(**{option: (123.675, 116.28, 103.53)})
    assert getattr(DatasetOptions(**{option: (1.0, 0.5, 0.1)}), option) == (1.0, 0.5, 0.1)


def test_calibration_stops_at_512() -> None:
    drawn = draw(dataset(6000, 6000, test=[0, 1], validation=[0, 1]), OPTIONS)
    assert drawn.splits["calibration"].per_class(2).tolist() == [256, 256]


def test_a_smoke_bound_keeps_every_class() -> None:
    drawn = draw(dataset(*[12] * 10), OPTIONS, images=4)
    for name in SPLITS:
        assert (drawn.splits[name].per_class(10) > 0).all(), name
    assert len(drawn.splits["train"]) + len(drawn.splits["calibration"]) == 20


def test_classes_are_filtered_and_relabelled_in_the_given_order() -> None:
    raw = dataset(20, 20, 20)
    drawn = draw(raw, DatasetOptions(classes=("c", "a")))
    assert drawn.classes == ("c", "a")
    for drawing in drawn.splits.values():
        assert [raw.classes[label] for label in raw.splits["train"].labels[drawing.indices]] == [
            drawn.classes[label] for label in drawing.labels
        ]


@pytest.mark.parametrize(
    ("raw", "options", "parts"),
    [
        (dataset(9, 9), {"classes": ("a", "bb")}, ["no class 'bb'", "did you mean 'b'"]),
        (RawDataset(("cat", "dog"), {}), {}, ["no training images"]),
        (dataset(9, 0, 9), {}, ["no training image of class 'b'"]),
        (dataset(9, 2, 9), {}, ["too few images", "'b' (2)", "at least 3"]),
        (dataset(9, 9), {"limit": 1}, ["limit = 1 is less than the 2 classes"]),
        (dataset(9), {}, ["1 class", "at least two"]),
        (dataset(1, 1, validation=[0, 1], test=[0, 1]), {}, ["the calibration split would be empty"]),
        (dataset(9, 9, test=[]), {}, ["the test split would be empty"]),
        (dataset(9, 9, test=[0, 2]), {}, ["1 labels of the test split", "unlabelled"]),
        (dataset(9, 9, test=[0, -1]), {}, ["1 labels of the test split"]),
        (dataset(9, 9, extra=[0]), {}, ["split 'extra'"]),
    ],
)
def test_data_that_cannot_be_split_is_explained(
    raw: RawDataset, options: dict[str, Any], parts: list[str], tmp_path: Path
) -> None:
    text = message(lambda: prepare(raw, OPTIONS.model_copy(update=options), tmp_path, Silent()))
    for part in parts:
        assert part in text


def test_a_given_split_without_a_class_is_a_warning(tmp_path: Path) -> None:
    values = prepare(dataset(9, 9, test=[0, 0]), OPTIONS, tmp_path, Silent())
    assert values.warnings == ("the test split has no image of b",)


# ---- pixels --------------------------------------------------------------------------------------------------------


def test_pixels_and_labels_come_back_as_preprocessed(tmp_path: Path) -> None:
    raw = dataset(20, 30)
    values = prepare(raw, OPTIONS, tmp_path, Silent())
    bundle = load_data(tmp_path, OPTIONS, lambda: raw)
    drawn = draw(raw, OPTIONS).splits
    splits: dict[str, Split] = {
        "train": bundle.training.train,
        "calibration": bundle.training.calibration,
        "validation": bundle.training.validation,
        "test": bundle.test,
    }
    for name, split in splits.items():
        pixels = split.pixels(slice(None))
        assert pixels.dtype == np.uint8 and pixels.shape == (len(split), 8, 8, 3)
        assert split.labels.dtype == np.int64
        np.testing.assert_array_equal(split.labels, drawn[name].labels)
        expected = [raw.splits["train"][int(index)] for index in drawn[name].indices]
        np.testing.assert_array_equal(pixels, expected)  # 8 px stays 8 px: pixels are untouched
        np.testing.assert_array_equal(split.pixels([2, 0]), pixels[[2, 0]])
        assert split.pixels([]).shape == (0, 8, 8, 3)
        assert values.splits[name].count == len(split)
        assert list(values.splits[name].per_class.values()) == np.bincount(split.labels, minlength=2).tolist()
    assert bundle.training.classes == ("a", "b")
    assert bundle.training.preprocessing == preprocessing_of(OPTIONS)
    assert bundle.training.fingerprint == values.fingerprint
    assert values.bytes == sum(file.stat().st_size for file in tmp_path.glob("*-pixels.npy"))
    assert values.warnings == () and to_text(values)


def test_preprocessing_and_augmentation_come_from_the_options(tmp_path: Path) -> None:
    options = DatasetOptions(
        image_size=16, resize=20, mean=(0.1, 0.2, 0.3), augmentation=Augmentation(horizontal_flip=True)
    )
    prepare(dataset(9, 9), options, tmp_path, Silent())
    training = load_training(tmp_path, options, raw_of_test)
    assert training.preprocessing == preprocessing_of(options)
    assert (training.preprocessing.resize, training.preprocessing.crop) == (20, 16)
    assert training.augmentation.horizontal_flip
    assert training.train.pixels([0]).shape == (1, 16, 16, 3)


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    def fingerprint(name: str, raw: RawDataset, options: DatasetOptions = OPTIONS) -> str:
        (tmp_path / name).mkdir()
        return str(prepare(raw, options, tmp_path / name, Silent()).fingerprint)

    raw = dataset(20, 20)
    changed = raw.splits["train"].images.copy()
    changed[3, 0, 0, 0] ^= 1
    prints = [
        fingerprint("one", raw),
        fingerprint("pixel", replace(raw, splits={"train": ArrayImages(changed, raw.splits["train"].labels)})),
        fingerprint("name", replace(raw, classes=("a", "z"))),
        fingerprint("size", raw, DatasetOptions(image_size=9)),
        fingerprint("seed", raw, DatasetOptions(image_size=8, shares=SplitShares(seed=3))),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint("again", raw) == prints[0]


def test_training_never_opens_the_test_files(tmp_path: Path) -> None:
    prepare(dataset(20, 20), OPTIONS, tmp_path, Silent())
    for file in tmp_path.glob("test-*"):
        file.unlink()
    training = load_training(tmp_path, OPTIONS, raw_of_test)
    assert training.train.pixels([0]).shape == (1, 8, 8, 3)
    with pytest.raises(FileNotFoundError):
        load_split(tmp_path, "test", raw_of_test)


def test_duplicates_across_splits_are_counted(tmp_path: Path) -> None:
    raw = dataset(20, 20, test=[0, 1, 1])
    images = raw.splits["test"].images.copy()
    images[:2] = raw.splits["train"].images[[4, 9]]
    raw = replace(raw, splits={**raw.splits, "test": ArrayImages(images, np.array([0, 1, 1]))})
    drawn = draw(raw, OPTIONS).splits
    expected = sum(index in {*drawn["train"].indices, *drawn["calibration"].indices} for index in (4, 9))
    values = prepare(raw, OPTIONS, tmp_path, Silent())
    assert expected > 0
    assert values.duplicates["test"] == expected
    assert f"{expected} images of the test split are also training images" in values.warnings[0]


# ---- streamed ------------------------------------------------------------------------------------------------------


def test_a_large_split_is_streamed_with_the_same_pixels(tmp_path: Path) -> None:
    raw = raw_of_test()
    for name, size in (("cached", 2**30), ("streamed", 8 * 8 * 3 * 20)):
        (tmp_path / name).mkdir()
        prepare(raw, OPTIONS, tmp_path / name, Silent(), cache_bytes=size)
    cached = load_training(tmp_path / "cached", OPTIONS, raw_of_test)
    streamed = load_training(tmp_path / "streamed", OPTIONS, raw_of_test)
    assert isinstance(streamed.train, StreamedSplit)
    assert not (tmp_path / "streamed" / "train-pixels.npy").exists()
    assert not isinstance(streamed.calibration, StreamedSplit)  # small enough
    np.testing.assert_array_equal(streamed.train.pixels(slice(None)), cached.train.pixels(slice(None)))
    np.testing.assert_array_equal(streamed.train.pixels([3, 1]), cached.train.pixels([3, 1]))
    np.testing.assert_array_equal(streamed.train.labels, cached.train.labels)
    assert streamed.train.pixels([]).shape == (0, 8, 8, 3)
    assert streamed.fingerprint == cached.fingerprint


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_splits_travel_to_other_processes_without_their_pixels(tmp_path: Path, cache_bytes: int) -> None:
    prepare(raw_of_test(), OPTIONS, tmp_path, Silent(), cache_bytes=cache_bytes)
    split = load_training(tmp_path, OPTIONS, raw_of_test).train
    before = split.pixels([0, 1])
    packed = pickle.dumps(split)
    assert len(packed) < len(split) * 8 * 8 * 3
    np.testing.assert_array_equal(pickle.loads(packed).pixels([0, 1]), before)


def test_test_images_are_known_again_whatever_size_they_are_brought_to(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for index in range(40):
        file = tmp_path / "images" / f"{index}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(file)
    files = tuple(tmp_path / "images" / f"{index}.png" for index in range(40))
    raw = RawDataset(("a", "b"), {"train": FileImages(files, np.arange(40) % 2)})
    found = []
    for size, cache_bytes in ((8, 2**30), (16, 0)):
        options = DatasetOptions(image_size=size, resize=size, shares=SplitShares(test=0.5))
        folder = tmp_path / str(size)
        folder.mkdir()
        prepare(raw, options, folder, Silent(), cache_bytes=cache_bytes)
        found.append(KnownImages.read(folder))
    small, large = found
    assert np.array_equal(small.digests, large.digests) and len(set(small.digests.tolist())) == 20
    assert small.names == large.names and set(small.names) < set(map(str, files))
    shutil.rmtree(tmp_path / "8")
    (tmp_path / "8").mkdir()
    prepare(raw_of_test(), OPTIONS, tmp_path / "8", Silent())
    assert KnownImages.read(tmp_path / "8").names == ()  # arrays have none


def test_streamed_data_that_changed_is_noticed(tmp_path: Path) -> None:
    prepare(raw_of_test(), OPTIONS, tmp_path, Silent(), cache_bytes=0)
    split = load_split(tmp_path, "test", partial(dataset, 20, 21))
    assert "had 40 images and now has 41" in message(lambda: split.pixels([0]))


def test_reading_needs_neither_torch_nor_scikit_learn(tmp_path: Path) -> None:
    prepare(raw_of_test(), OPTIONS, tmp_path, Silent())
    code = (
        "import sys; from pathlib import Path; from edgeopt.data.cache import load_split\n"
        f"assert len(load_split(Path({str(tmp_path)!r}), 'test', None).pixels([0]))\n"
        "assert not {'torch', 'sklearn', 'pandas', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- images that cannot be read ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """Images of which some raise."""

    labels: np.ndarray
    bad: tuple[int, ...]
    error: Exception

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        if index in self.bad:
            raise self.error
        return np.full((8, 8), index, dtype=np.uint8)


def broken(bad: tuple[int, ...], error: Exception) -> RawDataset:
    return RawDataset(("a", "b"), {"train": Broken(np.array([0, 1] * 20), bad, error)})


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (DataError("cat-7.jpg cannot be read: not an image"), "cat-7.jpg"),
        (OSError("cut short"), "image 7 of the train split cannot be read: cut short"),
    ],
)
def test_an_unreadable_image_stops_or_is_skipped_and_named(error: Exception, shown: str, tmp_path: Path) -> None:
    assert shown in message(lambda: prepare(broken((7,), error), OPTIONS, tmp_path, Silent()))
    for cache_bytes in (0, 2**30):
        skipping = DatasetOptions(image_size=8, on_error="skip")
        values = prepare(broken((7, 20, 33), error), skipping, tmp_path, Silent(), cache_bytes=cache_bytes)
        assert len(values.skipped) == 3 and any(shown in each for each in values.skipped)
        assert "3 images could not be read" in values.warnings[-1]
        seen = []
        for name in SPLITS:
            split = load_split(tmp_path, name, lambda: broken((7, 20, 33), error))
            assert len(split) == values.splits[name].count
            pixels = split.pixels(slice(None))
            seen += pixels[:, 0, 0, 0].tolist()
            np.testing.assert_array_equal(pixels[:, 0, 0, 0] % 2, split.labels)
        assert sorted(seen) == sorted(set(range(40)) - {7, 20, 33})


def test_a_bug_in_a_plugin_is_not_taken_for_a_bad_image(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        prepare(broken((7,), ZeroDivisionError()), DatasetOptions(image_size=8, on_error="skip"), tmp_path, Silent())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_an_error_of_writing(tmp_path: Path) -> None:
    (tmp_path / "train-pixels.npy").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        prepare(dataset(300, 300), OPTIONS, tmp_path, Silent())


def test_skipping_all_of_a_class_is_an_error(tmp_path: Path) -> None:
    odd = tuple(range(1, 40, 2))
    text = message(
        lambda: prepare(broken(odd, OSError("bad")), DatasetOptions(image_size=8, on_error="skip"), tmp_path, Silent())
    )
    assert "no readable image of class 'b' is left in the train split; 20 were skipped" in text


def test_files_that_are_not_images_are_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "jpeg")
    for name, data, part in (
        ("text.jpg", b"hello", "not an image"),
        ("cut.jpg", buffer.getvalue()[:1000], "cut.jpg cannot be read"),
        ("empty.png", b"", "not an image"),
        ("cut.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cut.png cannot be read"),
    ):
        (tmp_path / name).write_bytes(data)
        files = FileImages((tmp_path / name,), np.array([0]))
        assert part in message(lambda files=files: files[0]) and name in message(lambda files=files: files[0])
    assert "gone.png cannot be read" in message(lambda: FileImages((tmp_path / "gone.png",), np.array([0]))[0])


def test_sixteen_bit_images_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    pixels = preprocessing_of(OPTIONS).pixels(open_image(tmp_path / "deep.png", "deep.png"))
    np.testing.assert_array_equal(pixels[..., 0], (ramp >> 8).astype(np.uint8))


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    progress = Counting()
    prepare(dataset(300, 300), OPTIONS, tmp_path, progress)
    assert progress.done == progress.total == 600
