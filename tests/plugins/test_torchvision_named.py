"""torchvision's data sets by name, from small files in the formats that their authors publish."""

import inspect
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar10_files import PER_FILE, write_cifar10
from PIL import Image
from pydantic import ValidationError

import edgeopt
from edgeopt.data.prepare import prepare
from edgeopt.errors import DataError
from edgeopt.progress import Silent
from edgeopt_torchvision.catalogue import CATALOGUE
from edgeopt_torchvision.compat import import_torchvision
from edgeopt_torchvision.options import NamedDatasetOptions
from edgeopt_torchvision.plugin import edgeopt_datasets

PLUGIN = next(each for each in edgeopt_datasets() if each.name == "torchvision")


def picture(path: Path, shade: int, edge: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(shade).integers(0, 256, (edge, edge, 3), dtype=np.uint8)).save(path)


def by_pixels(images: Any, labels: np.ndarray | None = None) -> list[tuple[bytes, int]]:
    """Pixels and label of each image, in the order of the pixels; of torchvision's data sets where no labels stand."""
    pairs = [images[index] for index in range(len(images))]
    pairs = pairs if labels is None else list(zip(pairs, labels.tolist(), strict=True))
    return sorted((np.asarray(image.convert("RGB")).tobytes(), int(label)) for image, label in pairs)


def idx(path: Path, values: np.ndarray) -> None:
    """The format of Y. LeCun: zero, zero, type, dimensions, lengths, all big-endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + b"".join(length.to_bytes(4, "big") for length in values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def mnist(root: Path, name: str = "MNIST") -> None:
    random = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        idx(root / name / "raw" / f"{part}-images-idx3-ubyte", random.integers(0, 256, (count, 28, 28)))
        idx(root / name / "raw" / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)


def cifar100(root: Path) -> None:
    random = np.random.default_rng(0)
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, count in (("train", 400), ("test", 100)):
        labels = [int(label) for label in np.arange(count) % 100]
        batch = {"data": random.integers(0, 256, (count, 3072), dtype=np.uint8), "fine_labels": labels}
        (folder / name).write_bytes(pickle.dumps({**batch, "coarse_labels": [0] * count}, protocol=2))
    names = [f"class {label}" for label in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names, "coarse_label_names": []}, protocol=2))


def flowers(root: Path) -> None:
    from scipy.io import savemat

    folder = root / "flowers-102"
    for index in range(1, 13):
        picture(folder / "jpg" / f"image_{index:05}.jpg", index)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 102] * 4])})
    savemat(folder / "setid.mat", {"trnid": np.arange(1, 7), "valid": np.arange(7, 10), "tstid": np.arange(10, 13)})


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    lines = {"trainval": [], "test": []}
    for index in range(12):
        name = f"{('Abyssinian', 'great_pyrenees')[index % 2]}_{index}"
        picture(folder / "images" / f"{name}.jpg", index)
        lines["test" if index > 7 else "trainval"].append(f"{name} {1 + index % 2} {1 + index % 2} 1")
    for split, each in lines.items():
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"{split}.txt").write_text("\n".join(each) + "\n")


def food(root: Path) -> None:
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for split, count in (("train", 6), ("test", 2)):
        names = {name: [f"{name}/{split}{index}" for index in range(count)] for name in ("pizza", "apple_pie")}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(names))
        for index, each in enumerate(each for some in names.values() for each in some):
            picture(folder / "images" / f"{each}.jpg", 100 * count + index)


def eurosat(root: Path) -> None:
    for name in ("Forest", "River"):
        for index in range(5):
            picture(root / "eurosat" / "2750" / name / f"{name}_{index}.jpg", len(name) * 10 + index)


def signs(root: Path) -> None:
    folder = root / "gtsrb"
    for index in range(8):
        picture(folder / "GTSRB" / "Training" / f"{index % 2:05}" / f"{index}.ppm", index)
        picture(folder / "GTSRB" / "Final_Test" / "Images" / f"{index:05}.ppm", 20 + index)
    lines = [f"{index:05}.ppm;9;9;1;1;8;8;{index % 2}" for index in range(8)]
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    (folder / "GT-final_test.csv").write_text("\n".join((header, *lines)) + "\n")


def house_numbers(root: Path) -> None:
    from scipy.io import savemat

    random = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 10)):
        pixels = random.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        savemat(root / f"{split}_32x32.mat", {"X": pixels, "y": np.arange(1, count + 1)[:, None] % 10 + 1})


def imagenette(root: Path) -> None:
    for split in ("train", "val"):
        for wnid in ("n01440764", "n03888257"):
            for index in range(4):
                picture(root / "imagenette2-160" / split / wnid / f"{index}.JPEG", len(split) * 100 + index)


@pytest.mark.parametrize(
    ("name", "write", "counts", "classes", "given"),
    [
        ("MNIST", mnist, {"train": 60, "test": 20}, ("0 - zero", "9 - nine"), {}),
        ("FashionMNIST", lambda root: mnist(root, "FashionMNIST"), {"train": 60, "test": 20}, ("T-shirt/top",), {}),
        ("CIFAR10", write_cifar10, {"train": 5 * PER_FILE, "test": PER_FILE}, ("airplane",), {"verify": False}),
        ("CIFAR100", cifar100, {"train": 400, "test": 100}, ("class 99",), {"verify": False}),
        ("Flowers102", flowers, {"train": 6, "validation": 3, "test": 3}, ("pink primrose",), {"verify": False}),
        ("OxfordIIITPet", pets, {"train": 8, "test": 4}, ("Abyssinian", "Great Pyrenees"), {}),
        ("Food101", food, {"train": 12, "test": 4}, ("apple_pie", "pizza"), {}),
        ("EuroSAT", eurosat, {"train": 10}, ("Forest", "River"), {}),
        ("GTSRB", signs, {"train": 8, "test": 8}, ("0", "1"), {}),
        ("SVHN", house_numbers, {"train": 30, "test": 10}, ("0", "9"), {"verify": False}),
        ("Imagenette", imagenette, {"train": 8, "test": 8}, ("tench, Tinca tinca",), {"variant": "160px"}),
    ],
)
def test_a_data_set_in_its_own_format(
    name: str,
    write: Callable[[Path], object],
    counts: dict[str, int],
    classes: tuple[str, ...],
    given: dict[str, object],
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match=f"{name} is not there") as caught:
        PLUGIN.find(NamedDatasetOptions(name=name, root=tmp_path, **given))
    assert "download = true" in str(caught.value) and str(tmp_path) in str(caught.value)
    write(tmp_path)
    options = NamedDatasetOptions(name=name, root=tmp_path, image_size=8, **given)
    found = PLUGIN.find(options)
    raw = found.load()
    assert {split: len(images) for split, images in raw.splits.items()} == counts
    assert set(classes) <= set(raw.classes)
    assert {int(label) for label in raw.splits["train"].labels} == set(range(len(raw.classes)))
    if name not in ("CIFAR10", "CIFAR100"):  # each image has the class that torchvision gives it
        pairs = [
            (theirs[1], mine)
            for images in raw.splits.values()
            for mine, theirs in zip(by_pixels(images, images.labels), by_pixels(images.source), strict=True)
            if mine[0] == theirs[0]
        ]
        assert len(pairs) == sum(counts.values())
        assert len({(theirs, mine[1]) for theirs, mine in pairs}) == len(raw.classes)
    assert found.fingerprint() == PLUGIN.find(options).fingerprint()
    first = next(path for path in sorted(tmp_path.rglob("*")) if path.is_file())
    os.utime(first, ns=(1, 1))
    assert found.fingerprint() != PLUGIN.find(options).fingerprint()


def test_mnist_goes_all_the_way_and_images_keep_their_labels(tmp_path: Path) -> None:
    mnist(tmp_path)
    options = NamedDatasetOptions(name="MNIST", root=tmp_path, image_size=28)
    raw = PLUGIN.load(options)
    values = prepare(raw, options, tmp_path, Silent())
    assert values.splits["test"].count == 20 and set(values.splits["test"].per_class.values()) == {2}
    theirs = import_torchvision().datasets.MNIST(str(tmp_path))
    for index in (0, 7, 59):
        image, label = theirs[index]
        assert raw.splits["train"].labels[index] == label
        assert raw.splits["train"][index].tobytes() == image.tobytes()


def test_what_is_missing_and_what_is_broken_is_named(tmp_path: Path) -> None:
    mnist(tmp_path)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="MNIST/raw/t10k-labels-idx1-ubyte is missing below"):
        PLUGIN.find(NamedDatasetOptions(name="MNIST", root=tmp_path))
    with pytest.raises(DataError, match="ImageNet is not there") as caught:
        PLUGIN.find(NamedDatasetOptions(name="ImageNet", root=tmp_path))
    assert "download = true" not in str(caught.value)
    flowers(tmp_path)
    with pytest.raises(DataError, match="Flowers102 cannot be read") as caught:
        PLUGIN.load(NamedDatasetOptions(name="Flowers102", root=tmp_path))
    assert "verify = false" in str(caught.value)
    (tmp_path / "flowers-102/jpg/image_00001.jpg").write_bytes(b"none")
    raw = PLUGIN.load(NamedDatasetOptions(name="Flowers102", root=tmp_path, verify=False))
    with pytest.raises(DataError, match=r"image_00001\.jpg cannot be read"):
        raw.splits["train"][0]
    cifar100(tmp_path)
    with pytest.raises(DataError, match="not the file that CIFAR100's authors published"):
        PLUGIN.load(NamedDatasetOptions(name="CIFAR100", root=tmp_path))


def test_a_package_that_reads_the_files_is_asked_for_before_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for given in ({}, {"download": True}):
        with pytest.raises(DataError, match="reads SVHN with scipy, which is not installed") as caught:
            PLUGIN.find(NamedDatasetOptions(name="SVHN", root=tmp_path, **given))
        assert "edgeopt[vision]" in caught.value.problems[0].hint and caught.value.problems[0].option == "name"
    with pytest.raises(DataError, match="MNIST is not there"):
        PLUGIN.find(NamedDatasetOptions(name="MNIST", root=tmp_path))


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"name": "Mnist"}, "did you mean 'MNIST'"),
        ({"name": "CocoDetection"}, "no data set 'CocoDetection' of one label an image"),
        ({"name": "EMNIST", "variant": "letter"}, "EMNIST has balanced, byclass"),
        ({"name": "MNIST", "variant": "x"}, "MNIST has no variants"),
        ({"name": "ImageNet", "download": True}, "does not download ImageNet"),
        ({"name": "SVHN", "download": True, "verify": False}, "needs verify"),
    ],
)
def test_options_that_do_not_fit(given: dict[str, object], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        NamedDatasetOptions(**given)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_torchvision_takes_what_the_catalogue_gives(name: str) -> None:
    entry, source = CATALOGUE[name], getattr(import_torchvision().datasets, name)
    known = {each for kind in source.__mro__ for each in inspect.signature(kind.__init__).parameters}
    for arguments in entry.splits.values():
        assert set(arguments) <= known
    assert not entry.variant or entry.variant in known
    assert not entry.downloads or "download" in known
    assert not entry.checked or hasattr(source, "_check_integrity")
    assert NamedDatasetOptions(name=name, download=entry.downloads).needs


def test_the_recipe_for_pets_finds_its_data(tmp_path: Path) -> None:
    pets(tmp_path)
    recipe = Path(__file__).parents[2] / "recipes/oxford_pets_mobilenetv3_calibrated.toml"
    plan = edgeopt.check(recipe, overrides=[f"dataset.root={tmp_path}", "dataset.download=false"])
    assert [kind.name for kind in plan.task.score_kinds][1:] == ["balanced_accuracy", "top5", "calibration_error"]
