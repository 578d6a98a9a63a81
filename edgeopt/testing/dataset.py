"""What a data set must keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from edgeopt.arrays import Json
from edgeopt.data.cache import load_data
from edgeopt.data.found import read_found, write_found
from edgeopt.data.prepare import prepare, preprocessing_of
from edgeopt.options import to_json
from edgeopt.plugins.declarations import DatasetPlugin, Plugin
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.progress import Silent
from edgeopt.recipe.tasks import tasks_of
from edgeopt.tasks import Task
from edgeopt.testing.contracts import PluginContract, modules_after, task_named
from edgeopt.types import RawDataset, targets_of

_SAMPLES = 12  # images of each split that are looked at


class DatasetContract(PluginContract):
    """Subclass it, set `name` and `options`; override `raw` when loading needs more than options.

    Targets are those of the first task that the data set serves, with `task_options`.
    """

    kind: ClassVar[type[Plugin]] = DatasetPlugin
    task_options: ClassVar[Mapping[str, Json]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def task(cls, use: Use[DatasetPlugin], registry: Registry) -> Task:
        """What the targets of the data set are for."""
        served = tasks_of(use)
        assert served, "a data set serves a task"
        return task_named(served[0], cls.task_options, registry)

    @pytest.fixture(scope="class")
    @classmethod
    def raw(cls, use: Use[DatasetPlugin]) -> RawDataset:
        """The data set as the plugin gives it."""
        return use.plugin.load(use.options)

    def test_classes_have_names_of_their_own(self, raw: RawDataset, task: Task) -> None:
        assert len(raw.classes) >= 2 or not task.is_of_classes
        assert all(isinstance(name, str) and name for name in raw.classes)
        assert len(set(raw.classes)) == len(raw.classes)

    def test_splits_are_known_and_train_is_there(self, raw: RawDataset) -> None:
        assert "train" in raw.splits
        assert set(raw.splits) <= {"train", "validation", "test"}

    def test_targets_are_such_as_the_task_takes(self, raw: RawDataset, task: Task) -> None:
        for name, images in raw.splits.items():
            assert len(images), name
            if task.is_of_classes:
                assert images.labels.dtype == np.int64, name
                assert images.labels.shape == (len(images),), name
            for index in range(len(images)):
                wrong = task.wrong(task.target(images, index), len(raw.classes))
                assert wrong is None, f"{name}, image {index}: {wrong}"

    def test_every_class_has_training_images(self, raw: RawDataset, task: Task) -> None:
        train, seen = raw.splits["train"], np.zeros(len(raw.classes), dtype=bool)
        for index in range(len(train)):  # one by one: raw masks have sizes of their own
            found = task.membership(task.collected([task.target(train, index)]), len(raw.classes))
            if found is None:
                pytest.skip(f"targets of the task {task.name} have no classes")
            seen |= found[0]
        assert [name for name, is_there in zip(raw.classes, seen, strict=True) if not is_there] == []

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

    def test_loading_twice_gives_the_same(self, raw: RawDataset, use: Use[DatasetPlugin], task: Task) -> None:
        again = use.plugin.load(use.options)
        preprocessing = preprocessing_of(use.options)
        assert again.classes == raw.classes
        assert set(again.splits) == set(raw.splits)
        for name, images in raw.splits.items():
            assert _same_targets(task, again.splits[name], images)
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

    def test_survey_counts_what_is_loaded(self, raw: RawDataset, use: Use[DatasetPlugin], task: Task) -> None:
        """What `edgeopt check` prints of a data set is what a run then reads."""
        survey = use.plugin.survey(use.options) if use.plugin.survey else None
        if survey is None:
            pytest.skip("the plugin does not tell counts without reading an image")
        counts = {name: dict(classes) for name, classes in survey.counts.items()}
        assert counts == {name: _counts(raw, name, task) for name in raw.splits}

    def test_what_was_found_can_be_handed_on(
        self, raw: RawDataset, use: Use[DatasetPlugin], task: Task, tmp_path: Path
    ) -> None:
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
        assert set(again.splits) == set(raw.splits)
        for name, images in raw.splits.items():
            assert _same_targets(task, again.splits[name], images)

    def test_a_run_can_use_it(self, raw: RawDataset, use: Use[DatasetPlugin], task: Task, tmp_path: Path) -> None:
        """The core draws its splits, reads every image and target that it needs, and training gets batches of these."""
        facts = prepare(raw, use.options, tmp_path, Silent(), images=max(8 * len(raw.classes), 48), task=task)
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
            assert len(targets_of(split)) == len(split)
        train = bundle.training.train
        assert task.batch(targets_of(train)[:2]) is not None
        if task.is_of_classes:
            assert set(train.labels.tolist()) == set(range(len(bundle.training.classes)))


def _counts(raw: RawDataset, split: str, task: Task) -> dict[str, int]:
    """How many images of each class a split has, without changed copies of them."""
    images = raw.splits[split]
    own = [index for index in range(len(images)) if split not in raw.copies or raw.copies[split][index] == -1]
    found = task.membership(task.collected([task.target(images, index) for index in own]), len(raw.classes))
    assert found is not None, f"targets of the task {task.name} have no classes to be counted"
    return dict(zip(raw.classes, found.sum(axis=0).tolist(), strict=True))


def _same_targets(task: Task, some: Any, others: Any) -> bool:
    """Whether two looks at one split gave as many images and the same targets: of all images where each is of one
    class, else of those that are looked at.
    """
    if len(some) != len(others):
        return False
    chosen = range(len(some)) if task.is_of_classes else _samples(len(some))
    first, second = (
        task.stored(task.collected([task.target(images, index) for index in chosen])) for images in (some, others)
    )
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def _samples(count: int) -> list[int]:
    """Indices spread over a split, the last one included."""
    return sorted({round(position) for position in np.linspace(0, count - 1, min(_SAMPLES, count))})
