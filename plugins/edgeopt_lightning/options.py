"""The options of training: `FitOptions` for every pass that fits a model, `TrainOptions` for `train`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgeopt.plugins import Options, without_usual

#: Import packages of other plugins that training uses.
LIBRARIES = ("edgeopt_torchvision",)

Schedule = Literal["one-cycle", "cosine", "step", "plateau", "constant"]


class FitOptions(Options):
    """What every pass that trains takes; passes extend it and choose defaults of their own."""

    epochs: int = Field(10, ge=1, le=100_000, description="most passes over the training images")
    batch_size: int = Field(64, ge=2, le=65_536, description="images in a batch, on each device")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="how gradients move the weights")
    learning_rate: float = Field(3e-3, gt=0.0, le=100.0, description="highest learning rate of the schedule")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="momentum of sgd")
    weight_decay: float = Field(
        1e-2, ge=0.0, le=1.0, description="pull of the weights towards zero; biases and normalization are left out"
    )
    schedule: Schedule = Field("one-cycle", description="how the learning rate changes while training")
    warmup_epochs: float | None = Field(
        None,
        ge=0.0,
        description="epochs over which the learning rate rises; when left out, 0.3 of all in one-cycle, else none",
    )
    final_learning_rate: float = Field(0.0, ge=0.0, description="learning rate at the end of the cosine schedule")
    decay_epochs: int = Field(10, ge=1, description="epochs between two cuts of the step schedule")
    decay_factor: float = Field(
        0.1, gt=0.0, lt=1.0, description="what the step and plateau schedules multiply the learning rate by"
    )
    plateau_patience: int = Field(
        3, ge=0, description="epochs without a lower validation loss that the plateau schedule waits before a cut"
    )
    label_smoothing: float = Field(
        0.0, ge=0.0, lt=1.0, description="share of each label that is spread over all classes"
    )
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0.0)]] = Field(
        "none",
        description='how much the images of a class count in the loss: "balanced" makes all classes count alike; or a '
        "table with a weight by class, 1 for those that it leaves out",
        examples=["balanced", {"cat": 2.0}],
    )
    sampling: Literal["shuffled", "balanced"] = Field(
        "shuffled",
        description='images of an epoch: "shuffled" shows each once; "balanced" as many, of each class equally often',
    )
    accumulate: int = Field(1, ge=1, le=65_536, description="batches whose gradients are added up before a step")
    gradient_clip: float | None = Field(
        None, gt=0.0, description="largest norm of the gradients; longer ones are scaled down to it"
    )
    averaging: Literal["none", "swa", "ema"] = Field(
        "none",
        description="averaged weights: swa averages epochs from swa_start on, ema every step with a falling memory",
    )
    ema_decay: float = Field(0.999, gt=0.0, lt=1.0, description="share of the average that ema keeps at each step")
    swa_start: float = Field(0.75, ge=0.0, lt=1.0, description="share of the epochs before swa begins to average")
    swa_learning_rate: float | None = Field(
        None, gt=0.0, description="learning rate held while swa averages; the schedule goes on when left out"
    )
    patience: int | None = Field(
        None, ge=1, description="stop after this many epochs without a better validation score; never when left out"
    )
    batch_norm_momentum: float | None = Field(
        0.1,
        gt=0.0,
        le=1.0,
        description="weight of each batch in BatchNorm's running statistics; none keeps the model's own, which is too "
        "small for short trainings in MobileNetV3 (0.01)",
    )

    @property
    def settles(self) -> bool:
        """Whether the learning rate comes down to the last epoch, and no patience ends the training before."""
        return self.schedule in ("one-cycle", "cosine") and self.patience is None

    @model_validator(mode="after")
    def _balanced_once(self) -> FitOptions:
        if self.class_weights == "balanced" and self.sampling == "balanced":
            raise ValueError(
                'class_weights and sampling are both "balanced", and each makes classes count alike: choose'
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before_balance(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not asked for is not told: recipes keep the keys that they had before there were these."""
        return without_usual(self, write(self), ("class_weights", "sampling"))

    @model_validator(mode="after")
    def _warmup_ends_before_training(self) -> FitOptions:
        if self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs:g}) must be less than epochs ({self.epochs})")
        return self

    @model_validator(mode="after")
    def _final_below_highest(self) -> FitOptions:
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate ({self.final_learning_rate:g}) is above learning_rate ({self.learning_rate:g})"
            )
        return self


class TrainOptions(FitOptions):
    """Training of the float model."""

    freeze: tuple[str, ...] = Field(
        (),
        description='parts that keep their weights: module names or patterns such as "features.*", or "backbone" for '
        "all but the model's last part, its classifier",
    )
    unfreeze_last: int = Field(
        0, ge=0, description="of the layers that freeze names, the last this many train all the same"
    )
    unfreeze_epoch: int | None = Field(
        None, ge=1, description="epochs after which the frozen parts train too; never when left out"
    )
    reestimate_batch_norm: bool = Field(
        True, description="collect BatchNorm statistics anew at the end, and keep them where validation agrees"
    )

    @model_validator(mode="after")
    def _something_to_unfreeze(self) -> TrainOptions:
        if not self.freeze and (self.unfreeze_last or self.unfreeze_epoch is not None):
            name = "unfreeze_last" if self.unfreeze_last else "unfreeze_epoch"
            raise ValueError(f"{name} needs freeze to name what is frozen")
        if self.unfreeze_epoch is not None and self.unfreeze_epoch >= self.epochs:
            raise ValueError(f"unfreeze_epoch ({self.unfreeze_epoch}) must be less than epochs ({self.epochs})")
        return self
