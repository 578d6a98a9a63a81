"""The options of `prune-structured`, `prune-search` and `prune-unstructured`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgeopt.plugins import AsTable, ExporterPlugin, Use
from edgeopt_distillation.options import TaughtOptions
from edgeopt_lightning.options import Schedule

CostKind = Literal["macs", "parameters", "bytes", "latency"]

_PATTERN = re.compile(r"([1-9][0-9]?):([1-9][0-9]?)")
_HALF = 0.5
_PATTERN_TOLERANCE = 0.005  # a sparsity of 0.33 is that of 2:3


class ChannelOptions(TaughtOptions):
    """What both take: a budget, which channels may go, and the training after it."""

    cost: CostKind = Field(
        "macs",
        description="what the budget counts: multiply-accumulate operations, parameters, or the bytes or the measured "
        "latency of a file",
    )
    keep: float | None = Field(
        None, gt=0.0, lt=1.0, description="the budget as a share of what the model costs now; 0.5 when left out"
    )
    budget: float | None = Field(
        None, gt=0.0, description="the budget itself: operations for an image, parameters, bytes, or ms"
    )
    runtime: Annotated[Use[ExporterPlugin], AsTable] = Field(
        "onnx",  # type: ignore[arg-type]  # the plan reads a name
        description="the exporter whose float file is measured where cost is bytes or latency",
    )
    importance: Literal["l1", "l2", "taylor", "fpgm", "bn-scale", "random"] = Field(
        "l2", description="what tells which channels matter least; random is a control"
    )
    round_to: int = Field(
        8, ge=1, le=1024, description="channels are left in multiples of this: 16 fills the blocks of int8 kernels"
    )
    least: float = Field(0.2, gt=0.0, le=1.0, description="smallest share of its channels that any group keeps")
    protect: tuple[str, ...] = Field(
        (), description='layers that keep all outputs: module names or patterns such as "features.0.*"'
    )
    images: int = Field(256, ge=1, description="training images whose gradients taylor adds up")
    epochs: int = Field(5, ge=1, le=100_000, description="most passes over the training images after each removal")
    learning_rate: float = Field(1e-3, gt=0.0, le=100.0, description="highest learning rate of the schedule")
    schedule: Schedule = Field("cosine", description="how the learning rate changes while training")

    def idle_references(self) -> frozenset[str]:
        """Files are measured for bytes and latency alone."""
        return frozenset() if self.cost in ("bytes", "latency") else frozenset({"runtime"})

    @model_validator(mode="after")
    def _one_budget(self) -> ChannelOptions:
        if self.keep is not None and self.budget is not None:
            raise ValueError("keep and budget are two ways to say the same: give one of them")
        return self


class PruneStructuredOptions(ChannelOptions):
    """Removal of whole channels, and recovery training."""

    ranking: Literal["local", "global", "isomorphic", "lamp"] = Field(
        "isomorphic",
        description="whom a channel competes with: those of its group, of all groups, or of groups built alike; lamp "
        "is all "
        "groups, each on a scale of its own",
    )
    allocation: str | None = Field(
        None,
        min_length=1,
        description="a file with the largest share of its channels that each layer may lose, as `edgeopt sensitivity "
        "RECIPE --of "
        "sparsity` writes it; layers that it does not name keep all outputs",
        examples=["runs/NAME/sensitivity-sparsity/allocation.toml"],
    )
    steps: int = Field(1, ge=1, le=100, description="rounds of removal, each followed by recovery training")
    replay: str | None = Field(
        None, min_length=1, description="report.json of an earlier run: removes the channels that it removed"
    )

    @model_validator(mode="after")
    def _replay_decides(self) -> PruneStructuredOptions:
        if self.replay is not None:
            decided = ("cost", "keep", "budget", "importance", "ranking", "round_to", "least", "protect", "allocation")
            fields = type(self).model_fields
            # not `model_fields_set`: a lock writes every default out
            given = [name for name in (*decided, "steps", "images") if getattr(self, name) != fields[name].default]
            if given:
                raise ValueError(f"replay repeats what an earlier run removed, so {given[0]} has no say")
        return self


class PruneSearchOptions(ChannelOptions):
    """A search for the widths of all layers, and fine-tuning."""

    levels: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = Field(
        (0.875, 0.75, 0.625, 0.5, 0.375, 0.25),
        min_length=1,
        description="shares of its channels that each group is tried with, one group at a time",
    )
    degradation: Literal["loss", "metric"] = Field(
        "loss",
        description="what tells how much the network minds, on the validation split: the rise of the loss, or the "
        "fall of the "
        "accuracy, which is coarser",
    )
    statistics_images: int = Field(
        256, ge=2, description="training images from which BatchNorm statistics are collected anew for each try"
    )


class PruneUnstructuredOptions(TaughtOptions):
    """Single weights set to zero by magnitude, and training around them."""

    sparsity: float | None = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="share of zeros in the weights of the pruned layers; when left out, what the pattern gives, else "
        "0.5",
    )
    allocation: str | None = Field(
        None,
        description="a file with a share of zeros for each layer, as `edgeopt sensitivity RECIPE --of sparsity` "
        "writes it, in "
        "place of sparsity; layers that it does not name stay dense",
        examples=["runs/NAME/sensitivity-sparsity/allocation.toml"],
    )
    scope: Literal["global", "layer", "lamp"] = Field(
        "layer",
        description="take the same share of zeros in each layer, or rank the weights of all layers together: global by "
        "magnitude, which can empty layers whose weights are small, lamp on a scale of each layer's own",
    )
    pattern: str = Field(
        "free",
        description='"free", or kept:group such as "2:4": of each 4 consecutive inputs, 2 keep their weight, the '
        "others are 0",
    )
    sparsity_schedule: Literal["gradual", "at-once"] = Field(
        "gradual",
        description="let zeros grow from begin_epoch to end_epoch along a cubic curve, or set all at begin_epoch",
    )
    initial_sparsity: float = Field(0.0, ge=0.0, lt=1.0, description="share of zeros that gradual pruning begins with")
    begin_epoch: float = Field(
        0.0, ge=0.0, description="epochs before the first zeros, in parts too: 0.5 is half an epoch"
    )
    end_epoch: float | None = Field(
        None,
        gt=0.0,
        description="epochs until all zeros of gradual pruning are there; halfway from begin_epoch when left out",
    )
    protect: tuple[str, ...] = Field(
        (),
        description='layers that stay dense: names of modules, patterns such as "features.*", "depthwise" for all '
        'depthwise convolutions, or "branches" for convolutions that are added to one another in a file',
    )
    epochs: int = Field(5, ge=1, le=100_000, description="most passes over the training images")
    learning_rate: float = Field(1e-3, gt=0.0, le=100.0, description="highest learning rate of the schedule")
    schedule: Schedule = Field("cosine", description="how the learning rate changes while training")

    @property
    def kept_of(self) -> tuple[int, int] | None:
        """How many weights of how many consecutive ones are kept, or None where any may be zero."""
        found = _PATTERN.fullmatch(self.pattern)
        return (int(found[1]), int(found[2])) if found else None

    @property
    def share_of_zeros(self) -> float:
        """The share of zeros that is aimed at."""
        if self.kept_of is not None:
            kept, of = self.kept_of
            return 1 - kept / of
        return _HALF if self.sparsity is None else self.sparsity

    @property
    def last_growth(self) -> float:
        """How many epochs are done when all zeros are there."""
        if self.sparsity_schedule == "at-once":
            return self.begin_epoch
        return (self.begin_epoch + self.epochs) / 2 if self.end_epoch is None else self.end_epoch

    @model_validator(mode="after")
    def _pattern_and_sparsity_agree(self) -> PruneUnstructuredOptions:
        if self.kept_of is None:
            if self.pattern != "free":
                raise ValueError(f'pattern {self.pattern!r} is neither "free" nor kept:group such as "2:4"')
            return self
        kept, of = self.kept_of
        if kept >= of:
            raise ValueError(f"pattern {self.pattern} keeps all weights: the first number must be less than the second")
        if self.sparsity is not None and abs(self.sparsity - self.share_of_zeros) > _PATTERN_TOLERANCE:
            raise ValueError(
                f"pattern {self.pattern} gives a sparsity of {self.share_of_zeros:.3g}, not {self.sparsity:g}: leave "
                "out sparsity"
            )
        return self

    @model_validator(mode="after")
    def _allocation_says_it_all(self) -> PruneUnstructuredOptions:
        if self.allocation is None:
            return self
        others = {
            "sparsity": self.sparsity is not None,
            "pattern": self.kept_of is not None,
            "scope": self.scope != "layer",
            "initial_sparsity": self.initial_sparsity > 0,
        }
        for name in (name for name, given in others.items() if given):
            raise ValueError(f"allocation has a share of zeros for each layer: leave out {name}")
        return self

    @model_validator(mode="after")
    def _zeros_grow_in_time(self) -> PruneUnstructuredOptions:
        if self.begin_epoch >= self.epochs:
            raise ValueError(f"begin_epoch ({self.begin_epoch:g}) must be less than epochs ({self.epochs})")
        if self.sparsity_schedule == "at-once":
            if self.end_epoch is not None or self.initial_sparsity:
                name = "initial_sparsity" if self.end_epoch is None else "end_epoch"
                raise ValueError(f'{name} is for sparsity_schedule = "gradual"')
            return self
        if self.end_epoch is not None and not self.begin_epoch < self.end_epoch <= self.epochs:
            raise ValueError(
                f"end_epoch ({self.end_epoch:g}) must be after begin_epoch ({self.begin_epoch:g}), and at most epochs "
                f"({self.epochs})"
            )
        if self.initial_sparsity >= self.share_of_zeros:
            raise ValueError(
                f"initial_sparsity ({self.initial_sparsity:g}) must be less than the sparsity at the end "
                f"({self.share_of_zeros:g})"
            )
        return self
