"""The options of `prune-structured` and `prune-search`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgeopt.plugin import AsTable, ExporterPlugin, Use
from edgeopt_distillation.options import TaughtOptions
from edgeopt_lightning.options import Schedule

Cost = Literal["macs", "parameters", "bytes", "latency"]


class ChannelOptions(TaughtOptions):
    """What both take: a budget, which channels may go, and the training after it."""

    cost: Cost = Field(
        "macs",
        description="what the budget counts: multiply-accumulate operations, parameters, or the bytes or the measured "
        "latency of a file",
    )
    keep: float | None = Field(
        None, gt=0.0, lt=1.0, description="the budget as a share of what the model costs now; 0.5 when left out"
    )
    budget: float | None = Field(
        None, gt=0.0, description="the budget itself: operations for a picture, parameters, bytes, or ms"
    )
    runtime: Annotated[Use[ExporterPlugin], AsTable] = Field(
        "onnx", description="the exporter whose float file is measured where cost is bytes or latency"
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
    pictures: int = Field(256, ge=1, description="training pictures whose gradients taylor adds up")
    epochs: int = Field(5, ge=1, le=100_000, description="most passes over the training pictures after each removal")
    learning_rate: float = Field(1e-3, gt=0.0, le=100.0, description="highest learning rate of the schedule")
    schedule: Schedule = Field("cosine", description="how the learning rate changes while training")

    @model_validator(mode="after")
    def _one_budget(self) -> ChannelOptions:
        if self.keep is not None and self.budget is not None:
            raise ValueError("keep and budget are two ways to say the same: give one of them")
        return self


class PruneStructuredOptions(ChannelOptions):
    """Removal of whole channels, and recovery training."""

    ranking: Literal["local", "global", "isomorphic", "lamp"] = Field(
        "isomorphic",
        description="whom a channel competes with: those of its group, of all groups, or of groups built alike; lamp is all "
        "groups, each on a scale of its own",
    )
    allocation: str | None = Field(
        None,
        min_length=1,
        description="a file with the largest share of its channels that each layer may lose, as `edgeopt sensitivity RECIPE --of "
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
            given = [name for name in (*decided, "steps", "pictures") if getattr(self, name) != fields[name].default]
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
        description="what tells how much the network minds, on the validation split: the rise of the loss, or the fall of the "
        "accuracy, which is coarser",
    )
    statistics_pictures: int = Field(
        256, ge=2, description="training pictures from which BatchNorm statistics are collected anew for each try"
    )
