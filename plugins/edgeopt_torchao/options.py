"""The options of `ptq` and `qat`, and of the probe `bits`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from edgeopt.plugin import AsTable, Options, QuantizerPlugin, Use
from edgeopt_distillation.options import TaughtOptions
from edgeopt_lightning.options import Schedule

Quantizer = Annotated[Use[QuantizerPlugin], AsTable]


class PtqOptions(Options):
    """Quantization after training."""

    quantizer: Quantizer = Field("xnnpack", description="the target's numerics: name of a quantizer, or a table")
    batch_size: int = Field(32, ge=1, le=65_536, description="calibration pictures in a batch")


class QatOptions(TaughtOptions):
    """Training with the quantization in the loop."""

    quantizer: Quantizer = Field("xnnpack", description="the target's numerics: name of a quantizer, or a table")
    epochs: int = Field(3, ge=1, le=100_000, description="most passes over the training pictures")
    learning_rate: float = Field(5e-4, gt=0.0, le=100.0, description="highest learning rate of the schedule")
    schedule: Schedule = Field("cosine", description="how the learning rate changes while training")
    observer_epochs: int | None = Field(
        None, ge=1, description="epochs in which ranges move, before they are frozen; half of all when left out"
    )
    batch_norm_epochs: int | None = Field(
        None, ge=1, description="epochs in which BatchNorm statistics move, before they are frozen; half when left out"
    )

    @model_validator(mode="after")
    def _frozen_before_the_end(self) -> QatOptions:
        for name in ("observer_epochs", "batch_norm_epochs"):
            value = getattr(self, name)
            if value is not None and value > self.epochs:
                raise ValueError(f"{name} ({value}) is more than epochs ({self.epochs}): nothing would ever be frozen")
        return self


class BitsProbeOptions(Options):
    """What is rounded besides the weight."""

    inputs: int | None = Field(
        None,
        ge=2,
        le=32,
        description="bits of what enters the layer, as many as the weight's when left out; 32 leaves it in float",
    )
