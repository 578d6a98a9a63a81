from itertools import chain

import numpy as np
import pytest
import torch
from training_samples import PREPROCESSING, make_split

from edgeopt.data.cache import CachedSplit
from edgeopt.options import Augmentation
from edgeopt.tasks.classification import Classification
from edgeopt_lightning.fit.data import Normalize, Shuffled, ordered_loader, training_loader

TASK = Classification()


@pytest.mark.parametrize("channels_last", [True, False])
def test_normalize_gives_the_floats_of_the_preprocessing(channels_last: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    pixels[0].reshape(-1)[:256] = np.arange(256)
    ours = Normalize(PREPROCESSING, channels_last)(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert ours.numpy().tobytes() == PREPROCESSING.normalize(pixels).tobytes()
    assert ours.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def indices_of(shuffled: Shuffled, epoch: int) -> list[list[int]]:
    shuffled.set_epoch(epoch)
    return [request.indices.tolist() for request in shuffled]


def test_an_epoch_has_every_image_once_in_an_order_of_its_own() -> None:
    shuffled = Shuffled(50, 16, seed=3)
    first, second = indices_of(shuffled, 0), indices_of(shuffled, 1)
    assert [len(batch) for batch in first] == [16, 16, 16, 2] and len(shuffled) == 4
    assert sorted(chain(*first)) == list(range(50)) == sorted(chain(*second))
    assert first != second != indices_of(Shuffled(50, 16, seed=4), 1)
    assert second == indices_of(Shuffled(50, 16, seed=3), 1), "an epoch depends on its number alone"


def test_a_last_batch_of_one_is_left_out() -> None:
    assert [len(batch) for batch in indices_of(Shuffled(33, 16, seed=0), 0)] == [16, 16]
    assert len(Shuffled(1, 16, seed=0)) == 0


def test_devices_share_an_epoch_evenly() -> None:
    shares = [indices_of(Shuffled(45, 8, seed=0, device=device, devices=2), 2) for device in range(2)]
    assert [len(batch) for batch in shares[0]] == [len(batch) for batch in shares[1]] == [8, 8, 6]
    together = list(chain(*shares[0], *shares[1]))
    assert len(set(together)) == len(together) == 44


def test_most_bounds_an_epoch() -> None:
    assert len(Shuffled(50, 16, seed=0, most=2)) == 2 == len(indices_of(Shuffled(50, 16, seed=0, most=2), 0))


def test_batches_do_not_depend_on_the_number_of_workers() -> None:
    split, changes = make_split(20, 0), Augmentation(horizontal_flip=True, crop_padding=2)
    loads = [list(training_loader(split, TASK, Shuffled(20, 8, seed=1), changes, workers)) for workers in (0, 2)]
    plain = list(training_loader(split, TASK, Shuffled(20, 8, seed=1), Augmentation(), 0))
    assert len(plain) == 3
    for here, there, unchanged in zip(*loads, plain, strict=True):
        assert torch.equal(here[0], there[0]) and torch.equal(here[1], there[1])
        assert not torch.equal(here[0], unchanged[0]) and torch.equal(here[1], unchanged[1])


def test_workers_read_what_is_not_cached(tmp_path) -> None:
    split = make_split(6, 0)
    np.save(tmp_path / "pixels.npy", split.images)
    cached = CachedSplit(split.labels, tmp_path / "pixels.npy")
    order = np.array([4, 0, 5])
    loaders = [ordered_loader(each, TASK, order, 2, 1) for each in (split, cached)]
    assert [loader.num_workers for loader in loaders] == [1, 0]
    pixels = torch.cat([pixels for pixels, _ in loaders[1]])
    assert pixels.permute(0, 2, 3, 1).numpy().tobytes() == split.images[order].tobytes()
