"""Targets that are no labels: read, checked, spread over splits, stored and read back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from task_parts import Level, LevelImages

from edgeopt.data.cache import load_data, load_split, load_training
from edgeopt.data.prepare import prepare
from edgeopt.data.strata import draw_by_strata
from edgeopt.errors import DataError
from edgeopt.options import DatasetOptions
from edgeopt.progress import Silent
from edgeopt.types import RawDataset, targets_of

OPTIONS = DatasetOptions(image_size=16)


def dataset(count: int = 120) -> RawDataset:
    return RawDataset((), {"train": LevelImages(count, 0)})


@dataclass(frozen=True)
class Ragged(Level):
    """As many numbers as an image has, which no array with a row an image holds."""

    name: str = "ragged"

    def target(self, images, index):
        return [images.target(index)] * (index % 4)

    def collected(self, targets):
        return Many(tuple(tuple(each) for each in targets))

    def stored(self, targets):
        flat = [each for values in targets.values for each in values]
        return {
            "counts": np.array([len(each) for each in targets.values], np.int64),
            "values": np.array(flat, np.float32),
        }

    def restored(self, arrays):
        ends = np.cumsum(arrays["counts"])
        starts = ends - arrays["counts"]
        return Many(tuple(tuple(arrays["values"][a:b].tolist()) for a, b in zip(starts, ends, strict=True)))


@dataclass(frozen=True)
class Many:
    values: tuple

    def __len__(self):
        return len(self.values)

    def __getitem__(self, indices):
        chosen = range(len(self))[indices] if isinstance(indices, slice) else indices
        return Many(tuple(self.values[index] for index in chosen))


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
@pytest.mark.parametrize("task", [Level(), Ragged()])
def test_targets_stay_with_their_images(tmp_path: Path, task: Level, cache_bytes: int) -> None:
    facts = prepare(dataset(), OPTIONS, tmp_path, Silent(), cache_bytes=cache_bytes, task=task)
    bundle = load_data(tmp_path, OPTIONS, dataset)
    assert bundle.training.task == task
    assert bundle.training.classes == () and facts.splits["train"].per_class == {}
    splits = [bundle.training.train, bundle.training.calibration, bundle.training.validation, bundle.test]
    assert sum(map(len, splits)) == 120
    for split in splits:
        brightness = split.pixels(slice(None)).mean(axis=(1, 2, 3)) / 255
        targets = targets_of(split)
        if isinstance(task, Ragged):
            found = [(values[0], place) for place, values in enumerate(targets.values) if values]
            assert {len(values) for values in targets.values} <= {0, 1, 2, 3}
            assert np.allclose([value for value, _ in found], brightness[[place for _, place in found]], atol=0.02)
            assert targets[np.array([1])].values == (targets.values[1],)
        else:
            assert np.allclose(targets, brightness, atol=0.02)


def test_strata_are_spread_and_nobody_is_drawn_twice() -> None:
    raw = dataset(300)
    drawn = draw_by_strata(raw, OPTIONS, Level())
    again = draw_by_strata(raw, OPTIONS, Level())
    places = [drawn.splits[name].indices.tolist() for name in drawn.splits]
    assert sorted(place for each in places for place in each) == list(range(300))
    assert places == [again.splits[name].indices.tolist() for name in again.splits]
    whole = np.bincount([int(3 * level) for level in raw.splits["train"].levels]) / 300
    for drawing in drawn.splits.values():
        shares = np.bincount([int(3 * raw.splits["train"].levels[place]) for place in drawing.indices]) / len(drawing)
        assert np.abs(shares - whole).max() < 0.08
    few = draw_by_strata(raw, OPTIONS.model_copy(update={"limit": 20}), Level())
    assert len(few.splits["test"]) == 20 and len(few.splits["train"]) + len(few.splits["calibration"]) == 20


def test_groups_stay_together() -> None:
    raw = replace(dataset(120), groups={"train": [f"g{place % 12}" for place in range(120)]})
    drawn = draw_by_strata(raw, OPTIONS, Level())
    groups = [{place % 12 for place in drawn.splits[name].indices} for name in ("test", "validation", "train")]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])


class Wrong(Level):
    def wrong(self, target, classes):
        return f"level {target:.2f} is too bright" if target > 0.97 else None


def test_a_target_that_cannot_be_used_is_named_or_skipped(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image \d+ of the train split: level 0\.9\d is too bright"):
        prepare(dataset(), OPTIONS, tmp_path, Silent(), task=Wrong())
    skipping = OPTIONS.model_copy(update={"on_error": "skip"})
    facts = prepare(dataset(), skipping, tmp_path, Silent(), task=Wrong())
    assert facts.skipped and "too bright" in facts.skipped[0]
    assert targets_of(load_split(tmp_path, "train", dataset)).max() <= 0.97


def test_classes_of_a_data_set_without_any_are_refused() -> None:
    with pytest.raises(DataError, match="no class 'a'"):
        draw_by_strata(dataset(), OPTIONS.model_copy(update={"classes": ("a", "b")}), Level())


def test_data_that_was_prepared_before_tasks_were_told_is_read(tmp_path: Path) -> None:
    import json

    from edgeopt.data.images import ArrayImages

    raw = RawDataset(("a", "b"), {"train": ArrayImages(np.zeros((80, 16, 16), np.uint8), np.arange(80) % 2)})
    prepare(raw, OPTIONS, tmp_path, Silent())
    said = json.loads((tmp_path / "data.json").read_text())
    del said["task"]
    for split in said["splits"].values():
        del split["targets"]
    (tmp_path / "data.json").write_text(json.dumps(said))
    training = load_training(tmp_path, OPTIONS, partial(RawDataset, (), {}))
    assert training.task.name == "classification"
    assert set(training.train.labels.tolist()) == {0, 1}
