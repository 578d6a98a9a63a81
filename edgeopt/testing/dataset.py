"""What a data set must keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from edgeopt.data.cache import load_data
from edgeopt.data.found import read_found, write_found
from edgeopt.data.prepare import prepare, preprocessing_of
from edgeopt.options import to_json
from edgeopt.plugins.declarations import DatasetPlugin, Plugin
from edgeopt.plugins.use import Use
from edgeopt.progress import Silent
from edgeopt.testing.contracts import PluginContract, modules_after
from edgeopt.types import RawDataset

_SAMPLES = 12  # images of each split that are looked at


class DatasetContract(PluginContract):
    """Subclass it, set `name` and `options`; override `raw` when loading needs more than options."""

    kind: ClassVar[type[Plugin]] = DatasetPlugin

    @pytest.fixture(scope="class")
    @classmethod
    def raw(cls, use: Use[DatasetPlugin]) -> RawDataset:
        """The data set as the plugin gives it."""
        return use.plugin.load(use.options)

    def test_classes_have_names_of_their_own(self, raw: RawDataset) -> None:
        assert len(raw.classes) >= 2
        assert all(isinstance(name, str) and name for name in raw.classes)
        assert len(set(raw.classes)) == len(raw.classes)

    def test_splits_are_known_and_train_is_there(self, raw: RawDataset) -> None:
        assert "train" in raw.splits
        assert set(raw.splits) <= {"train", "validation", "test"}

    def test_labels_are_classes(self, raw: RawDataset) -> None:
        for name, images in raw.splits.items():
            labels = images.labels
            assert labels.dtype == np.int64, name
            assert labels.shape == (len(images),), name
            assert len(labels), name
            assert labels.min() >= 0, name
            assert labels.max() < len(raw.classes), name

    def test_every_class_has_training_images(self, raw: RawDataset) -> None:
        assert set(raw.splits["train"].labels.tolist()) == set(range(len(raw.classes)))

    def test_images_can_be_read(self, raw: RawDataset, use: Use[DatasetPlugin]) -> None:
        preprocessing = preprocessing_of(use.options)
        for images in raw.splits.values():
            for index in _samples(len(images)):
                pixels = preprocessing.pixels(images[index])
                assert pixels.shape == preprocessing.shape
                assert pixels.dtype == np.uint8

    def test_images_differ(self, raw: RawDataset, use: Use[DatasetPlugin]) -> None:
        preprocessing = preprocessing_of(use.options)
        images = raw.splits["train"]
        seen = {preprocessing.pixels(images[index]).tobytes() for index in _samples(len(images))}
        assert len(seen) > 1

    def test_loading_twice_gives_the_same(self, raw: RawDataset, use: Use[DatasetPlugin]) -> None:
        again = use.plugin.load(use.options)
        preprocessing = preprocessing_of(use.options)
        assert again.classes == raw.classes
        assert set(again.splits) == set(raw.splits)
        for name, images in raw.splits.items():
            assert np.array_equal(again.splits[name].labels, images.labels)
            for index in _samples(len(images)):
                first, second = preprocessing.pixels(images[index]), preprocessing.pixels(again.splits[name][index])
                assert np.array_equal(first, second)

    def test_fingerprint_stays_the_same(self, use: Use[DatasetPlugin]) -> None:
        first = use.plugin.fingerprint(use.options)
        assert isinstance(first, str)
        assert first
        assert use.plugin.fingerprint(use.options) == first

    def test_fingerprint_is_light(self, use: Use[DatasetPlugin]) -> None:
        """`edgeopt check` asks for it, and for the survey: they may look at names, sizes and times of files, and not
        import what reads them.
        """
        options = json.dumps(to_json(use.options))
        files = [str(file) for file in self.plugin_files]
        program = f"""
import json
from pathlib import Path
from edgeopt.recipe.lookup import resolve
from edgeopt.plugins import DatasetPlugin
from edgeopt.plugins.registry import load_registry
use = resolve(DatasetPlugin, {self.name!r}, json.loads({options!r}), load_registry(map(Path, {files!r})))
use.plugin.fingerprint(use.options)
if use.plugin.survey:
    use.plugin.survey(use.options)
"""
        loaded = modules_after(program)
        assert not loaded, f"fingerprint or survey imports {', '.join(loaded)}"

    def test_survey_counts_what_is_loaded(self, raw: RawDataset, use: Use[DatasetPlugin]) -> None:
        """What `edgeopt check` prints of a data set is what a run then reads."""
        survey = use.plugin.survey(use.options) if use.plugin.survey else None
        if survey is None:
            pytest.skip("the plugin does not tell counts without reading an image")
        counts = {name: dict(classes) for name, classes in survey.counts.items()}
        assert counts == {name: _counts(raw, name) for name in raw.splits}

    def test_what_was_found_can_be_handed_on(self, raw: RawDataset, use: Use[DatasetPlugin], tmp_path: Path) -> None:
        """One look answers for the data set, in other processes too, which do not look again."""
        if use.plugin.find is None:
            pytest.skip("the plugin does not look for files: it declares load and fingerprint")
        found = use.plugin.find(use.options)
        write_found(found, tmp_path / "found")
        read = read_found(tmp_path / "found")
        assert read.fingerprint() == found.fingerprint() == use.plugin.fingerprint(use.options)
        assert read.survey() == found.survey()
        again = read.load()
        assert again.classes == raw.classes
        assert {name: again.splits[name].labels.tolist() for name in again.splits} == {
            name: images.labels.tolist() for name, images in raw.splits.items()
        }

    def test_a_run_can_use_it(self, raw: RawDataset, use: Use[DatasetPlugin], tmp_path: Path) -> None:
        """The core draws its splits, reads every image that it needs, and no image is in two splits."""
        facts = prepare(raw, use.options, tmp_path, Silent(), images=max(8 * len(raw.classes), 48))
        bundle = load_data(tmp_path, use.options, lambda: raw)
        splits: dict[str, Any] = {
            "train": bundle.training.train,
            "calibration": bundle.training.calibration,
            "validation": bundle.training.validation,
            "test": bundle.test,
        }
        for name, split in splits.items():
            assert len(split) == facts.splits[name].count > 0
            assert split.pixels([0]).dtype == np.uint8
        assert set(bundle.training.train.labels.tolist()) == set(range(len(bundle.training.classes)))


def _counts(raw: RawDataset, split: str) -> dict[str, int]:
    """How many images of each class a split has, without changed copies of them."""
    labels = raw.splits[split].labels
    if split in raw.copies:
        labels = labels[raw.copies[split] == -1]
    counts = np.bincount(labels, minlength=len(raw.classes))
    return dict(zip(raw.classes, counts.tolist(), strict=True))


def _samples(count: int) -> list[int]:
    """Indices spread over a split, the last one included."""
    return sorted({round(position) for position in np.linspace(0, count - 1, min(_SAMPLES, count))})
