"""Small data, models and contexts, made in memory in milliseconds and always the same."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from edgeopt.networks.capture import to_program
from edgeopt.networks.saved import load_state, save_state
from edgeopt.option_values import GREY_MEAN, GREY_STD
from edgeopt.options import Augmentation, TrainerSettings
from edgeopt.plugins.contexts import Budget, PassContext
from edgeopt.plugins.declarations import PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.plugins.use import Use
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import TASKS, Classification
from edgeopt.testing.states import seeded
from edgeopt.types import TORCH, Form, ModelState, TrainingData

if TYPE_CHECKING:
    from edgeopt.arrays import ImageSize, Labels, Pixels
    from edgeopt.tasks import Task


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """A split in memory: uint8 `images` (n, height, width, channels), int64 `labels` (n,)."""

    images: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Sequence[int] | slice) -> Pixels:
        """Copies of the chosen images."""
        return self.images[indices if isinstance(indices, slice) else np.asarray(indices, dtype=np.intp)].copy()


@dataclass(frozen=True)
class OfImageAndPlaces(Classification):
    """What `tiny_two_outputs` is for: a label an image, by the first output, whatever else there is."""

    @property
    def is_of_classes(self) -> bool:
        """Each image is of one class, but its outputs are no classifier's."""
        return False

    def unfit(self, shapes: Sequence[tuple[int, ...]], images: int, classes: int | None) -> str | None:
        """Anything but two outputs whose first are logits."""
        if len(shapes) != 2:
            return f"{len(shapes)} outputs for {images} images, not two"
        return super().unfit(shapes[:1], images, classes)


def tiny_data(
    classes: int = 3,
    image_size: ImageSize = 32,
    per_class: int = 8,
    *,
    channels: Literal[1, 3] = 3,
    task: Task | None = None,
) -> TrainingData:
    """Noisy images whose class is where they are bright, `per_class` of each class in each split. Another `task` than
    classification is handed to whoever builds for it; its targets are not there.
    """
    preprocessing = Preprocessing(image_size, resize=image_size, crop=image_size)
    if channels == 1:
        preprocessing = replace(preprocessing, channel_order="grey", mean=GREY_MEAN, std=GREY_STD)
    splits = [_split(classes, preprocessing.shape, per_class, seed) for seed in range(3)]
    return TrainingData(
        classes=tuple(f"class-{index}" for index in range(classes)),
        preprocessing=preprocessing,
        train=splits[0],
        calibration=splits[1],
        validation=splits[2],
        fingerprint=f"tiny-{classes}-{image_size}-{per_class}{'-grey' if channels == 1 else ''}",
        augmentation=Augmentation(),
        task=task or TASKS["classification"],
    )


def tiny_model(data: TrainingData | None = None) -> ModelState:
    """An untrained network of three convolutions with BatchNorm for the classes of `data`, in module form."""
    from edgeopt.testing.network import TinyNet  # torch: models of other frameworks are tested in processes without it

    data = data or tiny_data()
    with seeded(0, TORCH):
        model = TinyNet(len(data.classes), channels=data.preprocessing.channels).eval()
    return ModelState(model, Form.MODULE, TASKS["classification"], data.classes, data.preprocessing)


def tiny_program(data: TrainingData | None = None, *, largest_batch: int = 1024) -> ModelState:
    """The same network, captured for batches of 1 to `largest_batch` images; with 1, for one image alone."""
    data = data or tiny_data()
    return to_program(replace(tiny_model(data), batch_range=(1, largest_batch)), data.validation)


def tiny_int8_program(
    data: TrainingData | None = None, *, quantizer: str = "xnnpack", two_outputs: bool = False
) -> ModelState:
    """The same network in int8, or that of `tiny_two_outputs`: quantized by the pass `ptq` with the numerics of a
    quantizer of that name.

    Raises `RecipeError` with the pip command where torchao or what the quantizer needs is not installed.
    """
    if data is None:  # as a contract asks for each exporter: made once, and every caller gets a copy of its own
        return load_state(Path(_int8_on_disk(quantizer, two_outputs).name))
    return _int8_program(data, quantizer, two_outputs)


def tiny_two_outputs(data: TrainingData | None = None) -> ModelState:
    """An untrained network in module form that returns a dictionary, of which its state names two: `image`, (n,
    classes), and `places`, (n, classes + 1, image_size / 2, image_size / 2).
    """
    from edgeopt.testing.network import TinyTwoOutputs  # torch, as above

    data = data or tiny_data()
    with seeded(0, TORCH):
        model = TinyTwoOutputs(len(data.classes)).eval()
    state = tiny_model(data)
    return replace(state, model=model, task=OfImageAndPlaces(), output_names=("image", "places"))


@cache
def _int8_on_disk(quantizer: str, two_outputs: bool) -> tempfile.TemporaryDirectory[str]:
    """A folder with the program in int8, which goes when Python ends."""
    folder = tempfile.TemporaryDirectory()
    save_state(_int8_program(tiny_data(), quantizer, two_outputs), Path(folder.name))
    return folder


def _int8_program(data: TrainingData, quantizer: str, two_outputs: bool) -> ModelState:
    ptq = resolve(PassPlugin, "ptq", {"quantizer": quantizer}, load_registry())
    state = tiny_two_outputs(data) if two_outputs else tiny_model(data)
    with tempfile.TemporaryDirectory() as folder, seeded(0, TORCH):
        return ptq.plugin.apply(state, ptq.options, pass_context(Path(folder), data))


def require_own_state(use: Use[Any]) -> None:
    """Fails where a plugin takes models of a framework of which there are no tiny ones here."""
    if use.plugin.framework != TORCH:
        pytest.fail(f"override the fixture `state`: this {use.plugin.kind} takes models of {use.plugin.framework}")


def pass_context(folder: Path, data: TrainingData | None = None, *, seed: int = 0) -> PassContext:
    """A context that works below `folder`, on one CPU thread, for one epoch of few batches."""
    work_dir = folder / "work"
    work_dir.mkdir(parents=True, exist_ok=True)
    return PassContext(
        data=data or tiny_data(),
        trainer=TrainerSettings(accelerator="cpu", threads=1),
        seed=seed,
        work_dir=work_dir,
        progress=Silent(),
        budget=Budget(epochs=1, batches=2),
    )


def _split(classes: int, shape: tuple[int, int, int], per_class: int, seed: int) -> ArraySplit:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes, dtype=np.int64), per_class)
    images = random.integers(0, 96, (len(labels), *shape), dtype=np.uint8)
    band = max(1, shape[1] // classes)
    for image, label in zip(images, labels, strict=True):
        image[:, label * band : (label + 1) * band] += 128  # a bright band, further right for each class
    order = random.permutation(len(labels))
    return ArraySplit(images[order], labels[order])
