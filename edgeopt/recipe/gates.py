"""What files must reach, else exit code 3: the `[gates]` table and those of devices below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from edgeopt.option_values import Share, without_usual
from edgeopt.options import Options


class ScoreGates(Options):
    """Gates that may name any score of the recipe's task, as in `map50 = 0.4`: names are checked with the task."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)

    @property
    def scores(self) -> Mapping[str, float]:
        """The limits of scores by their names, those that are fields left out."""
        return dict(self.__pydantic_extra__ or {})


class DeviceGates(ScoreGates):
    """What the files that ship must reach on one device, as in `[gates]`: the `[gates.devices.NAME]` table."""

    accuracy: Share | None = Field(None, description="smallest test accuracy there")
    agreement: Share | None = Field(None, description="smallest top-1 agreement there of every file with its program")
    latency_ratio: float | None = Field(
        None, gt=0, description="largest p50 latency there against the float file of the same runtime"
    )
    p50_ms: float | None = Field(None, gt=0, description="largest p50 latency there, ms")
    energy_mj: float | None = Field(
        None, gt=0, description="largest energy of an image there, mJ; see `energy` of [measure]"
    )

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(self, write(self), ("energy_mj",))


class Gates(ScoreGates):
    """What files must reach, else exit code 3: the `[gates]` table. Scores of the task are keys, and `SCORE_drop`."""

    accuracy: Share | None = Field(None, description="smallest test accuracy of every optimized file")
    accuracy_drop: Share | None = Field(None, description="largest drop of it against the float program")
    recall: dict[str, Share] = Field(
        {}, description="smallest share of a class's test images that are told, by class, as in { cat = 0.9 }"
    )
    agreement: Share | None = Field(None, description="smallest top-1 agreement of every file with its program")
    size_ratio: float | None = Field(
        None, gt=0, description="smallest factor by which a file is smaller than the float file of its runtime"
    )
    latency_ratio: float | None = Field(
        None, gt=0, description="largest p50 latency against the float file of the same runtime, 1.0 for no slower"
    )
    energy_mj: float | None = Field(None, gt=0, description="largest energy of an image, mJ; see `energy` of [measure]")
    ram_bytes: int | None = Field(None, gt=0, description="most RAM that a file may take on a microcontroller, bytes")
    flash_bytes: int | None = Field(None, gt=0, description="most flash that it may take there, bytes")
    devices: Mapping[str, DeviceGates] = Field(
        default_factory=dict, description="what they must reach on devices, a table for each by its name"
    )

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(self, write(self), ("recall", "energy_mj", "ram_bytes", "flash_bytes"))
