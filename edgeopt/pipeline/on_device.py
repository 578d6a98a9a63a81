"""A run's files on one of its devices: what they answer there and how fast. Runs in a worker process."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.arrays import OUTPUTS, load_outputs, of_images
from edgeopt.cards.reading import card_from_text
from edgeopt.measure.fed_file import FedFile
from edgeopt.measure.on_device import (
    FileThere,
    ImagesThere,
    device_file,
    device_job,
    energy_untold,
    judged,
    latency_there,
    refused,
    steps_there,
)
from edgeopt.networks.saved import load_outline
from edgeopt.pipeline.results import MeasuredThere, Results
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.device import Device, DeviceFacts, DeviceFile, FileOnDevice
from edgeopt.plugins.handed import hand_over
from edgeopt.recipe.stage import PlannedExport, Stage
from edgeopt.types import targets_of

if TYPE_CHECKING:
    from edgeopt.progress import Bar, Progress
    from edgeopt.types import Split


def measure_there(
    results: Results, stage: Stage, test: Split, failures: Collection[str], folder: Path, progress: Progress
) -> MeasuredThere:
    """Takes every file that was made to the device of a stage, where it answers for test images and is timed.

    `test` is the test split; `folder` is for what is needed meanwhile, and nothing is left in it. Raises `DeviceError`
    where the device is away, or goes.
    """
    import numpy as np

    plan = results.plan
    count = min(plan.measure.device_images, len(test))
    aside = folder / "aside"
    aside.mkdir()
    np.save(aside / "images.npy", test.pixels(range(count)))
    made = [planned for planned in plan.exports if planned.name not in failures]
    refusals = {each.name: why for each in made if (why := _refused(results, each))}
    files = tuple(_taken(results, each, aside) for each in made if each.name not in refusals)
    steps = steps_there(plan.measure) + plan.measure.energy_there
    with progress.bar(stage.label, steps * max(1, len(files))) as bar:
        found, facts = _asked(results, stage, files, ImagesThere.of(aside / "images.npy"), bar)
    shutil.rmtree(aside)
    targets = targets_of(test)[:count]
    return MeasuredThere(
        facts,
        tuple(
            FileThere(file=each.file, error=refusals[each.name], refused=True)
            if each.name in refusals
            else _there(results, each, found.get(each.file, FileOnDevice(error="nothing is known of it")), targets)
            for each in made
        ),
    )


def _asked(
    results: Results, stage: Stage, files: tuple[DeviceFile, ...], images: ImagesThere, bar: Bar
) -> tuple[Mapping[str, FileOnDevice], DeviceFacts]:
    """What the files did, and what the device says of itself after that."""

    def tell(text: str) -> None:
        bar.say(text)
        bar.advance()

    with _opened(results, stage, bar) as device:
        settings = results.plan.measure
        job = replace(
            device_job(files, images, settings, answers=True, timed=True),
            energy=settings.energy_there,
        )
        return (device.run(job, tell) if files else {}), device.describe()


@contextmanager
def _opened(results: Results, stage: Stage, bar: Bar) -> Iterator[Device]:
    use, step = results.plan.devices[stage.index], results.plan.recipe.devices[stage.index]

    def wait(text: str) -> None:
        bar.say(text)
        bar.advance(0)

    with blamed(use.plugin, "open"):
        device = use.plugin.opened(use.options, step.called, wait)
    try:
        yield device
    finally:
        device.close()


def _refused(results: Results, planned: PlannedExport) -> str | None:
    """Why a file is not taken there, or None."""
    export = results.export(planned)
    if export.exported.not_run or export.exported.stand_in:
        return export.exported.not_run or f"{export.exported.stand_in} answers in its place"
    return refused(export.exported.input, results.plan.measure.batch_size)


def _taken(results: Results, planned: PlannedExport, aside: Path) -> DeviceFile:
    export, path = results.export(planned), results.file(planned)
    preprocessing = load_outline(results.folder(planned.program_stage)).preprocessing
    holds = export.exported.input.holds
    handed = aside / f"{planned.name}.pickle"
    hand_over(FedFile(planned.use.plugin, path, holds, preprocessing), handed, results.plan.registry)
    return device_file(
        planned.file,
        path,
        export.sha256,
        planned.use.plugin,
        preprocessing,
        takes_pixels=holds == "pixels",
        handed=handed,
        card=card_from_text((results.folder(planned.export_stage) / "card.json").read_text(encoding="utf-8")),
    )


def _there(results: Results, planned: PlannedExport, found: FileOnDevice, targets: Any) -> FileThere:
    """What a file did, its answers held against its program's and those of this machine."""
    answers, error = None, found.error
    asks_meter = results.plan.measure.energy_there
    if found.outputs is not None:
        program = results.folder(planned.program_stage)
        here, before = (
            of_images(load_outputs(folder / OUTPUTS), slice(len(targets)))
            for folder in (results.folder(planned.verify_stage), program)
        )
        outline = load_outline(program)
        names = [each.name for each in results.export(planned).exported.outputs]
        answers, wrong = judged(outline.task, found.outputs, targets, before, here, names)
        error = error or wrong
    return FileThere(
        file=planned.file,
        latency_ms=latency_there(found, results.plan.measure),
        peak_memory_bytes=found.peak_memory_bytes or None,  # 0 where nobody tells it
        answers=answers,
        error=error,
        note=found.note or (None if found.outputs is not None or error else "it gave no answers"),
        energy=found.energy,
        energy_problem=energy_untold(found) if asks_meter and found.energy is None and not found.error else None,
    )
