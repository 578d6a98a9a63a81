"""A runtime whose calls take energy by a made-up meter, and boards that have that meter, or none.

The meter is a folder like Linux's /sys, which the variable `EDGEOPT_SYSFS` names: a file adds to the processor's
counter what its export says for each call, and the code that reads real counters reads this one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from edgeopt.devices import AgentDevice, AgentSettings
from edgeopt.measure.energy import SYSTEM, Meter
from edgeopt.plugins import (
    Device,
    DevicePlugin,
    ExportContext,
    ExporterPlugin,
    ExportResult,
    ModelState,
    Options,
    TensorInfo,
    hookimpl,
)
from edgeopt_devices.local import NoWay

_COUNTER = Path("class") / "powercap" / "intel-rapl:0"
_RANGE_UJ = 262_143_328_850
_CALL_S = 0.004

AGENT = """
import sys
from dataclasses import replace

from edgeopt.devices.agent import energy, session

find_meter = energy.find_meter
energy.find_meter = lambda: replace(find_meter(), least_s=0.25, every_s=0.05)
sys.exit(session.session(sys.argv[2]))
"""


def make_meter(system: Path) -> Path:
    """A folder like /sys, whose processor has a counter that stands still."""
    (system / _COUNTER).mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "0"), ("max_energy_range_uj", str(_RANGE_UJ))):
        (system / _COUNTER / name).write_text(f"{text}\n")
    return system


def quick(meter: Meter) -> Meter:
    """The meter, that needs less time than a real one."""
    return replace(meter, least_s=0.25, every_s=0.05)


class MeteredOptions(Options):
    millijoules: float = Field(10.0, gt=0, le=1000, description="what each image takes, mJ")


def export_metered(state: ModelState, options: MeteredOptions, context: ExportContext) -> ExportResult:
    import numpy as np

    weight, bias = (value.detach().numpy() for value in state.model.state_dict.values())
    with context.path.open("wb") as file:
        np.savez(file, weight=weight, bias=bias, microjoules=np.array(round(1e3 * options.millijoules)))
    size = state.preprocessing.image_size
    return ExportResult(
        TensorInfo("input", "float32", ("batch", 3, size, size), "NCHW"),
        (TensorInfo("logits", "float32", ("batch", len(state.classes)), "NC"),),
    )


class MeteredPredictor:
    def __init__(self, path: Path) -> None:
        import numpy as np

        arrays = np.load(path)
        self.weight, self.bias, self.microjoules = arrays["weight"], arrays["bias"], int(arrays["microjoules"])

    def predict(self, batch: Any) -> Any:
        time.sleep(_CALL_S)
        counter = Path(os.environ.get(SYSTEM, "/nowhere")) / _COUNTER / "energy_uj"
        if counter.exists():
            aside = counter.with_suffix(f".{os.getpid()}")  # a file of the system is never seen half written
            aside.write_text(f"{int(counter.read_text()) + len(batch) * self.microjoules}\n")
            aside.replace(counter)
        return (batch.reshape(len(batch), -1) @ self.weight.T + self.bias,)


class BoardOptions(Options):
    has_meter: bool = Field(True, description="whether it has the meter of this machine")


class QuickAgent(NoWay):
    """The way to this machine, where the meter needs less time, or is not there."""

    def __init__(self, *, has_meter: bool) -> None:
        self._settings = [] if has_meter else [f"{SYSTEM}=/nowhere"]

    def command(self, program: Sequence[str]) -> list[str]:
        python, _, _, *arguments = program
        return ["env", *self._settings, python, "-c", AGENT, *arguments]


def open_board(options: BoardOptions, name: str, waiting: Callable[[str], None]) -> Device:
    settings = AgentSettings(python=sys.executable, install=False, edgeopt=True)
    return AgentDevice(name, QuickAgent(has_meter=options.has_meter), settings, waiting)


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    yield ExporterPlugin(
        "metered",
        "Files that take energy.",
        MeteredOptions,
        export=export_metered,
        open=lambda path, threads: MeteredPredictor(path),
        runtime="numpy",
        suffix=".npz",
    )


@hookimpl
def edgeopt_devices() -> Iterator[DevicePlugin]:
    yield DevicePlugin("board", "This machine as a board.", BoardOptions, open=open_board)
