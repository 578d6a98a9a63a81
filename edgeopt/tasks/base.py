"""What a model is for, as passes, evaluation, report and apps ask it: `Task`. Light at the top."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from edgeopt.tasks.scores import Score, ScoreKind, Scores
from edgeopt.tasks.statistics import Paired, paired

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor

    from edgeopt.arrays import Json, Labels, Outputs
    from edgeopt.preprocessing.geometry import Geometry
    from edgeopt.tasks.drawings import Drawing
    from edgeopt.tasks.endings import Ending
    from edgeopt.tasks.guessing import Guess
    from edgeopt.tasks.moves import Moves
    from edgeopt.tasks.sections import Section
    from edgeopt.tasks.tiles import Tiles


class Targets(ABC):
    """What the images of a split should be answered, in their order: an array with a row an image is enough.

    Where images have unequally much, such as boxes, a class of one's own has these two methods. Nobody need extend this
    one: NumPy's arrays do not.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, indices: slice | NDArray[np.int64]) -> Self:
        """The targets of the chosen images."""


class Task(ABC):
    """All that depends on what a model is for. A task is a frozen dataclass of plain values. Extend this class, and
    give it `name`, that of its plugin, and `score_kinds`, what `scores` gives in that order: the primary one first.

    *Outputs* are what a file, a program or a network answers for n images: a tuple of arrays, each with n rows, or of
    tensors in training. A *target* is what a data set gives for one image, *targets* are those of many, and a *batch*
    is targets as tensors. Methods leave what they are given alone, and what they say of an image depends on it alone.
    """

    if TYPE_CHECKING:  # fields or properties of the class that extends this one

        @property
        def name(self) -> str:
            """The name of its plugin."""

        @property
        def score_kinds(self) -> tuple[ScoreKind, ...]:
            """What `scores` gives, in that order: the first is the primary one."""

    @property
    def metric(self) -> str:
        """Name of the primary score."""
        return self.score_kinds[0].name

    @property
    def is_of_classes(self) -> bool:
        """Whether each image is of exactly one of the data set's classes, so that every split needs some of each."""
        return False

    @property
    def can_be_mixed(self) -> bool:
        """Whether targets of blended images are known: `mixed` gives them."""
        return False

    @property
    def can_be_tiled(self) -> bool:
        """Whether targets of images that are put together of parts are known: `tiled` gives them."""
        return False

    @property
    def is_placed(self) -> bool:
        """Whether targets say where in an image something is, and so depend on how it is resized and cut."""
        return False

    @property
    def chooses_crops(self) -> bool:
        """Whether `crops` says what may be cut out of images, as `augmentation.iou_crop` asks."""
        return False

    @property
    def exact_outputs(self) -> tuple[str, ...]:
        """Names of the outputs that mind rounding. Where a network is quantized, the layers that give them, and what
        comes after these, stay in float unless a recipe names the layers.
        """
        return ()

    # ---- targets

    def target(self, images: Any, index: int) -> Any:
        """The target of image `index` of one raw split, as the data set has it: what `images.target(index)` gives.

        Raises `DataError`, naming the file, for one that cannot be read.
        """
        return images.target(index)

    def wrong(self, target: Any, classes: int) -> str | None:  # noqa: ARG002 - by default nothing is
        """What is wrong with a target as the data set has it, as the end of "image 3: …"; None where nothing is.

        `classes` is how many the data set has.
        """
        return None

    def relabelled(self, target: Any, places: Mapping[int, int]) -> Any:  # noqa: ARG002 - as above
        """A target where only some classes are kept: `places` gives the new number of each of them by its old one.

        Raises `ValueError` where a task knows no classes; `classes` of the data set is refused then.
        """
        raise ValueError(f"a target of the task {self.name} has no class")

    def strata(self, images: Any) -> Sequence[Hashable] | None:  # noqa: ARG002 - as above
        """By what images of one raw split are spread evenly over the splits that are drawn: one value an image, without
        reading an image; None where they are drawn as they come.
        """
        return None

    def moved(self, target: Any, geometry: Geometry) -> Any:  # noqa: ARG002 - as above
        """A target as it is after resizing and cutting; `geometry` says where the places of its image came to lie."""
        return target

    def collected(self, targets: Sequence[Any]) -> Any:
        """The targets of several images, in their order."""
        import numpy as np  # heavy; whoever has images has imported it

        return np.asarray(targets)

    def membership(self, targets: Any, classes: int) -> NDArray[np.bool_] | None:  # noqa: ARG002 - as above
        """Which of so many classes of the data set each image has, bool (n, classes); None where a task knows none."""
        return None

    def stored(self, targets: Any) -> Mapping[str, NDArray[Any]]:
        """Targets as arrays by name, for files. Arrays of the first images and of the rest, put one after the other,
        are those of all; so images with unequally much have an array that counts it.
        """
        return {"targets": targets}

    def restored(self, arrays: Mapping[str, NDArray[Any]]) -> Any:
        """The targets that `stored` wrote; the arrays may still lie in files."""
        return arrays["targets"]

    # ---- training

    def batch(self, targets: Any) -> Any:
        """Targets as tensors: one, or a tuple, list or dictionary of them, which training moves to its device."""
        import torch  # heavy; whoever trains has imported it

        return torch.from_numpy(targets)

    def augmented(self, batch: Any, moves: Moves) -> Any:  # noqa: ARG002 - as above
        """A batch whose images were moved by augmentation: mirrored, shifted, turned and cropped."""
        return batch

    def crops(self, batch: Any, height: int, width: int, generator: Generator) -> Tensor:  # noqa: ARG002 - as above
        """A random part of each image that keeps something of its target in sight: corners x1, y1, x2, y2 in px within
        the image, float32 (n, 4). All randomness comes from `generator`; only where `chooses_crops`.
        """
        raise ValueError(f"targets of the task {self.name} choose no crops")

    def tiled(self, batch: Any, tiles: Tiles) -> Any:  # noqa: ARG002 - as above
        """A batch of which some images were put together of parts of others. `augmented` is asked afterwards."""
        raise ValueError(f"images of the task {self.name} cannot be put together of parts")

    def mixed(self, batch: Any, partner: Tensor, share: Tensor, classes: int) -> Any:  # noqa: ARG002 - as above
        """A batch whose image i was made of `share[i]` of itself and the rest of image `partner[i]` of the same batch;
        float and int64 (n,). `classes` is how many the data set has.
        """
        raise ValueError(f"images of the task {self.name} cannot be mixed")

    def balancing_weights(self, targets: Any, classes: int) -> tuple[float, ...]:  # noqa: ARG002 - as above
        """A weight for each class by which all count alike in the loss.

        Raises `ValueError` where a task has no weights of classes.
        """
        raise ValueError(f"the task {self.name} has no weights of classes")

    def weighted(self, weights: tuple[float, ...], targets: Any) -> Task:  # noqa: ARG002 - as above
        """This task with a weight for each class in its training loss, where `targets` are trained on; raises as
        `balancing_weights` does.
        """
        raise ValueError(f"the task {self.name} has no weights of classes")

    @abstractmethod
    def loss(self, outputs: tuple[Tensor, ...], batch: Any, label_smoothing: float = 0.0) -> Tensor:
        """Training loss, a scalar, mean over the images; `label_smoothing` is for tasks with one class an image."""

    def soft_loss(self, outputs: tuple[Tensor, ...], teacher: tuple[Tensor, ...], temperature: float) -> Tensor:  # noqa: ARG002 - as above
        """Loss against a teacher's outputs for the same images, a scalar, float32: by default mean squared error."""
        from torch.nn.functional import mse_loss  # as above

        parts = [mse_loss(own.float(), other.float()) for own, other in zip(outputs, teacher, strict=True)]
        return sum(parts[1:], parts[0])

    def incomparable(self, teacher: Task) -> str | None:  # noqa: ARG002 - as above
        """Why `soft_loss` cannot compare the outputs of this task's network with those of another, whose state has the
        task `teacher`; None where it can.
        """
        return None

    # ---- answers

    def unfit(self, shapes: Sequence[tuple[int, ...]], images: int, classes: int | None) -> str | None:  # noqa: ARG002 - as above
        """What is wrong with a network whose outputs for so many images have `shapes`, as the end of "it returns …";
        None where it fits. `classes` is how many the data set has, None where that is not known.
        """
        if not shapes:
            return f"nothing for {images} images"
        wrong = [shape for shape in shapes if not shape or shape[0] != images]
        return f"{wrong[0]} for {images} images" if wrong else None

    def at_size(self, height: int, width: int) -> Task:  # noqa: ARG002 - as above
        """This task for the same network with images of another size in px.

        Raises `ValueError`, saying why, where outputs of another size cannot be turned into answers.
        """
        return self

    @abstractmethod
    def scores(self, outputs: Outputs, targets: Any) -> Scores:
        """Every score of `score_kinds`, each with its interval: in closed form, or by drawing images anew."""

    def score(self, outputs: Outputs, targets: Any) -> Score:
        """The primary score."""
        return self.scores(outputs, targets).primary

    @abstractmethod
    def right(self, outputs: Outputs, targets: Any) -> NDArray[np.bool_]:
        """Whether each image is answered well enough to be of use, bool (n,)."""

    def grades(self, outputs: Outputs, targets: Any) -> NDArray[np.float64]:
        """How well each image is answered, float (n,): larger is better. By default 1 where it is `right`, else 0."""
        return self.right(outputs, targets).astype(float)

    @abstractmethod
    def alike(self, outputs: Outputs, reference: Outputs) -> NDArray[np.bool_]:
        """Whether both give the same answer for each image, bool (n,), as far as anybody can tell who uses it."""

    def agreement(self, outputs: Outputs, reference: Outputs) -> float:
        """How far both agree, 0 to 1: by default the share of images for which they are `alike`."""
        return float(self.alike(outputs, reference).mean())

    def near_ties(self, outputs: Outputs, reference: Outputs, margins: Sequence[float]) -> int:  # noqa: ARG002 - as above
        """How many images both answer differently although rounding alone may decide: differences of so much in each
        output, `margins`, mean nothing.
        """
        return 0

    def compare(self, before: Outputs, after: Outputs, targets: Any) -> Paired:
        """How many of the same images the second answers worse and better than the first, by `grades`."""
        first, second = self.grades(before, targets), self.grades(after, targets)
        lost, gained = int((second < first).sum()), int((second > first).sum())
        return paired(len(first), lost, gained, graded=not set(first.tolist()) <= {0.0, 1.0})

    @abstractmethod
    def decode(self, outputs: Outputs) -> Sequence[Any]:
        """What each image is answered: a frozen dataclass of plain values an image."""

    @abstractmethod
    def told(self, answer: Any, classes: Sequence[str]) -> str:
        """One answer of `decode` in a few words."""

    def drawings(self, outputs: Outputs, classes: Sequence[str]) -> Sequence[Drawing]:
        """What a page draws of each answer: by default its words alone."""
        from edgeopt.tasks.drawings import Drawing  # nobody else needs it

        return [Drawing(self.told(answer, classes)) for answer in self.decode(outputs)]

    def guess(self, outputs: Outputs, targets: Any, classes: Sequence[str]) -> Guess | None:  # noqa: ARG002 - as above
        """In what way answers are no more than a guess; None where they are more, or a task cannot tell."""
        return None

    # ---- files that go on behind their network

    @property
    def endings(self) -> tuple[str, ...]:
        """What files can end at instead of the network's outputs, as `ends` of an export names it."""
        return ()

    def ending(self, name: str) -> Ending:
        """How files end at `name`, one of `endings`."""
        raise LookupError(f"files of the task {self.name} end at their outputs, not at {name}")

    def ended(self, name: str) -> Task:  # noqa: ARG002 - by default answers are told alike
        """This task as the card of a file says it that ends at `name`."""
        return self

    def likened(self, outputs: Outputs, reference: Outputs) -> Outputs:  # noqa: ARG002 - as above
        """A program's outputs, or another file's, as they are compared with those of a file number by number: in that
        file's form, where that ends at answers.
        """
        return reference

    # ---- what is chosen on validation

    @property
    def is_fitted(self) -> bool:
        """Whether `fitted` chooses something by a program's answers to the validation split."""
        return False

    def fitted(self, outputs: Outputs, targets: Any) -> Task:  # noqa: ARG002 - by default nothing is chosen
        """This task with what it chooses by a program's answers to validation images, such as a threshold."""
        return self

    def decision(self) -> Mapping[str, Json]:
        """What an app must know besides the outputs to come to the same answers, as cards have it: JSON by name."""
        return {}

    def decided(self, decision: Mapping[str, Json]) -> Task:  # noqa: ARG002 - as above
        """This task with what the `decision` of a card says, so that it answers as the one that the card was made of.

        Raises `ValueError` or `DataError` for what no card of it says.
        """
        return self

    # ---- the report

    def as_classes(self, outputs: Outputs, targets: Any) -> tuple[Labels, Labels] | None:  # noqa: ARG002 - as above
        """What images are and what they were taken for, as places among the data set's classes, int64 (n,) each; None
        for a task whose answers are no classes.
        """
        return None

    def sections(self, outputs: Outputs, targets: Any, classes: Sequence[str]) -> tuple[Section, ...]:  # noqa: ARG002 - as above
        """What the report says of a file's answers besides its scores; images by their places in the test split."""
        return ()


def unfit_logits(shapes: Sequence[tuple[int, ...]], images: int, classes: int | None) -> str | None:
    """What is wrong with outputs that should be logits (n, classes) alone, as `Task.unfit` says it."""
    if len(shapes) != 1:
        return f"{len(shapes)} outputs for {images} images"
    (shape,) = shapes
    if len(shape) == 2 and shape[0] == images and classes in (None, shape[1]):
        return None
    return f"{shape} for {images} images, not logits (batch, {classes or 'classes'})"
