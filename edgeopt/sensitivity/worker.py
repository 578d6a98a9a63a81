"""The process of `edgeopt sensitivity`: makes the recipe's float model where it is missing, and scans it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.arrays import Json
from edgeopt.json_values import from_text
from edgeopt.pipeline.job import bench_of, do_stages
from edgeopt.pipeline.stages import Workbench
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.declarations import ProbePlugin
from edgeopt.plugins.handed import handed
from edgeopt.recipe.plan import Plan
from edgeopt.sensitivity.run import SCAN, PlannedScan, SensitivityJob, SensitivityRequest
from edgeopt.types import Change, ModelState, Probe, TrainingData
from edgeopt.workers.process import Events, die_with_parent, leave, work

if TYPE_CHECKING:
    from torch import Tensor

    from edgeopt.sensitivity.table import Scan

_CHECKPOINT = "scan.json"


def main(events: Events) -> None:
    """Does the job that the command line names."""
    given = from_text(SensitivityJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    bench = bench_of(given.job, events)
    do_stages(bench, given.job.stages, events)
    planned = handed(PlannedScan, given.scan)
    request = planned.request
    label = f"sensitivity: {request.of}"
    events.send({"event": "stage", "name": label, "label": label})
    checkpoint = bench.store.work_dir(planned.key) / _CHECKPOINT

    def make(folder: Path) -> dict[str, Json]:
        found = _scan(bench, planned, request, checkpoint)
        _write(found, bench.plan, request, folder)
        return {"layers": len(found.layers), "images": found.images}

    result = bench.store.compute(planned.key, make, label)
    events.send({"event": "stage-end", "name": label, "seconds": result.seconds})


def _scan(bench: Workbench, planned: PlannedScan, request: SensitivityRequest, checkpoint: Path) -> Scan:
    from edgeopt.errors import NothingChangedError
    from edgeopt.networks.capture import to_program  # torch, from here on
    from edgeopt.sensitivity.network import Network
    from edgeopt.sensitivity.scan import ScannedImages, scan

    data = bench.training()
    state = to_program(bench.state(bench.plan.float_stage.name), data.validation)
    network = Network(state.program)
    plugin = planned.probe.plugin
    batches = partial(_batches, state, data, request.settings.batch_size)
    with blamed(plugin, "prepare"):
        probe: Probe = _BlamedProbe(plugin, plugin.prepare(network, batches, planned.probe.options))
    if not probe.layers:
        raise NothingChangedError(f"the model has no layer that {plugin.name!r} can change")
    images = ScannedImages.drawn(data.validation, state.preprocessing, request.settings, state.task)
    found = scan(
        network,
        probe,
        plugin.name,
        planned.levels,
        plugin.levels.untouched,
        images,
        request.settings,
        bench.progress,
        checkpoint,
    )
    return replace(found, outputs=state.output_names)


@dataclass(frozen=True)
class _BlamedProbe:
    """A probe whose bugs name the plugin that made it."""

    plugin: ProbePlugin
    probe: Probe

    @property
    def layers(self) -> Sequence[str]:
        with blamed(self.plugin, "layers"):
            return self.probe.layers

    def change(self, layer: str, level: float) -> Change:
        with blamed(self.plugin, "change"):
            return self.probe.change(layer, level)


def _batches(state: ModelState, data: TrainingData, size: int) -> Iterator[Tensor]:
    """The calibration images as inputs."""
    import torch

    for start in range(0, len(data.calibration), size):
        pixels = data.calibration.pixels(range(start, min(start + size, len(data.calibration))))
        yield torch.from_numpy(state.preprocessing.normalize(pixels))


def _write(found: Scan, plan: Plan, request: SensitivityRequest, folder: Path) -> None:
    """The files of a scan; without a threshold there is no allocation."""
    from edgeopt.sensitivity.allocation import Allocation
    from edgeopt.sensitivity.page import render_page, summary, threshold_text

    (folder / SCAN).write_text(found.to_json(), encoding="utf-8")
    (folder / "sensitivity.csv").write_text(found.to_csv(), encoding="utf-8")
    (folder / "sensitivity.html").write_text(render_page(found, plan.recipe.name), encoding="utf-8")
    if found.threshold is not None:
        levels = f"levels of {request.of} that pass a threshold of {threshold_text(found)}"
        comment = f"{plan.recipe.name}: {levels}\n{summary(found)}"
        allocation = Allocation(request.of, found.recommended)
        (folder / "allocation.toml").write_text(allocation.to_toml(comment), encoding="utf-8")


if __name__ == "__main__":
    leave(work(main))
