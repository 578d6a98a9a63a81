"""Data sets of torchvision that give an image and one label: where their files lie and how they are opened. Light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_TRAIN_TEST = {"train": {"train": True}, "test": {"train": False}}


def _splits(**names: str) -> dict[str, dict[str, str]]:
    return {ours: {"split": theirs} for ours, theirs in names.items()}


@dataclass(frozen=True)
class Entry:
    """How one data set is found and opened.

    `needs` are the files and folders below the root that it cannot do without, "{variant}" among their letters.
    `splits` has, for each of our splits, the arguments that torchvision's class takes. `labels` names its attribute
    with the labels, or with pairs that end in them; `files` that with the images' paths, where they stand in files of
    their own; `names` that with the classes' names, where they have any. `variants` are the values of the argument
    `variant`, the first one taken where nothing is said. `checked` says that its files are compared with published
    checksums, `requires` what must be installed to read them.
    """

    needs: tuple[str, ...]
    splits: Mapping[str, Mapping[str, object]]
    labels: str
    files: str = ""
    names: str = "classes"
    variant: str = ""
    variants: tuple[str, ...] = ()
    folders: Mapping[str, str] = field(default_factory=dict)
    checked: bool = False
    downloads: bool = True
    requires: str = ""

    def paths(self, variant: str) -> tuple[str, ...]:
        """What it needs, for one variant."""
        return tuple(name.format(variant=self.folders.get(variant, variant)) for name in self.needs)


def _idx(name: str) -> Entry:
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return Entry(tuple(f"{name}/raw/{part}-ubyte" for part in parts), _TRAIN_TEST, "targets")


_CIFAR10 = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
_EMNIST = tuple(
    f"EMNIST/raw/emnist-{{variant}}-{part}-ubyte"
    for part in ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1")
)

CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {
        "CIFAR10": Entry(
            tuple(f"cifar-10-batches-py/{name}" for name in _CIFAR10), _TRAIN_TEST, "targets", checked=True
        ),
        "CIFAR100": Entry(
            tuple(f"cifar-100-python/{name}" for name in ("train", "test", "meta")),
            _TRAIN_TEST,
            "targets",
            checked=True,
        ),
        "Caltech101": Entry(("caltech101/101_ObjectCategories",), {"train": {}}, "y", names="categories"),
        "Caltech256": Entry(("caltech256/256_ObjectCategories",), {"train": {}}, "y", names="categories"),
        "Country211": Entry(
            ("country211/train", "country211/valid", "country211/test"),
            _splits(train="train", validation="valid", test="test"),
            "targets",
            files="samples",
        ),
        "DTD": Entry(
            ("dtd/dtd/labels", "dtd/dtd/images"),
            _splits(train="train", validation="val", test="test"),
            "_labels",
            files="_image_files",
            variant="partition",
            variants=tuple(str(number) for number in range(1, 11)),
        ),
        "EMNIST": Entry(
            _EMNIST,
            _TRAIN_TEST,
            "targets",
            variant="split",
            variants=("balanced", "byclass", "bymerge", "letters", "digits", "mnist"),
        ),
        "EuroSAT": Entry(("eurosat/2750",), {"train": {}}, "targets", files="samples"),
        "FGVCAircraft": Entry(
            ("fgvc-aircraft-2013b/data",),
            _splits(train="train", validation="val", test="test"),
            "_labels",
            files="_image_files",
            variant="annotation_level",
            variants=("variant", "family", "manufacturer"),
        ),
        "FashionMNIST": _idx("FashionMNIST"),
        "Flowers102": Entry(
            ("flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"),
            _splits(train="train", validation="val", test="test"),
            "_labels",
            files="_image_files",
            checked=True,
            requires="scipy",
        ),
        "Food101": Entry(
            ("food-101/meta", "food-101/images"),
            _splits(train="train", test="test"),
            "_labels",
            files="_image_files",
        ),
        "GTSRB": Entry(
            ("gtsrb/GTSRB/Training", "gtsrb/GTSRB/Final_Test/Images", "gtsrb/GT-final_test.csv"),
            _splits(train="train", test="test"),
            "_samples",
            files="_samples",
            names="",
        ),
        "ImageNet": Entry(
            ("train", "val", "meta.bin"),
            _splits(train="train", test="val"),
            "targets",
            files="samples",
            downloads=False,
        ),
        "Imagenette": Entry(
            ("{variant}/train", "{variant}/val"),
            _splits(train="train", test="val"),
            "_samples",
            files="_samples",
            variant="size",
            variants=("full", "320px", "160px"),
            folders={"full": "imagenette2", "320px": "imagenette2-320", "160px": "imagenette2-160"},
        ),
        "KMNIST": _idx("KMNIST"),
        "MNIST": _idx("MNIST"),
        "OxfordIIITPet": Entry(
            ("oxford-iiit-pet/images", "oxford-iiit-pet/annotations"),
            _splits(train="trainval", test="test"),
            "_labels",
            files="_images",
        ),
        "RenderedSST2": Entry(
            ("rendered-sst2/train", "rendered-sst2/valid", "rendered-sst2/test"),
            _splits(train="train", validation="val", test="test"),
            "_samples",
            files="_samples",
        ),
        "SEMEION": Entry(("semeion.data",), {"train": {}}, "labels", names="", checked=True),
        "STL10": Entry(
            tuple(
                f"stl10_binary/{name}"
                for name in ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")
            ),
            _splits(train="train", test="test"),
            "labels",
            checked=True,
        ),
        "SUN397": Entry(("SUN397",), {"train": {}}, "_labels", files="_image_files"),
        "SVHN": Entry(
            ("train_32x32.mat", "test_32x32.mat"),
            _splits(train="train", test="test"),
            "labels",
            names="",
            checked=True,
            requires="scipy",
        ),
        "StanfordCars": Entry(
            (
                "stanford_cars/devkit",
                "stanford_cars/cars_train",
                "stanford_cars/cars_test",
                "stanford_cars/cars_test_annos_withlabels.mat",
            ),
            _splits(train="train", test="test"),
            "_samples",
            files="_samples",
            downloads=False,
            requires="scipy",
        ),
        "USPS": Entry(("usps.bz2", "usps.t.bz2"), _TRAIN_TEST, "targets", names=""),
    }
)
