"""Files that end at the class of each place. Light at the top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.plugins import Ending

if TYPE_CHECKING:
    from torch import nn

CLASSES = "classes"
"""What `ends` of an export calls them."""
MOST = 256  # values of a byte


@dataclass(frozen=True)
class ClassesEnding(Ending):
    """The argmax of the logits, uint8 (n, height, width), in operators that every runtime has."""

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("masks",)

    def refused(self, form: str, classes: int | None) -> str | None:  # noqa: ARG002 - layers of PyTorch, for any form
        if classes is None or classes <= MOST:
            return None
        return f"a place has a byte, which tells {MOST} classes, and there are {classes}"

    def layers(self, form: str) -> nn.Module:  # noqa: ARG002 - as above
        from edgeopt_segmentation.argmax import ClassOfEachPlace  # torch is heavy

        return ClassOfEachPlace()
