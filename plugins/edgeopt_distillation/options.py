"""The options of `distill` and `earlier-run`; `TaughtOptions` is for every pass that can train with a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgeopt.plugins import AsTable, ModelPlugin, Options, PosixPath, Share, Use
from edgeopt_lightning.options import LIBRARIES as FIT_LIBRARIES
from edgeopt_lightning.options import FitOptions

#: Import packages of other plugins that training with a teacher uses, and that those use.
LIBRARIES = ("edgeopt_lightning", *FIT_LIBRARIES)
#: The `libraries` of every plugin of another package that can train with a teacher.
TAUGHT_LIBRARIES = ("edgeopt_distillation", *LIBRARIES)

LayerPair = tuple[str, str]
Channels = tuple[float, float, float]
_Positive = Annotated[float, Field(gt=0)]
Deviations = tuple[_Positive, _Positive, _Positive]
FLOAT = "float"


class TeacherOptions(Options):
    """Learning from a teacher's logits."""

    teacher: Annotated[Use[ModelPlugin] | Literal["float", "none"] | None, AsTable] = Field(
        None,
        description="trained model to learn from besides the labels: a model plugin with its own weights, such as "
        'earlier-run, or "float" for this recipe\'s model as it was before the first pass that compresses it; "none" '
        "for the labels alone, as when left out",
    )
    teacher_mean: Channels | None = Field(
        None,
        description="mean of each channel, of pixels scaled to 0..1, with which the teacher was trained; left out, it "
        "is that of the data set, or of the run for earlier-run",
    )
    teacher_std: Deviations | None = Field(
        None, description="standard deviation of each channel with which the teacher was trained, as teacher_mean"
    )
    temperature: float = Field(
        4.0, gt=0.0, le=100.0, description="divides the logits of both before they are compared; higher is softer"
    )
    alpha: Share = Field(0.9, description="share of the teacher in the loss, the labels have the rest")
    alpha_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="how alpha falls to alpha_end over the epochs"
    )
    alpha_end: Share | None = Field(None, description="alpha in the last epoch; 0 when left out, unless constant")

    @model_validator(mode="after")
    def _normalization_is_whole(self) -> TeacherOptions:
        if (self.teacher_mean is None) != (self.teacher_std is None):
            raise ValueError("teacher_mean and teacher_std belong together: give both, or neither")
        if self.teacher_mean is not None and not isinstance(self.teacher, Use):
            raise ValueError("teacher_mean and teacher_std need a teacher that is a model plugin")
        return self

    @model_validator(mode="after")
    def _alpha_falls(self) -> TeacherOptions:
        if self.alpha_end is not None and self.alpha_schedule == "constant":
            raise ValueError('alpha_end needs alpha_schedule = "linear" or "cosine"')
        if self.alpha_end is not None and self.alpha_end > self.alpha:
            raise ValueError(f"alpha_end ({self.alpha_end:g}) is above alpha ({self.alpha:g})")
        return self


class TaughtOptions(FitOptions, TeacherOptions):
    """What every pass takes that trains with a teacher where one is named; passes extend it."""

    control: bool = Field(
        True, description="train the same without the teacher as well, for the report; doubles the time"
    )

    @model_validator(mode="after")
    def _teacher_is_heard(self) -> TaughtOptions:
        if self.teacher not in (None, "none"):
            if self.alpha == 0 and not self._compares_layers():
                raise ValueError("alpha = 0 leaves the teacher nothing to teach")
            return self
        if self.teacher is None and self._may_be_taught():
            return self
        fields = TaughtOptions.model_fields
        for name in ("temperature", "alpha", "alpha_schedule", "alpha_end", "control"):
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} needs a teacher")
        return self

    def _compares_layers(self) -> bool:
        """Whether the teacher is heard besides its logits."""
        return False

    def _may_be_taught(self) -> bool:
        """Whether the pass finds a teacher by itself where none is named."""
        return False


class DistillOptions(TaughtOptions):
    """Training with a teacher."""

    teacher: Annotated[Use[ModelPlugin] | Literal["float"], AsTable] = Field(
        description="trained model to learn from besides the labels: a model plugin with its own weights, such as "
        'earlier-run, or "float" for this recipe\'s model as it was before the first pass that compresses it',
        examples=[{"use": "torchvision", "arch": "resnet50", "weights": "DEFAULT"}],
    )
    features: tuple[LayerPair, ...] = Field(
        (), description="pairs of a student's and a teacher's layer, by name, whose outputs shall be alike"
    )
    feature_weight: float = Field(1.0, gt=0.0, le=1e6, description="weight of the features in the loss")
    attention: tuple[LayerPair, ...] = Field(
        (), description="pairs of layers that shall look at the same places of an image"
    )
    attention_weight: float = Field(1.0, gt=0.0, le=1e6, description="weight of the attention in the loss")

    def _compares_layers(self) -> bool:
        return bool(self.features or self.attention)

    @model_validator(mode="after")
    def _weights_weigh_something(self) -> DistillOptions:
        for weight, pairs in (("feature_weight", "features"), ("attention_weight", "attention")):
            if getattr(self, weight) != type(self).model_fields[weight].default and not getattr(self, pairs):
                raise ValueError(f"{weight} needs {pairs} to name layers")
        return self


class EarlierRunOptions(Options):
    """Where the earlier run left its results."""

    run: PosixPath = Field(
        description="folder of the run, in which its report.json is", examples=[Path("runs/my-recipe")]
    )
