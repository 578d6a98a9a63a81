"""The task `detection`: boxes of objects in an image, found by a network that ends at raw heads. Light at the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeopt.plugins import OUTPUTS, Drawing, DrawnBox, Ending, Score, ScoreKind, Scores, Section, Task
from edgeopt_detection.decoding.description import BoxDecoding
from edgeopt_detection.endings.boxes_ending import BOXES, BoxesEnding
from edgeopt_detection.endings.outputs import FOUND, rows_of
from edgeopt_detection.parts.objects import DetectedObjects, answers, objects_in

if TYPE_CHECKING:  # NumPy and torch are heavy: `edgeopt check` asks a task for its scores
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor

    from edgeopt.plugins import Json, Moves, Outputs, Tiles
    from edgeopt_detection.boxes import Boxes, Detections
    from edgeopt_detection.targets import BoxTargets

MAP = ScoreKind("map", "mAP")
MAP50 = ScoreKind("map50", "mAP 50")
_FOUND = 0.5  # overlap from which a box is found


@dataclass(frozen=True)
class Detection(Task):
    """Boxes and their classes. `decoding` says how raw heads become boxes; a model sets it in its state's task.

    Boxes of at least `shown_score` are what an app would show: by these, images are graded, told and compared. `ends`
    is said by the card of a file that gives boxes, whose numbers were decoded inside; outputs of both kinds are read.
    """

    name: str = "detection"
    shown_score: float = 0.4
    decoding: BoxDecoding | None = None
    ends: str = OUTPUTS

    @property
    def score_kinds(self) -> tuple[ScoreKind, ...]:
        return (MAP, MAP50)

    @property
    def is_placed(self) -> bool:
        return True

    @property
    def chooses_crops(self) -> bool:
        return True

    @property
    def can_be_tiled(self) -> bool:
        return True

    @property
    def exact_outputs(self) -> tuple[str, ...]:
        """The numbers of boxes, of which each is a place: one range for those of all maps is too coarse. Logits are not
        here: rounding them costs less than the layers before do, and in float their layers are a tenth of a small file.
        """
        return ("boxes",)

    @property
    def decoder(self) -> BoxDecoding:
        """How raw heads become boxes; raises `ValueError` where no model has said it."""
        if self.decoding is None:
            raise ValueError("how raw heads become boxes is said by the model, and there is none yet")
        return self.decoding

    # ---- targets

    def wrong(self, target: Boxes, classes: int) -> str | None:
        outside = sorted({int(label) for label in target.classes if not 0 <= label < classes})
        if outside:
            return f"class {outside[0]} of a box, and the data set has {classes} classes"
        sides = target.corners[:, 2:] - target.corners[:, :2]
        return None if (sides > 0).all() else "a box without area, or whose corners are no numbers"

    def relabelled(self, target: Boxes, places: Mapping[int, int]) -> Boxes:
        from edgeopt_detection.boxes import Boxes  # as above

        kept = [row for row, label in enumerate(target.classes.tolist()) if label in places]
        classes = [places[label] for label in target.classes[kept].tolist()]
        return Boxes.of(target.corners[kept], classes, target.crowd[kept])

    def moved(self, target: Boxes, geometry: Any) -> Boxes:
        from edgeopt_detection.targets import moved_boxes  # as above

        return moved_boxes(target, geometry)

    def collected(self, targets: Sequence[Boxes]) -> BoxTargets:
        from edgeopt_detection.targets import BoxTargets  # as above

        return BoxTargets.of(targets)

    def membership(self, targets: BoxTargets, classes: int) -> NDArray[np.bool_]:
        import numpy as np  # as above

        found = np.zeros((len(targets), classes), dtype=bool)
        found[np.repeat(np.arange(len(targets)), targets.counts), targets.classes] = True
        return found

    def stored(self, targets: BoxTargets) -> Mapping[str, NDArray[Any]]:
        return targets.arrays()

    def restored(self, arrays: Mapping[str, NDArray[Any]]) -> BoxTargets:
        from edgeopt_detection.targets import BoxTargets  # as above

        return BoxTargets(**arrays)

    # ---- training

    def batch(self, targets: BoxTargets) -> dict[str, Tensor]:
        from edgeopt_detection.targets import batch_of  # as above

        return batch_of(targets)

    def augmented(self, batch: Mapping[str, Tensor], moves: Moves) -> dict[str, Tensor]:
        from edgeopt_detection.targets import augmented_boxes  # as above

        return augmented_boxes(batch, moves)

    def tiled(self, batch: Mapping[str, Tensor], tiles: Tiles) -> dict[str, Tensor]:
        from edgeopt_detection.targets import tiled_boxes  # as above

        return tiled_boxes(batch, tiles)

    def crops(self, batch: Mapping[str, Tensor], height: int, width: int, generator: Generator) -> Tensor:
        """Parts of which some box overlaps as much as was drawn, by SSD's rule."""
        from edgeopt_detection.crops import crops_around  # as above

        return crops_around(batch, height, width, generator)

    def loss(self, outputs: tuple[Tensor, ...], batch: Mapping[str, Tensor], label_smoothing: float = 0.0) -> Tensor:  # noqa: ARG002 - for tasks with one class an image
        """Torchvision's own loss of the network, all its parts added up; nothing is learnt in crowd regions."""
        from edgeopt_detection.networks.losses import DetectionLoss  # as above
        from edgeopt_detection.targets import boxes_of, crowds_of

        heads = [each.float() for each in outputs]
        parts = list(DetectionLoss(self.decoder)(heads, boxes_of(batch), crowds_of(batch)).values())
        return sum(parts[1:], parts[0])

    def soft_loss(self, outputs: tuple[Tensor, ...], teacher: tuple[Tensor, ...], temperature: float) -> Tensor:
        """Classes of all anchors, and boxes where the teacher sees something."""
        from edgeopt_detection.networks.taught import taught_loss  # as above

        return taught_loss(outputs, teacher, self.decoder, temperature)

    def incomparable(self, teacher: Task) -> str | None:
        other = teacher.decoding if isinstance(teacher, Detection) else None
        if other is None:
            return "how its raw heads become boxes is not known"
        alike = ("height", "width", "levels", "scores", "background", "boxes", "weights")
        unlike = [name for name in alike if getattr(self.decoder, name) != getattr(other, name)]
        if not unlike:
            return None
        sizes = f"{other.height} × {other.width} px and {other.anchors} anchors, here {self.decoder.height} × "
        return f"it has {sizes}{self.decoder.width} px and {self.decoder.anchors}; they differ in {', '.join(unlike)}"

    # ---- answers

    def unfit(self, shapes: Sequence[tuple[int, ...]], images: int, classes: int | None) -> str | None:
        if (wrong := super().unfit(shapes, images, classes)) is not None:
            return wrong
        if self.decoding is None:
            return None
        if len(shapes) == len(FOUND) and self._are_of_boxes(shapes, images):
            return None
        wanted = [(images, self.decoding.anchors, width) for width in (self.decoding.columns, 4, 1)]
        wanted = wanted[: len(self.decoding.outputs)]
        if list(map(tuple, shapes)) != wanted:
            return f"{', '.join(map(str, shapes))}, and its raw heads would be {', '.join(map(str, wanted))}"
        if classes is not None and classes != self.decoding.classes:
            return f"boxes of {self.decoding.classes} classes, and the data set has {classes}"
        return None

    def _are_of_boxes(self, shapes: Sequence[tuple[int, ...]], images: int) -> bool:
        rows = rows_of(self.decoder)
        return list(map(tuple, shapes)) == [(images, rows, 4), (images, rows), (images, rows), (images,)]

    def at_size(self, height: int, width: int) -> Detection:
        if self.decoding is None or (height, width) == (self.decoding.height, self.decoding.width):
            return self
        raise ValueError(
            "boxes are told from anchors, whose places and sizes the network has for images of "
            f"{self.decoding.height} × {self.decoding.width} px alone"
        )

    def found(self, outputs: Outputs) -> list[Detections]:
        """The boxes of each image, those below `shown_score` included."""
        from edgeopt_detection.decoding.remembered import decoded  # as above
        from edgeopt_detection.endings.reading import boxes_in

        if len(outputs) == len(FOUND):
            return boxes_in(outputs, self.decoder)
        return decoded(outputs, self.decoder)

    def shown(self, outputs: Outputs) -> list[Detections]:
        """The boxes of each image that an app would show: those below have pushed out none of them."""
        return self._confident(self.found(outputs))

    def _confident(self, found: Sequence[Detections]) -> list[Detections]:
        from edgeopt_detection.boxes import Detections  # as above

        chosen = [(each, each.scores >= self.shown_score) for each in found]
        return [Detections(each.corners[good], each.classes[good], each.scores[good]) for each, good in chosen]

    def scores(self, outputs: Outputs, targets: BoxTargets) -> Scores:
        from edgeopt_detection.scores.average_precision import detection_scores  # as above

        names = [str(label) for label in range(self.decoder.classes)]
        found = detection_scores(self.found(outputs), targets.boxes(), names)
        pairs = ((MAP, found.map), (MAP50, found.map50))
        return Scores(tuple(Score(each.value, (each.low, each.high), len(targets), kind) for kind, each in pairs))

    def right(self, outputs: Outputs, targets: BoxTargets) -> NDArray[np.bool_]:
        """Images whose boxes are all found, and nothing else."""
        return self.grades(outputs, targets) >= 1.0

    def grades(self, outputs: Outputs, targets: BoxTargets) -> NDArray[np.float64]:
        """F1 of the shown boxes of each image at an overlap of 0.5; 1 where there is nothing, and nothing is shown."""
        from edgeopt_detection.report import image_grades  # as above

        return image_grades(self.shown(outputs), targets.boxes(), self.decoder.classes, _FOUND)

    def alike(self, outputs: Outputs, reference: Outputs) -> NDArray[np.bool_]:
        """Images for which every shown box of either has one of the other, of its class and nearly its place."""
        from edgeopt_detection.boxes import Boxes  # as above
        from edgeopt_detection.report import image_grades
        from edgeopt_detection.scores.agreement import SAME_OVERLAP

        others = [Boxes.of(each.corners, each.classes) for each in self.shown(reference)]
        return image_grades(self.shown(outputs), others, self.decoder.classes, SAME_OVERLAP) >= 1.0

    def agreement(self, outputs: Outputs, reference: Outputs) -> float:
        """The share of the shown boxes of both that have one of the other, of their class and nearly their place."""
        from edgeopt_detection.scores.agreement import box_agreement  # as above

        return box_agreement(self.shown(outputs), self.shown(reference), self.decoder.classes).share

    def decode(self, outputs: Outputs) -> list[DetectedObjects]:
        """What an app shows, decoded anew at each call: it is timed."""
        return answers(outputs, {"decoding": self.decoder.model_dump(), "shown_score": self.shown_score})

    def told(self, answer: DetectedObjects, classes: Sequence[str]) -> str:
        counts: dict[str, int] = {}
        for each in answer.objects:
            counts[classes[each.label]] = counts.get(classes[each.label], 0) + 1
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"

    def drawings(self, outputs: Outputs, classes: Sequence[str]) -> list[Drawing]:
        """All boxes that the decoding finds, and which of them are shown."""
        found = self.found(outputs)
        words = [self.told(answer, classes) for answer in _objects(self._confident(found))]
        return [
            Drawing(
                said,
                boxes=tuple(DrawnBox(each.label, each.score, each.corners) for each in answer.objects),
                shown_score=self.shown_score,
            )
            for said, answer in zip(words, _objects(found), strict=True)
        ]

    # ---- files that end at boxes

    @property
    def endings(self) -> tuple[str, ...]:
        return (BOXES,)

    def ending(self, name: str) -> Ending:
        return BoxesEnding(self.decoding) if name == BOXES else super().ending(name)

    def ended(self, name: str) -> Detection:
        return replace(self, ends=name)

    def likened(self, outputs: Outputs, reference: Outputs) -> Outputs:
        """Boxes of `reference` in the places of those of a file that are the same, where the file gives boxes."""
        from edgeopt_detection.endings.reading import likened  # as above

        if len(outputs) != len(FOUND):
            return reference
        size = (self.decoder.height, self.decoder.width)
        return likened(outputs, self.found(outputs), self.found(reference), size)

    # ---- what a card says

    def decision(self) -> Mapping[str, Json]:
        """How raw heads become boxes, as `BoxDecoding.from_json` reads it, and from which score on these are shown; of
        a file that ends at boxes the same, which was done within then, and `ends`.
        """
        ends = {} if self.ends == OUTPUTS else {"ends": self.ends}
        decoding = {} if self.decoding is None else {"decoding": self.decoding.to_json()}
        return {**ends, **decoding, "shown_score": self.shown_score}

    def decided(self, decision: Mapping[str, Json]) -> Detection:
        decoding = BoxDecoding.from_json(decision["decoding"]) if "decoding" in decision else None
        ends, shown_score = str(decision.get("ends", OUTPUTS)), float(decision["shown_score"])
        return replace(self, decoding=decoding, shown_score=shown_score, ends=ends)

    # ---- the report

    def sections(self, outputs: Outputs, targets: BoxTargets, classes: Sequence[str]) -> tuple[Section, ...]:
        from edgeopt_detection.report import box_section  # as above

        grades = self.grades(outputs, targets)
        size = (self.decoder.height, self.decoder.width)
        return (box_section(self.found(outputs), self.shown(outputs), targets.boxes(), grades, classes, size),)


def _objects(found: Sequence[Detections]) -> list[DetectedObjects]:
    return objects_in((each.corners, each.classes, each.scores) for each in found)
