"""The options that the core owns: what every data set takes, and the `[trainer]` and `[measure]` tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from edgeopt.arrays import ImageSize, InputKind, Json, sides_of, size_in_words
from edgeopt.option_values import (
    FORMER_NAMES,
    BatchSize,
    Byte,
    ChannelDeviations,
    ChannelMeans,
    Duration,
    EnergyAsked,
    Mixed,
    Protocol,
    ResizedSize,
    ScaleRange,
    Share,
    SizeOption,
    ThreadCount,
    each_once,
    frame_of,
    with_grey_statistics,
    without_usual,
)


class Options(BaseModel):
    """Base of all option models: frozen, strict about unknown keys, every field described.

    `renamed` holds, by its former name, what an option is called now, for the error that the former name gets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    renamed: ClassVar[Mapping[str, str]] = FORMER_NAMES

    def idle_references(self) -> frozenset[str]:
        """Names of options that refer to other plugins and are not looked at beside the others as they are.

        The packages of such a plugin need not be installed, and no key or version of a result tells of it.
        """
        return frozenset()


class Augmentation(Options):
    """Changes of the training images, drawn anew in each epoch. None by default."""

    horizontal_flip: bool = Field(False, description="mirror half of the images, left to right")
    crop_padding: int = Field(
        0, ge=0, le=256, description="pad by up to this many px and cut the image back out at random"
    )
    crop_scale: float = Field(
        1.0, gt=0.0, le=1.0, description="smallest share of the area that a random crop keeps, 1 for none"
    )
    iou_crop: Share = Field(0.0, description="of boxes: probability of a random crop that keeps one of them in sight")
    scale_jitter: ScaleRange = Field(
        (1.0, 1.0), description="show all larger or smaller by a factor from the first to the second, at a random place"
    )
    rotation_degrees: float = Field(0.0, ge=0.0, le=180.0, description="rotate by up to this angle, either way")
    brightness: float = Field(0.0, ge=0.0, le=1.0, description="change brightness by up to this share")
    contrast: float = Field(0.0, ge=0.0, le=1.0, description="change contrast by up to this share")
    saturation: float = Field(0.0, ge=0.0, le=1.0, description="change saturation by up to this share")
    erase: float = Field(0.0, ge=0.0, le=1.0, description="probability of erasing a random rectangle")
    policy: Literal["none", "rand-augment", "trivial-augment"] = Field(
        "none", description="before all others, random changes of colour and place: some of one strength, or one of any"
    )
    policy_operations: int = Field(2, ge=1, le=8, description="changes of an image by rand-augment")
    policy_magnitude: int = Field(9, ge=0, le=30, description="strength of the changes of rand-augment, of 30")
    mosaic: Share = Field(
        0.0, description="of boxes and masks: share of images that are put together of parts of four; `qat` has none"
    )
    mixup: Mixed = Field(0.0, description="blend images with others, and labels alike; shares by Beta(mixup, mixup)")
    cutmix: Mixed = Field(0.0, description="as mixup, with a part of the other put in; of both, a batch takes one")

    @property
    def mixes(self) -> bool:
        """Whether images are blended with others, so that targets have to be."""
        return bool(self.mixup or self.cutmix)

    @model_validator(mode="after")
    def _policy_has_an_effect(self) -> Augmentation:
        if self.policy != "rand-augment" and (self.policy_operations, self.policy_magnitude) != (2, 9):
            raise ValueError('policy_operations and policy_magnitude are for policy = "rand-augment"')
        return self

    @model_serializer(mode="wrap")
    def _as_before_policies(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        policies = ("policy", "policy_operations", "policy_magnitude")
        later = (*policies, "mixup", "cutmix", "iou_crop", "scale_jitter", "mosaic")
        return without_usual(self, write(self), later)


class SplitShares(Options):
    """Shares of the images for splits that the data set does not come with."""

    validation: float = Field(
        0.15, gt=0.0, lt=1.0, description="share for validation, on which every selection is made"
    )
    test: float = Field(0.15, gt=0.0, lt=1.0, description="share for the final test, which passes never see")
    calibration: float = Field(
        0.1,
        gt=0.0,
        lt=1.0,
        description="share of the training images set aside to calibrate quantizers, at most 512 images",
    )
    seed: int = Field(
        0, ge=0, description="seed of the draw, apart from the recipe's so that splits outlive a change of it"
    )

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> SplitShares:
        if self.validation + self.test >= 1.0:
            raise ValueError("validation and test together leave nothing for training")
        return self


class DatasetOptions(Options):
    """What every data set takes; a dataset plugin's options extend this."""

    image_size: SizeOption = Field(
        224, description="what the model sees of an image, px: the edge of a square, or [height, width]"
    )
    fit: Literal["crop", "letterbox", "stretch"] = Field(
        "crop",
        description='what becomes of an image of another ratio: "crop" keeps its middle; "letterbox" all of it, with '
        '`background` around it; "stretch" all of it, each side resized by itself',
    )
    resize: ResizedSize | None = Field(
        None,
        description="size before the middle is cut out, px: the shorter side, or [height, width] that the image has to "
        "cover; image_size when left out",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field("bilinear", description="how images are resized")
    channels: Literal[3, 1] = Field(3, description="3 for red, green and blue; 1 for grey")
    mean: ChannelMeans = Field(
        (0.485, 0.456, 0.406), description="per-channel mean, of pixels scaled to 0..1; [0.459] of grey when left out"
    )
    std: ChannelDeviations = Field(
        (0.229, 0.224, 0.225),
        description="per-channel standard deviation, of pixels scaled to 0..1; [0.226] of grey when left out",
    )
    background: tuple[Byte, Byte, Byte] = Field(
        (255, 255, 255),
        description="what transparent places of an image show: red, green and blue in 0..255; white, as in a browser",
    )
    grey_bits: int | None = Field(
        None,
        ge=8,
        le=16,
        description="bits that grey values in 16-bit files have, such as 12 of a microscope's camera; "
        "seen from the images when left out",
    )
    classes: tuple[str, ...] | None = Field(
        None, min_length=2, description="keep only these classes, labelled in this order; all of them when left out"
    )
    limit: int | None = Field(None, ge=1, description="at most this many images a split, drawn evenly over the classes")
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="what an unreadable image does: stop the run, or be skipped and counted"
    )
    shares: SplitShares = Field(default_factory=SplitShares, description="shares of the splits that are drawn")
    augmentation: Augmentation = Field(default_factory=Augmentation, description="changes of the training images")

    @model_validator(mode="before")
    @classmethod
    def _statistics_of_grey(cls, values: Any) -> Any:
        return with_grey_statistics(values)

    @model_validator(mode="after")
    def _fits_together(self) -> DatasetOptions:
        if self.resize is not None and self.fit != "crop":
            raise ValueError(f'resize is for fit = "crop", and fit = "{self.fit}" keeps the whole image: leave it out')
        if any(side < own for side, own in zip(sides_of(self.frame), sides_of(self.image_size), strict=True)):
            frame, size = size_in_words(self.frame), size_in_words(self.image_size)
            raise ValueError(f"resize ({frame} px) is smaller than image_size ({size} px)")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                channels = f"{self.channels} channel{'s' if self.channels > 1 else ''}"
                raise ValueError(f"{name} has {len(values)} numbers, and images have {channels}")
        if self.channels == 1 and self.augmentation.saturation:
            raise ValueError("augmentation.saturation changes nothing in grey images (channels = 1): leave it out")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes names a class twice")
        return self

    @model_serializer(mode="wrap")
    def _as_before_shapes(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A data set of colours whose middle is kept has the keys that it had before there were others."""
        return without_usual(self, write(self), ("channels", "fit"))

    @property
    def frame(self) -> ImageSize:
        """What an image has to cover before its middle is cut out, px."""
        return frame_of(self.image_size, self.resize)


def without_augmentation(options: DatasetOptions) -> DatasetOptions:
    """The options as they count where no image is changed, which is everywhere but in training."""
    return options.model_copy(update={"augmentation": Augmentation()})


class FileInput(Options):
    """What a file takes: the `[exports.input]` table."""

    kind: InputKind = Field(
        InputKind.FLOAT_NCHW,
        description='"float-nchw": normalized floats; "uint8-nhwc": pixels as a camera has them, '
        "normalized inside the file",
    )


class ExporterOptions(Options):
    """What every exporter of PyTorch programs takes; their options extend this."""

    renamed: ClassVar[Mapping[str, str]] = {**FORMER_NAMES, "nms": "ends"}  # as other makers' exporters call it
    input: FileInput = Field(default_factory=FileInput, description="what the file takes for an image")
    ends: str = Field(
        "outputs",
        description='what the file ends at: the network\'s "outputs", or what its task makes of them, inside the file: '
        '"boxes" of a detector, "classes" of a segmenter',
    )

    @model_serializer(mode="wrap")
    def _as_before_endings(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(self, write(self), ("ends",))


class TrainerSettings(Options):
    """Where and how training runs: the `[trainer]` table, handed to Lightning."""

    accelerator: Literal["auto", "cpu", "gpu", "mps", "tpu"] = Field("auto", description="device kind")
    devices: int | Literal["auto"] = Field(1, description='how many devices, or "auto" for all of them')
    strategy: Literal["auto", "ddp"] = Field("auto", description="how several devices share the work")
    num_nodes: int = Field(1, ge=1, description="how many machines")
    precision: Literal["32", "bf16-mixed", "16-mixed", "auto"] = Field(
        "32", description='arithmetic of float training; "auto" takes mixed precision where the device has it'
    )
    channels_last: bool = Field(True, description="keep images channels-last in memory, faster on most CPUs and GPUs")
    compile: bool = Field(False, description="compile the training step with torch.compile: pays in long runs")
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; the machine's cores when left out")
    loader_workers: int = Field(0, ge=0, le=256, description="processes that read images which do not fit in the cache")
    loggers: tuple[Literal["tensorboard", "mlflow", "wandb", "trackio"], ...] = Field(
        (), description="trackers that are given the figures of each epoch and of each file"
    )

    @model_validator(mode="after")
    def _devices_positive(self) -> TrainerSettings:
        if isinstance(self.devices, int) and self.devices < 1:
            raise ValueError("devices must be at least 1")
        return self

    def decisive(self) -> dict[str, Json]:
        """All of it, as JSON, that results depend on."""
        return {name: value for name, value in to_json(self).items() if name not in ("loader_workers", "loggers")}


class SweepSettings(Options):
    """Along which axes files are measured beside that: the `[measure.sweep]` table. What is left out is not swept."""

    sizes: Annotated[tuple[SizeOption, ...], AfterValidator(each_once)] = Field(
        (),
        description="sizes of images, px, for which files are made anew with the same weights and scales: latency, "
        "and accuracy on the test split decoded at each, beside those of their own size",
        examples=[[96, 160, 224]],
    )
    batches: Annotated[tuple[BatchSize, ...], AfterValidator(each_once)] = Field(
        (), description="numbers of images in a call; `batch_size` when left out", examples=[[1, 2, 4, 8]]
    )
    threads: Annotated[tuple[ThreadCount, ...], AfterValidator(each_once)] = Field(
        (), description="numbers of threads of each runtime; `threads` of [measure] when left out", examples=[[1, 2]]
    )
    sustained: Duration | None = Field(
        None, description="also call each file for so long without a pause, as in 10m", examples=["10m"]
    )
    operators: bool = Field(False, description="also what each layer and operator takes, where the runtime tells")
    energy: bool = Field(
        False, description="also the energy of an image, where the machine has a meter that may be read"
    )


class MeasureSettings(Options):
    """How latency and energy are measured: the `[measure]` table."""

    threads: int = Field(
        1,
        ge=1,
        le=256,
        description="threads of each runtime; with more than one, latency also tells "
        "how far apart the machine's cores are",
    )
    batch_size: int = Field(
        1, ge=1, le=1024, description="images in a call, as in the app: latency, accuracy and agreement are those of it"
    )
    warmup: int = Field(10, ge=1, le=10_000, description="calls before the first that counts, for each file")
    runs: int = Field(100, ge=5, le=100_000, description="calls that count, for each file")
    protocol: Protocol = Field(
        Protocol.CALLS,
        description='"calls": as many calls as `runs` says; "single-stream": at least 1,024 calls and 60 s for each '
        "file, as MLPerf asks for, whose figure is the p90",
    )
    timeout_s: float = Field(
        600.0,
        gt=0,
        le=86_400,
        description="longest wait for a file to load, for a turn of calls, or for its next answers in verification, s; "
        "a file that takes longer fails, and the others go on",
    )
    rounds: int = Field(
        5, ge=1, le=1000, description="turns in which the files are measured, so that drift meets all alike"
    )
    device_images: int = Field(
        500, ge=1, le=1_000_000, description="test images for which every file answers on each of [[devices]]"
    )
    energy: EnergyAsked = Field(
        False,
        description="also the energy of an image in each file, by the meter of this machine and of each of "
        '[[devices]]; "devices" for theirs alone',
    )

    sweep: SweepSettings | None = Field(
        None,
        description="along which axes `edgeopt run` benchmarks its files at the end, and `edgeopt bench RUN` by itself",
    )

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A recipe that asks for neither has the keys that it had before there were any."""
        return without_usual(self, write(self), ("energy", "sweep"))

    @property
    def energy_here(self) -> bool:
        """Whether this machine's meter is asked."""
        return self.energy is True

    @property
    def energy_there(self) -> bool:
        """Whether those of devices are."""
        return self.energy is not False

    def decisive(self, *, there: bool) -> dict[str, Json]:
        """All of it, as JSON, that figures of this machine depend on, or those of a device, which is `there`."""
        other = ("timeout_s", "sweep", "energy", *(() if there else ("device_images",)))
        asks_meter = self.energy_there if there else self.energy_here
        read = {name: value for name, value in to_json(self).items() if name not in other}
        return read | {"energy": True} if asks_meter else read

    def only_shown(self) -> MeasureSettings:
        """As little as shows that files can be timed; a meter would want its time."""
        return self.model_copy(update={"warmup": 1, "runs": 5, "rounds": 1, "energy": False})

    @model_validator(mode="after")
    def _one_image_a_query(self) -> MeasureSettings:
        if self.protocol is not Protocol.SINGLE_STREAM:
            return self
        if self.batch_size != 1:
            raise ValueError(f'protocol = "single-stream" has one image a call, and batch_size is {self.batch_size}')
        if self.sweep and (several := [each for each in self.sweep.batches if each != 1]):
            raise ValueError(f'protocol = "single-stream" has one image a call, and sweep.batches has {several[0]}')
        return self


def to_json(options: BaseModel) -> dict[str, Any]:
    """Options as JSON values, defaults included: what keys are made of and what the lock records."""
    return options.model_dump(mode="json")
