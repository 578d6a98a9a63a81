"""The two processes of a conversion: one that knows the source and makes the file, one that only opens the file.

Both answer the same images; the second compares. So a converter and a runtime never meet in one process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.arrays import OUTPUTS, ImageSize, load_outputs, save_outputs, sides_of, size_in_words
from edgeopt.conversion.labelled import LabelledAnswers, Labelling, answered, labelling
from edgeopt.conversion.plan import (
    COMPARED,
    CONVERTED,
    LABELS,
    PROGRAM,
    ComparedFile,
    Conversion,
    ConversionJob,
    ConvertedFile,
)
from edgeopt.conversion.source_check import Judged, judge
from edgeopt.errors import DataError, ExportError
from edgeopt.export.make import make_artifact
from edgeopt.fingerprint import file_digest
from edgeopt.json_values import from_text, to_text
from edgeopt.measure.answers import batch_warnings, differences, feeder, file_outputs
from edgeopt.networks.capture import program_outputs, to_program
from edgeopt.options import TrainerSettings
from edgeopt.plugins.blame import BlamedLoad, BlamedPredictor, blamed
from edgeopt.plugins.contexts import PassContext
from edgeopt.plugins.handed import handed
from edgeopt.tasks import task_from_json, task_to_json
from edgeopt.types import TORCH, DataBundle, Form, ModelState, Role
from edgeopt.workers.process import Events, die_with_parent, leave, work

if TYPE_CHECKING:
    from torch import nn

    from edgeopt.arrays import Labels, Pixels

IMAGES = 64
"""How many images both sides answer, at most, where nobody knows what they show."""
LABELLED_IMAGES = 256
"""How many labelled images both sides answer, at most: the more, the closer their accuracy is known."""
_PATTERNS = 32
_SEED = 17


@dataclass(frozen=True, eq=False)
class ComparedImages:
    """Images, uint8 (n, height, width, channels), as a split; `known` are the outputs that should answer, where anybody
    knows.
    """

    images: Pixels
    known: Labels | None = None

    @property
    def labels(self) -> Labels:
        """Outputs, int64 (n,); zeros where nobody knows what the images show."""
        return np.zeros(len(self.images), dtype=np.int64) if self.known is None else self.known

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: Sequence[int] | slice) -> Pixels:
        """The chosen images."""
        return self.images[indices if isinstance(indices, slice) else np.asarray(indices, dtype=np.intp)]


def patterns(size: ImageSize, channels: int = 3) -> ComparedImages:
    """Images for a comparison where no data set is named: soft random blotches at several scales, always the same
    ones.
    """
    height, width = sides_of(size)
    random = np.random.default_rng(_SEED)
    grids = [min(2 ** (1 + image % 5), height, width) for image in range(_PATTERNS)]
    return ComparedImages(
        np.stack(
            [
                _enlarged(random.integers(0, 256, (grid, grid, channels), np.uint8), height, width, channels)
                for grid in grids
            ]
        )
    )


def main(events: Events) -> None:
    """Does the step that the command line's job names."""
    job = from_text(ConversionJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    conversion = handed(Conversion, job.conversion)
    {"convert": _convert, "answer": _answer}[job.step](conversion, job.folder, job.file, events)


def _convert(conversion: Conversion, folder: Path, file: Path, events: Events) -> None:
    with blamed(conversion.reader.plugin, "read"):
        source = conversion.reader.plugin.read(conversion.source, conversion.reader.options)
    prepared = _data(conversion, source, folder, events)
    data = prepared.data if prepared else None
    split = data.test if data else patterns(source.preprocessing.image_size, source.preprocessing.channels)
    known = Labelling((), source.classes)
    if data is not None and source.task.is_of_classes and conversion.images_for.is_of_classes:
        known = labelling(source.classes, data.training.classes)
    elif data is not None:
        known = Labelling(
            (), (), "how right its answers are is known of classifiers and images of one class each alone"
        )
    images = range(min(LABELLED_IMAGES if known.outputs else IMAGES, len(split)))
    shown = ComparedImages(split.pixels(images), known.labels(split.labels[: len(images)]) if known.outputs else None)
    outputs = program_outputs(source, shown, events, "answers of the source")
    np.save(folder / "pixels.npy", shown.images)
    save_outputs(folder / OUTPUTS, outputs)
    judged = (
        judge(conversion.reader, conversion.source, source, shown, known, outputs[0], events)
        if known.outputs
        else Judged()
    )
    if known.outputs:
        np.save(folder / LABELS, shown.labels)
    state = _passed(conversion, replace(source, classes=judged.names or source.classes), data, folder, events)
    if conversion.passes:  # what the file must compute is no longer what the source does
        save_outputs(folder / PROGRAM, program_outputs(state, shown, events, "answers after the passes"))
    made = make_artifact(
        conversion.exporter,
        state,
        file.parent,
        role=Role.OPTIMIZED,
        recipe={
            "source": conversion.source.name,
            "sha256": file_digest(conversion.source) if conversion.source.is_file() else "",
            "passes": [use.to_json() for use in conversion.passes],
        },
        calibration=data.training.calibration if data else split,
        progress=events,
        seed=_SEED,
        stem=file.name.removesuffix(conversion.exporter.plugin.suffix),
    )
    converted = ConvertedFile(
        runtime=made.exported.stand_in or conversion.exporter.plugin.runtime,
        precision=made.precision,
        size_bytes=made.size_bytes,
        companions=(*made.exported.companions, *made.exported.beside),
        warnings=(
            *(prepared.warnings if prepared else ()),
            *(f"{record.name}: {warning}" for record in state.history for warning in record.warnings),
            *made.exported.warnings,
            *batch_warnings(made.exported, 1),
        ),
        holds=made.exported.input.holds,
        preprocessing=state.preprocessing,
        task=task_to_json(state.task),
        classes=state.classes,
        output_names=state.output_names,
        answered=judged.answered,
        verdicts=judged.verdicts,
        why_not_labelled=known.why_not,
    )
    (folder / CONVERTED).write_text(to_text(converted))


def _answer(conversion: Conversion, folder: Path, file: Path, events: Events) -> None:
    made = from_text(ConvertedFile, (folder / CONVERTED).read_text())
    shown = ComparedImages(np.load(folder / "pixels.npy"))
    exporter = conversion.exporter.plugin
    with exporter.opened(file, 1) as predictor:
        feed = feeder(made.holds, made.preprocessing)
        outputs = file_outputs(BlamedPredictor(exporter, predictor), shown, feed, events, "answers of the file")
    expected = load_outputs(folder / OUTPUTS)
    apart = differences(outputs, expected, made.output_names, "source")
    task = task_from_json(made.task)
    labelled = None
    if made.answered:
        labels = np.load(folder / LABELS)
        labelled = LabelledAnswers(
            made.answered,
            answered(task, outputs[0], labels, made.classes),
            task.compare(expected, outputs, labels),
        )
    program = load_outputs(folder / PROGRAM) if conversion.passes else expected
    of_program = differences(outputs, program, made.output_names, "program")
    compared = ComparedFile(
        images=len(expected[0]),
        max_difference=max(each.largest for each in apart),
        relative_difference=max(each.share for each in apart),
        program_difference=max(each.share for each in of_program),
        agreement=task.agreement(outputs, expected),
        labelled=labelled,
        outputs=apart if len(apart) > 1 else (),
    )
    (folder / COMPARED).write_text(to_text(compared))


@dataclass(frozen=True)
class _Prepared:
    """The data set of a conversion, and what the user should know of it."""

    data: DataBundle
    warnings: tuple[str, ...]


def _data(conversion: Conversion, source: ModelState, folder: Path, events: Events) -> _Prepared | None:
    """The data set, with images as the source takes them."""
    if conversion.dataset is None:
        return None
    from edgeopt.data.cache import load_data, opener
    from edgeopt.data.prepare import prepare_found

    preprocessing = source.preprocessing
    given = conversion.dataset.options
    if "image_size" in given.model_fields_set and given.image_size != preprocessing.image_size:
        asked, taken = size_in_words(given.image_size), size_in_words(preprocessing.image_size)
        raise DataError(f"dataset.image_size is {asked}, and the model takes {taken} px")
    options = given.model_copy(
        update={
            "image_size": preprocessing.image_size,
            "channels": preprocessing.channels,
            "mean": preprocessing.mean,
            "std": preprocessing.std,
        }
    )
    plugin = conversion.dataset.plugin
    with blamed(plugin, "find"):
        found = plugin.find(options) if plugin.find else None
    load = BlamedLoad(plugin.name, plugin.load, options)
    stored = folder / "data"
    stored.mkdir()
    prepared = prepare_found(found, load, options, stored, events, task=conversion.images_for)
    return _Prepared(load_data(stored, options, opener(stored, load)), prepared.warnings)


def _passed(
    conversion: Conversion, source: ModelState, data: DataBundle | None, folder: Path, events: Events
) -> ModelState:
    """The state after the passes, in program form; a float program that a pass wants to change becomes a module again.

    Raises `ExportError` for a quantized source, whose rounding no pass can change.
    """
    state = source
    for use in conversion.passes:
        assert data is not None  # checked with the request
        if state.framework == TORCH and state.form is Form.PROGRAM and use.plugin.accepts is Form.MODULE:
            if state.precision != "float32":
                raise ExportError(
                    f"{conversion.source.name} is quantized ({state.precision}), and pass {use.plugin.name!r} "
                    "takes a float model",
                    hint="convert it without a pass, or start from the float model",
                )
            state = replace(state, model=_module_of(state), form=Form.MODULE)
        work_dir = folder / f"work-{use.plugin.name}"
        work_dir.mkdir()
        context = PassContext(data.training, TrainerSettings(), _SEED, work_dir, events)
        with blamed(use.plugin, "apply"):
            state = use.plugin.apply(state, use.options, context)
    return to_program(state, data.training.validation) if data else state


def _module_of(state: ModelState) -> nn.Module:
    """A program's module that can be set to evaluation mode, in which it was captured."""
    module = state.program.module(check_guards=False)
    for name in ("train", "eval"):  # torch.export shadows these two with functions that raise
        vars(module).pop(name, None)
    return module


def _enlarged(grid: Pixels, height: int, width: int, channels: int) -> Pixels:
    from PIL import Image

    image = Image.fromarray(grid if channels > 1 else grid[..., 0]).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels)


if __name__ == "__main__":
    leave(work(main))
