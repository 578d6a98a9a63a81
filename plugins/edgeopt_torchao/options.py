"""The options of `ptq` and `qat`, and of the probe `bits`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgeopt.networks.bits import CONTAINER_BITS, WIDE_BITS
from edgeopt.plugins import AsTable, ExporterPlugin, ModelPlugin, Options, QuantizerPlugin, Use
from edgeopt_distillation.options import TaughtOptions
from edgeopt_lightning.options import Schedule

Quantizer = Annotated[Use[QuantizerPlugin], AsTable]
BitsOrFloat = Annotated[int, Field(ge=2, le=8)] | Literal["float"]
ActivationBits = Annotated[int, Field(ge=2, le=8)] | Literal[16]


class BitOptions(Options):
    """How many bits weights and activations take."""

    weight_bits: int = Field(8, ge=2, le=8, description="bits of the weights of convolution and linear layers")
    activation_bits: ActivationBits = Field(
        8,
        description="bits of what enters a convolution or linear layer; 16 for int16 wherever a value is rounded, with "
        'weights of 8 bits: "16x8"',
    )
    edge_bits: int = Field(
        8, ge=2, le=8, description="bits of the first and the last layer, where they are more than those of the rest"
    )
    layer_bits: dict[str, BitsOrFloat] = Field(
        {},
        description='bits of the weights and inputs of single layers, by module name or pattern such as "layer1.*"; '
        '"float" leaves a layer as it is',
    )
    allocation: str | None = Field(
        None,
        min_length=1,
        description="bits of single layers from the file of `edgeopt sensitivity RECIPE --of bits`, or quantization, "
        "or your own",
        examples=["runs/NAME/sensitivity-bits/allocation.toml"],
    )
    average_bits: float | None = Field(
        None,
        ge=2.0,
        le=8.0,
        description="a budget for the weights of all layers: each takes one of bit_choices, by how much the logits "
        "mind it",
    )
    weight_bytes: int | None = Field(None, ge=1, description="the same budget in bytes")
    bit_choices: tuple[Annotated[int, Field(ge=2, le=8)], ...] = Field(
        (8, 6, 4), min_length=2, description="bits that a weight may take within a budget"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> BitOptions:
        if self.average_bits is not None and self.weight_bytes is not None:
            raise ValueError("average_bits and weight_bytes are two ways to say the same: give one of them")
        if self.has_budget and self.allocation is not None:
            raise ValueError("an allocation says it all: leave the budget out")
        if self.has_budget and self.weight_bits != 8:
            raise ValueError("weight_bits has no say where a budget chooses the bits of each layer")
        if not self.has_budget and self.bit_choices != BitOptions.model_fields["bit_choices"].default:
            raise ValueError("bit_choices needs average_bits or weight_bytes")
        return self

    @model_validator(mode="after")
    def _wide_activations_alone(self) -> BitOptions:
        if self.activation_bits != WIDE_BITS:
            return self
        if self.weight_bits != CONTAINER_BITS or self.has_budget or self.allocation is not None:
            raise ValueError(
                "activation_bits = 16 goes with weights of 8 bits: leave weight_bits, average_bits, weight_bytes and "
                "allocation out"
            )
        if self.edge_bits != CONTAINER_BITS or any(bits != "float" for bits in self.layer_bits.values()):
            raise ValueError(
                'with activation_bits = 16 a layer is 16x8 or "float": leave edge_bits and other layer_bits out'
            )
        return self

    @property
    def has_budget(self) -> bool:
        """Whether each layer's bits are chosen within a budget."""
        return self.average_bits is not None or self.weight_bytes is not None


class PtqOptions(BitOptions):
    """Quantization after training."""

    quantizer: Quantizer = Field(
        "xnnpack",  # type: ignore[arg-type]  # the plan reads a name as the plugin
        description="the target's numerics: name of a quantizer, or a table",
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="calibration images in a batch")
    equalize: bool = Field(
        False, description="scale channels between layers that follow each other, so that one range fits more of them"
    )
    correct_bias: bool = Field(
        False, description="take the mean error that rounding makes in each channel out of the biases"
    )
    rounding: Literal["nearest", "adaptive"] = Field(
        "nearest",
        description="round weights to the nearest integer, or up or down so that each layer's output changes least "
        "(AdaRound)",
    )
    rounding_steps: int = Field(
        1000, ge=1, le=100_000, description="steps in which adaptive rounding learns the weights of a layer"
    )
    repair_images: int = Field(
        128, ge=1, description="calibration images that adaptive rounding and bias correction look at"
    )
    max_accuracy_drop: float | None = Field(
        None,
        ge=0.0,
        lt=1.0,
        description="put layers back to float, those first that mind most, until validation accuracy falls by no more",
    )
    cost_runtime: Annotated[Use[ExporterPlugin], AsTable] = Field(
        "onnx",  # type: ignore[arg-type]  # as above
        description="the exporter whose files tell what a layer in float costs, with max_accuracy_drop",
    )

    @model_validator(mode="after")
    def _costs_of_what_it_takes(self) -> PtqOptions:
        if self.activation_bits == WIDE_BITS and self.max_accuracy_drop is not None:
            runtime = self.cost_runtime
            if not isinstance(runtime, Use) or runtime.plugin.no_int16:  # else it is still the name of the default
                raise ValueError(
                    "cost_runtime takes no int16, so that it cannot tell what a layer in float costs beside "
                    'activation_bits = 16: take cost_runtime = "tflite"'
                )
        return self

    def idle_references(self) -> frozenset[str]:
        """What a layer in float costs is asked only where layers may be put back to float."""
        return frozenset() if self.max_accuracy_drop is not None else frozenset({"cost_runtime"})


class QatOptions(TaughtOptions, BitOptions):
    """Training with the quantization in the loop."""

    quantizer: Quantizer = Field(
        "xnnpack",  # type: ignore[arg-type]  # the plan reads a name as the plugin
        description="the target's numerics: name of a quantizer, or a table",
    )
    teacher: Annotated[Use[ModelPlugin] | Literal["float", "none"] | None, AsTable] = Field(
        None,
        description="trained model to learn from besides the labels: a model plugin with its own weights, such as "
        'earlier-run; "float" for this recipe\'s model as it was before the first pass that compresses it; "none" '
        'for the labels alone. When left out, it is "float", without a control, where steps are learned, else "none"',
    )
    epochs: int = Field(3, ge=1, le=100_000, description="most passes over the training images")
    learning_rate: float = Field(5e-4, gt=0.0, le=100.0, description="highest learning rate of the schedule")
    schedule: Schedule = Field("cosine", description="how the learning rate changes while training")
    observer_epochs: int | None = Field(
        None, ge=1, description="epochs in which ranges move, before they are frozen; half of all when left out"
    )
    batch_norm_epochs: int | None = Field(
        None, ge=1, description="epochs in which BatchNorm statistics move, before they are frozen; half when left out"
    )

    steps: Literal["auto", "observed", "learned"] = Field(
        "auto",
        description="how the distance between two integers is found: from ranges observed in training, or learned "
        "like a "
        "weight; auto learns it for four bits and below",
    )
    dampening: float = Field(
        0.01,
        ge=0.0,
        le=1.0,
        description="share of the way to the middle of their step that weights with learned steps are pulled in each "
        "step at "
        "the end of the training, so that they settle; it rises from 0",
    )

    @model_validator(mode="after")
    def _frozen_before_the_end(self) -> QatOptions:
        for name in ("observer_epochs", "batch_norm_epochs"):
            value = getattr(self, name)
            if value is not None and value > self.epochs:
                raise ValueError(f"{name} ({value}) is more than epochs ({self.epochs}): nothing would ever be frozen")
        return self

    @property
    def learned_up_to_bits(self) -> int:
        """The most bits whose steps are learned."""
        return {"observed": 0, "auto": 4, "learned": 8}[self.steps]

    def _may_be_taught(self) -> bool:
        named = (self.weight_bits, self.activation_bits, *self.layer_bits.values())
        lowest = min(bits for bits in named if bits != "float")
        return lowest <= self.learned_up_to_bits or (self.learned_up_to_bits > 0 and self._bits_are_open())

    def _bits_are_open(self) -> bool:
        """Whether a budget or a file says which bits layers have."""
        return self.has_budget or self.allocation is not None


class BitsProbeOptions(Options):
    """What is rounded besides the weight."""

    inputs: int | None = Field(
        None,
        ge=2,
        le=32,
        description="bits of what enters the layer, as many as the weight's when left out; 32 leaves it in float",
    )
