"""The task: the angle of a bar, which looks the same after half a turn.

NumPy and torch are imported where arrays are at hand, because `edgeopt check` asks a task for its scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt.plugins import (
    Guess,
    GuessKind,
    Outline,
    Score,
    ScoreKind,
    Scores,
    Section,
    SectionImage,
    SectionTable,
    Task,
    mean_interval,
    wilson_interval,
)
from edgeopt_angle.answers import Answer, angles, answers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from edgeopt.plugins import Geometry, Moves, Outputs

    Degrees = NDArray[np.float32]

_RANGE = 30  # degrees of a row of the report's table
_SHOWN = 12
_SAME = 1.0  # degrees: answers that are no farther apart are one answer


@dataclass(frozen=True)
class Angle(Task):
    """Targets are degrees from 0 to 180, float32 (n,), counterclockwise from the x axis. The one output, float (n, 2),
    is cosine and sine of *twice* the angle: so 179° and 1° are neighbours, and nothing jumps at 180°.
    """

    close_degrees: float = 5.0
    name: str = "angle"

    @property
    def score_kinds(self) -> tuple[ScoreKind, ...]:
        """The mean error in degrees, and the share of images that are close enough."""
        error = ScoreKind("mean_error", larger_is_better=False, unit="°")
        return error, ScoreKind("within", f"within {self.close_degrees:g}°")

    @property
    def is_placed(self) -> bool:
        """A bar turns with its image."""
        return True

    # ---- targets

    def wrong(self, target: Any, classes: int) -> str | None:  # noqa: ARG002 - bars have no classes
        """An angle out of range, which may be one in radians or of a whole turn."""
        return None if 0.0 <= target <= 180.0 else f"its angle is {target:g}, and angles are degrees from 0 to 180"

    def moved(self, target: float, geometry: Geometry) -> float:
        """The angle in an image whose sides were scaled unequally."""
        import numpy as np

        across, up = np.cos(np.radians(target)), np.sin(np.radians(target))
        scale = geometry.scale
        return float(np.degrees(np.arctan2(up * scale[1], across * scale[0])) % 180.0)

    def collected(self, targets: Sequence[float]) -> Degrees:
        """Degrees, float32 (n,)."""
        import numpy as np

        return np.asarray(targets, dtype=np.float32)

    def stored(self, targets: Degrees) -> Mapping[str, NDArray[Any]]:
        """The degrees as they are."""
        return {"degrees": targets}

    def restored(self, arrays: Mapping[str, NDArray[Any]]) -> Degrees:
        """The degrees."""
        return arrays["degrees"]

    # ---- training

    def augmented(self, batch: Tensor, moves: Moves) -> Tensor:
        """The angles of bars that were mirrored and turned with their images."""
        import torch

        angle = torch.deg2rad(batch)
        direction = torch.stack([angle.cos(), -angle.sin()], dim=1)[:, None]  # px: y grows downwards
        x, y = moves.directions(direction)[:, 0].unbind(dim=1)
        return torch.rad2deg(torch.atan2(-y, x)) % 180.0

    def loss(self, outputs: tuple[Tensor, ...], batch: Tensor, label_smoothing: float = 0.0) -> Tensor:  # noqa: ARG002
        """The squared distance from the point on the circle, mean over the images."""
        import torch

        twice = torch.deg2rad(2 * batch)
        return (outputs[0] - torch.stack([twice.cos(), twice.sin()], dim=1)).square().sum(dim=1).mean()

    # ---- answers

    def unfit(self, shapes: Sequence[tuple[int, ...]], images: int, classes: int | None) -> str | None:  # noqa: ARG002
        """Anything but two numbers an image."""
        return None if list(shapes) == [(images, 2)] else f"{list(shapes)} for {images} images, not one output (n, 2)"

    def angles(self, outputs: Outputs) -> NDArray[np.float64]:
        """Degrees from 0 to 180, float (n,), that outputs stand for."""
        return angles(outputs)

    def scores(self, outputs: Outputs, targets: Degrees) -> Scores:
        """The mean error with its interval by drawing images anew, and the share that is close with Wilson's."""
        errors, count = -self.grades(outputs, targets), len(targets)
        close = int((errors <= self.close_degrees).sum())
        mean, within = self.score_kinds
        return Scores(
            (
                Score(float(errors.mean()), mean_interval(errors), count, mean),
                Score(close / count, wilson_interval(close, count), count, within),
            )
        )

    def grades(self, outputs: Outputs, targets: Degrees) -> NDArray[np.float64]:
        """The error of each image with a minus, in degrees: larger is better."""
        return -_apart(self.angles(outputs), targets)

    def right(self, outputs: Outputs, targets: Degrees) -> NDArray[np.bool_]:
        """Whether an answer is close."""
        right: NDArray[np.bool_] = self.grades(outputs, targets) >= -self.close_degrees
        return right

    def alike(self, outputs: Outputs, reference: Outputs) -> NDArray[np.bool_]:
        """Whether two answers are close to each other."""
        alike: NDArray[np.bool_] = _apart(self.angles(outputs), self.angles(reference)) <= self.close_degrees
        return alike

    def decode(self, outputs: Outputs) -> list[Answer]:
        """The angles."""
        return answers(outputs, self.decision())

    def told(self, answer: Answer, classes: Sequence[str]) -> str:  # noqa: ARG002
        """Whole degrees."""
        return f"{answer.degrees:.0f}°"

    def guess(self, outputs: Outputs, targets: Degrees, classes: Sequence[str]) -> Guess | None:  # noqa: ARG002
        """One angle for all images, or no smaller errors than the best such angle has."""
        import numpy as np

        answers, count = self.angles(outputs), len(targets)
        right = int(self.right(outputs, targets).sum())
        if (_apart(answers, answers[0]) <= _SAME).all():
            return Guess(GuessKind.ONE_CLASS, right, count, 0, f"{answers[0]:.0f}°")
        every = np.arange(180.0)
        by_constant = _apart(every[:, None], targets[None]).mean(axis=1)
        if mean_interval(_apart(answers, targets))[1] < by_constant.min():
            return None
        return Guess(GuessKind.CONSTANT, right, count, 0, f"{every[by_constant.argmin()]:.0f}°")

    # ---- the report

    def sections(self, outputs: Outputs, targets: Degrees, classes: Sequence[str]) -> tuple[Section, ...]:  # noqa: ARG002
        """The error by the bar's angle, and the images with the largest errors."""
        errors, answers = -self.grades(outputs, targets), self.angles(outputs)
        rows = []
        for start in range(0, 180, _RANGE):
            inside = (targets >= start) & (targets < start + _RANGE)
            mean = f"{errors[inside].mean():.1f}°" if inside.any() else "–"
            rows.append((f"{start}° to {start + _RANGE}°", int(inside.sum()), mean))
        images = tuple(
            SectionImage(
                int(index),
                truth=f"{targets[index]:.0f}°",
                answer=f"{answers[index]:.0f}°",
                right=bool(errors[index] <= self.close_degrees),
                outlines=(_line(float(targets[index]), is_truth=True), _line(float(answers[index]), is_truth=False)),
            )
            for index in errors.argsort()[::-1][:_SHOWN]
        )
        table = SectionTable(("angle of the bar", "images", "mean error"), tuple(rows), "Error by angle")
        text = ("The images have the largest errors first; a dashed line is the bar's angle.",)
        return (Section("Angles", text, (table,), images=images),)


def _apart(one: Any, other: Any) -> NDArray[np.float64]:
    """Degrees between two angles of bars, 0 to 90: 179° and 1° are 2° apart."""
    apart: NDArray[np.float64] = abs((one - other + 90.0) % 180.0 - 90.0)
    return apart


def _line(degrees: float, *, is_truth: bool) -> Outline:
    """A line through the image's middle."""
    import numpy as np

    x, y = 0.4 * np.cos(np.radians(degrees)), 0.4 * np.sin(np.radians(degrees))
    ends = ((0.5 - x, 0.5 + y), (0.5 + x, 0.5 - y))
    return Outline(tuple((float(a), float(b)) for a, b in ends), f"{degrees:.0f}°", is_truth)
