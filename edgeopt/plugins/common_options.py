"""Options that those of several plugins extend."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import Field

from edgeopt.option_values import Observer
from edgeopt.options import ExporterOptions, Options

_Exporter = TypeVar("_Exporter", bound=ExporterOptions)


class ObserverOptions(Options):
    """What quantizers take that are made of `edgeopt.networks.symmetric_int8`."""

    observer: Observer = Field(
        "histogram", description="how calibration finds an activation's range: with the least error, or the whole of it"
    )


class HalfOptions(ExporterOptions):
    """What exporters take that make files in float16 of float programs, and convert to nothing else."""

    precision: Literal["program", "float16"] = Field(
        "program", description='"float16" for half of the bits of a float program; "program" for what the passes gave'
    )


def without_conversion(options: _Exporter) -> _Exporter:
    """The options of the file that has the program's own precision, of an exporter that converts to others."""
    return options.model_copy(update={"precision": "program"})
